"""Structures as an engine computes them, and their keys in the ledger."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from ase import Atoms

#: ``config_type`` of isolated atoms, by which MACE recognises them.
ISOLATED = "IsolatedAtom"


def with_vacuum(atoms: Atoms, vacuum_A: float) -> Atoms:
    """A copy with numbers, positions, cell, pbc and initial magnetic moments only.

    Along directions that are not periodic, the atoms are centred with ``vacuum_A`` of empty space
    on both sides. Neither the position of a cluster in its box nor the size of the box then changes
    the label or its key. Periodic cell vectors and all relative positions are unchanged.
    """
    structure = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    moments = atoms.get_initial_magnetic_moments()
    if moments.any():
        structure.set_initial_magnetic_moments(moments)
    open_axes = [axis for axis in range(3) if not structure.pbc[axis]]
    if open_axes:
        structure.center(vacuum=vacuum_A, axis=open_axes)
    return structure


def is_isolated_atom(structure: Atoms) -> bool:
    """Whether this is one atom without periodic images."""
    return len(structure) == 1 and not structure.pbc.any()


def invalid_reason(atoms: Atoms) -> str | None:
    """Why these atoms cannot be computed; None if they can."""
    if len(atoms) == 0:
        return "there are no atoms"
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "positions or cell are not finite"
    periodic = atoms.cell.array[atoms.pbc]
    if np.linalg.matrix_rank(periodic) < len(periodic):
        return "the periodic cell vectors are zero or parallel"
    return None


def label_key(structure: Atoms, engine: str, settings_hash: str) -> str:
    """SHA-256 of the exact structure, the name of an engine and the hash of its settings.

    :mod:`mlip_assets.labelling.ledger.equality` decides which other structures share this key, and
    the ledger stores it.
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
    """A structure of :func:`with_vacuum` as JSON values; every float is exact."""
    return {
        "numbers": structure.numbers.tolist(),
        "positions": structure.positions.tolist(),
        "cell": structure.cell.array.tolist(),
        "pbc": structure.pbc.tolist(),
        "magmoms": structure.get_initial_magnetic_moments().tolist(),
    }
