"""Random alloys: elements distributed at random over the sites of one lattice."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlip_assets.structures.prototypes import UnknownPrototypeError, find_prototype


def parent_lattice(formula: dict[str, int]) -> Atoms:
    """Unit cell of the most abundant element's crystal, with the mean atomic volume of the alloy.

    The mean of the elements' atomic volumes is weighted by composition (Zen's law, which is Vegard's
    for volumes). Elements without a tabulated crystal are left out of it.

    Parameters
    ----------
    formula
        Atoms of each element in one formula unit. Of elements of equal number, the lightest gives
        the lattice.

    Returns
    -------
    Atoms
        Periodic, all sites occupied by the most abundant element; lengths in Å.

    Raises
    ------
    UnknownPrototypeError
        No crystal of the most abundant element is tabulated; the message names alternatives.
    """
    most_abundant = max(sorted(formula, key=atomic_numbers.__getitem__), key=formula.__getitem__)
    try:
        lattice = find_prototype(most_abundant)
    except UnknownPrototypeError as error:
        raise UnknownPrototypeError(
            f"a random alloy uses the lattice of its most abundant element, but {error}"
        ) from error
    volumes, weights = [], []
    for symbol, count in formula.items():
        try:
            crystal = find_prototype(symbol)
        except UnknownPrototypeError:
            continue
        volumes.append(crystal.get_volume() / len(crystal))
        weights.append(count)
    volume_A3 = float(np.average(volumes, weights=weights)) * len(lattice)
    lattice.set_cell(lattice.cell * (volume_A3 / lattice.get_volume()) ** (1 / 3), scale_atoms=True)
    return lattice


def decorate(lattice: Atoms, formula: dict[str, int], rng: np.random.Generator) -> Atoms:
    """Distribute elements over the sites at random, in numbers that approximate the formula.

    The numbers of atoms are rounded by the largest-remainder method, the lighter element first among
    equal remainders; each element has at least one atom.

    Parameters
    ----------
    lattice
        Its sites; their elements are replaced.
    formula
        Atoms of each element in one formula unit.
    rng
        Draws the permutation of the sites.

    Raises
    ------
    ValueError
        There are fewer sites than elements.
    """
    symbols = sorted(formula, key=atomic_numbers.__getitem__)
    if len(lattice) < len(symbols):
        raise ValueError(
            f"{len(lattice)} sites are too few for {len(symbols)} elements; raise seeds.alloy_atoms"
        )
    shares = np.array([formula[s] for s in symbols]) / sum(formula.values()) * len(lattice)
    counts = np.floor(shares + 1e-9).astype(int)
    remaining = len(lattice) - int(counts.sum())
    counts[np.argsort(-(shares - counts), kind="stable")[:remaining]] += 1
    while not counts.all():  # at least one of each
        counts[counts.argmin()] += 1
        counts[counts.argmax()] -= 1
    alloy: Atoms = lattice.copy()
    alloy.symbols[:] = rng.permutation(np.repeat(symbols, counts)).tolist()
    return alloy
