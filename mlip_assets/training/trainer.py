"""MACE's own trainer as a child process: ``python -m mlip_assets.training.trainer --name …``.

In a process of its own because the trainer changes torch's default precision, seeds the global
random generators and adds handlers to the root logger.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mlip_assets.processes import die_with_parent

LAST_LINES = 25


class TrainingError(RuntimeError):
    """The trainer failed, or did something else than it was asked to."""


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
    TrainingError
        The trainer ended with an error; the message holds its last lines.
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
        raise TrainingError(
            f"the MACE trainer ended with exit status {process.returncode} (full log: {log_file}); "
            "its last lines:\n" + "\n".join(lines[-LAST_LINES:])
        )
    return lines


def verify_log(
    lines: Sequence[str],
    *,
    isolated_energies: Mapping[int, float],
    n_train: int,
    n_valid: int,
    foundation_model: Path | None,
) -> None:
    """Check by the trainer's own words that it did what was asked; it warns where it should stop.

    Raises
    ------
    TrainingError
        Labels not found, other free-atom energies or frame counts used, the foundation model not
        loaded or its replay head trained, or stage two never reached.
    """
    text = "\n".join(lines)
    problems = [line for line in lines if re.search(r"No (energies|forces) found", line)]
    used = re.search(r"Atomic Energies used \(z: eV\) for head \S+: (\{.*\})", text)
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
    if "Using multiheads finetuning mode" in text:
        problems.append("it trained with a replay head, which was not asked for")
    if "Loaded Stage two model" not in text:
        problems.append("it never reached stage two, which converges the energies")
    if problems:
        raise TrainingError("the MACE trainer did not do what was asked:\n" + "\n".join(problems))


def main() -> None:
    """Train with the options of ``mace_run_train``; dies with the process that started it."""
    die_with_parent()
    from mace.cli.run_train import main as mace_run_train

    mace_run_train()


if __name__ == "__main__":
    main()
