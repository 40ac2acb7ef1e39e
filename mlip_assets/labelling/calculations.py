"""Calculations in child processes: several at a time, each with limits and a folder."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms

from mlip_assets.common.files import write_text
from mlip_assets.compute.local import Compute, Task
from mlip_assets.labelling.budget import Budget
from mlip_assets.labelling.engines.engine import Attempt, Calculation, DftEngine, hash_of
from mlip_assets.labelling.ledger.label import Label
from mlip_assets.labelling.structure import to_plain
from mlip_assets.labelling.worker import JOB, LOG, RESULT, tail

WORKER = "mlip_assets.labelling.worker"
_POLL_INTERVAL_S = 0.05
_MEMORY_CHECK_INTERVAL_S = 0.5


@dataclass(frozen=True)
class Job:
    """One attempt to compute one structure.

    Attributes
    ----------
    key
        Key of the label.
    structure
        As the engine prepares it.
    attempt
        Number of this attempt, from 0.
    log
        The previous attempts.
    expected_core_hours
        Expected cost; None if unknown.
    """

    key: str
    structure: Atoms
    attempt: int = 0
    log: tuple[Attempt, ...] = ()
    expected_core_hours: float | None = None


class Calculations:
    """Runs jobs, each attempt in a separate child process.

    Parameters
    ----------
    engine
        The DFT program and its settings.
    folder
        Parent of the folder of each attempt, ``<key>/<attempt>``.
    compute
        Where the child processes run.
    budget
        Limits of calculations and core-hours; every calculation is counted in it.
    on_started
        Called with each job before its child process is started.

    Attributes
    ----------
    started
        Key of each child process started so far.
    """

    def __init__(
        self,
        engine: DftEngine,
        folder: Path,
        *,
        compute: Compute,
        budget: Budget,
        on_started: Callable[[Job], None],
    ) -> None:
        self._engine, self._folder = engine, folder
        self._compute, self._budget, self._on_started = compute, budget, on_started
        self.started: list[str] = []

    def run(self, jobs: Iterable[Job]) -> Generator[Label, None, None]:
        """Yield labels when they are finished, before the gates; skip jobs beyond the budget.

        A job is taken from the iterable only if a worker is free. An attempt that did not converge
        is followed by one with more robust numerical settings, at most ``engine.retries`` times. A
        result file of a run that was killed is used. Children that still run when the iterator is
        closed are killed.
        """
        retries: deque[Job] = deque()
        waiting = iter(jobs)
        running: list[_Child] = []
        try:
            while True:
                while len(running) < self._compute.n_workers:
                    job = retries.popleft() if retries else next(waiting, None)
                    if job is None:
                        break
                    child = _Child(job, self._engine, self._folder, self._compute)
                    if child.is_finished() or self._start(child):
                        running.append(child)
                if not running:
                    return
                finished = [child for child in running if child.is_finished()]
                for child in finished:
                    running.remove(child)
                    label = child.label()
                    if child.was_started:
                        spent_core_hours = label.attempts_log[-1].wall_s / 3600
                        self._budget.end(child.job.expected_core_hours, spent_core_hours)
                    if label.outcome == "not_converged" and label.attempts <= self._engine.retries:
                        retries.append(
                            replace(child.job, attempt=label.attempts, log=label.attempts_log)
                        )
                    else:
                        yield label
                if not finished:
                    time.sleep(_POLL_INTERVAL_S)
        finally:
            for child in running:
                child.kill()

    def allows(self, job: Job) -> bool:
        """Whether the budget allows this job, or a run that was killed has its result on disk."""
        result = self._folder / job.key / str(job.attempt) / RESULT
        return result.exists() or self._budget.allows(job.expected_core_hours)

    def remove_files(self, label: Label) -> None:
        """Remove the files of a committed label, except the raw output of a failure."""
        folder = self._folder / label.key
        if label.is_done:
            shutil.rmtree(folder, ignore_errors=True)
        for result in folder.glob(f"*/{RESULT}"):
            result.unlink()

    def _start(self, child: _Child) -> bool:
        job = child.job
        if not self._budget.allows(job.expected_core_hours):
            return False
        self._on_started(job)
        child.start()
        self._budget.start(job.expected_core_hours)
        self.started.append(job.key)
        return True


class _Child:
    """One attempt: its folder, its process and its result."""

    def __init__(self, job: Job, engine: DftEngine, folder: Path, compute: Compute) -> None:
        self.job = job
        self._engine, self._compute = engine, compute
        self._folder = folder / job.key / str(job.attempt)
        self._task: Task | None = None
        self._started = time.monotonic()
        self._exceeded: Literal["timeout", "memory"] | None = None
        self._memory_GiB = 0.0
        self._memory_checked_s = -_MEMORY_CHECK_INTERVAL_S

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
        self._task = self._compute.start(WORKER, self._folder, self._folder / LOG)
        self._started = time.monotonic()

    def is_finished(self) -> bool:
        """Whether the result is available; kills a child that exceeds a limit."""
        if self._task is None:
            return (self._folder / RESULT).exists()
        if self._task.exit_code() is None:
            self._exceeded = self._limit_exceeded()
            if self._exceeded:
                self.kill()
        return self._task.exit_code() is not None

    def _limit_exceeded(self) -> Literal["timeout", "memory"] | None:
        assert self._task is not None
        elapsed_s, limit_GiB = self._elapsed_s(), self._engine.memory_limit_GiB
        if elapsed_s > self._engine.timeout_s:
            return "timeout"
        if limit_GiB is None or elapsed_s < self._memory_checked_s + _MEMORY_CHECK_INTERVAL_S:
            return None
        self._memory_checked_s = elapsed_s
        self._memory_GiB = self._task.memory_GiB()
        return "memory" if self._memory_GiB > limit_GiB else None

    def kill(self) -> None:
        if self._task is not None:
            self._task.kill()

    @property
    def was_started(self) -> bool:
        """Whether this run started the process; otherwise the result is that of an earlier run."""
        return self._task is not None

    def label(self) -> Label:
        """The result as a label, before the gates."""
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
        attempt = Attempt(
            number=self.job.attempt,
            numerics=dict(self._engine.numerics(self.job.attempt)),
            outcome=result["outcome"],
            reason=reason,
            wall_s=result["wall_s"],
            timeout_s=self._engine.timeout_s,
            memory_limit_GiB=self._engine.memory_limit_GiB,
        )
        log = (*self.job.log, attempt)
        return Label(
            key=self.job.key,
            engine=self._engine.name,
            settings_hash=hash_of(self._engine),
            outcome=result["outcome"],
            reason=reason,
            attempts=self.job.attempt + 1,
            wall_s=sum(entry.wall_s for entry in log),
            timeout_s=self._engine.timeout_s,
            program=result["program"],
            calculation=calculation,
            attempts_log=log,
        )

    def _result(self) -> dict[str, Any]:
        file = self._folder / RESULT
        if file.exists():
            result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return result
        assert self._task is not None
        failure: dict[str, Any] = {"program": self._engine.name, "wall_s": self._elapsed_s()}
        if self._exceeded:
            limit = {
                "timeout": f"took longer than timeout_s = {self._engine.timeout_s:g} s",
                "memory": f"used {self._memory_GiB:.2f} GiB of memory, more than memory_limit_GiB = "
                f"{self._engine.memory_limit_GiB}",
            }[self._exceeded]
            output = tail(self._folder / self._engine.output)
            return {**failure, "outcome": self._exceeded, "reason": f"{limit}; {output}"}
        code = self._task.exit_code()
        assert code is not None
        ending = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended without a result, exit status {code}"
        )
        reason = f"the process {ending}; {tail(self._folder / LOG)}"
        return {**failure, "outcome": "died", "reason": reason}

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started
