"""Frames in, labels out: what the ledger knows is reused, and only the rest is computed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, ground_state_magnetic_moments

from mlip_assets.labelling.calculations import Calculations, Job
from mlip_assets.labelling.database import Failure, LabelledDatabase
from mlip_assets.labelling.engines import Calculation, DftEngine, hash_of
from mlip_assets.labelling.ledger import Label, LabelLedger
from mlip_assets.labelling.structure import ISOLATED, flaw_of, label_key
from mlip_assets.progress import Progress

_log = logging.getLogger(__name__)


def label_frames(
    frames: Sequence[Atoms],
    engine: DftEngine,
    ledger: LabelLedger,
    *,
    n_workers: int = 1,
    budget: int | None = None,
    retry_failed: bool = False,
    on_finished: Callable[[Label], None] | None = None,
) -> LabelledDatabase:
    """Label frames, and the free atom of each of their elements, by density-functional theory.

    A label that is finished is committed to the ledger at once and is never computed again. One
    that fails is committed with its reason, and the others go on; it is computed again only where
    that could end otherwise: the process had died, more time or more attempts are now allowed, or
    ``retry_failed``. Numbers that were refused are kept, and judged anew by each call. Free atoms
    come first, in the spin state of Hund's rules, or unpolarised where that fails.

    Parameters
    ----------
    frames
        ``info`` may hold ``frame_id`` (else the position in the sequence) and anything else, all
        of which is kept on the labelled frame.
    engine
        The DFT program with its settings.
    ledger
        Where labels are kept. It is locked throughout: a second call on it waits for the first.
    n_workers
        Calculations at the same time, each a child process on one core.
    budget
        Most DFT calls to make, further attempts and free atoms included; None for no limit.
    retry_failed
        Compute again what failed before.
    on_finished
        Called with each label that this call has committed.

    Raises
    ------
    EngineError
        The engine, or its data for an element, is not installed; nothing was computed.
    ValueError
        ``n_workers`` is not positive.
    """
    if n_workers < 1:
        raise ValueError(f"n_workers = {n_workers}; give at least 1")
    started = time.monotonic()
    symbols = sorted({s for atoms in frames for s in atoms.symbols}, key=atomic_numbers.__getitem__)
    engine.check(symbols)
    calculations = Calculations(engine, ledger.calculations, n_workers=n_workers, budget=budget)
    clerk = _Clerk(engine, ledger, calculations, retry_failed, on_finished)

    flaws = [flaw_of(atoms) for atoms in frames]
    keys = ["" if flaw else clerk.take(atoms) for atoms, flaw in zip(frames, flaws, strict=True)]
    free_keys = {symbol: clerk.take(free_atom(symbol)) for symbol in symbols}
    with ledger.locked():
        clerk.settle([*free_keys.values(), *keys])
        for symbol, key in free_keys.items():
            label = clerk.labels.get(key)
            if label is None or label.is_done:
                continue
            _log.warning("%s atom: no label with Hund's rules (%s)", symbol, label.reason)
            unpolarised = free_keys[symbol] = clerk.take(free_atom(symbol, polarised=False))
            if unpolarised != key:
                clerk.settle([unpolarised])

    labelled, failed, deferred = [], [], []
    for index, (atoms, flaw, key) in enumerate(zip(frames, flaws, keys, strict=True)):
        frame_id = int(atoms.info.get("frame_id", index))
        label = clerk.labels.get(key)
        if flaw is not None:
            failed.append(Failure(frame_id, "", flaw, attempts=0))
        elif label is None:
            deferred.append(frame_id)
        elif label.is_done:
            config_type = atoms.info.get("config_type", "Default")
            labelled.append(_labelled(atoms, label, config_type))
        else:
            failed.append(Failure(frame_id, key, label.reason, label.attempts))
    isolated = [
        _labelled(clerk.structures[key], clerk.labels[key], ISOLATED)
        for key in free_keys.values()
        if key in clerk.labels and clerk.labels[key].is_done
    ]
    newly_done = {
        key for key in calculations.started if key in clerk.labels and clerk.labels[key].is_done
    }
    database = LabelledDatabase(
        labelled=labelled,
        isolated=isolated,
        failed=failed,
        deferred=deferred,
        n_calculated=len(calculations.started),
        n_reused=len(labelled) + len(isolated) - len(newly_done),
        wall_s=time.monotonic() - started,
        settings_hash=hash_of(engine),
    )
    _log.info(
        "%d frames: %d labelled, %d failed, %d deferred; %d DFT calls made, %d saved",
        len(frames),
        len(labelled),
        len(failed),
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
    """Looks labels up in the ledger, has the missing ones computed, judges and files them."""

    def __init__(
        self,
        engine: DftEngine,
        ledger: LabelLedger,
        calculations: Calculations,
        retry_failed: bool,
        on_finished: Callable[[Label], None] | None,
    ) -> None:
        self._engine, self._ledger, self._calculations = engine, ledger, calculations
        self._settings_hash = hash_of(engine)
        self._retry_failed = retry_failed
        self._on_finished = on_finished
        self.structures: dict[str, Atoms] = {}
        self.labels: dict[str, Label] = {}

    def take(self, atoms: Atoms) -> str:
        """Note what would be computed for these atoms, and give its key."""
        structure = self._engine.prepare(atoms)
        key = label_key(structure, self._engine.name, self._settings_hash)
        self.structures.setdefault(key, structure)
        return key

    def settle(self, keys: Iterable[str]) -> None:
        """Fill in ``labels``; a key that the budget does not reach stays missing."""
        jobs = []
        for key in dict.fromkeys(filter(None, keys)):
            known = self._ledger.find(key)
            attempt = self._next_attempt(known)
            if attempt is not None:
                spent_s = known.wall_s if known and attempt > 0 else 0.0
                jobs.append(Job(key, self.structures[key], attempt, spent_s))
            elif known:
                self.labels[key] = self._judged(known)
                if self.labels[key].outcome != known.outcome:
                    self._file(self.labels[key])
        if not jobs:
            return
        progress = Progress(
            "DFT", len(jobs) + len(self.labels), "labels", already_done=len(self.labels)
        )
        with closing(self._calculations.run(jobs)) as finished:
            for raw in finished:
                label = self.labels[raw.key] = self._judged(raw)
                self._file(label)
                progress.advance()
                if not label.is_done:
                    _log.warning("%s failed: %s", label.key[:12], label.reason)
                if self._on_finished:
                    self._on_finished(label)

    def _next_attempt(self, known: Label | None) -> int | None:
        """The attempt to make now, or None to leave the label as it is."""
        if known is None:
            return 0
        if known.is_done:
            return None
        if known.outcome == "not_converged" and known.attempts <= self._engine.retries:
            return known.attempts
        more_time = known.outcome == "timeout" and known.timeout_s < self._engine.timeout_s
        return 0 if self._retry_failed or known.outcome == "died" or more_time else None

    def _judged(self, label: Label) -> Label:
        """Refuse numbers that are not finite, or forces that do not sum to zero."""
        if label.calculation is None:
            return label
        flaw = _flaw(label.calculation, self._engine.max_net_force_eV_per_A)
        return replace(label, outcome="refused" if flaw else "done", reason=flaw or "")

    def _file(self, label: Label) -> None:
        self._ledger.commit(label, self.structures[label.key], settings=dict(self._engine.physics))
        self._calculations.clear(label)


def _flaw(calculation: Calculation, max_net_force_eV_per_A: float) -> str | None:
    stress = 0.0 if calculation.stress is None else calculation.stress
    checksum = calculation.energy_eV + np.sum(calculation.forces) + np.sum(stress)
    if not np.isfinite(checksum):
        return "energy, forces or stress are not finite"
    net_force = float(np.linalg.norm(calculation.forces.sum(axis=0)))
    if net_force > max_net_force_eV_per_A:
        return (
            f"the forces sum to {net_force:.3g} eV/Å (max_net_force_eV_per_A = "
            f"{max_net_force_eV_per_A:g}): too coarse a grid; raise cutoff_eV"
        )
    return None


def _labelled(atoms: Atoms, label: Label, config_type: str) -> Atoms:
    """A copy of ``atoms`` with its label."""
    assert label.calculation is not None
    labelled: Atoms = atoms.copy()
    labelled.info |= {
        "REF_energy": label.calculation.energy_eV,
        "label_key": label.key,
        "engine": label.engine,
        "settings_hash": label.settings_hash,
        "config_type": config_type,
    }
    labelled.info.pop("REF_stress", None)
    if label.calculation.stress is not None:
        labelled.info["REF_stress"] = label.calculation.stress
    labelled.set_array("REF_forces", label.calculation.forces)
    return labelled
