"""Where calculations run: processes of this machine; the interface also fits cluster jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from mlip_assets.common.processes import resident_GiB


class Task(Protocol):
    """A started process or job."""

    def exit_code(self) -> int | None:
        """As of :class:`subprocess.Popen`: None while it runs, ``-n`` when signal n ended it."""

    def memory_GiB(self) -> float:
        """Resident memory, including all child processes."""

    def kill(self) -> None:
        """Kill it and all child processes, and wait until it has ended."""


class Compute(Protocol):
    """Runs Python modules, each in a folder that this process can read.

    A cluster is one more class: ``start`` submits a job that runs
    ``python -m <module> <arguments>`` in ``folder``, and the task polls the queue.
    """

    @property
    def n_workers(self) -> int:
        """Number of tasks that may run at the same time."""

    def start(self, module: str, folder: Path, log: Path) -> Task:
        """Run ``python -m module`` in ``folder`` with its output in ``log``.

        The task must end when the process that starts it ends.
        """


@dataclass(frozen=True)
class LocalProcesses:
    """Child processes on this machine, one core per process.

    Raises
    ------
    ValueError
        ``n_workers`` is not positive.
    """

    n_workers: int = 1

    def __post_init__(self) -> None:
        if self.n_workers < 1:
            raise ValueError(f"n_workers = {self.n_workers}; give at least 1")

    def start(self, module: str, folder: Path, log: Path) -> Task:
        """Start a child in a new session, so that what it starts can be killed with it."""
        packages = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, packages)),
            # one frame per core is faster than one frame on all cores
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        command: Sequence[str] = [sys.executable, "-m", module, str(os.getpid())]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return _LocalTask(process)


class _LocalTask:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def exit_code(self) -> int | None:
        return self._process.poll()

    def memory_GiB(self) -> float:
        return resident_GiB(self._process.pid)

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@dataclass(frozen=True)
class InProcess:
    """The calling process itself, for an engine that loads slower than it runs.

    A calculation has no limits of memory or time, and a crash ends the caller.
    """

    n_workers: int = 1

    def start(self, module: str, folder: Path, log: Path) -> Task:  # noqa: ARG002
        """Compute immediately, in ``folder``."""
        before = Path.cwd()
        os.chdir(folder)
        try:
            import_module(module).main(folder)
        finally:
            os.chdir(before)
        return _Ended()


class _Ended:
    def exit_code(self) -> int:
        return 0

    def memory_GiB(self) -> float:
        return 0.0

    def kill(self) -> None:
        """The calculation has already ended."""
