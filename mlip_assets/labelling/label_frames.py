"""Labels of frames: reused from the ledger or computed, with failures, rejections and cost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from ase import Atoms
from ase.data import atomic_numbers, ground_state_magnetic_moments

from mlip_assets.campaign import GateSettings
from mlip_assets.common.progress import ProgressReport
from mlip_assets.compute.local import Compute, LocalProcesses
from mlip_assets.labelling.budget import Budget
from mlip_assets.labelling.database import Failure, LabelledDatabase, labelled_frame
from mlip_assets.labelling.engines.engine import DftEngine
from mlip_assets.labelling.gates import energy_outliers, gate_frames, gate_of
from mlip_assets.labelling.ledger.label import Entry, Label
from mlip_assets.labelling.ledger.ledger import LabelLedger
from mlip_assets.labelling.scheduler import LabelScheduler
from mlip_assets.labelling.structure import ISOLATED

_log = logging.getLogger(__name__)


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
    on_progress: Callable[[ProgressReport], None] | None = None,
) -> LabelledDatabase:
    """Label frames, and the isolated atom of each of their elements, with a DFT engine.

    Labels in the ledger are reused. A new label is committed when it is finished and is never
    computed again; labels that another process is computing are waited for. A failure is committed
    with its reason, and the others continue. It is repeated only if ``retry_failed``, if its process
    died, or if more time, memory or attempts are allowed now. Isolated atoms are computed first.

    Parameters
    ----------
    frames
        ``info`` is kept; a missing ``frame_id`` is the position in the sequence.
    engine
        The DFT program and its settings.
    ledger
        Where labels are stored; any number of calls and processes may share it.
    n_workers, compute
        Number of calculations at the same time, one core each; or where they run instead.
    budget, budget_core_hours
        Largest number of DFT calls, with further attempts and isolated atoms, and of core-hours.
    gates
        Which frames are not computed, and which calculations are rejected; None for the defaults.
    retry_failed
        Compute again what failed before.
    on_finished, on_progress
        Called with each label that this call commits, and with the progress every few seconds.

    Raises
    ------
    EngineError
        The engine, or its data for an element, is not installed; nothing was computed.
    OSError
        The disk is full; the message names the file.
    ValueError
        ``n_workers`` is not positive.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from mlip_assets import EmtEngine, LabelLedger, label_frames
    >>> ledger = LabelLedger("labels.db")
    >>> database = label_frames([bulk("Cu")], EmtEngine(), ledger, n_workers=2)
    >>> database.binding_energies().round(2)  # eV/atom
    array([-3.52])
    """
    started = time.monotonic()
    compute, gates = compute or LocalProcesses(n_workers), gates or GateSettings()
    elements = _elements_of(frames)
    engine.check(elements)
    scheduler = LabelScheduler(
        engine,
        ledger,
        compute,
        Budget(budget, budget_core_hours),
        gates,
        retry_failed=retry_failed,
        on_finished=on_finished,
        on_progress=on_progress,
    )
    request = _Request.register(frames, elements, scheduler, gates)
    expected = request.find_cached(scheduler)
    scheduler.run_missing()
    request.retry_isolated_atoms(scheduler)
    database = _collect(request, scheduler, gates)
    return replace(database, wall_s=time.monotonic() - started, expected_core_hours=expected)


def isolated_atom(symbol: str, *, polarised: bool = True) -> Atoms:
    """One atom without periodic images, for the reference energy of an element (MACE's E0).

    Parameters
    ----------
    symbol
        Chemical symbol.
    polarised
        With the magnetic moment of the ground state by Hund's rules; otherwise without spin.
    """
    moment = ground_state_magnetic_moments[atomic_numbers[symbol]] if polarised else 0.0
    return Atoms(symbol, magmoms=[moment])


def _elements_of(frames: Sequence[Atoms]) -> list[str]:
    symbols = {symbol for atoms in frames for symbol in atoms.symbols}
    return sorted(symbols, key=atomic_numbers.__getitem__)


@dataclass(frozen=True)
class _Request:
    """Frames of one call and the isolated atoms of their elements, registered in the ledger.

    Attributes
    ----------
    frames
        All frames of the call.
    rejections
        For each frame why it is not computed; None if it is.
    entries
        For each frame its entry in the ledger; None if it is rejected.
    isolated
        For each element the entry of its isolated atom.
    """

    frames: Sequence[Atoms]
    rejections: list[str | None]
    entries: list[Entry | None]
    isolated: dict[str, Entry]

    @classmethod
    def register(
        cls,
        frames: Sequence[Atoms],
        elements: Sequence[str],
        scheduler: LabelScheduler,
        gates: GateSettings,
    ) -> Self:
        """Apply the gates to the frames, and register those that pass."""
        rejections = gate_frames(frames, gates)
        passed = [atoms for atoms, why in zip(frames, rejections, strict=True) if not why]
        registered = iter(scheduler.register(passed))
        entries = [None if why else next(registered) for why in rejections]
        atoms = scheduler.register([isolated_atom(symbol) for symbol in elements])
        return cls(frames, rejections, entries, dict(zip(elements, atoms, strict=True)))

    @property
    def registered(self) -> list[Entry]:
        """The entries of the frames that are not rejected."""
        return [entry for entry in self.entries if entry]

    @property
    def n_duplicates(self) -> int:
        """Number of frames that equal an earlier one."""
        return len(self.registered) - len({entry.key for entry in self.registered})

    def find_cached(self, scheduler: LabelScheduler) -> float | None:
        """Look up all labels, isolated atoms first; gives the expected core-hours of the others."""
        expected = scheduler.find_cached([*self.isolated.values(), *self.registered])
        _log.info(
            "%d frames: %d rejected by gates, %d equal to another; %d labels in the ledger, "
            "%d to compute%s",
            len(self.frames),
            len(self.frames) - len(self.registered),
            self.n_duplicates,
            len(scheduler.labels),
            len(scheduler.missing),
            "" if expected is None else f" in about {expected:.2g} core-hours",
        )
        return expected

    def retry_isolated_atoms(self, scheduler: LabelScheduler) -> None:
        """Compute without spin the isolated atoms that failed with Hund's rules."""
        for symbol, entry in self.isolated.items():
            label = scheduler.labels.get(entry.key)
            if label is None or label.is_done:
                continue
            _log.warning("%s atom: no label with Hund's rules (%s)", symbol, label.reason)
            (self.isolated[symbol],) = scheduler.register([isolated_atom(symbol, polarised=False)])
            if self.isolated[symbol].key != entry.key:
                scheduler.find_cached([self.isolated[symbol]])
                scheduler.run_missing()


def _collect(request: _Request, scheduler: LabelScheduler, gates: GateSettings) -> LabelledDatabase:
    """Labels, failures and deferred frames of a request, without outliers of the energy."""
    labelled, labelled_ids, failed, deferred = [], [], [], []
    frames = zip(request.frames, request.rejections, request.entries, strict=True)
    for index, (atoms, rejection, entry) in enumerate(frames):
        frame_id = int(atoms.info.get("frame_id", index))
        label = scheduler.labels.get(entry.key) if entry else None
        if entry is None:
            failed.append(_rejection(frame_id, "", rejection or "", 0))
        elif label is None:
            deferred.append(frame_id)
        elif label.is_done:
            config_type = atoms.info.get("config_type", "Default")
            labelled.append(_labelled(atoms, label, entry, config_type))
            labelled_ids.append(frame_id)
        elif label.outcome == "refused":
            failed.append(_rejection(frame_id, label.key, label.reason, label.attempts))
        else:
            failed.append(
                Failure(frame_id, label.key, label.reason, label.attempts, kind=label.outcome)
            )
    isolated = [
        _labelled(entry.structure, label, entry, ISOLATED)
        for entry in request.isolated.values()
        if (label := scheduler.labels.get(entry.key)) and label.is_done
    ]
    used = [scheduler.labels[atoms.info["label_key"]] for atoms in (*labelled, *isolated)]
    computed = {label.key: label for label in used if label.key in scheduler.started}
    reused_s = sum(label.wall_s for label in used)
    reused_s -= sum(label.wall_s for label in computed.values())
    database = LabelledDatabase(
        labelled=labelled,
        isolated=isolated,
        failed=failed,
        deferred=deferred,
        n_calculated=len(scheduler.started),
        n_reused=len(used) - len(computed),
        wall_s=0.0,
        settings_hash=scheduler.settings_hash,
        n_duplicates=request.n_duplicates,
        core_hours_spent=scheduler.spent_core_hours,
        core_hours_reused=reused_s / 3600,
    )
    database = _without_outliers(database, labelled_ids, scheduler.labels, gates)
    _log.info(
        "%d frames: %d labelled, %d failed, %d deferred; %d DFT calls made, %d avoided",
        len(request.frames),
        len(database.labelled),
        len(database.failed),
        len(deferred),
        database.n_calculated,
        database.n_reused,
    )
    return database


def _without_outliers(
    database: LabelledDatabase,
    frame_ids: Sequence[int],
    labels: Mapping[str, Label],
    gates: GateSettings,
) -> LabelledDatabase:
    """The labels without outliers of the binding energy, which become failures."""
    outliers = energy_outliers(database.labelled, database.binding_energies(), gates)
    kept, failed = [], list(database.failed)
    for atoms, frame_id, outlier in zip(database.labelled, frame_ids, outliers, strict=True):
        if outlier is None:
            kept.append(atoms)
            continue
        key = atoms.info["label_key"]
        reason = f"energy_window: binding {outlier}"
        failed.append(_rejection(frame_id, key, reason, labels[key].attempts))
    return replace(database, labelled=kept, failed=failed)


def _rejection(frame_id: int, key: str, reason: str, attempts: int) -> Failure:
    return Failure(frame_id, key, reason, attempts, kind=gate_of(reason))


def _labelled(atoms: Atoms, label: Label, entry: Entry, config_type: str) -> Atoms:
    calculation = entry.permute_forces(label).calculation
    assert calculation is not None
    return labelled_frame(
        atoms,
        calculation,
        label_key=label.key,
        engine=label.engine,
        settings_hash=label.settings_hash,
        config_type=config_type,
    )
