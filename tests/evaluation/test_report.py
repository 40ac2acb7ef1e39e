"""The whole report on one trained copper model, its surrogate being EMT, which made the labels."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from ase.calculators.emt import EMT

from mlip_assets.evaluation import ModelReport, report_on
from mlip_assets.figures import report_pictures
from mlip_assets.release import judge
from mlip_assets.training import HeldOut, split_labels
from mlip_assets.training.committee import calibrate

SEED = 3
UNCERTAINTY = asdict(calibrate(np.geomspace(0.02, 0.4, 7), np.geomspace(0.03, 0.2, 7)))


class Offset(EMT):
    """EMT with another zero of energy: 5 eV an atom."""

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
    return report_on(
        trained,
        labelled,
        isolated_energies,
        held_out=held_out,
        surrogate=Offset(),
        promoted=trained,
        temperatures_K=(300.0,),
        timestep_fs=2.0,
        trial_steps=200,
        seed=0,
    )


def test_all_are_compared_on_the_same_labels(report, trained):
    errors = report.held_out
    assert set(errors) == {"model", "promoted", "surrogate", "mean_predictor"}
    assert len({found["n_frames"] for found in errors.values()}) == 1
    assert errors["promoted"] == pytest.approx(errors["model"], rel=1e-3)
    # what made the labels has no error, once it is compared above its own free atoms
    assert errors["surrogate"]["energy_rmse_meV_per_atom"] < 1e-6
    assert errors["surrogate"]["force_rmse_meV_per_A"] < 1e-6
    verdict = judge(errors, rival_standing=1.0, is_stable=True)
    assert verdict.promoted


def test_the_crystal_is_that_of_what_made_the_labels(report):
    model, emt = report.crystals["model"], report.crystals["surrogate"]
    assert emt.equation_of_state.bulk_modulus_GPa == pytest.approx(134, rel=0.03)
    assert model.equation_of_state.volume_A3_per_atom == pytest.approx(
        emt.equation_of_state.volume_A3_per_atom, rel=0.15
    )
    assert model.equation_of_state.bulk_modulus_GPa == pytest.approx(134, rel=0.5)
    assert report.crystal_formula == "Cu4"
    assert report.labelled_points
    labels, said = (
        np.array([getattr(point, name) for point in report.labelled_points])
        for name in ("pressure_GPa", "model_pressure_GPa")
    )
    assert np.corrcoef(labels, said)[0, 1] > 0.8


def test_dynamics_and_pairs_are_there(report):
    (trial,) = report.trials
    assert report.is_stable
    assert trial.keeps_energy
    assert 0 < trial.rdf_difference < 0.6
    assert [curve.pair for curve in report.pair_curves] == ["Cu-Cu"]


def test_a_report_opens_as_it_was_saved(report, tmp_path):
    pictures = report_pictures(report)
    assert set(pictures) == {"errors", "crystal", "pair_curves", "radial_distribution"}
    known = replace(report, uncertainty=UNCERTAINTY)
    assert set(report_pictures(known)) == {*pictures, "uncertainty"}
    whole = replace(known, pictures=pictures)
    whole.save(tmp_path)
    assert ModelReport.open(tmp_path) == whole
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    replace(report, pictures={}).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_the_pictures_show_something(report):
    from matplotlib.image import imread

    for png in report_pictures(replace(report, uncertainty=UNCERTAINTY)).values():
        picture = imread(io.BytesIO(png), format="png")
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 0.05


def test_other_labels_or_none_held_out_are_refused(trained, labelled, isolated_energies):
    asked = {
        "surrogate": EMT(),
        "promoted": None,
        "temperatures_K": (300.0,),
        "timestep_fs": 2.0,
        "trial_steps": 200,
        "seed": 0,
    }
    with pytest.raises(ValueError, match="not those the model was trained on"):
        report_on(trained, labelled[1:], isolated_energies, held_out=HeldOut(), **asked)
    with pytest.raises(ValueError, match="none of the labels is held out"):
        report_on(trained, labelled, isolated_energies, held_out=HeldOut(), **asked)
