"""Equality of structures up to atom order, translation and lattice vectors; equal ones share a label.

Two structures are equal if they have the same cell, and if a permutation of the atoms, one common
translation and a lattice vector for each atom map every atom of one structure onto an atom of the
same element in the other. Energy and stress are then equal, and so are the forces, atom by atom.
Rotated or mirrored structures, other cells of the same crystal and supercells are not equal in this
sense: their forces and stress would have to be rotated, or their k-points differ.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

#: Largest distance between the same atom of two equal structures, Å, and largest difference of a
#: component of the cell, Å, or of a magnetic moment, Bohr magnetons.
TOLERANCE_A = 1e-4
#: Allowance for rounding of the cell and the translation in a compared distance, Å.
_ROUNDING_A = 1e-9


def kind_of(structure: Atoms, engine: str, settings_hash: str) -> str:
    """SHA-256 of what equal structures share exactly: composition, periodicity, engine, settings."""
    counts = np.unique(structure.numbers, return_counts=True)
    facts = [np.stack(counts).tolist(), structure.pbc.tolist(), engine, settings_hash]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def fingerprint(structure: Atoms) -> NDArray[np.float64]:
    """Three numbers that are nearly the same for equal structures, in any atom order.

    They are moduli of the structure factor, ``|Σ_j Z_j exp(2πi h·s_j)|``, with fractional
    coordinates s and h = (100), (010), (001). They are smooth in the positions, unlike rounded
    numbers, so that every equal structure is within :func:`fingerprint_tolerance`.

    Returns
    -------
    ndarray
        ``(3,)``.
    """
    phases = np.exp(2j * np.pi * structure.cell.scaled_positions(structure.positions))
    moduli: NDArray[np.float64] = np.abs(structure.numbers @ phases)
    return moduli


def fingerprint_tolerance(structure: Atoms) -> NDArray[np.float64]:
    """Largest difference between the fingerprints of equal structures, ``(3,)``.

    If atom j moves by a distance d, its phase changes by at most 2π d |b| with the reciprocal
    vector b. A modulus changes by no more than the sum of these changes, weighted by Z_j.
    """
    reciprocal_per_A = np.linalg.norm(structure.cell.reciprocal().array, axis=1)
    bound = 2 * np.pi * (TOLERANCE_A + _ROUNDING_A) * structure.numbers.sum() * reciprocal_per_A
    return np.asarray(bound + 1e-9 * structure.numbers.sum())


def match_atoms(structure: Atoms, other: Atoms) -> NDArray[np.intp] | None:
    """For each atom of ``other`` the index of the same atom in ``structure``; None if not equal.

    Forces on ``other`` become forces on ``structure`` by ``forces[permutation] = forces_of_other``.

    Parameters
    ----------
    structure, other
        From :func:`mlip_assets.labelling.structure.with_vacuum`: with a cell of finite volume, and
        centred along directions that are not periodic. Structures in which two atoms are closer
        than a few tolerances are never equal.
    """
    cell = structure.cell.array
    if (
        sorted(structure.numbers) != sorted(other.numbers)
        or (structure.pbc != other.pbc).any()
        or np.abs(cell - other.cell.array).max() > TOLERANCE_A
    ):
        return None
    fractions = structure.cell.scaled_positions(structure.positions)
    other_fractions = other.cell.scaled_positions(other.positions)
    match = _Matcher(fractions, structure, other)
    anchor = _rarest_atom(other.numbers)
    # the atom of the same index first, which matches unless the atoms are permuted
    candidates = np.flatnonzero(structure.numbers == other.numbers[anchor])
    for candidate in sorted(candidates, key=lambda atom: bool(atom != anchor)):
        shift = np.where(structure.pbc, fractions[candidate] - other_fractions[anchor], 0.0)
        permutation = match(other_fractions + shift)
        if permutation is not None:
            return permutation
        if not structure.pbc.any():
            return None
    return None


class _Matcher:
    """Finds the atom of a structure at given fractional coordinates, by element."""

    def __init__(self, fractions: NDArray[np.float64], structure: Atoms, other: Atoms) -> None:
        from scipy.spatial import cKDTree  # type: ignore[import-untyped]

        self._cell, self._pbc = structure.cell.array, structure.pbc
        self._fractions = fractions
        # the atom that fixes the shift may be off by the tolerance, and so may the others
        search_radius_A = 2 * TOLERANCE_A + _ROUNDING_A
        widest = np.linalg.norm(structure.cell.reciprocal().array, axis=1).max()
        self._max_fraction = max(search_radius_A * widest, 1e-12)
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

    def __call__(self, fractions: NDArray[np.float64]) -> NDArray[np.intp] | None:
        permutation = np.empty(len(fractions), dtype=np.intp)
        for other_atoms, atoms, tree in self._elements:
            distances, nearest = tree.query(
                _wrapped(fractions[other_atoms]), p=np.inf, distance_upper_bound=self._max_fraction
            )
            if np.isinf(distances).any() or len(np.unique(nearest)) != len(nearest):
                return None
            permutation[other_atoms] = atoms[nearest]
        offsets = fractions - self._fractions[permutation]
        offsets = (offsets - np.rint(offsets)) @ self._cell
        offsets -= self._mean_translation(offsets)
        if np.linalg.norm(offsets, axis=1).max() > TOLERANCE_A + _ROUNDING_A:
            return None
        moments_differ = np.abs(self._moments[permutation] - self._other_moments) > TOLERANCE_A
        return None if moments_differ.any() else permutation

    def _mean_translation(self, offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean offset along the periodic directions, Å: the common translation of all atoms."""
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
