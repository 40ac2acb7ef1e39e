from __future__ import annotations

import io
import json

import numpy as np
import pytest
from ase.build import bulk

from mlip_assets.evaluation import run_guarded_md
from mlip_assets.figures import error_table, parity_plot
from mlip_assets.surrogates.mace_calculator import state_dict_sha256
from mlip_assets.training import TrainedModel


def test_trained_model_opens_as_saved(trained, tmp_path):
    trained.save(tmp_path / "kept")
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == [
        "metrics.json",
        "model.model",
        "parity.npz",
    ]
    opened = TrainedModel.open(tmp_path / "kept")
    for name in ("metrics", "dataset_sha256", "weights_sha256", "elements", "start_from", "wall_s"):
        assert getattr(opened, name) == getattr(trained, name)
    assert set(opened.parity) == set(trained.parity)
    for name, array in trained.parity.items():
        np.testing.assert_array_equal(opened.parity[name], array)


def test_trained_model_refuses_changed_file_before_unpickling(trained, tmp_path):
    trained.save(tmp_path)
    with (tmp_path / "model.model").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ValueError, match="changed after training"):
        TrainedModel.open(tmp_path)


def test_trained_model_without_metrics_does_not_open(trained, tmp_path):
    trained.save(tmp_path)
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError):
        TrainedModel.open(tmp_path)


def test_model_file_loads_with_torch_and_has_recorded_weights(trained):
    import mace  # noqa: F401
    import torch

    module = torch.load(trained.model_file, map_location="cpu", weights_only=False)
    assert module.atomic_numbers.tolist() == [29]
    assert state_dict_sha256(module) == trained.weights_sha256


def test_calculator_computes_in_requested_precision(trained):
    energies = {}
    for dtype in ("float32", "float64"):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=1)
        atoms.calc = trained.calculator(dtype=dtype)
        energies[dtype] = atoms.get_potential_energy()
    assert energies["float32"] == pytest.approx(energies["float64"], abs=1e-4)
    assert energies["float32"] != energies["float64"]


def test_calculator_stress_is_strain_derivative_of_energy(trained):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
    calculator = trained.calculator(dtype="float64")
    atoms.calc = calculator
    stress = atoms.get_stress(voigt=False)
    step = 1e-4
    for i, j in ((0, 0), (0, 1), (2, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ strain, scale_atoms=True)
            strained.calc = calculator
            energies.append(strained.get_potential_energy())
        derivative = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
        assert stress[i, j] == pytest.approx(derivative, rel=1e-3, abs=1e-6)


def test_calculator_stress_has_sign_of_labels(calculator, labelled):
    pairs = []
    for frame in labelled:
        if frame.pbc.all():
            atoms = frame.copy()
            atoms.calc = calculator
            trace = np.trace(atoms.get_stress(voigt=False))
            pairs.append((np.trace(frame.info["REF_stress"]), trace))
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.8


@pytest.mark.slow
def test_calculator_dynamics_is_stopped_by_no_guard(calculator):
    report = run_guarded_md(bulk("Cu", cubic=True), calculator, n_steps=200, seed=0)
    assert (report.n_steps, report.stopped_by) == (200, None)


def test_parity_plot_is_not_empty(trained):
    from matplotlib.image import imread

    picture = imread(io.BytesIO(parity_plot(trained)), format="png")
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 0.05


def test_metrics_file_is_json(trained):
    record = json.loads((trained.model_file.parent / "metrics.json").read_text())
    assert record["elements"] == ["Cu"]
    assert record["metrics"]["splits"]["test"]["n_frames"] > 0


def test_to_dataframe_has_every_error_once(trained):
    table = trained.to_dataframe()
    metrics = trained.metrics

    def row(split, predictor="model", grouped_by="none", group="all"):
        keys = {"split": split, "predictor": predictor, "grouped_by": grouped_by, "group": group}
        (found,) = table.query(" and ".join(f"{k} == '{v}'" for k, v in keys.items())).to_dict(
            "records"
        )
        return {name: value for name, value in found.items() if name not in keys}

    n_rows = 0
    for split, errors in metrics["splits"].items():
        assert row(split) == pytest.approx(errors)
        assert row(split, "mean_predictor") == pytest.approx(metrics["mean_predictor"][split])
        n_rows += 2
    for grouped_by, name in (("seed_kind", "by_seed_kind"), ("temperature_K", "by_temperature")):
        for split, groups in metrics[name].items():
            for group, errors in groups.items():
                found = row(split, grouped_by=grouped_by, group=group)
                known = {key: value for key, value in errors.items() if value is not None}
                assert {key: found[key] for key in known} == pytest.approx(known)
                assert all(np.isnan(found[key]) for key in set(errors) - set(known))
                n_rows += 1
    assert len(table) == n_rows


def test_error_table_of_the_ui_names_sets_and_kinds(trained):
    rows = [record.data for record in error_table(trained).records]
    names = ["train", "valid", "test"]
    kinds = [f"test: {kind}" for kind in trained.metrics["by_seed_kind"]["test"]]
    expected = [*names, *(f"{name}: mean predictor" for name in names), *kinds]
    assert [row["set"] for row in rows] == expected
    rmse = trained.metrics["splits"]["test"]["force_rmse_meV_per_A"]
    assert rows[2]["force_rmse_meV_per_A"] == pytest.approx(rmse, rel=1e-4)
