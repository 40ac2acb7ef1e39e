"""The ledger: every label that was computed, and every failure with its reason."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from mlip_assets.common.files import locked
from mlip_assets.labelling.database import refuse_mixed_settings, write_frames
from mlip_assets.labelling.ledger import tables
from mlip_assets.labelling.ledger.claims import Claim, this_process
from mlip_assets.labelling.ledger.equality import kind_of
from mlip_assets.labelling.ledger.label import Entry, Label, Spending
from mlip_assets.labelling.structure import label_key

if TYPE_CHECKING:
    import pandas as pd

_LATEST_ROWS = (
    "SELECT max(id) FROM text_key_values WHERE key = 'label_key' GROUP BY value ORDER BY 1"
)
#: Longest wait for the transaction of another process, which takes milliseconds.
_TRANSACTION_TIMEOUT_S = 60.0
#: SQLITE_IOERR, SQLITE_FULL
_DISK_ERRORS = (10, 13)


class LabelLedger:
    """Labels by key, in an ASE SQLite database that any ASE tool can search.

    Each label or failure is one row with ``label_key``, ``status`` (done | failed), ``outcome``,
    ``reason``, ``engine``, ``settings_hash``, ``attempts``, ``wall_s``, ``timeout_s``, ``program``,
    ``config_type`` and, if computed, ``REF_energy``; ``REF_forces``, ``REF_stress``, the settings
    and the log of attempts are in its data. Rows are added and never changed; the last row of a key
    is the valid one. Two further tables hold the structures, by which equal ones are found, and
    every calculation that was started. Each change is one SQLite transaction, so any number of
    processes of one machine may read and write. The folder ``<stem>-calculations`` next to the file
    holds the raw output of running and of failed calculations.

    Parameters
    ----------
    path
        A local file, created at the first write; a file of an earlier version is migrated. SQLite's
        locks are not reliable on network drives.

    Raises
    ------
    ValueError
        The file exists but is not a ledger, or is of a later version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.calculations = self.path.parent / f"{self.path.stem}-calculations"
        self._claims = self.path.parent / f"{self.path.stem}-claims"
        self._threads, self._depth = RLock(), 0
        if self.path.exists():
            self._migrate()

    def __len__(self) -> int:
        """Number of structures with a label or a failure."""
        if not self.path.exists():
            return 0
        statement = "SELECT count(DISTINCT value) FROM text_key_values WHERE key = 'label_key'"
        return int(self._query(statement)[0][0])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold an exclusive lock among threads and processes; may be nested.

        Waits for another holder. The system frees the lock of a process that dies.
        """
        with self._threads, ExitStack() as stack:
            if self._depth == 0:
                lock = self.path.with_name(f"{self.path.name}.lock")
                stack.enter_context(locked(lock, wait=True, log_wait=False))
                if not self.path.exists():
                    tables.create_tables(self.path)
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
        """The label of an equal structure, in the atom order of this one; changes nothing.

        Parameters
        ----------
        structure
            As the engine prepares it.
        engine, settings_hash
            Name of the engine, and hash of its settings.
        """
        if not self.path.exists():
            return None
        kind = kind_of(structure, engine, settings_hash)
        with closing(self._connect()) as connection:
            entry = tables.find_structure(connection, structure, kind)
        label = self.find(entry.key) if entry else None
        return entry.permute_forces(label) if entry and label else None

    def register(self, structures: Sequence[Atoms], engine: str, settings_hash: str) -> list[Entry]:
        """Register structures; each gets the key of the first equal one, or a new key.

        Parameters
        ----------
        structures
            As the engine prepares them.
        engine, settings_hash
            Name of the engine that computes the labels, and hash of its settings.
        """
        entries = []
        with self._transaction() as connection:
            for structure in structures:
                kind = kind_of(structure, engine, settings_hash)
                entry = tables.find_structure(connection, structure, kind)
                if entry is None:
                    key = label_key(structure, engine, settings_hash)
                    tables.add_structure(connection, key, kind, structure)
                    entry = Entry(key, structure, np.arange(len(structure)))
                entries.append(entry)
        return entries

    def to_dataframe(self) -> pd.DataFrame:
        """The valid label or failure of each key, one row per key, in the order of computation.

        The columns are those of the ledger with units in their names, and ``formula`` and
        ``n_atoms`` of the structure; ``energy_eV`` is missing if nothing was computed.
        """
        import pandas as pd

        rows = [
            {
                "label_key": row.label_key,
                "formula": row.formula,
                "n_atoms": row.natoms,
                "config_type": row.config_type,
                "status": row.status,
                "outcome": row.outcome,
                "reason": row.reason,
                "energy_eV": row.get("REF_energy"),
                "engine": row.engine,
                "settings_hash": row.settings_hash,
                "program": row.program,
                "attempts": row.attempts,
                "wall_s": row.wall_s,
                "timeout_s": row.timeout_s,
            }
            for row in self._latest_rows()
        ]
        return pd.DataFrame(rows).astype({"energy_eV": float} if rows else {})

    def claim(self, key: str) -> Claim | None:
        """Reserve the computation of a key, or None if another live process has reserved it.

        The system frees the claims of a process that dies.
        """
        return Claim.take(self._claims / key)

    def claim_holder(self, key: str) -> str:
        """The process that has claimed a key, for messages."""
        try:
            return (self._claims / key).read_text(encoding="utf-8") or "another process"
        except FileNotFoundError:
            return "another process"

    def record_start(self, key: str, attempt: int) -> None:
        """Store durably that a calculation is about to be started."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO starts (label_key, attempt, started_at, process) VALUES (?, ?, ?, ?)",
                (key, attempt, time.time(), this_process()),
            )

    def commit(self, label: Label, structure: Atoms, **data: Any) -> None:
        """Store a label durably, after the earlier rows of its key.

        Parameters
        ----------
        label
            The label or failure.
        structure
            The structure that was computed.
        **data
            Further data to store with it.

        Raises
        ------
        OSError
            The disk is full; nothing was written.
        """
        columns = tables.columns_of(label, structure)
        data |= tables.data_of(label)
        with (
            self.locked(),
            self._translate_disk_full(),
            tables.open_database(self.path) as database,
        ):
            row = database.write(structure, columns, data)
            for attempt in label.attempts_log:
                # an attempt that an earlier row holds has its row_id already
                database.connection.execute(
                    "UPDATE starts SET row_id = ?, wall_s = ? WHERE row_id IS NULL AND id = "
                    "(SELECT max(id) FROM starts WHERE label_key = ? AND attempt = ?)",
                    (row, attempt.wall_s, label.key, attempt.number),
                )

    def spending(self) -> Spending:
        """Calculations and core-hours of all campaigns since the ledger was created."""
        if not self.path.exists():
            return Spending(0, 0, 0, 0.0)
        ((n_started, n_ended, seconds),) = self._query(
            "SELECT count(*), count(row_id), total(wall_s) FROM starts"
        )
        running = self._query("SELECT DISTINCT label_key FROM starts WHERE row_id IS NULL")
        n_running = sum(self._is_claimed(key) for (key,) in running)
        return Spending(n_started, n_running, n_started - n_ended - n_running, seconds / 3600)

    def timings(self, engine: str, settings_hash: str, limit: int) -> Iterator[tuple[Atoms, float]]:
        """The last computed structures, at most ``limit``, and the wall time of each, s."""
        if self.path.exists():
            for row in tables.open_database(self.path).select(
                engine=engine,
                settings_hash=settings_hash,
                sort="-id",
                limit=limit,
                include_data=False,
            ):
                if row.outcome in {"done", "refused"}:
                    yield row.toatoms(), row.wall_s

    def export(
        self, path: str | os.PathLike[str], *, settings_hash: str | None = None
    ) -> list[Path]:
        """Write all labels of one engine and its settings for other programs.

        Parameters
        ----------
        path
            ``….extxyz`` (MACE's keys) or ``….db`` (ASE SQLite); any other name is a folder, in which
            ``labels.extxyz`` and ``labels.db`` are written.
        settings_hash
            The settings, by their hash or its first characters; required if the ledger holds
            several.

        Returns
        -------
        list of Path
            The files written.

        Raises
        ------
        MixedSettingsError
            The labels differ in engine or settings; the message lists the differences.
        ValueError
            There is no label of these settings.
        """
        prefix = settings_hash or ""
        rows = [
            row
            for row in self._latest_rows()
            if row.status == "done" and row.settings_hash.startswith(prefix)
        ]
        if not rows:
            raise ValueError(f"{self.path}: no label of settings '{prefix}…' to export")
        refuse_mixed_settings(
            [(row.engine, row.settings_hash, row.data.get("settings", {})) for row in rows],
            f"{self.path}: give settings_hash to export one of them",
        )
        return write_frames([tables.frame_of(row) for row in rows], Path(path))

    def _latest_rows(self) -> Iterator[Any]:
        """The valid row of each key, as ASE's database has it."""
        if self.path.exists():
            for (id_,) in self._query(_LATEST_ROWS):
                yield tables.open_database(self.path).get(id=id_)

    def _rows_of(self, key: str) -> list[int]:
        statement = (
            "SELECT id FROM text_key_values WHERE key = 'label_key' AND value = ? ORDER BY id"
        )
        return [row for (row,) in self._query(statement, key)] if self.path.exists() else []

    def _label(self, row: int) -> Label:
        return tables.label_of(tables.open_database(self.path).get(id=row))

    def _is_claimed(self, key: str) -> bool:
        if not (self._claims / key).exists():
            return False
        claim = self.claim(key)
        if claim is None:
            return True
        claim.release()
        return False

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_TRANSACTION_TIMEOUT_S, isolation_level=None)

    def _query(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(self._connect()) as connection:
            return connection.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all changes are stored, or none."""
        with self.locked(), self._translate_disk_full(), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translate_disk_full(self) -> Iterator[None]:
        """Raise ``OSError`` in place of SQLite's error for a full disk."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DISK_ERRORS:
                raise
            problem = (
                f"cannot be written ({error}); nothing of this label is stored; free some space"
            )
            raise OSError(errno.ENOSPC, problem, str(self.path)) from error

    def _migrate(self) -> None:
        try:
            (version,) = self._query("PRAGMA user_version")[0]
            self._query("SELECT count(*) FROM systems")
        except sqlite3.Error as error:
            raise ValueError(
                f"{self.path}: not a label ledger ({error}); move it away, or name another file"
            ) from error
        if version > tables.SCHEMA_VERSION:
            raise ValueError(
                f"{self.path}: written by a later version of this program (ledger {version}, this "
                f"program reads up to {tables.SCHEMA_VERSION}); update it, or name another file"
            )
        if version < tables.SCHEMA_VERSION:
            with self._transaction() as connection:
                tables.migrate(connection, self.path)
