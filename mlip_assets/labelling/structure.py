"""The structure as an engine sees it, and the key under which its label is kept."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

#: ``config_type`` of free atoms, as MACE knows it.
ISOLATED = "IsolatedAtom"
#: Structures closer than this in every coordinate may share a label, Å.
POSITION_TOLERANCE_A = 1e-4
#: Rounding boundaries lie at this odd fraction of a step, because the coordinates of crystals lie
#: at simple ones, where a change in the last bit would change the key.
_ROUNDING_OFFSET = 0.3819660112501051


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
    """SHA-256 of a structure, an engine's name and its settings.

    Atoms keep their order. Each is taken modulo the cell, in steps of :data:`POSITION_TOLERANCE_A`
    along the cell vectors, and so are the cell vectors themselves: moving an atom by whole cells,
    or wrapping, leaves the key as it is, and so does noise far below the step.

    Parameters
    ----------
    structure
        As :func:`boxed` gives it, with a cell of finite volume.
    engine, settings_hash
        What computes the label, and :func:`mlip_assets.labelling.engines.hash_of` its physics.
    """
    lengths = _steps(structure.cell.lengths() / POSITION_TOLERANCE_A)
    fractions = structure.cell.scaled_positions(structure.positions)
    digest = hashlib.sha256()
    for array in (
        structure.numbers,
        structure.pbc,
        _steps(structure.cell.array / POSITION_TOLERANCE_A),
        _steps(fractions * lengths) % lengths,
        _steps(structure.get_initial_magnetic_moments() / POSITION_TOLERANCE_A),
    ):
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes() + b"|")
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


def _steps(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.floor(values + _ROUNDING_OFFSET).astype(np.int64)
