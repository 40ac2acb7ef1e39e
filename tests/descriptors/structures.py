"""The structures that descriptors are checked on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule


def rattled(atoms: Atoms, by: float = 0.1) -> Atoms:
    displaced = atoms.copy()
    displaced.positions += np.random.default_rng(5).normal(0, by, atoms.positions.shape)
    return displaced


def silicon() -> Atoms:
    return rattled(bulk("Si", cubic=True) * (2, 2, 2))


def copper() -> Atoms:
    return rattled(bulk("Cu", cubic=True) * (3, 3, 3))


def oxide() -> Atoms:
    atoms = bulk("MgO", "rocksalt", a=4.24, cubic=True) * (3, 3, 3)
    metals = np.flatnonzero(atoms.numbers == 12)
    atoms.numbers[metals] = np.random.default_rng(1).choice([12, 27, 28], len(metals))
    return rattled(atoms)


def triclinic() -> Atoms:
    """Far smaller than the cut-off and left-handed."""
    return Atoms(
        "SiC",
        [[0.1, 0.2, 0.0], [1.2, 1.4, 1.1]],
        cell=[[2.9, 0.3, -0.4], [0.8, 0.5, 3.1], [-0.6, 2.7, 0.9]],
        pbc=True,
    )


def ethanol() -> Atoms:
    return molecule("CH3CH2OH")


def slab() -> Atoms:
    return rattled(fcc111("Al", (3, 3, 3), vacuum=6.0))


def argon() -> Atoms:
    return Atoms("Ar")


STRUCTURES: dict[str, Callable[[], Atoms]] = {
    build.__name__: build for build in (silicon, copper, oxide, triclinic, ethanol, slab, argon)
}
