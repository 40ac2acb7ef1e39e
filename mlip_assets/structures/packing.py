"""Random packings without close contacts: a liquid in a periodic box, a cluster in vacuum.

Both packings use the shortest allowed distance of each pair of elements. :class:`ContactDistances`
measures it in the crystal, so that van-der-Waals solids, metals and salts are all packed at realistic
distances.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

#: Fractions of the contact distances, in the order they are tried: random close packing of spheres
#: reaches 0.95 of the fcc distance.
_FRACTIONS = (0.92, 0.88, 0.84, 0.80, 0.75, 0.70)
_MAX_PUSHES = 100
_N_CANDIDATES = 400


class ContactDistances:
    """Shortest distance (Å) of every pair of elements, from a crystal or the covalent radii.

    Parameters
    ----------
    crystal
        Where distances are measured. Pairs that are not neighbours in it, and all pairs if it is
        None, get the sum of their covalent radii (Cordero et al., Dalton Trans. 2008, 2832), times
        the ratio of distance to that sum of the crystal's closest pair.
    """

    def __init__(self, crystal: Atoms | None = None) -> None:
        self._nearest: dict[tuple[int, int], float] = {}
        self._scale = 1.0
        if crystal is not None:
            self._measure(crystal)

    def _measure(self, crystal: Atoms) -> None:
        cutoff_A = 3 * float(covalent_radii[crystal.numbers].max())
        for cutoff in (cutoff_A, 2 * cutoff_A):
            i, j, distances = neighbor_list("ijd", crystal, cutoff)
            if len(distances):
                break
        else:
            return
        first, second = crystal.numbers[i], crystal.numbers[j]
        self._scale = float((distances / (covalent_radii[first] + covalent_radii[second])).min())
        for pair in set(zip(first.tolist(), second.tolist(), strict=True)):
            is_pair = (first == pair[0]) & (second == pair[1])
            self._nearest[pair] = float(distances[is_pair].min())

    def distance(self, first: int, second: int) -> float:
        """Contact distance of two atomic numbers, Å."""
        by_radii = self._scale * float(covalent_radii[first] + covalent_radii[second])
        return self._nearest.get((first, second), by_radii)

    def matrix(self, numbers: NDArray[np.integer]) -> NDArray[np.float64]:
        """Contact distances between atoms of these atomic numbers, shape (n_atoms, n_atoms), Å."""
        kinds, index = np.unique(numbers, return_inverse=True)
        table = np.array([[self.distance(int(a), int(b)) for b in kinds] for a in kinds])
        full: NDArray[np.float64] = table[index[:, None], index]
        return full


def formula_units(formula: dict[str, int], min_atoms: int) -> list[str]:
    """Symbols of whole formula units, elements interleaved, at least ``min_atoms`` of them."""
    divisor = int(np.gcd.reduce(list(formula.values())))
    elements = sorted(formula, key=atomic_numbers.__getitem__)
    unit = [symbol for symbol in elements for _ in range(formula[symbol] // divisor)]
    return unit * -(-min_atoms // len(unit))


def pack_liquid(
    symbols: Sequence[str], volume_A3: float, contacts: ContactDistances, rng: np.random.Generator
) -> Atoms:
    """Random packing in a periodic cube, without pairs closer than a fraction of their contact distance.

    Atoms start at random positions. Overlapping pairs are moved apart until none is closer than 92 %
    of its contact distance; where this is not reached, smaller fractions down to 70 % are tried.

    Parameters
    ----------
    symbols
        Element of each atom.
    volume_A3
        Volume of the cube, Å³.
    contacts
        Contact distance of every pair of elements.
    rng
        Draws the initial positions.

    Raises
    ------
    ValueError
        The box is too small for the atoms at the smallest fraction.
    """
    side = volume_A3 ** (1 / 3)
    atoms = Atoms(symbols, rng.uniform(0, side, (len(symbols), 3)), cell=[side] * 3, pbc=True)
    if not any(_separate(atoms, contacts, fraction) for fraction in _FRACTIONS):
        raise ValueError(
            f"{atoms.get_chemical_formula()} does not fit into a cube of {side:.2f} Å without "
            f"atoms closer than {_FRACTIONS[-1]:.0%} of their distance in the crystal; lower "
            "seeds.liquid_density_ratio or raise seeds.liquid_atoms"
        )
    return atoms


def pack_cluster(
    symbols: Sequence[str], contacts: ContactDistances, vacuum_A: float, rng: np.random.Generator
) -> Atoms:
    """Compact gas-phase cluster, grown atom by atom, without pairs closer than their contact distance.

    For each atom, positions in contact with an earlier atom are drawn at random. Of those without
    an overlap, the one closest to the centre of the cluster is taken. Not periodic; the cell leaves
    ``vacuum_A`` on every side.

    Parameters
    ----------
    symbols
        Element of each atom.
    contacts
        Contact distance of every pair of elements.
    vacuum_A
        Distance between the outermost atoms and the faces of the cell, Å.
    rng
        Draws the candidate positions.
    """
    atoms = Atoms(symbols)
    contact = contacts.matrix(atoms.numbers)
    positions = np.zeros((len(atoms), 3))
    for new in range(1, len(atoms)):
        free = np.empty((0, 3))
        while not len(free):
            partners = rng.integers(0, new, _N_CANDIDATES)
            directions = rng.normal(size=(_N_CANDIDATES, 3))
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            candidates = positions[partners] + directions * contact[partners, new][:, None]
            _, distances = get_distances(candidates, positions[:new])
            free = candidates[(distances >= contact[:new, new] * (1 - 1e-9)).all(axis=1)]
        from_centre = np.linalg.norm(free - positions[:new].mean(axis=0), axis=1)
        positions[new] = free[from_centre.argmin()]
    atoms.positions = positions
    atoms.center(vacuum=vacuum_A)
    return atoms


def _separate(atoms: Atoms, contacts: ContactDistances, fraction: float) -> bool:
    """Move overlapping pairs apart, in place; whether no pair is left below ``fraction``."""
    required = fraction * contacts.matrix(atoms.numbers)
    target = 1.02 * required  # above the required distance, so that the loop converges in few steps
    for _ in range(_MAX_PUSHES):
        i, j, distances, vectors = neighbor_list("ijdD", atoms, float(target.max()))
        if not (distances < required[i, j]).any():
            return True
        overlap = np.maximum(target[i, j] - distances, 0)
        push = -0.25 * vectors * (overlap / np.maximum(distances, 1e-9))[:, None]
        np.add.at(atoms.positions, i, push)
        atoms.wrap()
    return False
