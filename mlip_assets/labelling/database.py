"""The labels of one campaign: frames with energies, forces and stresses, and what was left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.db.core import check
from ase.io import write
from numpy.typing import NDArray

from mlip_assets.files import write_atomically

_DATABASE, _EXTXYZ = "labels.db", "labels.extxyz"
#: Arrays for which ASE's database has columns of its own.
_COLUMNS = {
    "numbers",
    "positions",
    "initial_magmoms",
    "initial_charges",
    "momenta",
    "tags",
    "masses",
}


@dataclass(frozen=True)
class Failure:
    """A frame without a label, and why; ``attempts`` calculations were made of it."""

    frame_id: int
    label_key: str
    reason: str
    attempts: int


@dataclass(frozen=True)
class LabelledDatabase:
    """Labels in the order of the frames they were asked for.

    Attributes
    ----------
    labelled
        Frames with ``info["REF_energy"]`` (free energy, eV), ``arrays["REF_forces"]`` (eV/Å),
        ``info["REF_stress"]`` ((3, 3), eV/Å³, fully periodic frames only), ``label_key``,
        ``engine``, ``settings_hash``, ``config_type``, and all that was in their ``info`` before.
    isolated
        The free atoms at the same settings, likewise, with ``config_type`` IsolatedAtom.
    failed
        Frames without a usable label.
    deferred
        ``frame_id`` of the frames that the budget did not reach.
    n_calculated
        DFT calls made, further attempts and free atoms included.
    n_reused
        DFT calls saved: frames and free atoms whose label was there already, in the ledger or
        from an equal frame.
    wall_s
        Time all this took.
    settings_hash
        Of the engine's physics.
    """

    labelled: list[Atoms]
    isolated: list[Atoms]
    failed: list[Failure]
    deferred: list[int]
    n_calculated: int
    n_reused: int
    wall_s: float
    settings_hash: str

    @property
    def isolated_energies(self) -> dict[str, float]:
        """Free energy of the free atom of each element, eV."""
        return {atom.get_chemical_formula(): atom.info["REF_energy"] for atom in self.isolated}

    def binding_energies(self) -> NDArray[np.float64]:
        """Energy above the free atoms, eV/atom, negative when bound; one value a labelled frame.

        Not a number where the free atom of one of its elements has no label.
        """
        free = self.isolated_energies
        values = [
            (atoms.info["REF_energy"] - sum(free.get(s, np.nan) for s in atoms.symbols))
            / len(atoms)
            for atoms in self.labelled
        ]
        return np.asarray(values, dtype=np.float64)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``labels.extxyz`` (MACE's keys) and, last, ``labels.db`` (ASE SQLite)."""
        with write_atomically(Path(folder) / _EXTXYZ) as temporary:
            write(temporary, [*self.isolated, *self.labelled], format="extxyz")
        with write_atomically(Path(folder) / _DATABASE) as temporary:
            database = connect(temporary, type="db", use_lock_file=False)
            database.metadata = {
                "title": "DFT labels",
                "n_isolated": len(self.isolated),
                "failed": [asdict(failure) for failure in self.failed],
                "deferred": self.deferred,
                "n_calculated": self.n_calculated,
                "n_reused": self.n_reused,
                "wall_s": self.wall_s,
                "settings_hash": self.settings_hash,
            }
            with database:
                for atoms in (*self.isolated, *self.labelled):
                    database.write(atoms, _searchable(atoms.info), _unsearchable(atoms))

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Read back what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            There is no ``labels.db`` in the folder.
        """
        file = Path(folder) / _DATABASE
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such label database; materialize the labels first")
        database = connect(file, type="db", use_lock_file=False)
        facts = database.metadata
        everything = []
        for row in database.select():
            atoms = row.toatoms()
            atoms.info = dict(row.data["info"])
            for name, array in row.data["arrays"].items():
                atoms.set_array(name, array)
            everything.append(atoms)
        n_isolated = facts["n_isolated"]
        return cls(
            labelled=everything[n_isolated:],
            isolated=everything[:n_isolated],
            failed=[Failure(**failure) for failure in facts["failed"]],
            deferred=facts["deferred"],
            n_calculated=facts["n_calculated"],
            n_reused=facts["n_reused"],
            wall_s=facts["wall_s"],
            settings_hash=facts["settings_hash"],
        )


def _searchable(info: Mapping[str, Any]) -> dict[str, Any]:
    """What ASE takes as key-value pairs; the rest is kept as data alone."""
    return dict(_admissible(info))


def _admissible(info: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in info.items():
        try:
            check({key: value})
        except ValueError:  # a reserved name, a list, or a text that looks like a number
            continue
        yield key, value


def _unsearchable(atoms: Atoms) -> dict[str, Any]:
    arrays = {name: array for name, array in atoms.arrays.items() if name not in _COLUMNS}
    # ASE's encoder takes arrays and plain numbers, but not NumPy's scalars
    info = {k: v.item() if isinstance(v, np.generic) else v for k, v in atoms.info.items()}
    return {"info": info, "arrays": arrays}
