"""Disordered structures that no two atoms make impossible: random packings in a box or in space.

Both packings ask how close two elements may come. :class:`Contacts` learns that from the crystal
(its nearest distance for each pair of elements), so that van-der-Waals solids, metals and salts
are all packed at their own spacing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

#: Tightest packing tried first: random close packing of spheres reaches 0.95 of the fcc spacing.
_TIGHTNESS = (0.92, 0.88, 0.84, 0.80, 0.75, 0.70)
_PUSHES = 100
_CANDIDATES = 400


class Contacts:
    """The nearest distance (Å) of every pair of elements, from a crystal or the covalent radii.

    Parameters
    ----------
    crystal
        Where to measure. Pairs it does not bring together, and all pairs when it is None, get the
        sum of their covalent radii (Cordero et al., Dalton Trans. 2008, 2832), scaled by the ratio
        that the crystal's closest pair shows.
    """

    def __init__(self, crystal: Atoms | None = None) -> None:
        self._nearest: dict[tuple[int, int], float] = {}
        self._scale = 1.0
        if crystal is not None:
            self._measure(crystal)

    def _measure(self, crystal: Atoms) -> None:
        reach = 3 * float(covalent_radii[crystal.numbers].max())
        for cutoff in (reach, 2 * reach):
            i, j, distances = neighbor_list("ijd", crystal, cutoff)
            if len(distances):
                break
        else:
            return
        first, second = crystal.numbers[i], crystal.numbers[j]
        self._scale = float((distances / (covalent_radii[first] + covalent_radii[second])).min())
        for pair in set(zip(first.tolist(), second.tolist(), strict=True)):
            together = (first == pair[0]) & (second == pair[1])
            self._nearest[pair] = float(distances[together].min())

    def distance(self, first: int, second: int) -> float:
        """Contact distance of two atomic numbers, Å."""
        by_radii = self._scale * float(covalent_radii[first] + covalent_radii[second])
        return self._nearest.get((first, second), by_radii)

    def matrix(self, numbers: NDArray[np.integer]) -> NDArray[np.float64]:
        """Contact distances (n_atoms, n_atoms) of a list of atoms, Å."""
        kinds, index = np.unique(numbers, return_inverse=True)
        table = np.array([[self.distance(int(a), int(b)) for b in kinds] for a in kinds])
        full: NDArray[np.float64] = table[index[:, None], index]
        return full


def formula_units(formula: dict[str, int], at_least: int) -> list[str]:
    """Symbols of whole formula units, elements interleaved, with at least so many atoms."""
    divisor = int(np.gcd.reduce(list(formula.values())))
    elements = sorted(formula, key=atomic_numbers.__getitem__)
    unit = [symbol for symbol in elements for _ in range(formula[symbol] // divisor)]
    return unit * -(-at_least // len(unit))


def pack_liquid(
    symbols: Sequence[str], volume_A3: float, contacts: Contacts, rng: np.random.Generator
) -> Atoms:
    """Random packing in a periodic cube, as evenly spaced as pushing atoms apart can make it.

    Atoms start anywhere; overlapping pairs are pushed apart until none is closer than a fraction
    of its contact distance: 92 % at best, and less, to 70 %, where the atoms jam before that.

    Raises
    ------
    ValueError
        The box is too small for the atoms even at the smallest fraction.
    """
    side = volume_A3 ** (1 / 3)
    atoms = Atoms(symbols, rng.uniform(0, side, (len(symbols), 3)), cell=[side] * 3, pbc=True)
    if not any(_push_apart(atoms, contacts, tightness) for tightness in _TIGHTNESS):
        raise ValueError(
            f"{atoms.get_chemical_formula()} does not fit into a cube of {side:.2f} Å without "
            f"atoms closer than {_TIGHTNESS[-1]:.0%} of their distance in the crystal; lower "
            "seeds.liquid_density_ratio or raise seeds.liquid_atoms"
        )
    return atoms


def pack_cluster(
    symbols: Sequence[str], contacts: Contacts, vacuum_A: float, rng: np.random.Generator
) -> Atoms:
    """Compact gas-phase cluster, grown one atom at a time, none closer than its contact distance.

    Each atom is put where, of many random places touching an earlier atom and overlapping none,
    the centre of the cluster is nearest. Not periodic; the cell leaves ``vacuum_A`` on every side.
    """
    atoms = Atoms(symbols)
    contact = contacts.matrix(atoms.numbers)
    positions = np.zeros((len(atoms), 3))
    for new in range(1, len(atoms)):
        free = np.empty((0, 3))
        while not len(free):
            touched = rng.integers(0, new, _CANDIDATES)
            directions = rng.normal(size=(_CANDIDATES, 3))
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            places = positions[touched] + directions * contact[touched, new][:, None]
            _, apart = get_distances(places, positions[:new])
            free = places[(apart >= contact[:new, new] * (1 - 1e-9)).all(axis=1)]
        from_centre = np.linalg.norm(free - positions[:new].mean(axis=0), axis=1)
        positions[new] = free[from_centre.argmin()]
    atoms.positions = positions
    atoms.center(vacuum=vacuum_A)
    return atoms


def _push_apart(atoms: Atoms, contacts: Contacts, tightness: float) -> bool:
    """Move overlapping pairs apart, in place; whether none is left below ``tightness``."""
    wanted = tightness * contacts.matrix(atoms.numbers)
    goal = 1.02 * wanted  # aiming a little past the goal ends the creep towards it
    for _ in range(_PUSHES):
        i, j, distances, vectors = neighbor_list("ijdD", atoms, float(goal.max()))
        if not (distances < wanted[i, j]).any():
            return True
        overlap = np.maximum(goal[i, j] - distances, 0)
        push = -0.25 * vectors * (overlap / np.maximum(distances, 1e-9))[:, None]
        np.add.at(atoms.positions, i, push)
        atoms.wrap()
    return False
