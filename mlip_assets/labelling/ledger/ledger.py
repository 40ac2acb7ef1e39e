"""The ledger: every label ever paid for, and every failure with its reason."""

from __future__ import annotations

import errno
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.db import connect
from numpy.typing import NDArray

from mlip_assets.common.files import locked, write_atomically
from mlip_assets.labelling.database import labelled_frame, refuse_mixed_settings, write_frames
from mlip_assets.labelling.engines.engine import Attempt, Calculation
from mlip_assets.labelling.ledger.claims import Claim, this_process
from mlip_assets.labelling.ledger.equality import (
    fingerprint,
    fingerprint_tolerance,
    kind_of,
    matching,
)
from mlip_assets.labelling.structure import ISOLATED, is_isolated, label_key, to_plain

_log = logging.getLogger(__name__)

#: done; refused: calculated, but judged unfit; not_converged and error repeat whenever they are
#: repeated; timeout may pass with more time and memory with more of it; died (killed from outside)
#: may pass next time.
Outcome = Literal["done", "refused", "not_converged", "error", "timeout", "memory", "died"]

#: Of the tables beside ASE's. Version 1 had none.
_VERSION = 2
_SCHEMA = (
    "CREATE TABLE structures (label_key TEXT PRIMARY KEY, kind TEXT, factor_1 REAL, factor_2 REAL, "
    "factor_3 REAL, structure TEXT)",
    "CREATE INDEX structure_index ON structures (kind, factor_1)",
    "CREATE TABLE starts (id INTEGER PRIMARY KEY, label_key TEXT, attempt INTEGER, "
    "started_at REAL, process TEXT, row_id INTEGER, wall_s REAL)",
    "CREATE INDEX start_index ON starts (label_key, attempt)",
    "CREATE INDEX label_key_index ON text_key_values (value) WHERE key = 'label_key'",
    f"PRAGMA user_version = {_VERSION}",
)
_LATEST = "SELECT max(id) FROM text_key_values WHERE key = 'label_key' GROUP BY value ORDER BY 1"
#: How long to wait for another process's transaction, which takes milliseconds.
_PATIENCE_S = 60.0
#: SQLITE_IOERR, SQLITE_FULL
_DISK_ERRORS = (10, 13)


@dataclass(frozen=True)
class Label:
    """What became of one structure under one engine's settings.

    Attributes
    ----------
    attempts
        Calculations made so far.
    wall_s, timeout_s
        Time they took together, and the time each was allowed.
    calculation
        Energy, forces and stress; None unless the outcome is done or refused.
    program
        Name and version of the program.
    attempts_log
        Each calculation made: what was changed in it, and how it ended.
    row
        Number of its row in the ledger; 0 for a label that is not in it.
    """

    key: str
    engine: str
    settings_hash: str
    outcome: Outcome
    reason: str
    attempts: int
    wall_s: float
    timeout_s: float
    program: str
    calculation: Calculation | None
    attempts_log: tuple[Attempt, ...] = ()
    row: int = field(default=0, compare=False)

    @property
    def is_done(self) -> bool:
        """Whether it may be trained on."""
        return self.outcome == "done"


@dataclass(frozen=True)
class Entry:
    """How the ledger knows a structure.

    Attributes
    ----------
    key
        Of its label.
    structure
        The equal one that was registered first, and is the one computed.
    matching
        For each atom of ``structure`` the atom of the structure asked for that it is.
    """

    key: str
    structure: Atoms
    matching: NDArray[np.intp]

    def own(self, label: Label) -> Label:
        """The label in the order of atoms of the structure asked for."""
        if label.calculation is None:
            return label
        forces = np.empty_like(label.calculation.forces)
        forces[self.matching] = label.calculation.forces
        return replace(label, calculation=replace(label.calculation, forces=forces))


@dataclass(frozen=True)
class Spending:
    """What all campaigns have spent.

    Attributes
    ----------
    n_started
        Calculations started, further attempts included.
    n_running
        Those that a live process is busy with.
    n_lost
        Those that were killed with the process that had started them.
    core_hours
        What those took that came to an end.
    """

    n_started: int
    n_running: int
    n_lost: int
    core_hours: float


class LabelLedger:
    """Labels by key, in an ASE SQLite database that any ASE tool can search.

    One row a finished label or failure: ``label_key``, ``status`` (done | failed), ``outcome``,
    ``reason``, ``engine``, ``settings_hash``, ``attempts``, ``wall_s``, ``timeout_s``, ``program``,
    ``config_type`` and, where calculated, ``REF_energy``; ``REF_forces``, ``REF_stress``, the
    settings and the log of attempts in its data. Rows are added, never changed: of several with one
    key, the last decides. Two tables beside them hold the structures by which equal ones are found,
    and every calculation that was started. Each change is one SQLite transaction, so any number of
    processes of one machine may read and write. ``<stem>-calculations`` beside the file holds the
    raw output of what is running and of what failed.

    Parameters
    ----------
    path
        A local file, made if missing; one of an earlier version is brought up to date. SQLite's
        locks are not to be trusted on network drives.

    Raises
    ------
    ValueError
        The file is there but is no such database, or one of a later version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.calculations = self.path.parent / f"{self.path.stem}-calculations"
        self._claims = self.path.parent / f"{self.path.stem}-claims"
        self._threads, self._depth = RLock(), 0
        if self.path.exists():
            self._bring_up_to_date()

    def __len__(self) -> int:
        """How many structures it holds a label or a failure of."""
        if not self.path.exists():
            return 0
        question = "SELECT count(DISTINCT value) FROM text_key_values WHERE key = 'label_key'"
        return int(self._ask(question)[0][0])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the ledger alone among threads and processes; may be nested.

        Waits for another that holds it. The system frees the lock of a process that dies.
        """
        with self._threads, ExitStack() as stack:
            if self._depth == 0:
                lock = self.path.with_name(f"{self.path.name}.lock")
                stack.enter_context(locked(lock, wait=True, tell=False))
                if not self.path.exists():
                    self._create()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def find(self, key: str) -> Label | None:
        """The last label of a key, or None."""
        rows = self._rows_of(key)
        return self._label(rows[-1]) if rows else None

    def history(self, key: str) -> list[Label]:
        """All labels and failures of a key, oldest first."""
        return [self._label(row) for row in self._rows_of(key)]

    def look_up(self, structure: Atoms, engine: str, settings_hash: str) -> Label | None:
        """The label of an equal structure, in this structure's order of atoms; changes nothing."""
        if not self.path.exists():
            return None
        with closing(self._connect()) as connection:
            entry = _equal_entry(connection, structure, kind_of(structure, engine, settings_hash))
        label = self.find(entry.key) if entry else None
        return entry.own(label) if entry and label else None

    def register(self, structures: Sequence[Atoms], engine: str, settings_hash: str) -> list[Entry]:
        """The key of each structure: that of the first equal one ever registered, or a new one.

        Parameters
        ----------
        structures
            As the engine prepares them.
        engine, settings_hash
            What computes the labels.
        """
        entries = []
        with self._changing() as connection:
            for structure in structures:
                kind = kind_of(structure, engine, settings_hash)
                entry = _equal_entry(connection, structure, kind)
                if entry is None:
                    key = label_key(structure, engine, settings_hash)
                    _insert(connection, key, kind, structure)
                    entry = Entry(key, structure, np.arange(len(structure)))
                entries.append(entry)
        return entries

    def claim(self, key: str) -> Claim | None:
        """Take it on oneself to compute a key, or None where another live process has.

        The system frees the claims of a process that dies.
        """
        return Claim.take(self._claims / key)

    def claimed_by(self, key: str) -> str:
        """Who says to have claimed a key, for messages."""
        try:
            return (self._claims / key).read_text(encoding="utf-8") or "another process"
        except FileNotFoundError:
            return "another process"

    def start(self, key: str, attempt: int) -> None:
        """Note durably that a calculation is about to be started."""
        with self._changing() as connection:
            connection.execute(
                "INSERT INTO starts (label_key, attempt, started_at, process) VALUES (?, ?, ?, ?)",
                (key, attempt, time.time(), this_process()),
            )

    def commit(self, label: Label, structure: Atoms, **facts: Any) -> None:
        """Write a label durably, after any earlier one of its key.

        Parameters
        ----------
        structure
            What was computed.
        **facts
            Further data to keep with it.

        Raises
        ------
        OSError
            It cannot be written: the disk is full. Nothing of it was.
        """
        columns = {
            "label_key": label.key,
            "status": "done" if label.is_done else "failed",
            "outcome": label.outcome,
            "reason": label.reason,
            "engine": label.engine,
            "settings_hash": label.settings_hash,
            "attempts": label.attempts,
            "wall_s": label.wall_s,
            "timeout_s": label.timeout_s,
            "program": label.program,
            "config_type": ISOLATED if is_isolated(structure) else "Default",
        }
        data = dict(facts)
        data["attempts_log"] = [asdict(attempt) for attempt in label.attempts_log]
        if label.calculation is not None:
            data["REF_energy"] = label.calculation.energy_eV
            data["REF_forces"] = label.calculation.forces
            data["REF_stress"] = label.calculation.stress
            if np.isfinite(label.calculation.energy_eV):
                columns["REF_energy"] = label.calculation.energy_eV
        with self.locked(), self._told_of_a_full_disk(), self._database as database:
            row = database.write(structure, columns, data)
            for attempt in label.attempts_log:
                # an attempt of an earlier row has its row already
                database.connection.execute(
                    "UPDATE starts SET row_id = ?, wall_s = ? WHERE row_id IS NULL AND id = "
                    "(SELECT max(id) FROM starts WHERE label_key = ? AND attempt = ?)",
                    (row, attempt.wall_s, label.key, attempt.number),
                )

    def spending(self) -> Spending:
        """What was started and what it took, in all campaigns and ever."""
        if not self.path.exists():
            return Spending(0, 0, 0, 0.0)
        ((n_started, n_ended, seconds),) = self._ask(
            "SELECT count(*), count(row_id), total(wall_s) FROM starts"
        )
        running = self._ask("SELECT DISTINCT label_key FROM starts WHERE row_id IS NULL")
        n_running = sum(self._is_claimed(key) for (key,) in running)
        return Spending(n_started, n_running, n_started - n_ended - n_running, seconds / 3600)

    def finished(self, engine: str, settings_hash: str, most: int) -> Iterator[tuple[Atoms, float]]:
        """The last structures that were computed to the end, and the seconds each took."""
        if self.path.exists():
            for row in self._database.select(
                engine=engine,
                settings_hash=settings_hash,
                sort="-id",
                limit=most,
                include_data=False,
            ):
                if row.outcome in {"done", "refused"}:
                    yield row.toatoms(), row.wall_s

    def export(
        self, path: str | os.PathLike[str], *, settings_hash: str | None = None
    ) -> list[Path]:
        """Write all finished labels of one engine and its settings for other programs.

        Parameters
        ----------
        path
            ``….extxyz`` (MACE's keys) or ``….db`` (ASE SQLite); else a folder, which gets
            ``labels.extxyz`` and ``labels.db``.
        settings_hash
            Which settings, or how their hash begins; needed where the ledger holds several.

        Returns
        -------
        list of Path
            The files written.

        Raises
        ------
        MixedSettingsError
            The labels differ in engine or settings; the message tells in what.
        ValueError
            There is no finished label of these settings.
        """
        latest = self._ask(_LATEST) if self.path.exists() else []
        rows = [self._database.get(id=id_) for (id_,) in latest]
        wanted = settings_hash or ""
        rows = [r for r in rows if r.status == "done" and r.settings_hash.startswith(wanted)]
        if not rows:
            raise ValueError(f"{self.path}: no finished label of settings '{wanted}…' to export")
        refuse_mixed_settings(
            [(row.engine, row.settings_hash, row.data.get("settings", {})) for row in rows],
            f"{self.path}: give settings_hash to export one of them",
        )
        frames = [_frame_of(row) for row in rows]
        return write_frames(frames, Path(path))

    @property
    def _database(self) -> Any:
        """A new one each time: ASE's keeps its connection, which other threads must not use."""
        return connect(self.path, type="db", use_lock_file=False)

    def _rows_of(self, key: str) -> list[int]:
        question = (
            "SELECT id FROM text_key_values WHERE key = 'label_key' AND value = ? ORDER BY id"
        )
        return [row for (row,) in self._ask(question, key)] if self.path.exists() else []

    def _label(self, row: int) -> Label:
        return _label_of(self._database.get(id=row))

    def _is_claimed(self, key: str) -> bool:
        if not (self._claims / key).exists():
            return False
        claim = self.claim(key)
        if claim is None:
            return True
        claim.release()
        return False

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)

    def _ask(self, question: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(self._connect()) as connection:
            return connection.execute(question, values).fetchall()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, all of it or nothing."""
        with self.locked(), self._told_of_a_full_disk(), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _told_of_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DISK_ERRORS:
                raise
            problem = f"cannot be written ({error}); nothing of this label was; free some space"
            raise OSError(errno.ENOSPC, problem, str(self.path)) from error

    def _create(self) -> None:
        """Tables are made aside, so that a kill cannot leave half of them."""
        with write_atomically(self.path) as temporary:
            connect(temporary, type="db", use_lock_file=False).metadata = {"title": "DFT labels"}
            with closing(sqlite3.connect(temporary)) as connection:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.commit()

    def _bring_up_to_date(self) -> None:
        try:
            (version,) = self._ask("PRAGMA user_version")[0]
            self._ask("SELECT count(*) FROM systems")
        except sqlite3.Error as error:
            raise ValueError(
                f"{self.path}: not a label ledger ({error}); move it away, or name another file"
            ) from error
        if version > _VERSION:
            raise ValueError(
                f"{self.path}: written by a later version of this program (ledger {version}, this "
                f"knows {_VERSION}); update it, or name another file"
            )
        if version < _VERSION:
            with self._changing() as connection:
                if connection.execute("PRAGMA user_version").fetchone()[0] < _VERSION:
                    self._register_rows(connection)

    def _register_rows(self, connection: sqlite3.Connection) -> None:
        """Version 1 was the rows alone, one a key, and knew of no renumbering."""
        _log.info("%s: finding equal structures in a ledger of an earlier version", self.path)
        for statement in _SCHEMA:
            connection.execute(statement)
        rows = sorted(self._database.select(), key=lambda row: (row.status != "done", row.id))
        for row in rows:
            structure = row.toatoms()
            kind = kind_of(structure, row.engine, row.settings_hash)
            if _equal_entry(connection, structure, kind) is None:
                _insert(connection, row.label_key, kind, structure)
            starts = [
                (row.label_key, attempt, None, "ledger version 1", row.id, seconds)
                for attempt, seconds in enumerate([0.0] * (row.attempts - 1) + [row.wall_s])
            ]
            connection.executemany("INSERT INTO starts VALUES (NULL, ?, ?, ?, ?, ?, ?)", starts)


def _equal_entry(connection: sqlite3.Connection, structure: Atoms, kind: str) -> Entry | None:
    """The registered structure that this one equals; found by ranges, told by all its atoms."""
    middle, width = fingerprint(structure), fingerprint_tolerance(structure)
    limits = np.stack([middle - width, middle + width], axis=1).ravel().tolist()
    found = connection.execute(
        "SELECT label_key, structure FROM structures WHERE kind = ? AND factor_1 BETWEEN ? AND ? "
        "AND factor_2 BETWEEN ? AND ? AND factor_3 BETWEEN ? AND ? ORDER BY rowid",
        (kind, *limits),
    )
    for key, text in found:
        registered = Atoms(**json.loads(text))
        partners = matching(structure, registered)
        if partners is not None:
            return Entry(key, registered, partners)
    return None


def _insert(connection: sqlite3.Connection, key: str, kind: str, structure: Atoms) -> None:
    connection.execute(
        "INSERT INTO structures VALUES (?, ?, ?, ?, ?, ?)",
        (key, kind, *fingerprint(structure).tolist(), json.dumps(to_plain(structure))),
    )


def _label_of(row: Any) -> Label:
    data, calculation = row.data, None
    if "REF_forces" in data:
        stress: NDArray[np.float64] | None = data["REF_stress"]
        calculation = Calculation(float(data["REF_energy"]), data["REF_forces"], stress)
    return Label(
        key=row.label_key,
        engine=row.engine,
        settings_hash=row.settings_hash,
        outcome=row.outcome,
        reason=row.reason,
        attempts=row.attempts,
        wall_s=row.wall_s,
        timeout_s=row.timeout_s,
        program=row.program,
        calculation=calculation,
        attempts_log=tuple(Attempt(**entry) for entry in row.data.get("attempts_log", [])),
        row=row.id,
    )


def _frame_of(row: Any) -> Atoms:
    label = _label_of(row)
    assert label.calculation is not None
    return labelled_frame(
        row.toatoms(),
        label.calculation,
        label_key=label.key,
        engine=label.engine,
        settings_hash=label.settings_hash,
        config_type=row.config_type,
    )
