"""Calculations in child processes: several at a time, each with a time limit and its own folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

import mlip_assets
from mlip_assets.files import write_text
from mlip_assets.labelling.engines import Calculation, DftEngine, hash_of
from mlip_assets.labelling.ledger import Label
from mlip_assets.labelling.structure import to_plain
from mlip_assets.labelling.worker import JOB, LOG, RESULT, tail

_LOOKED_AT_EVERY_S = 0.05


@dataclass(frozen=True)
class Job:
    """One attempt at one structure; ``spent_s`` is what the attempts before it took."""

    key: str
    structure: Atoms
    attempt: int = 0
    spent_s: float = 0.0


class Calculations:
    """Runs jobs, each attempt in a child process of its own.

    Attributes
    ----------
    started
        Key of each child process started so far, never more than ``budget``.
    """

    def __init__(
        self, engine: DftEngine, folder: Path, *, n_workers: int, budget: int | None
    ) -> None:
        self._engine, self._folder = engine, folder
        self._n_workers, self._budget = n_workers, budget
        self.started: list[str] = []

    def run(self, jobs: Iterable[Job]) -> Generator[Label, None, None]:
        """Labels as they are finished, not judged yet; jobs beyond the budget are left out.

        An attempt that did not converge is followed by one with safer numerics, until
        ``engine.retries`` are used up. A result that a killed run left behind is taken as it is.
        Children still running when the iterator is closed are killed.
        """
        waiting = deque(jobs)
        running: list[_Child] = []
        try:
            while waiting or running:
                while waiting and len(running) < self._n_workers:
                    child = _Child(waiting.popleft(), self._engine, self._folder)
                    if child.is_finished() or self._start(child):
                        running.append(child)
                for child in [child for child in running if child.is_finished()]:
                    running.remove(child)
                    label = child.label()
                    if label.outcome == "not_converged" and label.attempts <= self._engine.retries:
                        again = replace(child.job, attempt=label.attempts, spent_s=label.wall_s)
                        waiting.appendleft(again)
                    else:
                        yield label
                if running:
                    time.sleep(_LOOKED_AT_EVERY_S)
        finally:
            for child in running:
                child.kill()

    def clear(self, label: Label) -> None:
        """Forget what a filed label left in the folder, but for the raw output of a failure."""
        folder = self._folder / label.key
        if label.is_done:
            shutil.rmtree(folder, ignore_errors=True)
        for result in folder.glob(f"*/{RESULT}"):
            result.unlink()

    def _start(self, child: _Child) -> bool:
        if self._budget is not None and len(self.started) >= self._budget:
            return False
        child.start()
        self.started.append(child.job.key)
        return True


class _Child:
    """One attempt: its folder, its process, and what came of it."""

    def __init__(self, job: Job, engine: DftEngine, folder: Path) -> None:
        self.job = job
        self._engine = engine
        self._folder = folder / job.key / str(job.attempt)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = time.monotonic()
        self._timed_out = False

    def start(self) -> None:
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir(parents=True)
        job = {
            "module": type(self._engine).__module__,
            "class": type(self._engine).__qualname__,
            "fields": asdict(self._engine),
            "structure": to_plain(self.job.structure),
            "attempt": self.job.attempt,
        }
        write_text(self._folder / JOB, json.dumps(job))
        packages = [str(Path(mlip_assets.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, packages)),
            # one frame a core is faster than one frame on all
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        with (self._folder / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlip_assets.labelling.worker", str(os.getpid())],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that what it starts in turn can be killed with it
            )
        self._started = time.monotonic()

    def is_finished(self) -> bool:
        """Whether there is something to report; kills a child that is over its time."""
        if self._process is None:
            return (self._folder / RESULT).exists()
        if self._process.poll() is None and self._elapsed_s() > self._engine.timeout_s:
            self._timed_out = True
            self.kill()
        return self._process.poll() is not None

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def label(self) -> Label:
        """The raw result as a label."""
        result = self._result()
        reason = result["reason"]
        if reason:
            reason = f"{reason}; see {self._folder.relative_to(self._folder.parents[2])}"
        calculation = None
        if result["outcome"] == "done":
            stress = result["stress"]
            calculation = Calculation(
                energy_eV=result["energy_eV"],
                forces=np.asarray(result["forces"]),
                stress=None if stress is None else np.asarray(stress),
            )
        return Label(
            key=self.job.key,
            engine=self._engine.name,
            settings_hash=hash_of(self._engine),
            outcome=result["outcome"],
            reason=reason,
            attempts=self.job.attempt + 1,
            wall_s=self.job.spent_s + result["wall_s"],
            timeout_s=self._engine.timeout_s,
            program=result["program"],
            calculation=calculation,
        )

    def _result(self) -> dict[str, Any]:
        file = self._folder / RESULT
        if file.exists():
            result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return result
        assert self._process is not None
        ending: dict[str, Any] = {"program": self._engine.name, "wall_s": self._elapsed_s()}
        if self._timed_out:
            reason = (
                f"took longer than timeout_s = {self._engine.timeout_s:g} s; "
                f"{tail(self._folder / self._engine.output)}"
            )
            return {**ending, "outcome": "timeout", "reason": reason}
        code = self._process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        reason = f"the process died of {how}; {tail(self._folder / LOG)}"
        return {**ending, "outcome": "died", "reason": reason}

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started
