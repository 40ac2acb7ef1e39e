from __future__ import annotations

import json

import numpy as np
import pytest
from ase import units

from mlip_assets.training import evaluate, split_labels


@pytest.fixture(scope="module")
def split(labelled, settings):
    return split_labels(
        labelled,
        valid_fraction=settings.valid_fraction,
        test_fraction=settings.test_fraction,
        seed=3,
    )


@pytest.fixture(scope="module")
def metrics(trained, split):
    return evaluate(trained.model_file, split.by_name)


def test_evaluate_errors_agree_with_separate_computation(calculator, split, metrics):
    energy_errors, force_errors, stress_errors = [], [], []
    for frame in split.test:
        atoms = frame.copy()
        atoms.calc = calculator
        energy_errors.append((atoms.get_potential_energy() - frame.info["REF_energy"]) / len(atoms))
        force_errors.extend((atoms.get_forces() - frame.arrays["REF_forces"]).ravel())
        if frame.pbc.all():
            stress = atoms.get_stress(voigt=False) - frame.info["REF_stress"]
            stress_errors.extend(stress.ravel())
    expected = {
        "energy": (energy_errors, "meV_per_atom", 1e3),
        "force": (force_errors, "meV_per_A", 1e3),
        "stress": (stress_errors, "GPa", 1 / units.GPa),
    }
    found = metrics["splits"]["test"]
    assert found["n_frames"] == len(split.test)
    for name, (differences, unit, factor) in expected.items():
        errors = np.array(differences) * factor
        assert found[f"{name}_rmse_{unit}"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-4)
        assert found[f"{name}_mae_{unit}"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
        p99 = np.sort(np.abs(errors))[-max(1, len(errors) // 100) - 1 :]
        assert p99.min() * 0.999 <= found[f"{name}_p99_{unit}"] <= p99.max() * 1.001
    ratio = found["stress_rmse_meV_per_A3"] / found["stress_rmse_GPa"]
    assert ratio == pytest.approx(6.2415, rel=1e-4)  # 1 GPa in meV/Å³


def test_evaluate_mean_predictor_uses_training_set(split, metrics):
    energies = [frame.info["REF_energy"] / len(frame) for frame in split.train]
    held_out = [frame.info["REF_energy"] / len(frame) for frame in split.test]
    forces = np.concatenate([frame.arrays["REF_forces"] for frame in split.test])
    found = metrics["mean_predictor"]["test"]
    assert found["force_rmse_meV_per_A"] == pytest.approx(1e3 * np.sqrt((forces**2).mean()))
    assert found["energy_mae_meV_per_atom"] == pytest.approx(
        1e3 * np.mean(np.abs(np.array(held_out) - np.mean(energies)))
    )


def test_evaluate_by_seed_kind_partitions_sets_other_than_train(split, metrics):
    assert set(metrics["by_seed_kind"]) == {"valid", "test"}
    by_kind = metrics["by_seed_kind"]["test"]
    assert sum(errors["n_frames"] for errors in by_kind.values()) == len(split.test)
    atoms_of = dict.fromkeys(by_kind, 0)
    for frame in split.test:
        atoms_of[frame.info["seed_kind"]] += len(frame)
    squares = sum(
        atoms_of[kind] * errors["force_rmse_meV_per_A"] ** 2 for kind, errors in by_kind.items()
    )
    whole = metrics["splits"]["test"]["force_rmse_meV_per_A"]
    assert np.sqrt(squares / sum(atoms_of.values())) == pytest.approx(whole)


def test_evaluate_by_temperature_partitions_held_out_frames(trained, split):
    frames = [frame.copy() for frame in split.test]
    for i, frame in enumerate(frames[1:]):
        frame.info["target_temperature_K"] = (300.0, 1200.0)[i % 2]
    metrics = evaluate(trained.model_file, {"train": split.train, "test": frames})
    found = {t: errors["n_frames"] for t, errors in metrics["by_temperature"]["test"].items()}
    n_warm = len(frames) - 1
    assert found == {"300": -(-n_warm // 2), "1200": n_warm // 2, "unknown": 1}


def test_evaluate_gives_null_for_missing_stress_labels(trained, labelled):
    clusters = [frame for frame in labelled if not frame.pbc.any()]
    metrics = evaluate(trained.model_file, {"train": clusters})
    assert metrics["splits"]["train"]["stress_rmse_GPa"] is None
    assert metrics["splits"]["train"]["force_rmse_meV_per_A"] > 0
    json.dumps(metrics, allow_nan=False)


def test_trained_model_metrics_equal_those_of_evaluate(trained, metrics):
    assert trained.metrics["splits"]["test"] == pytest.approx(metrics["splits"]["test"])
