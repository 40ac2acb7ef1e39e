"""One training run: resumed from its last checkpoint, within the memory of the GPU, verified."""

from __future__ import annotations

import json
import logging
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from mlip_assets.campaign import TrainingSettings
from mlip_assets.common.files import write_atomically, write_text
from mlip_assets.common.progress import Progress, ProgressReport
from mlip_assets.training.foundation import elements_of
from mlip_assets.training.replay import Replay, extract_label_head
from mlip_assets.training.splits import Split
from mlip_assets.training.trainer.log import epoch_of_line, read_curve, verify_log
from mlip_assets.training.trainer.options import (
    NAME,
    replay_options,
    training_options,
    write_frames,
)
from mlip_assets.training.trainer.process import OutOfMemoryError, run_trainer

_log = logging.getLogger(__name__)

#: Checkpoints kept of each stage: the newest may be incomplete when the trainer is killed.
N_KEPT_CHECKPOINTS = 2


def train_once(split: Split, *, folder: Path, **task: Any) -> tuple[Path, dict[str, Any]]:
    """Train a model, or return the model that an earlier call has trained in ``folder``.

    Parameters
    ----------
    split
        Frames for training and validation.
    folder
        Holds the input, checkpoints and results of this training.
    task
        The other arguments of :func:`_train`.

    Returns
    -------
    tuple
        The ``.model`` file, with one head, and the record of the training: ``epochs``,
        ``stopped_early``, ``stage_two_epoch``, ``batch_size``, ``n_replayed`` and ``curve``.

    Raises
    ------
    TrainingError
        The trainer failed, or did not train as requested.
    """
    ended, record_file = folder / f"{NAME}.trained.model", folder / f"{NAME}.trained.json"
    if not ended.exists():
        model_file, record = _train(split, folder=folder, **task)
        write_text(record_file, json.dumps(record))
        with write_atomically(ended) as aside:
            shutil.copyfile(model_file, aside)
    return ended, json.loads(record_file.read_text(encoding="utf-8"))


def _train(
    split: Split,
    *,
    isolated_energies: Mapping[str, float],
    settings: TrainingSettings,
    folder: Path,
    seed: int,
    foundation_model: Path | None,
    replay: Replay | None,
    device: str,
    on_progress: Callable[[ProgressReport], None] | None,
) -> tuple[Path, dict[str, Any]]:
    energies = {atomic_numbers[e]: float(isolated_energies[e]) for e in elements_of(split.train)}
    arguments = training_options(split, settings, seed, foundation_model) | {"E0s": str(energies)}
    for name in ("train", "valid"):
        write_frames(folder / f"{name}.xyz", split.by_name[name])
    if replay:
        arguments |= replay_options(replay, energies, arguments["batch_size"], folder)
    _log.info(
        "training: MACE from %s on %d frames, %d for validation, %d held out; log: %s",
        foundation_model.name if foundation_model else "random weights",
        *(len(frames) for frames in split.by_name.values()),
        folder / "train.log",
    )
    watcher = _EpochWatcher(settings.max_epochs, folder / "checkpoints", on_progress)
    lines = _run_within_memory(arguments, folder, device, watcher)
    watcher.end()
    verify_log(
        lines,
        isolated_energies=energies,
        n_train=len(split.train),
        n_valid=len(split.valid),
        foundation_model=foundation_model,
        n_replay=(len(replay.train), len(replay.valid)) if replay else None,
    )
    model_file = folder / f"{NAME}_stagetwo.model"
    if replay:
        model_file = extract_label_head(model_file, folder / f"{NAME}_labels.model", split.train[0])
    curve = read_curve(folder / "results" / f"{NAME}_run-{seed}_train.txt")
    epochs = [epoch for epoch in curve["epoch"] if epoch is not None]
    return model_file, {
        "epochs": len(epochs),
        "stopped_early": len(epochs) < settings.max_epochs,
        "stage_two_epoch": min(epoch for epoch in epochs if epoch >= arguments["start_swa"]),
        "batch_size": arguments["batch_size"],
        "n_replayed": len(replay.train) + len(replay.valid) if replay else 0,
        "curve": curve,
    }


def _run_within_memory(
    arguments: dict[str, Any], folder: Path, device: str, on_line: Callable[[str], None]
) -> list[str]:
    """Run the trainer from its last checkpoint; halve the batch each time it does not fit."""
    while True:
        _remove_incomplete_checkpoints(folder / "checkpoints")
        try:
            return run_trainer(arguments, folder, device=device, on_line=on_line)
        except OutOfMemoryError:
            if arguments["batch_size"] == 1:
                raise
            for key in ("batch_size", "valid_batch_size"):
                arguments[key] = max(1, arguments[key] // 2)
            _log.warning(
                "training: the batch does not fit into the memory of %s; the training continues "
                "with batch_size %d",
                device,
                arguments["batch_size"],
            )


def _remove_incomplete_checkpoints(folder: Path) -> None:
    """Remove checkpoints that a killed trainer left incomplete, and which it cannot load.

    The trainer writes them in place. They are zip archives, whose directory is written last.
    """
    for checkpoint in folder.glob("*.pt"):
        if not zipfile.is_zipfile(checkpoint):
            _log.warning("training: %s is incomplete and is removed", checkpoint)
            checkpoint.unlink()


class _EpochWatcher:
    """Reports progress from the lines of the trainer, and deletes outdated checkpoints."""

    def __init__(
        self, n_epochs: int, checkpoints: Path, on_progress: Callable[[ProgressReport], None] | None
    ) -> None:
        self._n_epochs, self._on_progress = n_epochs, on_progress
        self._checkpoints = checkpoints
        self._progress: Progress | None = None

    def __call__(self, line: str) -> None:
        if (found := epoch_of_line(line)) is None:
            return
        epoch, figures = found
        if self._progress is None:
            self._progress = Progress(
                "training",
                self._n_epochs,
                "epochs",
                already_done=epoch,
                on_progress=self._on_progress,
            )
        self._progress.advance(epoch + 1 - self._progress.done, **figures)
        self._remove_outdated_checkpoints()

    def end(self) -> None:
        """Report the last epoch of a training that stopped early."""
        if self._progress is not None:
            self._progress.end()

    def _remove_outdated_checkpoints(self) -> None:
        for stage in (r"epoch-(\d+)\.pt", r"epoch-(\d+)_swa\.pt"):
            found = {
                int(match.group(1)): path
                for path in self._checkpoints.glob("*.pt")
                if (match := re.search(stage, path.name))
            }
            for old in sorted(found)[:-N_KEPT_CHECKPOINTS]:
                found[old].unlink()
