"""Scheduling of labels: reuse from the ledger, claims, calculations, gates and commits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from math import inf

from ase import Atoms

from mlip_assets.campaign import GateSettings
from mlip_assets.common.progress import Progress, ProgressReport
from mlip_assets.compute.local import Compute
from mlip_assets.labelling.budget import Budget
from mlip_assets.labelling.calculations import Calculations, Job
from mlip_assets.labelling.cost import MAX_TIMINGS, CostModel
from mlip_assets.labelling.engines.engine import DftEngine, hash_of
from mlip_assets.labelling.gates import gate_calculation
from mlip_assets.labelling.ledger.claims import Claim
from mlip_assets.labelling.ledger.label import Entry, Label
from mlip_assets.labelling.ledger.ledger import LabelLedger

_log = logging.getLogger(__name__)

#: How often to look for labels that another process has claimed.
_CLAIM_POLL_S = 0.5
#: How often to report progress or waiting; a label takes seconds to hours.
_REPORT_INTERVAL_S = 10.0


class LabelScheduler:
    """Finds labels in the ledger, computes the missing ones, applies the gates and commits them.

    Parameters
    ----------
    engine
        The DFT program and its settings.
    ledger
        Where labels are stored.
    compute
        Where calculations run.
    budget
        Limits of calculations and core-hours.
    gates
        Limits of accepted calculations.
    retry_failed
        Compute again what failed before.
    on_finished
        Called with each label that is committed.
    on_progress
        Called with the progress every few seconds.

    Attributes
    ----------
    labels
        Labels by key, after the gates; without those that the budget does not allow.
    missing
        Keys to compute, or to wait for.
    """

    def __init__(
        self,
        engine: DftEngine,
        ledger: LabelLedger,
        compute: Compute,
        budget: Budget,
        gates: GateSettings,
        *,
        retry_failed: bool = False,
        on_finished: Callable[[Label], None] | None = None,
        on_progress: Callable[[ProgressReport], None] | None = None,
    ) -> None:
        self._engine, self._ledger, self._budget, self._gates = engine, ledger, budget, gates
        self._calculations = Calculations(
            engine,
            ledger.calculations,
            compute=compute,
            budget=budget,
            on_started=lambda job: ledger.record_start(job.key, job.attempt),
        )
        self._settings_hash = hash_of(engine)
        self._retry_failed = retry_failed
        self._on_finished, self._on_progress = on_finished, on_progress
        self._structures: dict[str, Atoms] = {}
        self._rows_seen: dict[str, int] = {}
        self._claims: dict[str, Claim] = {}
        self._cost: CostModel | None = None
        self.labels: dict[str, Label] = {}
        self.missing: list[str] = []

    @property
    def settings_hash(self) -> str:
        """SHA-256 of the engine's physics."""
        return self._settings_hash

    @property
    def started(self) -> list[str]:
        """Key of each calculation that was started."""
        return self._calculations.started

    @property
    def spent_core_hours(self) -> float:
        """Core-hours of the calculations that ended."""
        return self._budget.spent_core_hours

    def register(self, frames: Sequence[Atoms]) -> list[Entry]:
        """Register in the ledger the structures that the engine computes for these frames."""
        structures = [self._engine.prepare(atoms) for atoms in frames]
        entries = self._ledger.register(structures, self._engine.name, self._settings_hash)
        self._structures.update((entry.key, entry.structure) for entry in entries)
        return entries

    def find_cached(self, entries: Sequence[Entry]) -> float | None:
        """Fill ``labels`` from the ledger, and ``missing`` with the other keys.

        Returns
        -------
        float or None
            Expected core-hours of the missing labels; None if there are too few timings, or if none
            is missing.
        """
        self.missing = []
        for key in dict.fromkeys(entry.key for entry in entries):
            label = self._ledger.find(key)
            self._rows_seen[key] = label.row if label else 0
            if label and self._next_attempt(label) is None:
                self.labels[key] = self._apply_gates(label)
            else:
                self.missing.append(key)
        timings = self._ledger.timings(self._engine.name, self._settings_hash, MAX_TIMINGS)
        self._cost = CostModel.fit(list(timings), self._engine.physics) if self.missing else None
        if self._cost is None:
            return None
        return sum(self._cost.core_hours(self._structures[key]) for key in self.missing)

    def run_missing(self) -> None:
        """Compute the missing labels, and wait for those that other processes compute."""
        if not self.missing:
            return
        progress = Progress(
            "DFT",
            len(self.missing) + len(self.labels),
            "labels",
            already_done=len(self.labels),
            every_s=_REPORT_INTERVAL_S,
            on_progress=self._on_progress,
        )
        last_report = -inf
        while self.missing:
            self.missing = self._compute(self.missing, progress)
            if not self.missing:
                return
            if time.monotonic() - last_report > _REPORT_INTERVAL_S:
                last_report = time.monotonic()
                holders = sorted({self._ledger.claim_holder(key) for key in self.missing})
                _log.info(
                    "waiting for %d labels that are being computed by %s",
                    len(self.missing),
                    ", ".join(holders),
                )
            time.sleep(_CLAIM_POLL_S)

    def _compute(self, keys: list[str], progress: Progress) -> list[str]:
        """Compute the keys that no other process has claimed; returns the claimed ones."""
        claimed_elsewhere: list[str] = []
        jobs = self._jobs(keys, claimed_elsewhere, progress)
        try:
            with closing(self._calculations.run(jobs)) as finished:
                for label in finished:
                    self._commit(self._apply_gates(label))
                    progress.advance()
        finally:
            for claim in self._claims.values():
                claim.release()
            self._claims.clear()
        return claimed_elsewhere

    def _commit(self, label: Label) -> None:
        self.labels[label.key] = label
        structure = self._structures[label.key]
        self._ledger.commit(label, structure, settings=dict(self._engine.physics))
        self._calculations.remove_files(label)
        self._claims.pop(label.key).release()
        if not label.is_done:
            _log.warning("%s failed: %s", label.key[:12], label.reason)
        if self._on_finished:
            self._on_finished(label)

    def _jobs(
        self, keys: list[str], claimed_elsewhere: list[str], progress: Progress
    ) -> Iterator[Job]:
        """Claim and yield jobs, each when a worker is free; collects keys claimed elsewhere."""
        for key in keys:
            claim = self._ledger.claim(key)
            if claim is None:
                claimed_elsewhere.append(key)
                continue
            self._claims[key] = claim
            label = self._ledger.find(key)
            attempt = self._next_attempt(label) if label else 0
            is_new = label is not None and label.row > self._rows_seen[key]
            if label and (attempt is None or (is_new and attempt == 0)):
                # another process committed it after find_cached
                self.labels[key] = self._apply_gates(label)
                progress.skip(1)
            else:
                job = Job(
                    key,
                    self._structures[key],
                    attempt or 0,
                    label.attempts_log if label and attempt else (),
                    self._cost.core_hours(self._structures[key]) if self._cost else None,
                )
                if self._calculations.allows(job):
                    yield job
                    continue
            self._claims.pop(key).release()

    def _next_attempt(self, label: Label) -> int | None:
        """Number of the attempt to make now; None to use the label or failure as it is."""
        if label.is_done:
            return None
        if label.outcome == "not_converged" and label.attempts <= self._engine.retries:
            return label.attempts
        more_time = label.outcome == "timeout" and label.timeout_s < self._engine.timeout_s
        more_memory = label.outcome == "memory" and (self._engine.memory_limit_GiB or inf) > (
            label.attempts_log[-1].memory_limit_GiB or inf
        )
        repeat = self._retry_failed or label.outcome == "died" or more_time or more_memory
        return 0 if repeat else None

    def _apply_gates(self, label: Label) -> Label:
        """The label, accepted or rejected by the gates of this call."""
        if label.calculation is None:
            return label
        limit = self._engine.max_net_force_eV_per_A
        reason = gate_calculation(label.calculation, self._gates, limit)
        return replace(label, outcome="refused" if reason else "done", reason=reason or "")
