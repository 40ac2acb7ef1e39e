"""Random alloys: the sites of one lattice, shared out among elements at random."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlip_assets.structures.prototypes import UnknownPrototypeError, find_prototype


def parent_lattice(formula: dict[str, int]) -> Atoms:
    """Unit cell of the commonest element's crystal, with the mean volume an atom of all of them.

    The mean is weighted by composition (Zen's law, Vegard's for volumes); elements whose crystal is
    not known are left out of it.

    Raises
    ------
    UnknownPrototypeError
        The crystal of the commonest element is not known; the message says what to give instead.
    """
    commonest = max(sorted(formula, key=atomic_numbers.__getitem__), key=formula.__getitem__)
    try:
        lattice = find_prototype(commonest)
    except UnknownPrototypeError as error:
        raise UnknownPrototypeError(
            f"a random alloy takes the lattice of its commonest element, but {error}"
        ) from error
    volumes, weights = [], []
    for symbol, count in formula.items():
        try:
            crystal = find_prototype(symbol)
        except UnknownPrototypeError:
            continue
        volumes.append(crystal.get_volume() / len(crystal))
        weights.append(count)
    wanted = float(np.average(volumes, weights=weights)) * len(lattice)
    lattice.set_cell(lattice.cell * (wanted / lattice.get_volume()) ** (1 / 3), scale_atoms=True)
    return lattice


def decorate(lattice: Atoms, formula: dict[str, int], rng: np.random.Generator) -> Atoms:
    """Put elements on sites at random, in numbers as near to the formula as whole atoms allow.

    Shares are rounded by largest remainder, the lighter element first among equals.

    Raises
    ------
    ValueError
        There are fewer sites than elements.
    """
    symbols = sorted(formula, key=atomic_numbers.__getitem__)
    if len(lattice) < len(symbols):
        raise ValueError(
            f"{len(lattice)} sites cannot hold {len(symbols)} elements; raise seeds.alloy_atoms"
        )
    shares = np.array([formula[s] for s in symbols]) / sum(formula.values()) * len(lattice)
    counts = np.floor(shares + 1e-9).astype(int)
    left = len(lattice) - int(counts.sum())
    counts[np.argsort(-(shares - counts), kind="stable")[:left]] += 1
    while not counts.all():  # of each at least one
        counts[counts.argmin()] += 1
        counts[counts.argmax()] -= 1
    alloy: Atoms = lattice.copy()
    alloy.symbols[:] = rng.permutation(np.repeat(symbols, counts)).tolist()
    return alloy
