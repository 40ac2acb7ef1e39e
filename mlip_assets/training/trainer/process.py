"""The trainer of mace-torch in a child process: ``python -m mlip_assets.training.trainer.process``.

It needs a separate process: the trainer changes torch's default precision, seeds the global random
generators and adds handlers to the root logger.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlip_assets.common.processes import die_with_parent

#: Starts the trainer; its options follow.
COMMAND = (sys.executable, "-m", "mlip_assets.training.trainer.process")
N_LAST_LINES = 25
_OUT_OF_MEMORY = r"OutOfMemoryError|CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED"
_OUT_OF_PATIENCE = r"Stopping optimization after \d+ epochs without improvement"


class TrainingError(RuntimeError):
    """The trainer failed, or its training is not the requested one."""


class OutOfMemoryError(TrainingError):
    """The batch does not fit into the memory of the GPU."""


def run_trainer(
    arguments: Mapping[str, object],
    folder: Path,
    *,
    device: str,
    on_line: Callable[[str], None],
) -> list[str]:
    """Run ``mace_run_train`` in ``folder`` until it ends; ``folder/train.log`` keeps its output.

    Parameters
    ----------
    arguments
        Long options of the trainer; ``True`` stands for an option without a value.
    folder
        Working directory of the process.
    device
        ``cpu`` (one thread), ``cuda`` or ``cuda:1``.
    on_line
        Called with each line as soon as it is printed. If it raises, the process is killed.

    Returns
    -------
    list[str]
        All lines of this process.

    Raises
    ------
    OutOfMemoryError
        The memory of the GPU is too small for the batch.
    TrainingError
        The process ended with another error; the message contains its last lines.
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
            [*COMMAND, f"--device={kind}", *options],
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
        last = "\n".join(lines[-N_LAST_LINES:])
        failure = OutOfMemoryError if re.search(_OUT_OF_MEMORY, last) else TrainingError
        raise failure(
            f"the MACE trainer ended with exit status {process.returncode} (full log: {log_file}); "
            f"its last lines:\n{last}"
        )
    return lines


class _OutOfPatienceError(Exception):
    """The trainer has logged that it stops."""


def _with_early_stopping(train: Callable[..., None]) -> Callable[..., None]:
    """Make the epoch loop of mace-torch end when it logs that it stops.

    Version 0.3.16 leaves the loop only where several processes train together. A single process
    logs the message after every further epoch and continues. At the time of the message the epoch
    is complete and its checkpoint is saved.
    """

    def stop_at_message(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if re.fullmatch(_OUT_OF_PATIENCE, message):
            raise _OutOfPatienceError(message)
        return True

    def train_until_message(**arguments: Any) -> None:
        root = logging.getLogger()
        root.addFilter(stop_at_message)
        try:
            train(**arguments)
        except _OutOfPatienceError as stop:
            root.removeFilter(stop_at_message)
            root.info("%s", stop)
        finally:
            root.removeFilter(stop_at_message)

    return train_until_message


def main() -> None:
    """Train with the options of ``mace_run_train``; ends when the parent process ends."""
    die_with_parent()
    from mace import tools
    from mace.cli.run_train import main as mace_run_train

    tools.train = _with_early_stopping(tools.train)
    mace_run_train()


if __name__ == "__main__":
    main()
