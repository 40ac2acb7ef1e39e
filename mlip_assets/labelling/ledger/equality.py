"""When two structures are the same but for the names of their atoms, and so may share a label.

Equal means: the same cell, and one numbering, one shift of the whole and any number of whole cells
for each atom that bring every atom of one structure onto one of its kind in the other. Energy and
stress are then equal, and so are the forces, atom by atom. Turned or mirrored structures, other
cells of the same crystal and supercells are not equal in this sense: their forces and stress would
have to be turned, or the k-points differ.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

#: Equal structures have no atom further than this from its partner, Å, and no component of the
#: cell or magnetic moment (Bohr magnetons) that differs by more.
TOLERANCE_A = 1e-4
#: What rounding in the cell and the shift may add to a distance that is compared, Å.
_ROUNDING_A = 1e-9


def kind_of(structure: Atoms, engine: str, settings_hash: str) -> str:
    """What equal structures have exactly in common: elements, periodic directions, settings."""
    counts = np.unique(structure.numbers, return_counts=True)
    facts = [np.stack(counts).tolist(), structure.pbc.tolist(), engine, settings_hash]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def fingerprint(structure: Atoms) -> NDArray[np.float64]:
    """Three numbers that are nearly the same for equal structures, whatever their numbering.

    Moduli of the structure factor, ``|Σ_j Z_j exp(2πi h·s_j)|``, with fractional coordinates s and
    h = (100), (010), (001): smooth in the positions, unlike anything rounded, so that a range of
    :func:`fingerprint_tolerance` around them holds every equal structure.
    """
    phases = np.exp(2j * np.pi * structure.cell.scaled_positions(structure.positions))
    moduli: NDArray[np.float64] = np.abs(structure.numbers @ phases)
    return moduli


def fingerprint_tolerance(structure: Atoms) -> NDArray[np.float64]:
    """By how much the fingerprint of an equal structure may differ.

    Where atom j moves by a vector of length d, its phase changes by at most 2π d |b| with the
    reciprocal vector b; the moduli change by no more than all the phases together.
    """
    reciprocal_per_A = np.linalg.norm(structure.cell.reciprocal().array, axis=1)
    bound = 2 * np.pi * (TOLERANCE_A + _ROUNDING_A) * structure.numbers.sum() * reciprocal_per_A
    return np.asarray(bound + 1e-9 * structure.numbers.sum())


def matching(structure: Atoms, other: Atoms) -> NDArray[np.intp] | None:
    """For each atom of ``other`` the atom of ``structure`` that it is; None unless they are equal.

    Forces on ``other`` become forces on ``structure`` by ``forces[matching] = forces_of_other``.

    Parameters
    ----------
    structure, other
        As :func:`mlip_assets.labelling.structure.boxed` gives them: with a cell of finite volume,
        and centred along directions that are not periodic. No two atoms may be nearer to each other
        than a few tolerances; such structures are never equal.
    """
    cell = structure.cell.array
    if (
        sorted(structure.numbers) != sorted(other.numbers)
        or (structure.pbc != other.pbc).any()
        or np.abs(cell - other.cell.array).max() > TOLERANCE_A
    ):
        return None
    ours = structure.cell.scaled_positions(structure.positions)
    theirs = other.cell.scaled_positions(other.positions)
    match = _Matcher(ours, structure, other)
    anchor = _rarest_atom(other.numbers)
    # the first candidate is the atom of the same number, which it is where nothing is renumbered
    candidates = np.flatnonzero(structure.numbers == other.numbers[anchor])
    for candidate in sorted(candidates, key=lambda atom: bool(atom != anchor)):
        shift = np.where(structure.pbc, ours[candidate] - theirs[anchor], 0.0)
        partners = match(theirs + shift)
        if partners is not None:
            return partners
        if not structure.pbc.any():
            return None
    return None


class _Matcher:
    """Looks up which atoms of a structure lie at given places, by element."""

    def __init__(self, fractions: NDArray[np.float64], structure: Atoms, other: Atoms) -> None:
        from scipy.spatial import cKDTree  # type: ignore[import-untyped]

        self._cell, self._pbc = structure.cell.array, structure.pbc
        self._fractions = fractions
        # an atom that pins the shift may itself be off by the tolerance, and so may the others
        self._first_look_A = 2 * TOLERANCE_A + _ROUNDING_A
        widest = np.linalg.norm(structure.cell.reciprocal().array, axis=1).max()
        self._within = max(self._first_look_A * widest, 1e-12)
        self._elements = [
            (
                np.flatnonzero(other.numbers == number),
                atoms := np.flatnonzero(structure.numbers == number),
                cKDTree(_wrapped(fractions[atoms]), boxsize=1.0),
            )
            for number in np.unique(structure.numbers)
        ]
        self._moments = structure.get_initial_magnetic_moments()
        self._other_moments = other.get_initial_magnetic_moments()

    def __call__(self, places: NDArray[np.float64]) -> NDArray[np.intp] | None:
        partners = np.empty(len(places), dtype=np.intp)
        for sought, atoms, tree in self._elements:
            distances, nearest = tree.query(
                _wrapped(places[sought]), p=np.inf, distance_upper_bound=self._within
            )
            if np.isinf(distances).any() or len(np.unique(nearest)) != len(nearest):
                return None
            partners[sought] = atoms[nearest]
        offsets = places - self._fractions[partners]
        offsets = (offsets - np.rint(offsets)) @ self._cell
        offsets -= self._free_shift(offsets)
        if np.linalg.norm(offsets, axis=1).max() > TOLERANCE_A + _ROUNDING_A:
            return None
        moments_differ = np.abs(self._moments[partners] - self._other_moments) > TOLERANCE_A
        return None if moments_differ.any() else partners

    def _free_shift(self, offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean offset along the periodic directions, which shifting the whole takes away."""
        mean_fractions = np.linalg.solve(self._cell.T, offsets.mean(axis=0))
        shift: NDArray[np.float64] = np.where(self._pbc, mean_fractions, 0.0) @ self._cell
        return shift


def _rarest_atom(numbers: NDArray[np.int64]) -> int:
    elements, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    return int(first[np.argmin(counts)]) if len(elements) else 0


def _wrapped(fractions: NDArray[np.float64]) -> NDArray[np.float64]:
    wrapped = fractions % 1.0
    wrapped[wrapped >= 1.0] = 0.0  # the remainder of a tiny negative number rounds to one
    return wrapped
