"""The ledger: every label ever paid for, and every failure with its reason."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.db import connect
from numpy.typing import NDArray

from mlip_assets.files import locked, write_atomically
from mlip_assets.labelling.engines import Calculation
from mlip_assets.labelling.structure import ISOLATED, is_isolated

_log = logging.getLogger(__name__)

#: done; refused: calculated, but judged unfit; not_converged and error repeat whenever they are
#: repeated; timeout may pass with more time; died (killed, out of memory) may pass next time.
Outcome = Literal["done", "refused", "not_converged", "error", "timeout", "died"]


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

    @property
    def is_done(self) -> bool:
        """Whether it may be trained on."""
        return self.outcome == "done"


class LabelLedger:
    """Labels by key, in an ASE SQLite database that any ASE tool can search.

    One row a key: ``label_key``, ``status`` (done | failed), ``outcome``, ``reason``, ``engine``,
    ``settings_hash``, ``attempts``, ``wall_s``, ``timeout_s``, ``program``, ``config_type`` and,
    where calculated, ``REF_energy``; ``REF_forces``, ``REF_stress`` and the settings in its data.
    Each commit is one SQLite transaction. ``calculations/`` beside it holds the raw output of what
    is running and of what failed.

    Parameters
    ----------
    path
        A local file, made if missing. SQLite's locks are not to be trusted on network drives.

    Raises
    ------
    ValueError
        The file is there but is no such database.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.calculations = self.path.parent / f"{self.path.stem}-calculations"
        if self.path.exists():
            self._check()

    def __len__(self) -> int:
        """How many labels and failures it holds."""
        return int(self._database.count()) if self.path.exists() else 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the ledger alone, so that no label is computed twice at the same time.

        Waits for another process that holds it. The system frees the lock of a process that dies.
        """
        with locked(self.path.with_name(f"{self.path.name}.lock"), wait=True):
            if not self.path.exists():
                self._create()
            yield

    def find(self, key: str) -> Label | None:
        """The label of a key, or None."""
        if not self.path.exists():
            return None
        row = next(self._database.select(label_key=key), None)
        return None if row is None else _label_of(row)

    def commit(self, label: Label, structure: Atoms, **facts: Any) -> None:
        """Write a label durably, over any earlier one of its key; call it inside :meth:`locked`.

        Parameters
        ----------
        structure
            What was computed.
        **facts
            Further data to keep with it.
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
        if label.calculation is not None:
            data["REF_energy"] = label.calculation.energy_eV
            data["REF_forces"] = label.calculation.forces
            data["REF_stress"] = label.calculation.stress
            if np.isfinite(label.calculation.energy_eV):
                columns["REF_energy"] = label.calculation.energy_eV
        earlier = next(self._database.select(label_key=label.key), None)
        self._database.write(structure, columns, data, id=earlier and earlier.id)

    @cached_property
    def _database(self) -> Any:
        return connect(self.path, type="db", use_lock_file=False)

    def _create(self) -> None:
        """Tables are made aside, so that a kill cannot leave half of them."""
        with write_atomically(self.path) as temporary:
            connect(temporary, type="db", use_lock_file=False).metadata = {"title": "DFT labels"}

    def _check(self) -> None:
        import sqlite3

        try:
            self._database.count()
        except sqlite3.Error as error:
            raise ValueError(
                f"{self.path}: not a label ledger ({error}); move it away, or name another file"
            ) from error


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
    )
