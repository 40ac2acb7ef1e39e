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
from mlip_assets.training.trainer.log import verify_log
from mlip_assets.training.trainer.process import OutOfMemoryError, run_trainer

SEED = 3


def only_folder(work_dir: Path) -> Path:
    (folder,) = work_dir.iterdir()
    return folder


def first_epochs(log: str) -> list[int]:
    """The first epoch of each run in a log."""
    runs = log.split("Started training")[1:]
    return [int(re.search(r"Epoch (\d+): ", run).group(1)) for run in runs]


def test_fit_mace_short_fit_beats_mean_predictor(trained):
    errors = trained.metrics["splits"]["test"]
    baseline = trained.metrics["mean_predictor"]["test"]
    assert errors["force_rmse_meV_per_A"] < 0.5 * baseline["force_rmse_meV_per_A"]
    assert errors["energy_rmse_meV_per_atom"] < baseline["energy_rmse_meV_per_atom"]
    assert errors["stress_rmse_GPa"] < baseline["stress_rmse_GPa"]
    assert (trained.elements, trained.start_from) == (("Cu",), "scratch")


def test_fit_mace_reuses_finished_fit_for_any_order_of_labels(
    trained, labelled, isolated_energies, settings, work_dir, monkeypatch, caplog
):
    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("mlip_assets.training.trainer.run.run_trainer", refuse)
    with caplog.at_level(logging.INFO):
        again = fit_mace(labelled[::-1], isolated_energies, settings, work_dir=work_dir, seed=SEED)
    assert "the finished model in" in caplog.text
    assert again.weights_sha256 == trained.weights_sha256
    with pytest.raises(AssertionError, match="trained again"):
        fit_mace(labelled, isolated_energies, settings, work_dir=work_dir, seed=SEED + 1)


def test_fit_mace_records_held_out_frames_before_training(
    labelled, isolated_energies, settings, tmp_path, monkeypatch
):
    def refuse(*args, **kwargs):
        raise TrainingError("killed")

    monkeypatch.setattr("mlip_assets.training.trainer.run.run_trainer", refuse)
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
    """Identifies a frame also where the file rounds its positions."""
    return round(frame.info["REF_energy"], 6)


@pytest.mark.slow
def test_fit_mace_resumes_killed_training_with_smaller_batch(
    labelled, isolated_energies, settings, tmp_path, monkeypatch
):
    """Only the small memory of the GPU is simulated."""

    def small_gpu(arguments, *args, **options):
        if arguments["batch_size"] > 2:
            raise OutOfMemoryError("CUDA out of memory")
        return run_trainer(arguments, *args, **options)

    monkeypatch.setattr("mlip_assets.training.trainer.run.run_trainer", small_gpu)
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
    assert training["curve"]["epoch"] == list(range(20)), "no epoch is missing or recorded twice"
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
    raise AssertionError(f"{line!r} was not logged")


@pytest.mark.slow
def test_fine_tuning_keeps_elements_of_labels_and_starts_from_low_errors(
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


def test_fine_tuning_requires_model_with_elements_of_labels(
    trained, labelled, isolated_energies, settings, tmp_path
):
    tuning = settings.model_copy(update={"start_from": "surrogate"})
    with pytest.raises(ValueError, match="needs the surrogate's model file"):
        fit_mace(labelled, isolated_energies, tuning, work_dir=tmp_path, seed=0)
    silver = [frame.copy() for frame in labelled]
    for frame in silver:
        frame.symbols[:] = "Ag"
    with pytest.raises(ValueError, match="does not support Ag"):
        fit_mace(
            silver,
            {"Ag": isolated_energies["Cu"]},
            tuning,
            work_dir=tmp_path,
            seed=0,
            foundation_model=trained.model_file,
        )


@pytest.mark.slow
def test_fit_mace_stops_early_in_both_stages_and_records_it(
    labelled, isolated_energies, settings, tmp_path
):
    """With a learning rate at which the validation loss soon increases; epochs are reported."""
    impatient = settings.model_copy(
        update={"patience": 2, "max_epochs": 60, "learning_rate": 0.2, "batch_size": 10}
    )
    reports = []
    model = fit_mace(
        labelled,
        isolated_energies,
        impatient,
        work_dir=tmp_path,
        seed=SEED,
        on_progress=reports.append,
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
    assert set(reports[-1].metrics) == {"loss", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A"}


def test_training_curve_has_every_epoch_and_the_best_one_is_kept(trained):
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


def test_fit_mace_fails_when_batch_of_one_exceeds_memory(
    labelled, isolated_energies, settings, tmp_path, monkeypatch
):
    batch_sizes = []

    def tiny_gpu(arguments, *args, **options):
        batch_sizes.append((arguments["batch_size"], arguments["valid_batch_size"]))
        raise OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mlip_assets.training.trainer.run.run_trainer", tiny_gpu)
    large = settings.model_copy(update={"batch_size": 16})
    with pytest.raises(OutOfMemoryError):
        fit_mace(labelled, isolated_energies, large, work_dir=tmp_path, seed=SEED)
    assert batch_sizes == [(16, 4), (8, 2), (4, 1), (2, 1), (1, 1)]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            OutOfMemoryError,
        ),
        ("RuntimeError: CUDA error: out of memory", OutOfMemoryError),
        ("RuntimeError: CUDA error: device-side assert triggered", TrainingError),
    ],
)
def test_run_trainer_distinguishes_out_of_memory_from_other_errors(
    tmp_path, monkeypatch, message, error
):
    trainer = tmp_path / "trainer"
    trainer.write_text(f"#!/bin/sh\necho '{message}'; exit 1\n")
    trainer.chmod(0o755)
    monkeypatch.setattr("mlip_assets.training.trainer.process.COMMAND", [str(trainer)])
    with pytest.raises(TrainingError, match="exit status 1") as raised:
        run_trainer({}, tmp_path, device="cpu", on_line=lambda line: None)
    assert type(raised.value) is error


def test_fit_mace_refuses_three_labels(labelled, isolated_energies, settings, tmp_path):
    with pytest.raises(ValueError, match="3 labels are too few"):
        fit_mace(labelled[:3], isolated_energies, settings, work_dir=tmp_path, seed=SEED)


def test_fit_mace_refuses_energy_outlier_by_name(labelled, isolated_energies, settings, tmp_path):
    frames = [frame.copy() for frame in labelled]
    frames[7].info["REF_energy"] -= 8 * len(frames[7])  # still in the range of formation energies
    with pytest.raises(LabelError, match=r"frame 7000 .* 7\.9 below the median of 32 frames"):
        fit_mace(frames, isolated_energies, settings, work_dir=tmp_path, seed=SEED)


def test_run_trainer_error_contains_last_lines(tmp_path):
    arguments = {"name": "x", "train_file": "missing.xyz", "E0s": "{29: 0.0}", "seed": 0}
    with pytest.raises(TrainingError, match=r"(?s)exit status 1.*train\.log.*missing\.xyz"):
        run_trainer(arguments, tmp_path, device="cpu", on_line=lambda line: None)
    assert "Traceback" in (tmp_path / "train.log").read_text()


VALID_LOG = [
    "INFO: Using foundation model m.model as initial checkpoint.",
    "INFO: Total number of configurations: train=8, valid=2, tests=[],",
    "INFO: Atomic Energies used (z: eV) for head Default: {14: -0.5}",
    "INFO: Loaded Stage two model from epoch 9 for evaluation",
]


REPLAY_LOG = [
    *VALID_LOG,
    "INFO: Using multiheads finetuning mode, setting learning rate to 0.0001 and EMA to True",
    "INFO: Using heads: ['Default', 'pt_head']",
    "INFO: Total number of configurations in pretraining: train=18, valid=2",
]


def verify(lines, **changes):
    request = {
        "isolated_energies": {14: -0.5},
        "n_train": 8,
        "n_valid": 2,
        "foundation_model": Path("m.model"),
    }
    verify_log(lines, **{**request, **changes})


def test_verify_log_accepts_log_of_requested_training():
    verify(VALID_LOG)
    verify(REPLAY_LOG, n_replay=(18, 2))


@pytest.mark.parametrize(
    ("lines", "changes", "message"),
    [
        ([*VALID_LOG, "WARNING: No energies found with key 'energy'"], {}, "No energies found"),
        ([*VALID_LOG, "INFO: Using multiheads finetuning mode"], {}, "replay head"),
        (REPLAY_LOG, {}, "replay head, which was not requested"),
        (VALID_LOG, {"n_replay": (18, 2)}, "no replay head"),
        (REPLAY_LOG, {"n_replay": (19, 2)}, r"other structures than 19 \+ 2"),
        (VALID_LOG[:-1], {}, "stage two"),
        (VALID_LOG[1:], {}, "did not use the foundation model"),
        (VALID_LOG, {"foundation_model": None}, "used a foundation model"),
        (VALID_LOG, {"n_train": 9}, r"other frames than 9 \+ 2"),
        (VALID_LOG, {"isolated_energies": {14: 0.0}}, "isolated-atom energies"),
    ],
)
def test_verify_log_refuses_other_training(lines, changes, message):
    with pytest.raises(TrainingError, match=message):
        verify(lines, **changes)


@pytest.mark.slow
def test_fit_mace_twice_gives_equal_weights(
    trained, labelled, isolated_energies, settings, tmp_path
):
    again = fit_mace(labelled, isolated_energies, settings, work_dir=tmp_path, seed=SEED)
    assert again.weights_sha256 == trained.weights_sha256
    for name, array in trained.parity.items():
        np.testing.assert_allclose(again.parity[name], array, atol=1e-5)


@pytest.mark.slow
def test_fit_mace_trains_on_isolated_clusters_only(labelled, isolated_energies, settings, tmp_path):
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
