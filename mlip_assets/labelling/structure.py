"""The structure as an engine sees it, and what it is called in the ledger."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from ase import Atoms

#: ``config_type`` of free atoms, as MACE knows it.
ISOLATED = "IsolatedAtom"


def boxed(atoms: Atoms, vacuum_A: float) -> Atoms:
    """Numbers, positions, cell, pbc and initial magnetic moments, and nothing else.

    Along directions that are not periodic, the atoms are centred with ``vacuum_A`` of empty space
    on both sides: where a drifting cluster has got to in its box, and how large the box is, then
    changes neither its label nor its key. Periodic cell vectors and all relative positions stay.
    """
    structure = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    moments = atoms.get_initial_magnetic_moments()
    if moments.any():
        structure.set_initial_magnetic_moments(moments)
    open_axes = [axis for axis in range(3) if not structure.pbc[axis]]
    if open_axes:
        structure.center(vacuum=vacuum_A, axis=open_axes)
    return structure


def is_isolated(structure: Atoms) -> bool:
    """Whether this is one atom in empty space."""
    return len(structure) == 1 and not structure.pbc.any()


def flaw_of(atoms: Atoms) -> str | None:
    """Why no calculation can be made of these atoms; None when one can."""
    if len(atoms) == 0:
        return "there are no atoms"
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "positions or cell are not finite"
    periodic = atoms.cell.array[atoms.pbc]
    if np.linalg.matrix_rank(periodic) < len(periodic):
        return "the periodic cell vectors are zero or parallel"
    return None


def label_key(structure: Atoms, engine: str, settings_hash: str) -> str:
    """SHA-256 of a structure to the last bit, an engine's name and its settings.

    What other structures share this key is for :mod:`mlip_assets.labelling.ledger.equality` to tell and
    for the ledger to keep.
    """
    digest = hashlib.sha256()
    for array in (
        structure.numbers,
        structure.pbc,
        structure.cell.array,
        structure.positions,
        structure.get_initial_magnetic_moments(),
    ):
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes() + b"|")
    digest.update(json.dumps([engine, settings_hash]).encode())
    return digest.hexdigest()


def to_plain(structure: Atoms) -> dict[str, object]:
    """A boxed structure as JSON values; every float keeps its last bit."""
    return {
        "numbers": structure.numbers.tolist(),
        "positions": structure.positions.tolist(),
        "cell": structure.cell.array.tolist(),
        "pbc": structure.pbc.tolist(),
        "magmoms": structure.get_initial_magnetic_moments().tolist(),
    }
