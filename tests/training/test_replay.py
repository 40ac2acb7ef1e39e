"""Fine-tuning with replay data: the bundled model is fine-tuned on EMT's copper.

The labels have the zero of energy of the bundled model, so that it is equal for all trainings.
"""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from mlip_assets.campaign import TrainingSettings
from mlip_assets.surrogates import find_surrogate
from mlip_assets.surrogates.mace_calculator import mace_calculator
from mlip_assets.training import fit_mace
from mlip_assets.training.errors import predict_with
from mlip_assets.training.replay import LABEL_HEAD
from mlip_assets.training.trainer import options
from mlip_assets.training.trainer.process import run_trainer

pytestmark = pytest.mark.slow

SEED = 3
N_EPOCHS = 6


@pytest.fixture(scope="module")
def surrogate():
    return find_surrogate("bundled", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def foundation(surrogate, tmp_path_factory):
    return surrogate.save_model(tmp_path_factory.mktemp("foundation") / "foundation.model")


@pytest.fixture(scope="module")
def isolated(surrogate, isolated_energies):
    """Isolated-atom energy of copper with the bundled model."""
    atoms = bulk("Cu", cubic=True)[:1]
    atoms.pbc = False
    return {"Cu": float(predict_with(surrogate.calculator(), [atoms]).energies[0])}


@pytest.fixture(scope="module")
def labels(labelled, isolated_energies, isolated, tmp_path_factory):
    frames = [frame.copy() for frame in labelled[:20]]
    for frame in frames:
        frame.info["REF_energy"] += len(frame) * (isolated["Cu"] - isolated_energies["Cu"])
    file = tmp_path_factory.mktemp("labels") / "labels.xyz"
    write(file, frames)
    return file


@pytest.fixture(scope="module")
def foreign():
    """Distorted rock salt and silicon: for replay, and for a test."""
    rng = np.random.default_rng(1)
    frames = []
    for prototype in (bulk("NaCl", "rocksalt", a=5.69, cubic=True), bulk("Si", cubic=True)):
        for _ in range(14):
            atoms = prototype.copy()
            atoms.set_cell(atoms.cell * rng.normal(1, 0.02), scale_atoms=True)
            atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
            frames.append(atoms)
    return {"replay": frames[:10] + frames[14:24], "test": frames[10:14] + frames[24:]}


@pytest.fixture(scope="module")
def settings(foreign, tmp_path_factory):
    file = tmp_path_factory.mktemp("replay") / "replay.xyz"
    write(file, foreign["replay"])
    return TrainingSettings(
        fine_tuning="multihead",
        replay=str(file),
        max_epochs=N_EPOCHS,
        batch_size=5,
        learning_rate=0.005,  # with 0.01 the replay errors increase again within these few epochs
        committee=1,
    )


@pytest.fixture(scope="module")
def tuned(labels, isolated, settings, foundation, tmp_path_factory):
    """Fine-tuned with replay, the trainer killed and resumed: the model, and its work folder."""
    work = tmp_path_factory.mktemp("work")

    def tune():
        return fit_mace(
            read(labels, ":"),
            isolated,
            settings,
            work_dir=work,
            seed=SEED,
            foundation_model=foundation,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlip_assets.training.trainer.run.run_trainer", killed_in_epoch_3)
        with pytest.raises(InterruptedError):
            tune()
    (folder,) = work.iterdir()
    return tune(), folder


def killed_in_epoch_3(arguments, folder, *, device, on_line):
    """An exception of ``on_line`` kills the trainer by SIGKILL."""

    def fail(line):
        on_line(line)
        if "Epoch 2: head: Default" in line:
            raise InterruptedError

    return run_trainer(arguments, folder, device=device, on_line=fail)


def test_replay_training_resumes_after_kill(tuned):
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


def test_replay_labels_are_predictions_of_foundation_model(tuned, surrogate):
    _, folder = tuned
    frames = [f for name in ("train", "valid") for f in read(folder / f"replay_{name}.xyz", ":")]
    assert len(frames) == 20
    reference = predict_with(surrogate.calculator(), frames)
    np.testing.assert_allclose(
        [f.info["REF_energy"] / len(f) for f in frames], reference.energies, atol=1e-5
    )
    np.testing.assert_allclose(
        np.concatenate([f.arrays["REF_forces"] for f in frames]), reference.forces, atol=1e-4
    )


def test_replay_training_keeps_replay_elements_and_fits_labels(tuned, surrogate, foreign):
    model, _ = tuned
    assert model.elements == ("Na", "Si", "Cl", "Cu")
    assert model.metrics["training"]["n_replayed"] == 20
    errors, naive = model.metrics["splits"]["test"], model.metrics["mean_predictor"]["test"]
    assert errors["force_rmse_meV_per_A"] < 0.3 * naive["force_rmse_meV_per_A"]
    reference = predict_with(surrogate.calculator(), foreign["test"])
    predicted = predict_with(model.calculator(), foreign["test"])
    assert rms(predicted.forces - reference.forces) < 0.1 * rms(reference.forces)
    assert rms(predicted.energies - reference.energies) < 0.2


def test_replay_model_has_only_label_head_with_equal_predictions(tuned):
    model, folder = tuned
    both, replayed = (
        mace_calculator(folder / "mace_stagetwo.model", head=head)
        for head in (LABEL_HEAD, "pt_head")
    )
    extracted = model.calculator()
    assert extracted.models[0].heads == [LABEL_HEAD]
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    label_only, label_head, replay_head = (
        predict_with(c, [atoms]) for c in (extracted, both, replayed)
    )
    np.testing.assert_allclose(label_only.energies, label_head.energies, atol=1e-5)
    np.testing.assert_allclose(label_only.forces, label_head.forces, atol=1e-4)
    assert abs(label_only.energies[0] - replay_head.energies[0]) > 1e-4


def test_replay_model_is_usable_as_surrogate(tuned, surrogate):
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
def test_replay_reduces_forgetting_of_naive_fine_tuning(
    tuned, labels, isolated, settings, foundation, surrogate, foreign, tmp_path, monkeypatch
):
    """Naive fine-tuning with the elements of the foundation model kept, for the comparison."""
    monkeypatch.setitem(options.OPTIONS, "foundation_model_elements", "True")
    naive = fit_mace(
        read(labels, ":"),
        isolated,
        settings.model_copy(update={"fine_tuning": "naive", "replay": None}),
        work_dir=tmp_path,
        seed=SEED,
        foundation_model=foundation,
    )
    reference = predict_with(surrogate.calculator(), foreign["test"]).forces
    naive_error, replay_error = (
        rms(predict_with(model.calculator(), foreign["test"]).forces - reference)
        for model in (naive, tuned[0])
    )
    assert replay_error < 0.75 * naive_error


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_replay_refuses_element_missing_in_foundation_model(
    labels, isolated, settings, foundation, tmp_path
):
    replay = tmp_path / "silver.xyz"
    write(replay, [bulk("Ag"), bulk("Cu")])
    with pytest.raises(ValueError, match=r"training\.replay: .*silver\.xyz contains Ag"):
        fit_mace(
            read(labels, ":"),
            isolated,
            settings.model_copy(update={"replay": str(replay)}),
            work_dir=tmp_path,
            seed=SEED,
            foundation_model=foundation,
        )
