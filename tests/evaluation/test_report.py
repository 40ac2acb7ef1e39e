"""The report on one trained copper model; the surrogate is EMT, the potential of the labels."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from ase.calculators.emt import EMT

from mlip_assets.evaluation import LearningPoint, ModelReport, make_report
from mlip_assets.evaluation.report import Promotion
from mlip_assets.figures import comparison_table, report_pictures
from mlip_assets.release import decide_promotion
from mlip_assets.training import HeldOut, split_labels
from mlip_assets.training.committee import calibrate

SEED = 3
UNCERTAINTY = asdict(calibrate(np.geomspace(0.02, 0.4, 7), np.geomspace(0.03, 0.2, 7)))


class Offset(EMT):
    """EMT with another zero of energy: 5 eV per atom."""

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        for name in ("energy", "free_energy"):
            self.results[name] += 5.0 * len(atoms)


@pytest.fixture(scope="module")
def held_out(labelled, settings):
    split = split_labels(
        labelled,
        valid_fraction=settings.valid_fraction,
        test_fraction=settings.test_fraction,
        seed=SEED,
    )
    return HeldOut().with_split(split.test, [*split.train, *split.valid])


@pytest.fixture(scope="module")
def report(trained, labelled, isolated_energies, held_out):
    return make_report(
        trained,
        labelled,
        isolated_energies,
        held_out=held_out,
        surrogate=Offset(),
        promoted=trained,
        temperatures_K=(300.0,),
        timestep_fs=2.0,
        stability_steps=200,
        seed=0,
    )


@pytest.mark.slow
def test_report_compares_all_potentials_on_the_same_labels(report, trained):
    errors = report.held_out
    assert set(errors) == {"model", "promoted", "surrogate", "mean_predictor"}
    assert len({found["n_frames"] for found in errors.values()}) == 1
    assert errors["promoted"] == pytest.approx(errors["model"], rel=1e-3)
    # what made the labels has no error, once it is compared above its own isolated atoms
    assert errors["surrogate"]["energy_rmse_meV_per_atom"] < 1e-6
    assert errors["surrogate"]["force_rmse_meV_per_A"] < 1e-6
    verdict = decide_promotion(errors, baseline_ratio=1.0, is_stable=True)
    assert verdict.promoted


def test_report_crystal_agrees_with_potential_of_labels(report):
    model, emt = report.crystals["model"], report.crystals["surrogate"]
    assert emt.equation_of_state.bulk_modulus_GPa == pytest.approx(134, rel=0.03)
    assert model.equation_of_state.volume_A3_per_atom == pytest.approx(
        emt.equation_of_state.volume_A3_per_atom, rel=0.15
    )
    assert model.equation_of_state.bulk_modulus_GPa == pytest.approx(134, rel=0.5)
    assert report.crystal_formula == "Cu4"
    assert report.labelled_points
    labels, predictions = (
        np.array([getattr(point, name) for point in report.labelled_points])
        for name in ("pressure_GPa", "model_pressure_GPa")
    )
    assert np.corrcoef(labels, predictions)[0, 1] > 0.8


def test_report_contains_stability_tests_and_pair_curves(report):
    (test,) = report.stability_tests
    assert report.is_stable
    assert test.conserves_energy
    assert 0 < test.rdf_difference < 0.6
    assert [curve.pair for curve in report.pair_curves] == ["Cu-Cu"]


def test_report_opens_as_saved(report, tmp_path):
    pictures = report_pictures(report)
    assert set(pictures) == {"errors", "crystal", "pair_curves", "radial_distribution"}
    with_uncertainty = replace(report, uncertainty=UNCERTAINTY)
    assert set(report_pictures(with_uncertainty)) == {*pictures, "uncertainty"}
    whole = replace(with_uncertainty, pictures=pictures)
    whole.save(tmp_path)
    assert ModelReport.open(tmp_path) == whole
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    replace(report, pictures={}).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_report_of_earlier_release_opens(report, tmp_path):
    """The stored keys are those of release 0.1: ``trials``, and ``standing`` of the promotion."""
    promoted = replace(report, promotion=Promotion(True, "not worse", 0.9, 1.01))
    promoted.save(tmp_path)
    record = json.loads((tmp_path / "report.json").read_text())
    errors = [test.pop("drift_error_meV_per_atom_per_ps") for test in record["trials"]]
    assert set(record["trials"][0]) == {
        *("temperature_K", "n_steps", "stopped_by", "drift_meV_per_atom_per_ps"),
        *("mean_temperature_K", "distances_A", "distribution", "reference_distribution"),
    }
    assert record["promotion"] == {
        "promoted": True,
        "reason": "not worse",
        "ratio": 0.9,
        "standing": 1.01,
    }
    assert not {"stability_tests", "error_ratio_to_best"} & set(record)
    assert ModelReport.open(tmp_path) == promoted
    (tmp_path / "report.json").write_text(json.dumps(record))
    opened = ModelReport.open(tmp_path)
    assert all(error > 0 for error in errors)
    assert all(test.drift_error_meV_per_atom_per_ps == 0 for test in opened.stability_tests)


def test_report_pictures_are_not_empty(report):
    from matplotlib.image import imread

    for png in report_pictures(replace(report, uncertainty=UNCERTAINTY)).values():
        picture = imread(io.BytesIO(png), format="png")
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 0.05


def test_make_report_refuses_other_labels_and_empty_test_set(trained, labelled, isolated_energies):
    arguments = {
        "surrogate": EMT(),
        "promoted": None,
        "temperatures_K": (300.0,),
        "timestep_fs": 2.0,
        "stability_steps": 200,
        "seed": 0,
    }
    with pytest.raises(ValueError, match="not those the model was trained on"):
        make_report(trained, labelled[1:], isolated_energies, held_out=HeldOut(), **arguments)
    with pytest.raises(ValueError, match="none of the labels is held out"):
        make_report(trained, labelled, isolated_energies, held_out=HeldOut(), **arguments)


def test_to_dataframe_has_the_tables_of_the_report(report):
    errors = report.to_dataframe("errors")
    whole = errors[errors["grouped_by"] == "none"]
    assert whole["predictor"].tolist() == list(report.held_out)
    for key in ("n_frames", "force_rmse_meV_per_A", "energy_rmse_meV_per_atom"):
        assert whole[key].tolist() == [e[key] for e in report.held_out.values()]
        for grouped_by, groups in (
            ("seed_kind", report.by_seed_kind),
            ("temperature_K", report.by_temperature),
        ):
            rows = errors[errors["grouped_by"] == grouped_by].set_index("group")
            assert rows[key].to_dict() == {group: e[key] for group, e in groups.items()}
    crystals = report.to_dataframe("crystals").set_index("predictor")
    assert crystals.index.tolist() == list(report.crystals)
    curve = report.crystals["model"].equation_of_state
    assert crystals.loc["model", "bulk_modulus_GPa"] == curve.bulk_modulus_GPa
    (test,) = report.stability_tests
    (row,) = report.to_dataframe("stability_tests").to_dict("records")
    assert (row["temperature_K"], row["steps"]) == (test.temperature_K, test.n_steps)
    points = [LearningPoint(0, 10, 90.0, 4.0), LearningPoint(1, 20, 60.0, None)]
    table = replace(report, learning_curve=points).to_dataframe()
    assert table["n_labels"].tolist() == [10, 20]
    assert table["force_rmse_meV_per_A"].tolist() == [90.0, 60.0]
    assert table["energy_rmse_meV_per_atom"].isna().tolist() == [False, True]
    with pytest.raises(ValueError, match="'phonons' is not one of learning_curve, errors"):
        report.to_dataframe("phonons")


def test_comparison_table_of_the_ui_names_predictors_and_groups(report):
    names = [record.data["of"] for record in comparison_table(report).records]
    groups = [*report.by_seed_kind, *(f"{t} K" for t in report.by_temperature)]
    assert names == [*report.held_out, *(f"model: {group}" for group in groups)]
