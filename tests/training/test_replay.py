"""Fine-tuning with replay: the bundled model is taught EMT's copper and must not forget the rest.

The labels have the zero of energy of the bundled model, so that it is the same for all trainings.
"""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from mlip_assets.campaign import TrainingSettings
from mlip_assets.surrogates.finding import find_surrogate
from mlip_assets.surrogates.mace_calculator import mace_calculator
from mlip_assets.training import fit_mace
from mlip_assets.training.errors import predict_with
from mlip_assets.training.replay import LABEL_HEAD
from mlip_assets.training.trainer import run_trainer

SEED = 3
N_EPOCHS = 6


@pytest.fixture(scope="module")
def surrogate():
    return find_surrogate("bundled", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def foundation(surrogate, tmp_path_factory):
    return surrogate.save_model(tmp_path_factory.mktemp("foundation") / "foundation.model")


@pytest.fixture(scope="module")
def free(surrogate, isolated_energies):
    """Free copper in the bundled model."""
    atoms = bulk("Cu", cubic=True)[:1]
    atoms.pbc = False
    return {"Cu": float(predict_with(surrogate.calculator(), [atoms]).energies[0])}


@pytest.fixture(scope="module")
def labels(labelled, isolated_energies, free, tmp_path_factory):
    frames = [frame.copy() for frame in labelled[:20]]
    for frame in frames:
        frame.info["REF_energy"] += len(frame) * (free["Cu"] - isolated_energies["Cu"])
    file = tmp_path_factory.mktemp("labels") / "labels.xyz"
    write(file, frames)
    return file


@pytest.fixture(scope="module")
def foreign():
    """Rock salt and silicon, shaken: to replay, and others of their kind to be asked about."""
    rng = np.random.default_rng(1)
    frames = []
    for prototype in (bulk("NaCl", "rocksalt", a=5.69, cubic=True), bulk("Si", cubic=True)):
        for _ in range(14):
            atoms = prototype.copy()
            atoms.set_cell(atoms.cell * rng.normal(1, 0.02), scale_atoms=True)
            atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
            frames.append(atoms)
    return {"replay": frames[:10] + frames[14:24], "asked": frames[10:14] + frames[24:]}


@pytest.fixture(scope="module")
def settings(foreign, tmp_path_factory):
    file = tmp_path_factory.mktemp("replay") / "replay.xyz"
    write(file, foreign["replay"])
    return TrainingSettings(
        fine_tuning="multihead", replay=str(file), max_epochs=N_EPOCHS, batch_size=5, committee=1
    )


@pytest.fixture(scope="module")
def tuned(labels, free, settings, foundation, tmp_path_factory):
    """Tuned with replay, the trainer killed on the way: the model, and its work folder."""
    work = tmp_path_factory.mktemp("work")

    def tune():
        return fit_mace(
            read(labels, ":"),
            free,
            settings,
            work_dir=work,
            seed=SEED,
            foundation_model=foundation,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlip_assets.training.fitting.run_trainer", killed_in_epoch_3)
        with pytest.raises(InterruptedError):
            tune()
    (folder,) = work.iterdir()
    return tune(), folder


def killed_in_epoch_3(arguments, folder, *, device, on_line):
    """What fails while the trainer's lines are read has it killed by SIGKILL."""

    def fail(line):
        on_line(line)
        if "Epoch 2: head: Default" in line:
            raise InterruptedError

    return run_trainer(arguments, folder, device=device, on_line=fail)


def test_a_killed_training_with_replay_goes_on(tuned):
    model, folder = tuned
    killed, resumed = (
        (folder / "train.log")
        .read_text()
        .split("Training complete")[0]
        .split("=VERIFYING SETTINGS=")[1:]
    )
    assert "Loading checkpoint" not in killed
    assert "Loading checkpoint" in resumed
    curve = model.metrics["training"]["curve"]
    assert curve["epoch"] == list(range(N_EPOCHS))
    assert len(curve["replay_force_rmse_meV_per_A"]) == N_EPOCHS


def test_what_is_replayed_is_what_the_foundation_model_says(tuned, surrogate):
    _, folder = tuned
    frames = [f for name in ("train", "valid") for f in read(folder / f"replay_{name}.xyz", ":")]
    assert len(frames) == 20
    known = predict_with(surrogate.calculator(), frames)
    np.testing.assert_allclose(
        [f.info["REF_energy"] / len(f) for f in frames], known.energies, atol=1e-5
    )
    np.testing.assert_allclose(
        np.concatenate([f.arrays["REF_forces"] for f in frames]), known.forces, atol=1e-4
    )


def test_what_was_replayed_is_known_and_the_labels_are_learnt(tuned, surrogate, foreign):
    model, _ = tuned
    assert model.elements == ("Na", "Si", "Cl", "Cu")
    assert model.metrics["training"]["n_replayed"] == 20
    errors, naive = model.metrics["splits"]["test"], model.metrics["mean_predictor"]["test"]
    assert errors["force_rmse_meV_per_A"] < 0.3 * naive["force_rmse_meV_per_A"]
    known = predict_with(surrogate.calculator(), foreign["asked"])
    predicted = predict_with(model.calculator(), foreign["asked"])
    assert rms(predicted.forces - known.forces) < 0.1 * rms(known.forces)
    assert rms(predicted.energies - known.energies) < 0.2


def test_the_model_has_one_head_and_says_what_that_head_says(tuned):
    model, folder = tuned
    both, replayed = (
        mace_calculator(folder / "mace_stagetwo.model", head=head)
        for head in (LABEL_HEAD, "pt_head")
    )
    alone = model.calculator()
    assert alone.models[0].heads == [LABEL_HEAD]
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    says = [predict_with(c, [atoms]) for c in (alone, both, replayed)]
    np.testing.assert_allclose(says[0].energies, says[1].energies, atol=1e-5)
    np.testing.assert_allclose(says[0].forces, says[1].forces, atol=1e-4)
    assert abs(says[0].energies[0] - says[2].energies[0]) > 1e-4


def test_it_is_a_surrogate_like_any_other(tuned, surrogate):
    model, _ = tuned
    found = find_surrogate(str(model.model_file), device="cpu", dtype="float32")
    assert set(found.elements()) == set(model.elements)
    mixed = bulk("Cu", cubic=True)
    mixed.symbols[0] = "Si"
    np.testing.assert_allclose(
        predict_with(found.calculator(), [mixed]).forces,
        predict_with(model.calculator(), [mixed]).forces,
        atol=1e-4,
    )


@pytest.mark.slow
def test_without_replay_the_rest_is_forgotten(
    tuned, labels, free, settings, foundation, surrogate, foreign, tmp_path, monkeypatch
):
    """By naive tuning that keeps the elements, which ours does not do, to have something to ask."""
    monkeypatch.setitem(fit_mace.__globals__["OPTIONS"], "foundation_model_elements", "True")
    naive = fit_mace(
        read(labels, ":"),
        free,
        settings.model_copy(update={"fine_tuning": "naive", "replay": None}),
        work_dir=tmp_path,
        seed=SEED,
        foundation_model=foundation,
    )
    known = predict_with(surrogate.calculator(), foreign["asked"]).forces
    forgot, kept = (
        rms(predict_with(model.calculator(), foreign["asked"]).forces - known)
        for model in (naive, tuned[0])
    )
    assert kept < 0.75 * forgot


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_an_element_that_the_foundation_model_lacks_cannot_be_replayed(
    labels, free, settings, foundation, tmp_path
):
    replay = tmp_path / "silver.xyz"
    write(replay, [bulk("Ag"), bulk("Cu")])
    with pytest.raises(ValueError, match=r"training\.replay: .*silver\.xyz holds Ag"):
        fit_mace(
            read(labels, ":"),
            free,
            settings.model_copy(update={"replay": str(replay)}),
            work_dir=tmp_path,
            seed=SEED,
            foundation_model=foundation,
        )
