"""MACE's own trainer as a child process: ``python -m mlip_assets.training.trainer --name …``.

In a process of its own because the trainer changes torch's default precision, seeds the global
random generators and adds handlers to the root logger.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlip_assets.common.processes import die_with_parent
from mlip_assets.training.replay import LABEL_HEAD, REPLAY_HEAD

LAST_LINES = 25
_OUT_OF_MEMORY = r"OutOfMemoryError|CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED"
_OUT_OF_PATIENCE = r"Stopping optimization after \d+ epochs without improvement"


class TrainingError(RuntimeError):
    """The trainer failed, or did something else than it was asked to."""


class OutOfMemoryError(TrainingError):
    """The trainer's batch does not fit into the GPU."""


def run_trainer(
    arguments: Mapping[str, object],
    folder: Path,
    *,
    device: str,
    on_line: Callable[[str], None],
) -> list[str]:
    """Run ``mace_run_train`` in ``folder`` to its end; ``folder/train.log`` keeps what it prints.

    Parameters
    ----------
    arguments
        Its long options; ``True`` stands for a bare flag.
    device
        ``cpu`` (one thread), ``cuda`` or ``cuda:1``.
    on_line
        Called with each line the moment it is printed.

    Returns
    -------
    list[str]
        All lines of this run.

    Raises
    ------
    OutOfMemoryError
        The trainer ended because the GPU is too small for its batch.
    TrainingError
        It ended with another error; the message holds its last lines.
    """
    kind, _, index = device.partition(":")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if kind == "cpu":
        environment["OMP_NUM_THREADS"] = "1"
    if index:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[int(index)] if visible[0] else index
    options = [f"--{k}" if v is True else f"--{k}={v}" for k, v in arguments.items()]
    log_file = folder / "train.log"
    lines: list[str] = []
    with (
        log_file.open("a", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-m", __name__, f"--device={kind}", *options],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                lines.append(line.rstrip())
                on_line(lines[-1])
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        last = "\n".join(lines[-LAST_LINES:])
        failure = OutOfMemoryError if re.search(_OUT_OF_MEMORY, last) else TrainingError
        raise failure(
            f"the MACE trainer ended with exit status {process.returncode} (full log: {log_file}); "
            f"its last lines:\n{last}"
        )
    return lines


def verify_log(
    lines: Sequence[str],
    *,
    isolated_energies: Mapping[int, float],
    n_train: int,
    n_valid: int,
    foundation_model: Path | None,
    n_replay: tuple[int, int] | None = None,
) -> None:
    """Check by the trainer's own words that it did what was asked; it warns where it should stop.

    Parameters
    ----------
    lines
        All lines of one run.
    isolated_energies
        Of the elements of the labels, by atomic number, eV.
    n_train, n_valid
        Labelled frames.
    foundation_model
        The model it was to start from.
    n_replay
        Replayed structures to train on and to validate on; None for no replay.

    Raises
    ------
    TrainingError
        Labels not found, other free-atom energies or frame counts used, the foundation model not
        loaded, its replay head trained unasked or left out, or stage two never reached.
    """
    text = "\n".join(lines)
    problems = [line for line in lines if re.search(r"No (energies|forces) found", line)]
    used = re.search(rf"Atomic Energies used \(z: eV\) for head {LABEL_HEAD}: (\{{.*\}})", text)
    if used is None:
        problems.append("it does not report the isolated energies it used")
    elif literal_eval(used.group(1)) != dict(isolated_energies):
        problems.append(
            f"it used the isolated energies {used.group(1)}, not {dict(isolated_energies)}"
        )
    counts = re.search(r"Total number of configurations: train=(\d+), valid=(\d+)", text)
    if counts is None or (int(counts.group(1)), int(counts.group(2))) != (n_train, n_valid):
        found = counts.group(0) if counts else "no count"
        problems.append(f"it read other frames than {n_train} + {n_valid}: {found}")
    loaded = "as initial checkpoint" in text
    if loaded != (foundation_model is not None):
        problems.append(f"it {'used a' if loaded else 'did not use the'} foundation model")
    heads = re.search(r"Using heads: (\[.*\])", text)
    replay = re.search(r"configurations in pretraining: train=(\d+), valid=(\d+)", text)
    if n_replay is None:
        if "Using multiheads finetuning mode" in text:
            problems.append("it trained with a replay head, which was not asked for")
    elif heads is None or set(literal_eval(heads.group(1))) != {LABEL_HEAD, REPLAY_HEAD}:
        problems.append(f"it trained no replay head: {heads.group(0) if heads else 'no heads'}")
    elif replay is None or (int(replay.group(1)), int(replay.group(2))) != n_replay:
        found = replay.group(0) if replay else "none"
        problems.append(f"it replayed other structures than {n_replay[0]} + {n_replay[1]}: {found}")
    if "Loaded Stage two model" not in text:
        problems.append("it never reached stage two, which converges the energies")
    if problems:
        raise TrainingError("the MACE trainer did not do what was asked:\n" + "\n".join(problems))


class _OutOfPatienceError(Exception):
    """The trainer has said that it stops."""


def _heeding_patience(train: Callable[..., None]) -> Callable[..., None]:
    """mace-torch's loop over the epochs, which then does stop when it says so.

    Version 0.3.16 breaks off only where several processes train together; alone it says so after
    every further epoch, and goes on. It says so when all is saved and nothing is half done.
    """

    def hear(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if re.fullmatch(_OUT_OF_PATIENCE, message):
            raise _OutOfPatienceError(message)
        return True

    def heeding(**arguments: Any) -> None:
        root = logging.getLogger()
        root.addFilter(hear)
        try:
            train(**arguments)
        except _OutOfPatienceError as stop:
            root.removeFilter(hear)
            root.info("%s", stop)
        finally:
            root.removeFilter(hear)

    return heeding


def main() -> None:
    """Train with the options of ``mace_run_train``; dies with the process that started it."""
    die_with_parent()
    from mace import tools
    from mace.cli.run_train import main as mace_run_train

    tools.train = _heeding_patience(tools.train)
    mace_run_train()


if __name__ == "__main__":
    main()
