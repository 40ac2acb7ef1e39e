"""Frames in, labels out: what the ledger knows is reused, and only the rest is computed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from math import inf

from ase import Atoms
from ase.data import atomic_numbers, ground_state_magnetic_moments

from mlip_assets.campaign import GateSettings
from mlip_assets.common.progress import Progress, Standing
from mlip_assets.compute.local import Compute, LocalProcesses
from mlip_assets.labelling.budget import Budget
from mlip_assets.labelling.calculations import Calculations, Job
from mlip_assets.labelling.cost import MAX_TIMINGS, CostModel
from mlip_assets.labelling.database import Failure, LabelledDatabase, labelled_frame
from mlip_assets.labelling.engines.engine import DftEngine, hash_of
from mlip_assets.labelling.gates import energy_outliers, flaw_of_label, refusals
from mlip_assets.labelling.ledger.claims import Claim
from mlip_assets.labelling.ledger.ledger import Entry, Label, LabelLedger
from mlip_assets.labelling.structure import ISOLATED

_log = logging.getLogger(__name__)

#: How often to ask whether another process has finished what it has claimed, and to say so; the
#: second is also how often progress is told, as labels take seconds to hours each.
_ASKED_EVERY_S, _TOLD_EVERY_S = 0.5, 10.0


def label_frames(
    frames: Sequence[Atoms],
    engine: DftEngine,
    ledger: LabelLedger,
    *,
    n_workers: int = 1,
    compute: Compute | None = None,
    budget: int | None = None,
    budget_core_hours: float | None = None,
    gates: GateSettings | None = None,
    retry_failed: bool = False,
    on_finished: Callable[[Label], None] | None = None,
    on_told: Callable[[Standing], None] | None = None,
) -> LabelledDatabase:
    """Label frames, and the free atom of each of their elements, by density-functional theory.

    A label that is finished is committed to the ledger at once and is never computed again, here or
    in another process: what another is busy with is waited for. One that fails is committed with
    its reason, and the others go on; it is computed again only where that could end otherwise: the
    process had died, more time, memory or attempts are now allowed, or ``retry_failed``. Numbers
    that were refused are kept, and judged anew by each call. Free atoms come first, in the spin
    state of Hund's rules, or unpolarised where that fails.

    Parameters
    ----------
    frames
        ``info`` may hold ``frame_id`` (else the position in the sequence) and anything else, all
        of which is kept on the labelled frame.
    engine
        The DFT program with its settings.
    ledger
        Where labels are kept. Any number of calls in any number of processes may share it.
    n_workers
        Calculations at the same time, each a child process on one core.
    compute
        Where calculations run, in place of ``n_workers`` processes of this machine.
    budget
        Most DFT calls to make, further attempts and free atoms included; None for no limit.
    budget_core_hours
        Most core-hours to spend; None for no limit.
    gates
        What is not computed, and what is refused afterwards; None for the defaults.
    retry_failed
        Compute again what failed before.
    on_finished
        Called with each label that this call has committed.
    on_told
        Called with how things stand, every few seconds.

    Raises
    ------
    EngineError
        The engine, or its data for an element, is not installed; nothing was computed.
    OSError
        Nothing can be written, because the disk is full; the message names the file.
    ValueError
        ``n_workers`` is not positive.
    """
    compute = compute or LocalProcesses(n_workers)
    gates = gates or GateSettings()
    started = time.monotonic()
    symbols = sorted({s for atoms in frames for s in atoms.symbols}, key=atomic_numbers.__getitem__)
    engine.check(symbols)
    spending = Budget(budget, budget_core_hours)
    clerk = _Clerk(engine, ledger, compute, spending, gates, retry_failed, on_finished, on_told)

    reasons = refusals(frames, gates)
    entries = clerk.take([atoms for atoms, why in zip(frames, reasons, strict=True) if not why])
    # frames in their order; None where refused
    taken = iter(entries)
    known_as = [None if why else next(taken) for why in reasons]
    free = dict(zip(symbols, clerk.take([free_atom(s) for s in symbols]), strict=True))
    wanted = [*free.values(), *entries]
    expected_core_hours = clerk.look_up(wanted)
    _log.info(
        "%d frames: %d refused by gates, %d equal to another; %d labels known, %d to compute%s",
        len(frames),
        len(frames) - len(entries),
        len(entries) - len({entry.key for entry in entries}),
        len(clerk.labels),
        len(clerk.missing),
        "" if expected_core_hours is None else f" in about {expected_core_hours:.2g} core-hours",
    )
    clerk.settle()
    for symbol, entry in free.items():
        label = clerk.labels.get(entry.key)
        if label is None or label.is_done:
            continue
        _log.warning("%s atom: no label with Hund's rules (%s)", symbol, label.reason)
        (free[symbol],) = clerk.take([free_atom(symbol, polarised=False)])
        if free[symbol].key != entry.key:
            clerk.look_up([free[symbol]])
            clerk.settle()

    labelled, labelled_ids, failed, deferred = [], [], [], []
    for index, (atoms, why, found) in enumerate(zip(frames, reasons, known_as, strict=True)):
        frame_id = int(atoms.info.get("frame_id", index))
        label = clerk.labels.get(found.key) if found else None
        if why or found is None:
            failed.append(_refused(frame_id, "", why or "", 0))
        elif label is None:
            deferred.append(frame_id)
        elif label.is_done:
            config_type = atoms.info.get("config_type", "Default")
            labelled.append(_labelled(atoms, label, found, config_type))
            labelled_ids.append(frame_id)
        elif label.outcome == "refused":
            failed.append(_refused(frame_id, found.key, label.reason, label.attempts))
        else:
            failed.append(
                Failure(frame_id, found.key, label.reason, label.attempts, kind=label.outcome)
            )
    isolated = [
        _labelled(entry.structure, clerk.labels[entry.key], entry, ISOLATED)
        for entry in free.values()
        if entry.key in clerk.labels and clerk.labels[entry.key].is_done
    ]
    used = [clerk.labels[atoms.info["label_key"]] for atoms in (*labelled, *isolated)]
    new = {label.key: label for label in used if label.key in clerk.started}
    database = LabelledDatabase(
        labelled=labelled,
        isolated=isolated,
        failed=failed,
        deferred=deferred,
        n_calculated=len(clerk.started),
        n_reused=len(used) - len(new),
        wall_s=time.monotonic() - started,
        settings_hash=hash_of(engine),
        n_duplicates=len(entries) - len({entry.key for entry in entries}),
        core_hours_spent=spending.spent_core_hours,
        core_hours_reused=(
            sum(label.wall_s for label in used) - sum(label.wall_s for label in new.values())
        )
        / 3600,
        expected_core_hours=expected_core_hours,
    )
    database = _without_outliers(database, labelled_ids, clerk.labels, gates)
    _log.info(
        "%d frames: %d labelled, %d failed, %d deferred; %d DFT calls made, %d saved",
        len(frames),
        len(database.labelled),
        len(database.failed),
        len(deferred),
        database.n_calculated,
        database.n_reused,
    )
    return database


def free_atom(symbol: str, *, polarised: bool = True) -> Atoms:
    """One atom in empty space, in the spin state of Hund's rules or without spin."""
    moment = ground_state_magnetic_moments[atomic_numbers[symbol]] if polarised else 0.0
    return Atoms(symbol, magmoms=[moment])


class _Clerk:
    """Looks labels up in the ledger, has the missing ones computed, judges and files them.

    Attributes
    ----------
    labels
        What is known, by key; of the missing, those that the budget does not reach stay out.
    missing
        Keys that are to be computed, or waited for.
    """

    def __init__(
        self,
        engine: DftEngine,
        ledger: LabelLedger,
        compute: Compute,
        budget: Budget,
        gates: GateSettings,
        retry_failed: bool,
        on_finished: Callable[[Label], None] | None,
        on_told: Callable[[Standing], None] | None,
    ) -> None:
        self._engine, self._ledger, self._gates = engine, ledger, gates
        self._calculations = Calculations(
            engine,
            ledger.calculations,
            compute=compute,
            budget=budget,
            on_started=lambda job: ledger.start(job.key, job.attempt),
        )
        self._settings_hash = hash_of(engine)
        self._retry_failed = retry_failed
        self._on_finished, self._on_told = on_finished, on_told
        self._structures: dict[str, Atoms] = {}
        self._seen: dict[str, int] = {}
        self._claims: dict[str, Claim] = {}
        self._cost: CostModel | None = None
        self.labels: dict[str, Label] = {}
        self.missing: list[str] = []

    @property
    def started(self) -> list[str]:
        """Key of each calculation this call has started."""
        return self._calculations.started

    def take(self, frames: Sequence[Atoms]) -> list[Entry]:
        """How the ledger knows what would be computed for these atoms."""
        structures = [self._engine.prepare(atoms) for atoms in frames]
        entries = self._ledger.register(structures, self._engine.name, self._settings_hash)
        self._structures.update((entry.key, entry.structure) for entry in entries)
        return entries

    def look_up(self, entries: Sequence[Entry]) -> float | None:
        """Fill in ``labels`` and ``missing``; gives the core-hours that the missing may take."""
        self.missing = []
        for key in dict.fromkeys(entry.key for entry in entries):
            known = self._ledger.find(key)
            self._seen[key] = known.row if known else 0
            if known and self._next_attempt(known) is None:
                self.labels[key] = self._judged(known)
            else:
                self.missing.append(key)
        timings = self._ledger.finished(self._engine.name, self._settings_hash, MAX_TIMINGS)
        self._cost = CostModel.fit(list(timings), self._engine.physics) if self.missing else None
        if self._cost is None:
            return None
        return sum(self._cost.core_hours(self._structures[key]) for key in self.missing)

    def settle(self) -> None:
        """Compute what is missing, and wait for what others compute."""
        if not self.missing:
            return
        progress = Progress(
            "DFT",
            len(self.missing) + len(self.labels),
            "labels",
            already_done=len(self.labels),
            every_s=_TOLD_EVERY_S,
            on_told=self._on_told,
        )
        told = -inf
        while self.missing:
            self.missing = self._compute(self.missing, progress)
            if not self.missing:
                return
            if time.monotonic() - told > _TOLD_EVERY_S:
                told = time.monotonic()
                holders = sorted({self._ledger.claimed_by(key) for key in self.missing})
                _log.info(
                    "waiting for %d labels that are being computed by %s",
                    len(self.missing),
                    ", ".join(holders),
                )
            time.sleep(_ASKED_EVERY_S)

    def _compute(self, keys: list[str], progress: Progress) -> list[str]:
        """Compute what nobody else has claimed; gives the keys that somebody has."""
        elsewhere: list[str] = []
        try:
            with closing(self._calculations.run(self._jobs(keys, elsewhere, progress))) as finished:
                for raw in finished:
                    label = self.labels[raw.key] = self._judged(raw)
                    structure = self._structures[label.key]
                    self._ledger.commit(label, structure, settings=dict(self._engine.physics))
                    self._calculations.clear(label)
                    self._claims.pop(label.key).release()
                    progress.advance()
                    if not label.is_done:
                        _log.warning("%s failed: %s", label.key[:12], label.reason)
                    if self._on_finished:
                        self._on_finished(label)
        finally:
            for claim in self._claims.values():
                claim.release()
            self._claims.clear()
        return elsewhere

    def _jobs(self, keys: list[str], elsewhere: list[str], progress: Progress) -> Iterator[Job]:
        """What to compute next, claimed; taken when there is a worker for it."""
        for key in keys:
            claim = self._ledger.claim(key)
            if claim is None:
                elsewhere.append(key)
                continue
            self._claims[key] = claim
            known = self._ledger.find(key)
            attempt = self._next_attempt(known) if known else 0
            is_news = known is not None and known.row > self._seen[key]
            if known and (attempt is None or (is_news and attempt == 0)):
                self.labels[key] = self._judged(known)  # another process was faster
                progress.skip(1)
            else:
                job = Job(
                    key,
                    self._structures[key],
                    attempt or 0,
                    known.attempts_log if known and attempt else (),
                    self._cost.core_hours(self._structures[key]) if self._cost else None,
                )
                if self._calculations.affords(job):
                    yield job
                    continue
            self._claims.pop(key).release()

    def _next_attempt(self, known: Label) -> int | None:
        """The attempt to make now, or None to leave the label as it is."""
        if known.is_done:
            return None
        if known.outcome == "not_converged" and known.attempts <= self._engine.retries:
            return known.attempts
        more_time = known.outcome == "timeout" and known.timeout_s < self._engine.timeout_s
        more_memory = known.outcome == "memory" and (self._engine.memory_limit_GiB or inf) > (
            known.attempts_log[-1].memory_limit_GiB or inf
        )
        again = self._retry_failed or known.outcome == "died" or more_time or more_memory
        return 0 if again else None

    def _judged(self, label: Label) -> Label:
        if label.calculation is None:
            return label
        limit = self._engine.max_net_force_eV_per_A
        flaw = flaw_of_label(label.calculation, self._gates, limit)
        return replace(label, outcome="refused" if flaw else "done", reason=flaw or "")


def _without_outliers(
    database: LabelledDatabase,
    frame_ids: Sequence[int],
    labels: Mapping[str, Label],
    gates: GateSettings,
) -> LabelledDatabase:
    """Without labels whose energy is far from that of their likes; those are failures."""
    found = energy_outliers(database.labelled, database.binding_energies(), gates)
    kept, failed = [], list(database.failed)
    for atoms, frame_id, outlier in zip(database.labelled, frame_ids, found, strict=True):
        if outlier is None:
            kept.append(atoms)
            continue
        key = atoms.info["label_key"]
        failed.append(
            _refused(frame_id, key, f"energy_window: binding {outlier}", labels[key].attempts)
        )
    return replace(database, labelled=kept, failed=failed)


def _refused(frame_id: int, key: str, reason: str, attempts: int) -> Failure:
    return Failure(frame_id, key, reason, attempts, kind=reason.partition(":")[0])


def _labelled(atoms: Atoms, label: Label, entry: Entry, config_type: str) -> Atoms:
    calculation = entry.own(label).calculation
    assert calculation is not None
    return labelled_frame(
        atoms,
        calculation,
        label_key=label.key,
        engine=label.engine,
        settings_hash=label.settings_hash,
        config_type=config_type,
    )
