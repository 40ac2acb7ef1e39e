"""SQLite tables of the ledger: schema, migration of earlier versions, conversion of rows.

ASE's own tables hold the labels. ``structures`` holds the structure of each key, and ``starts`` one
row for each calculation that was started.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect
from numpy.typing import NDArray

from mlip_assets.common.files import write_atomically
from mlip_assets.labelling.database import labelled_frame
from mlip_assets.labelling.engines.engine import Attempt, Calculation
from mlip_assets.labelling.ledger.equality import (
    fingerprint,
    fingerprint_tolerance,
    kind_of,
    match_atoms,
)
from mlip_assets.labelling.ledger.label import Entry, Label
from mlip_assets.labelling.structure import ISOLATED, is_isolated_atom, to_plain

_log = logging.getLogger(__name__)

#: Version of ``structures`` and ``starts``, in SQLite's ``user_version``. Version 1 has neither.
SCHEMA_VERSION = 2
_SCHEMA = (
    "CREATE TABLE structures (label_key TEXT PRIMARY KEY, kind TEXT, factor_1 REAL, factor_2 REAL, "
    "factor_3 REAL, structure TEXT)",
    "CREATE INDEX structure_index ON structures (kind, factor_1)",
    "CREATE TABLE starts (id INTEGER PRIMARY KEY, label_key TEXT, attempt INTEGER, "
    "started_at REAL, process TEXT, row_id INTEGER, wall_s REAL)",
    "CREATE INDEX start_index ON starts (label_key, attempt)",
    "CREATE INDEX label_key_index ON text_key_values (value) WHERE key = 'label_key'",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


def open_database(path: Path) -> Any:
    """ASE's database; a new one for each use, as its connection belongs to one thread."""
    return connect(path, type="db", use_lock_file=False)


def create_tables(path: Path) -> None:
    """Create an empty ledger; the file is renamed into place, so that it is complete or absent."""
    with write_atomically(path) as temporary:
        open_database(temporary).metadata = {"title": "DFT labels"}
        with closing(sqlite3.connect(temporary)) as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.commit()


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Add the tables that a ledger of version 1 lacks; does nothing to one of this version.

    Version 1 has the labels alone, one row for each key, and no search for renumbered structures.
    """
    if connection.execute("PRAGMA user_version").fetchone()[0] >= SCHEMA_VERSION:
        return
    _log.info("%s: finding equal structures in a ledger of an earlier version", path)
    for statement in _SCHEMA:
        connection.execute(statement)
    rows = sorted(open_database(path).select(), key=lambda row: (row.status != "done", row.id))
    for row in rows:
        structure = row.toatoms()
        kind = kind_of(structure, row.engine, row.settings_hash)
        if find_structure(connection, structure, kind) is None:
            add_structure(connection, row.label_key, kind, structure)
        starts = [
            (row.label_key, attempt, None, "ledger version 1", row.id, seconds)
            for attempt, seconds in enumerate([0.0] * (row.attempts - 1) + [row.wall_s])
        ]
        connection.executemany("INSERT INTO starts VALUES (NULL, ?, ?, ?, ?, ?, ?)", starts)


def find_structure(connection: sqlite3.Connection, structure: Atoms, kind: str) -> Entry | None:
    """The registered structure that equals this one.

    SQLite selects candidates by the range of their fingerprint; the comparison of all atoms decides.

    Parameters
    ----------
    structure
        As the engine prepares it.
    kind
        Of :func:`mlip_assets.labelling.ledger.equality.kind_of`.
    """
    middle, width = fingerprint(structure), fingerprint_tolerance(structure)
    limits = np.stack([middle - width, middle + width], axis=1).ravel().tolist()
    candidates = connection.execute(
        "SELECT label_key, structure FROM structures WHERE kind = ? AND factor_1 BETWEEN ? AND ? "
        "AND factor_2 BETWEEN ? AND ? AND factor_3 BETWEEN ? AND ? ORDER BY rowid",
        (kind, *limits),
    )
    for key, text in candidates:
        registered = Atoms(**json.loads(text))
        permutation = match_atoms(structure, registered)
        if permutation is not None:
            return Entry(key, registered, permutation)
    return None


def add_structure(connection: sqlite3.Connection, key: str, kind: str, structure: Atoms) -> None:
    """Register a structure under a key."""
    connection.execute(
        "INSERT INTO structures VALUES (?, ?, ?, ?, ?, ?)",
        (key, kind, *fingerprint(structure).tolist(), json.dumps(to_plain(structure))),
    )


def columns_of(label: Label, structure: Atoms) -> dict[str, Any]:
    """The key-value pairs of a label, by which ASE's tools can search."""
    columns: dict[str, Any] = {
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
        "config_type": ISOLATED if is_isolated_atom(structure) else "Default",
    }
    if label.calculation is not None and np.isfinite(label.calculation.energy_eV):
        columns["REF_energy"] = label.calculation.energy_eV
    return columns


def data_of(label: Label) -> dict[str, Any]:
    """The part of a label that is not searchable: arrays and the log of attempts."""
    data: dict[str, Any] = {"attempts_log": [asdict(attempt) for attempt in label.attempts_log]}
    if label.calculation is not None:
        data["REF_energy"] = label.calculation.energy_eV
        data["REF_forces"] = label.calculation.forces
        data["REF_stress"] = label.calculation.stress
    return data


def label_of(row: Any) -> Label:
    """The label in a row of ASE's database."""
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
        attempts_log=tuple(Attempt(**entry) for entry in data.get("attempts_log", [])),
        row=row.id,
    )


def frame_of(row: Any) -> Atoms:
    """The structure of a row with its label under MACE's keys."""
    label = label_of(row)
    assert label.calculation is not None
    return labelled_frame(
        row.toatoms(),
        label.calculation,
        label_key=label.key,
        engine=label.engine,
        settings_hash=label.settings_hash,
        config_type=row.config_type,
    )
