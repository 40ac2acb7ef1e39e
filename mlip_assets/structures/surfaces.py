"""Slabs: crystals cut along a lattice plane, with vacuum on both sides."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import surface


def cut_slab(
    crystal: Atoms,
    miller: tuple[int, int, int],
    *,
    thickness_A: float,
    min_atoms: int,
    vacuum_A: float,
) -> Atoms:
    """A slab of complete crystal layers, periodic in its plane only, with its normal along z.

    Parameters
    ----------
    crystal
        ``miller`` refers to its cell.
    miller
        Indices of the lattice plane.
    thickness_A
        Smallest thickness, Å; it determines the number of layers.
    min_atoms
        The slab is repeated along its shorter side in the plane until it has this number of atoms.
    vacuum_A
        Distance between the outermost atoms and either face of the cell, Å.

    Raises
    ------
    ValueError
        The crystal is not periodic in all three directions.
    """
    if not crystal.pbc.all():
        raise ValueError(
            f"a slab is cut from a crystal, but {crystal.get_chemical_formula()} is not periodic in "
            "all three directions"
        )
    layer = surface(crystal, miller, layers=1, periodic=True)
    height = float(layer.cell[2, 2])  # its third vector is the normal
    layers = max(int(np.ceil(thickness_A / height - 1e-9)), 1)
    slab: Atoms = surface(crystal, miller, layers=layers)
    sides, repeats = slab.cell.lengths()[:2], np.ones(2, dtype=int)
    while len(slab) * repeats.prod() < min_atoms:
        repeats[(sides * repeats).round(6).argmin()] += 1
    slab = slab.repeat((*repeats, 1))
    slab.center(vacuum=vacuum_A, axis=2)
    slab.pbc = (True, True, False)
    return slab
