"""Radial distribution functions of frames with any periodicity."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray


def radial_distribution(
    frames: Iterable[Atoms], r_max_A: float = 6.0, n_bins: int = 120
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean radial distribution g(r) over frames, all pairs of elements together.

    Parameters
    ----------
    frames
        Structures periodic in any number of directions.
    r_max_A
        Largest distance, Å.
    n_bins
        Bins of equal width between 0 and ``r_max_A``.

    Returns
    -------
    r, g
        Bin centres in Å ``(n_bins,)``; density of neighbours at that distance divided by the mean
        density of the cell, ``(n_bins,)``. The mean density of a frame without volume is 1/Å³.
    """
    edges = np.linspace(0, r_max_A, n_bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    total, n_frames = np.zeros(n_bins), 0
    for atoms in frames:
        distances = neighbour_list(
            "d",
            cutoff=r_max_A,
            positions=atoms.positions,
            cell=complete_cell(atoms.cell),
            pbc=atoms.pbc,
        )
        volume = abs(atoms.cell.volume)
        density = len(atoms) / volume if volume > 0 else 1.0
        total += np.histogram(distances, edges)[0] / (len(atoms) * density * shells)
        n_frames += 1
    return (edges[1:] + edges[:-1]) / 2, total / max(n_frames, 1)
