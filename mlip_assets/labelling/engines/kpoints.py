"""The k-point rule that all engines share, so that their labels can be compared."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.dft.kpoints import monkhorst_pack
from numpy.typing import NDArray

RULE = "Γ-centred grid, half a step off Γ along directions with more than one point"


def k_grid(structure: Atoms, spacing_per_A: float) -> tuple[list[int], list[bool]]:
    """Fewest points within the spacing; off Γ along every direction that has more than one.

    Off Γ, k and -k always pair up, whatever the atoms do, so half of the points are enough. Even
    grids through Γ need nearly all; odd ones as many, for a larger error in the forces.

    Returns
    -------
    size, shifted
        Points along each reciprocal vector, one where not periodic; whether they are moved half a
        step off those of the Γ-centred grid.
    """
    reciprocal_per_A = 2 * np.pi * structure.cell.reciprocal().lengths()
    needed = np.ceil(reciprocal_per_A / spacing_per_A - 1e-9).astype(int)
    size = np.where(structure.pbc, np.maximum(needed, 1), 1)
    return size.tolist(), (size > 1).tolist()


def k_points(structure: Atoms, spacing_per_A: float) -> NDArray[np.float64]:
    """The points of :func:`k_grid`, ``(n_points, 3)``, in units of the reciprocal vectors."""
    grid, _ = k_grid(structure, spacing_per_A)
    size = np.array(grid)
    through_gamma = (size % 2 == 1) & (size > 1)  # Monkhorst-Pack's odd grids hold Γ
    points: NDArray[np.float64] = monkhorst_pack(grid) + np.where(through_gamma, 0.5 / size, 0)
    return points
