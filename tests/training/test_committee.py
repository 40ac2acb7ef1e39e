"""A committee of three small models, and the calibration on errors of known distribution."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from ase.io import read
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mlip_assets.release import PromotedModels
from mlip_assets.release.promotion import Promotion
from mlip_assets.surrogates import find_surrogate, force_spread
from mlip_assets.surrogates.batch import evaluate
from mlip_assets.surrogates.committee import Committee
from mlip_assets.training import TrainedModel, TrainingError, fit_mace
from mlip_assets.training.committee import MEMBER_FRACTION, calibrate, member_splits
from mlip_assets.training.splits import Split, split_labels
from mlip_assets.training.trainer import run

pytestmark = pytest.mark.slow

SEED = 3


@pytest.fixture(scope="module")
def split(labelled, settings) -> Split:
    return split_labels(
        labelled,
        valid_fraction=settings.valid_fraction,
        test_fraction=settings.test_fraction,
        seed=SEED,
    )


@pytest.fixture(scope="module")
def committee(trained, labelled, isolated_energies, settings, work_dir) -> TrainedModel:
    """The model of the session and two members; the second fails at the first attempt."""
    of_three = settings.model_copy(update={"committee": 3})
    folders = []

    def run_trainer(arguments, folder, **options):
        folders.append(folder.name)
        if folders == ["committee_1", "committee_2"]:
            raise TrainingError("killed")
        return real_run_trainer(arguments, folder, **options)

    real_run_trainer = run.run_trainer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_trainer", run_trainer)
        fit = (labelled, isolated_energies, of_three)
        with pytest.raises(TrainingError, match="killed"):
            fit_mace(*fit, work_dir=work_dir, seed=SEED)
        model = fit_mace(*fit, work_dir=work_dir, seed=SEED)
    assert folders == ["committee_1", "committee_2", "committee_2"], "a model was trained twice"
    return model


@pytest.fixture(scope="module")
def own_model(committee, tmp_path_factory):
    """The promoted model as a surrogate of the exploration."""
    models = PromotedModels(tmp_path_factory.mktemp("promoted"))
    models.promote(committee, Promotion(True, "the first", 0.5, 1.0))
    in_use, _ = models.in_use()
    return find_surrogate("own-model", device="cpu", dtype="float32", own_model=in_use)


def test_committee_does_not_change_main_model_and_members_differ(trained, committee):
    import torch

    from mlip_assets.surrogates.mace_calculator import state_dict_sha256

    assert committee.weights_sha256 == trained.weights_sha256
    assert committee.metrics["splits"] == trained.metrics["splits"]
    assert trained.members == ()
    assert "uncertainty" not in trained.metrics
    files = [committee.model_file, *committee.members]
    modules = [torch.load(file, map_location="cpu", weights_only=False) for file in files]
    assert len({state_dict_sha256(module) for module in modules}) == 3


def test_committee_members_train_on_80_percent_without_held_out_frames(committee, split):
    folder = committee.model_file.parents[1]

    def energies(frames):
        return {round(float(frame.info["REF_energy"]), 6) for frame in frames}

    training_energies = []
    for number in (1, 2):
        training_energies.append(energies(read(folder / f"committee_{number}" / "train.xyz", ":")))
        validation_energies = energies(read(folder / f"committee_{number}" / "valid.xyz", ":"))
        assert validation_energies == energies(split.valid)
        assert training_energies[-1] < energies(split.train)
        assert len(training_energies[-1]) == round(MEMBER_FRACTION * len(split.train))
        assert not training_energies[-1] & energies(split.test)
    assert training_energies[0] != training_energies[1]


def test_committee_spread_increases_outside_training_data_and_equals_that_of_exploration(
    committee, own_model, split
):
    calculator = own_model.calculator()
    near = [found.force_spread.max() for found in evaluate(calculator, split.test)]
    calibration = committee.metrics["uncertainty"]
    np.testing.assert_allclose(near, calibration["spreads_eV_per_A"], rtol=1e-3)

    far = []
    for frame in split.test:
        squeezed = frame.copy()
        squeezed.positions *= 0.85
        squeezed.set_cell(frame.cell * 0.85)
        shaken = frame.copy()
        shaken.rattle(0.5, seed=1)
        far.append([found.force_spread.max() for found in evaluate(calculator, [squeezed, shaken])])
    assert np.median(far, axis=0).min() > 2 * np.median(near)


def test_calibration_uses_errors_of_main_model_on_held_out_frames(committee, split):
    calibration = committee.metrics["uncertainty"]
    predicted = committee.parity["test_forces_predicted"]
    errors = predicted - committee.parity["test_forces_reference"]
    each = np.split(errors, np.cumsum([len(frame) for frame in split.test])[:-1])
    rmse = [np.sqrt(np.mean(error**2)) for error in each]
    np.testing.assert_allclose(calibration["errors_eV_per_A"], rmse, rtol=1e-6)
    assert (calibration["n_frames"], calibration["frames"]) == (len(split.test), "held-out")
    assert 0.1 < calibration["scale"] < 10
    assert 0 <= calibration["within_1"] <= calibration["within_2"] <= 1


@given(scale=st.floats(0.05, 20), seed=st.integers(0, 2**32 - 1), n_members=st.integers(2, 5))
def test_calibrate_recovers_known_scale(scale, seed, n_members):
    """Errors from a Gaussian with the standard deviation ``scale * spread``."""
    generator = np.random.default_rng(seed)
    n_frames, n_atoms = 60, 6
    widths = 10 ** generator.uniform(-2, 0, n_frames)
    members = (
        generator.normal(0, 1, (n_frames, n_members, n_atoms, 3)) * widths[:, None, None, None]
    )
    spreads = np.array([force_spread(forces).max() for forces in members])
    errors = generator.normal(0, 1, (n_frames, n_atoms, 3)) * (scale * spreads)[:, None, None]
    rmse = np.sqrt((errors**2).mean(axis=(1, 2)))
    found = calibrate(rmse, spreads)
    n_components = n_frames * n_atoms * 3
    assert found.scale == pytest.approx(scale, rel=6 / np.sqrt(2 * n_components))
    assert found.spearman == pytest.approx(spearmanr(rmse, spreads).statistic)
    assert found.spearman > 0.8
    assert 0.2 < found.within_1 < 0.8
    assert found.within_2 > 0.9


def test_calibrate_finds_no_correlation_of_independent_spreads():
    generator = np.random.default_rng(0)
    found = calibrate(generator.uniform(0.1, 1, 400), generator.uniform(0.1, 1, 400))
    assert abs(found.spearman) < 0.2
    assert calibrate(np.ones(6), np.ones(6)).spearman is None


def test_calibrate_gives_no_scale_for_few_frames_and_ignores_rounding():
    few = calibrate(np.ones(4), np.ones(4))
    assert (few.scale, few.spearman, few.within_1) == (None, None, None)
    assert few.reason == "4 held-out frames, fewer than 5"
    by_symmetry = calibrate(np.array([1e-3, *np.ones(9)]), np.array([1e-7, *np.ones(9)]))
    assert (by_symmetry.n_frames, by_symmetry.scale) == (9, 1.0)


def test_member_splits_need_ten_labels_and_keep_every_element(split, caplog):
    small = replace(split, train=split.train[:9])
    with caplog.at_level(logging.WARNING):
        assert member_splits(small, 2, seed=0) == []
    assert "too few for a committee" in caplog.text

    frame_with_silver = split.train[0].copy()
    frame_with_silver.symbols[0] = "Ag"
    mixed = replace(split, train=[frame_with_silver, *split.train[1:]])
    members = member_splits(mixed, 30, seed=0)
    assert all(member.train[0] is frame_with_silver for member in members)
    again = member_splits(mixed, 2, seed=0)
    assert [[id(f) for f in m.train] for m in again] == [
        [id(f) for f in m.train] for m in members[:2]
    ]


def test_trained_model_with_committee_opens_as_saved_and_refuses_changed_member(
    committee, tmp_path
):
    committee.save(tmp_path)
    opened = TrainedModel.open(tmp_path)
    assert [file.name for file in opened.members] == ["committee_1.model", "committee_2.model"]
    assert opened.metrics == committee.metrics
    for file, kept in zip(committee.members, opened.members, strict=True):
        assert kept.read_bytes() == file.read_bytes()
    with opened.members[1].open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ValueError, match=r"committee_2\.model: .* changed after training"):
        TrainedModel.open(tmp_path)
    replace(committee, members=()).save(tmp_path)
    assert not list(tmp_path.glob("committee_*"))
    assert TrainedModel.open(tmp_path).members == ()


def test_own_model_is_committee_and_fine_tuning_starts_from_main_model(
    committee, own_model, tmp_path
):
    import torch

    from mlip_assets.surrogates.mace_calculator import state_dict_sha256

    assert isinstance(own_model, Committee)
    assert (own_model.name, own_model.elements()) == ("own-model", ("Cu",))
    assert len({member.sha256 for member in own_model.members}) == 3
    file = own_model.save_model(tmp_path / "start.model")
    module = torch.load(file, map_location="cpu", weights_only=False)
    assert state_dict_sha256(module) == committee.weights_sha256


def test_promoted_models_store_each_committee_of_one_model_separately(committee, tmp_path):
    models, verdict = PromotedModels(tmp_path), Promotion(True, "not worse", 1.0, 1.0)
    for members in (committee.members, committee.members[:1], ()):
        models.promote(replace(committee, members=members), verdict)
        model, _ = models.in_use()
        assert len(model.members) == len(members)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3
