from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write

from mlip_assets.figures import training_curve
from mlip_assets.training import HeldOut, LabelError, TrainingError, fit_mace
from mlip_assets.training.labels import structure_sha256
from mlip_assets.training.trainer import OutOfMemoryError, run_trainer, verify_log

SEED = 3


def only_folder(work_dir: Path) -> Path:
    (folder,) = work_dir.iterdir()
    return folder


def first_epochs(log: str) -> list[int]:
    """The epoch each of the runs in a log began with."""
    runs = log.split("Started training")[1:]
    return [int(re.search(r"Epoch (\d+): ", run).group(1)) for run in runs]


def test_a_short_fit_beats_the_mean_predictor(trained):
    errors = trained.metrics["splits"]["test"]
    baseline = trained.metrics["mean_predictor"]["test"]
    assert errors["force_rmse_meV_per_A"] < 0.5 * baseline["force_rmse_meV_per_A"]
    assert errors["energy_rmse_meV_per_atom"] < baseline["energy_rmse_meV_per_atom"]
    assert errors["stress_rmse_GPa"] < baseline["stress_rmse_GPa"]
    assert (trained.elements, trained.start_from) == (("Cu",), "scratch")


def test_a_finished_fit_is_reused_whatever_the_order(
    trained, labelled, isolated_energies, settings, work_dir, monkeypatch, caplog
):
    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("mlip_assets.training.fitting.run_trainer", refuse)
    with caplog.at_level(logging.INFO):
        again = fit_mace(labelled[::-1], isolated_energies, settings, work_dir=work_dir, seed=SEED)
    assert "reusing the finished model" in caplog.text
    assert again.weights_sha256 == trained.weights_sha256
    with pytest.raises(AssertionError, match="trained again"):
        fit_mace(labelled, isolated_energies, settings, work_dir=work_dir, seed=SEED + 1)


def test_what_is_held_out_is_on_record_before_anything_is_trained(
    labelled, isolated_energies, settings, tmp_path, monkeypatch
):
    def refuse(*args, **kwargs):
        raise TrainingError("killed")

    monkeypatch.setattr("mlip_assets.training.fitting.run_trainer", refuse)
    record, known = tmp_path / "held_out.json", HeldOut()
    for n_labels in (30, 30, 40):
        with pytest.raises(TrainingError, match="killed"):
            fit_mace(
                labelled[:n_labels],
                isolated_energies,
                settings,
                work_dir=tmp_path / "work",
                seed=SEED,
                held_out_file=record,
            )
        held_out = HeldOut.open(record)
        assert n_labels - 2 <= len(held_out.test | held_out.seen) <= n_labels
        assert held_out.test >= known.test
        assert held_out.seen >= known.seen
        known = held_out
    folders = list((tmp_path / "work").iterdir())
    assert len(folders) == 2, "the second fit must find the folder of the first, to resume in it"
    unseen = {energy_of(frame) for frame in labelled if structure_sha256(frame) in known.test}
    for folder in folders:
        fitted = {
            energy_of(f) for name in ("train", "valid") for f in read(folder / f"{name}.xyz", ":")
        }
        assert len(fitted) > 20
        assert not fitted & unseen


def energy_of(frame) -> float:
    """What tells a frame apart, though the file rounds its positions."""
    return round(frame.info["REF_energy"], 6)


def test_a_killed_training_goes_on_from_its_checkpoint_with_a_batch_that_fits(
    labelled, isolated_energies, settings, tmp_path, monkeypatch
):
    """That the GPU is too small is played; all else is real."""

    def small_gpu(arguments, *args, **options):
        if arguments["batch_size"] > 2:
            raise OutOfMemoryError("CUDA out of memory")
        return run_trainer(arguments, *args, **options)

    monkeypatch.setattr("mlip_assets.training.fitting.run_trainer", small_gpu)
    patient = settings.model_copy(update={"max_epochs": 20})
    labels, work_dir = tmp_path / "labels.xyz", tmp_path / "work"
    write(labels, labelled)  # its rounding is part of the data: both runs read the file
    script = (
        "from pathlib import Path; from ase.io import read\n"
        "from mlip_assets.campaign import TrainingSettings\n"
        "from mlip_assets.training import fit_mace\n"
        f"settings = TrainingSettings.model_validate_json({patient.model_dump_json()!r})\n"
        f"fit_mace(read({str(labels)!r}, ':'), {isolated_energies!r}, settings,"
        f" work_dir=Path({str(work_dir)!r}), seed={SEED})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    log = wait_for_log(work_dir, parent, "Epoch 6: ")
    trainer = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while Path(f"/proc/{trainer}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{trainer}").exists(), "the trainer outlived its parent"
    torn = log.parent / "checkpoints" / f"mace_run-{SEED}_epoch-9.pt"
    torn.write_bytes(b"PK\x03\x04 half a checkpoint")

    model = fit_mace(read(labels, ":"), isolated_energies, patient, work_dir=work_dir, seed=SEED)
    text = log.read_text()
    first, second = first_epochs(text)
    assert first == 0
    assert second > 0
    assert "Epoch 19: " in text
    training = model.metrics["training"]
    assert training["curve"]["epoch"] == list(range(20)), "no epoch lost or told twice"
    assert (training["epochs"], training["stopped_early"]) == (20, False)
    assert training["batch_size"] == 2
    errors, baseline = model.metrics["splits"]["test"], model.metrics["mean_predictor"]["test"]
    assert errors["force_rmse_meV_per_A"] < 0.5 * baseline["force_rmse_meV_per_A"]
    assert only_folder(work_dir) == log.parent


def wait_for_log(work_dir: Path, process: subprocess.Popen, line: str) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the training ended too early"
        for log in work_dir.glob("*/train.log"):
            if line in log.read_text():
                return log
        time.sleep(0.05)
    raise AssertionError(f"{line!r} never came")


def test_fine_tuning_keeps_the_elements_of_the_labels_and_starts_ahead(
    trained, labelled, isolated_energies, settings, tmp_path
):
    tuning = settings.model_copy(
        update={"start_from": "surrogate", "max_epochs": 4, "learning_rate": 0.002}
    )
    tuned = fit_mace(
        labelled,
        isolated_energies,
        tuning,
        work_dir=tmp_path,
        seed=SEED,
        foundation_model=trained.model_file,
    )
    log = (only_folder(tmp_path) / "train.log").read_text()
    assert "as initial checkpoint" in log
    errors = tuned.metrics["splits"]["test"]
    assert (
        errors["force_rmse_meV_per_A"]
        < 1.2 * (trained.metrics["splits"]["test"]["force_rmse_meV_per_A"])
    )
    assert (tuned.elements, tuned.start_from) == (("Cu",), "surrogate")


def test_fine_tuning_needs_a_model_that_knows_the_elements(
    trained, labelled, isolated_energies, settings, tmp_path
):
    tuning = settings.model_copy(update={"start_from": "surrogate"})
    with pytest.raises(ValueError, match="needs the surrogate's model file"):
        fit_mace(labelled, isolated_energies, tuning, work_dir=tmp_path, seed=0)
    silver = [frame.copy() for frame in labelled]
    for frame in silver:
        frame.symbols[:] = "Ag"
    with pytest.raises(ValueError, match="does not know Ag"):
        fit_mace(
            silver,
            {"Ag": isolated_energies["Cu"]},
            tuning,
            work_dir=tmp_path,
            seed=0,
            foundation_model=trained.model_file,
        )


def test_training_stops_early_in_both_stages_and_says_so(
    labelled, isolated_energies, settings, tmp_path
):
    """So large a step that the validation loss soon rises; the epochs it had are told as they come."""
    impatient = settings.model_copy(
        update={"patience": 2, "max_epochs": 60, "learning_rate": 0.2, "batch_size": 10}
    )
    told = []
    model = fit_mace(
        labelled,
        isolated_energies,
        impatient,
        work_dir=tmp_path,
        seed=SEED,
        on_told=told.append,
    )
    log = (only_folder(tmp_path) / "train.log").read_text()
    assert log.count("without improvement and starting Stage Two") == 1
    assert len(re.findall(r"epochs without improvement$", log, re.MULTILINE)) == 1
    training = model.metrics["training"]
    epochs, stage_two = training["curve"]["epoch"], training["stage_two_epoch"]
    assert training["stopped_early"]
    assert training["epochs"] == len(epochs) < 60
    assert stage_two == 46, "one after 45, which the jump to stage two skips"
    assert next(e for e in epochs if e >= 45) == stage_two
    assert max(e for e in epochs if e < 45) < 44
    assert epochs[-1] < 59
    assert set(told[-1].figures) == {"loss", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A"}


def test_the_curve_is_the_course_of_the_training(trained):
    training = trained.metrics["training"]
    curve = training["curve"]
    assert curve["epoch"] == list(range(16))
    assert training["stage_two_epoch"] == 12
    assert curve["force_rmse_meV_per_A"][-1] < 0.5 * curve["force_rmse_meV_per_A"][0]
    errors = trained.metrics["splits"]["valid"]
    best = min(curve["valid_loss"][12:])
    kept = curve["valid_loss"].index(best)
    assert curve["force_rmse_meV_per_A"][kept] == pytest.approx(
        errors["force_rmse_meV_per_A"], rel=1e-2
    )
    assert training_curve(trained).startswith(b"\x89PNG")


def test_a_batch_of_one_that_does_not_fit_is_the_end(
    labelled, isolated_energies, settings, tmp_path, monkeypatch
):
    asked = []

    def tiny_gpu(arguments, *args, **options):
        asked.append((arguments["batch_size"], arguments["valid_batch_size"]))
        raise OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mlip_assets.training.fitting.run_trainer", tiny_gpu)
    large = settings.model_copy(update={"batch_size": 16})
    with pytest.raises(OutOfMemoryError):
        fit_mace(labelled, isolated_energies, large, work_dir=tmp_path, seed=SEED)
    assert asked == [(16, 4), (8, 2), (4, 1), (2, 1), (1, 1)]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            OutOfMemoryError,
        ),
        ("RuntimeError: CUDA error: out of memory", OutOfMemoryError),
        ("RuntimeError: CUDA error: device-side assert triggered", TrainingError),
    ],
)
def test_too_little_memory_is_told_from_other_ends(tmp_path, monkeypatch, said, error):
    trainer = tmp_path / "trainer"
    trainer.write_text(f"#!/bin/sh\necho '{said}'; exit 1\n")
    trainer.chmod(0o755)
    monkeypatch.setattr("mlip_assets.training.trainer.sys.executable", str(trainer))
    with pytest.raises(TrainingError, match="exit status 1") as raised:
        run_trainer({}, tmp_path, device="cpu", on_line=lambda line: None)
    assert type(raised.value) is error


def test_three_labels_are_refused(labelled, isolated_energies, settings, tmp_path):
    with pytest.raises(ValueError, match="3 labels are too few"):
        fit_mace(labelled[:3], isolated_energies, settings, work_dir=tmp_path, seed=SEED)


def test_one_absurd_energy_is_refused_by_name(labelled, isolated_energies, settings, tmp_path):
    frames = [frame.copy() for frame in labelled]
    frames[7].info["REF_energy"] -= 8 * len(frames[7])  # still within what matter can have
    with pytest.raises(LabelError, match=r"frame 7000 .* 7\.9 below the median of 32 alike"):
        fit_mace(frames, isolated_energies, settings, work_dir=tmp_path, seed=SEED)


def test_a_trainer_that_dies_is_told_with_its_last_lines(tmp_path):
    arguments = {"name": "x", "train_file": "missing.xyz", "E0s": "{29: 0.0}", "seed": 0}
    with pytest.raises(TrainingError, match=r"(?s)exit status 1.*train\.log.*missing\.xyz"):
        run_trainer(arguments, tmp_path, device="cpu", on_line=lambda line: None)
    assert "Traceback" in (tmp_path / "train.log").read_text()


SOUND = [
    "INFO: Using foundation model m.model as initial checkpoint.",
    "INFO: Total number of configurations: train=8, valid=2, tests=[],",
    "INFO: Atomic Energies used (z: eV) for head Default: {14: -0.5}",
    "INFO: Loaded Stage two model from epoch 9 for evaluation",
]


REPLAYED = [
    *SOUND,
    "INFO: Using multiheads finetuning mode, setting learning rate to 0.0001 and EMA to True",
    "INFO: Using heads: ['Default', 'pt_head']",
    "INFO: Total number of configurations in pretraining: train=18, valid=2",
]


def verify(lines, **changes):
    asked = {
        "isolated_energies": {14: -0.5},
        "n_train": 8,
        "n_valid": 2,
        "foundation_model": Path("m.model"),
    }
    verify_log(lines, **{**asked, **changes})


def test_the_log_of_a_sound_training_passes():
    verify(SOUND)
    verify(REPLAYED, n_replay=(18, 2))


@pytest.mark.parametrize(
    ("lines", "changes", "message"),
    [
        ([*SOUND, "WARNING: No energies found with key 'energy'"], {}, "No energies found"),
        ([*SOUND, "INFO: Using multiheads finetuning mode"], {}, "replay head"),
        (REPLAYED, {}, "replay head, which was not asked for"),
        (SOUND, {"n_replay": (18, 2)}, "no replay head"),
        (REPLAYED, {"n_replay": (19, 2)}, r"other structures than 19 \+ 2"),
        (SOUND[:-1], {}, "stage two"),
        (SOUND[1:], {}, "did not use the foundation model"),
        (SOUND, {"foundation_model": None}, "used a foundation model"),
        (SOUND, {"n_train": 9}, r"other frames than 9 \+ 2"),
        (SOUND, {"isolated_energies": {14: 0.0}}, "isolated energies"),
    ],
)
def test_a_trainer_that_did_something_else_is_refused(lines, changes, message):
    with pytest.raises(TrainingError, match=message):
        verify(lines, **changes)


@pytest.mark.slow
def test_the_same_training_twice_gives_the_same_weights(
    trained, labelled, isolated_energies, settings, tmp_path
):
    again = fit_mace(labelled, isolated_energies, settings, work_dir=tmp_path, seed=SEED)
    assert again.weights_sha256 == trained.weights_sha256
    for name, array in trained.parity.items():
        np.testing.assert_allclose(again.parity[name], array, atol=1e-5)


@pytest.mark.slow
def test_free_clusters_alone_can_be_learnt(labelled, isolated_energies, settings, tmp_path):
    clusters = [frame for frame in labelled if not frame.pbc.any()]
    model = fit_mace(
        clusters,
        isolated_energies,
        settings.model_copy(update={"max_epochs": 8}),
        work_dir=tmp_path,
        seed=SEED,
    )
    assert model.metrics["splits"]["test"]["stress_rmse_GPa"] is None
    assert (
        model.metrics["splits"]["train"]["force_rmse_meV_per_A"]
        < model.metrics["mean_predictor"]["train"]["force_rmse_meV_per_A"]
    )
