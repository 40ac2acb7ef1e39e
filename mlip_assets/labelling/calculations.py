"""Calculations in child processes: several at a time, each with its limits and its own folder."""

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
from mlip_assets.labelling.ledger.ledger import Label
from mlip_assets.labelling.structure import to_plain
from mlip_assets.labelling.worker import JOB, LOG, RESULT, tail

WORKER = "mlip_assets.labelling.worker"
_LOOKED_AT_EVERY_S = 0.05
_WEIGHED_EVERY_S = 0.5


@dataclass(frozen=True)
class Job:
    """One attempt at one structure.

    Attributes
    ----------
    log
        Of the attempts before it.
    expected_core_hours
        What it is expected to cost; None where that is not known.
    """

    key: str
    structure: Atoms
    attempt: int = 0
    log: tuple[Attempt, ...] = ()
    expected_core_hours: float | None = None


class Calculations:
    """Runs jobs, each attempt in a child process of its own.

    Parameters
    ----------
    engine
        What computes.
    folder
        Where each attempt gets a folder, ``<key>/<attempt>``.
    compute
        Where the child processes run.
    budget
        What may be spent; counts what is.
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
        """Labels as they are finished, not judged yet; jobs beyond the budget are left out.

        A job is taken from the iterable only when there is a worker for it. An attempt that did not
        converge is followed by one with safer numerics, until ``engine.retries`` are used up. A
        result that a killed run left behind is taken as it is. Children still running when the
        iterator is closed are killed.
        """
        again: deque[Job] = deque()
        waiting = iter(jobs)
        running: list[_Child] = []
        try:
            while True:
                while len(running) < self._compute.n_workers:
                    job = again.popleft() if again else next(waiting, None)
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
                        again.append(
                            replace(child.job, attempt=label.attempts, log=label.attempts_log)
                        )
                    else:
                        yield label
                if not finished:
                    time.sleep(_LOOKED_AT_EVERY_S)
        finally:
            for child in running:
                child.kill()

    def affords(self, job: Job) -> bool:
        """Whether the budget reaches this job, or a killed run has left its result behind."""
        left_behind = self._folder_of(job) / RESULT
        return left_behind.exists() or self._budget.affords(job.expected_core_hours)

    def clear(self, label: Label) -> None:
        """Forget what a filed label left in the folder, but for the raw output of a failure."""
        folder = self._folder / label.key
        if label.is_done:
            shutil.rmtree(folder, ignore_errors=True)
        for result in folder.glob(f"*/{RESULT}"):
            result.unlink()

    def _start(self, child: _Child) -> bool:
        job = child.job
        if not self._budget.affords(job.expected_core_hours):
            return False
        self._on_started(job)
        child.start()
        self._budget.start(job.expected_core_hours)
        self.started.append(job.key)
        return True

    def _folder_of(self, job: Job) -> Path:
        return self._folder / job.key / str(job.attempt)


class _Child:
    """One attempt: its folder, its process, and what came of it."""

    def __init__(self, job: Job, engine: DftEngine, folder: Path, compute: Compute) -> None:
        self.job = job
        self._engine, self._compute = engine, compute
        self._folder = folder / job.key / str(job.attempt)
        self._task: Task | None = None
        self._started = time.monotonic()
        self._exceeded: Literal["timeout", "memory"] | None = None
        self._memory_GiB = 0.0
        self._weighed = -_WEIGHED_EVERY_S

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
        """Whether there is something to report; kills a child that is over a limit."""
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
        if limit_GiB is None or elapsed_s < self._weighed + _WEIGHED_EVERY_S:
            return None
        self._weighed = elapsed_s
        self._memory_GiB = self._task.memory_GiB()
        return "memory" if self._memory_GiB > limit_GiB else None

    def kill(self) -> None:
        if self._task is not None:
            self._task.kill()

    @property
    def was_started(self) -> bool:
        """Whether this run has started it; the result may be an earlier run's."""
        return self._task is not None

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
        ending: dict[str, Any] = {"program": self._engine.name, "wall_s": self._elapsed_s()}
        if self._exceeded:
            limit = {
                "timeout": f"took longer than timeout_s = {self._engine.timeout_s:g} s",
                "memory": f"took {self._memory_GiB:.2f} GiB of memory, more than memory_limit_GiB = "
                f"{self._engine.memory_limit_GiB}",
            }[self._exceeded]
            output = tail(self._folder / self._engine.output)
            return {**ending, "outcome": self._exceeded, "reason": f"{limit}; {output}"}
        code = self._task.exit_code()
        assert code is not None
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        reason = f"the process died of {how}; {tail(self._folder / LOG)}"
        return {**ending, "outcome": "died", "reason": reason}

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started
