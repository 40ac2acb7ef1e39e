"""k-point grids by one rule for all engines, so that their labels can be compared."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.dft.kpoints import monkhorst_pack
from numpy.typing import NDArray

#: Name of the rule in the settings; hashed with them, so it is never changed.
RULE = "Γ-centred grid, half a step off Γ along directions with more than one point"


def k_grid(structure: Atoms, spacing_per_A: float) -> tuple[list[int], list[bool]]:
    """Smallest grid within the spacing, shifted off Γ along directions with more than one point.

    In a grid without Γ, every k pairs with -k, for any positions of the atoms, so that half of the
    points are sufficient. An even grid with Γ needs nearly all points; an odd one needs as many as
    a shifted grid, and has a larger error of the forces.

    Parameters
    ----------
    structure
        As the engine prepares it.
    spacing_per_A
        Largest distance between k-points, 1/Å, 2π included.

    Returns
    -------
    size, shifted
        Number of points along each reciprocal vector, one if not periodic; whether the points are
        shifted by half a step against the Γ-centred grid.
    """
    reciprocal_per_A = 2 * np.pi * structure.cell.reciprocal().lengths()
    needed = np.ceil(reciprocal_per_A / spacing_per_A - 1e-9).astype(int)
    size = np.where(structure.pbc, np.maximum(needed, 1), 1)
    return size.tolist(), (size > 1).tolist()


def k_points(structure: Atoms, spacing_per_A: float) -> NDArray[np.float64]:
    """The points of :func:`k_grid`, ``(n_points, 3)``, in units of the reciprocal vectors."""
    grid, _ = k_grid(structure, spacing_per_A)
    size = np.array(grid)
    through_gamma = (size % 2 == 1) & (size > 1)  # odd Monkhorst-Pack grids contain Γ
    points: NDArray[np.float64] = monkhorst_pack(grid) + np.where(through_gamma, 0.5 / size, 0)
    return points
