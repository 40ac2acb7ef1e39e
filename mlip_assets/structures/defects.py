"""Point defects: an atom too many, and an atom of the wrong element."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances
from numpy.typing import NDArray
from scipy.spatial import Voronoi  # type: ignore[import-untyped]

#: Atoms so far outside the cell still shape the Voronoi cells inside it.
_WIDEST_HOLE_A = 12.0


def with_interstitial(host: Atoms, symbol: str, rng: np.random.Generator) -> Atoms:
    """Add an atom in the roomiest hole, one of the equivalent ones at random.

    Room is the smallest distance to an atom over the sum of their covalent radii; where it is
    largest, holes meet the faces of the Voronoi cells of the host, so their corners are tried.

    Raises
    ------
    ValueError
        The host is not periodic in all three directions.
    """
    if not host.pbc.all():
        raise ValueError("an interstitial needs a host that is periodic in all three directions")
    corners = _voronoi_corners(host)
    radii = covalent_radii[host.numbers] + covalent_radii[atomic_numbers[symbol]]
    _, distances = get_distances(corners, host.positions, cell=host.cell, pbc=True)
    room = (distances / radii).min(axis=1)
    roomiest = np.flatnonzero(room > room.max() - 1e-6)
    defective: Atoms = host.copy()
    defective.append(symbol)
    defective.positions[-1] = corners[rng.choice(roomiest)]
    return defective


def with_antisite(host: Atoms, symbol: str, on: str, rng: np.random.Generator) -> Atoms:
    """Put an atom of one element on a site of another.

    Raises
    ------
    ValueError
        The host has no such site.
    """
    sites = np.flatnonzero(host.symbols == on)
    if not len(sites):
        raise ValueError(f"there is no {on} in {host.get_chemical_formula()} to put {symbol} on")
    defective: Atoms = host.copy()
    defective.symbols[rng.choice(sites)] = symbol
    return defective


def _voronoi_corners(host: Atoms) -> NDArray[np.float64]:
    """Corners of the Voronoi cells within the unit cell, each once, shape (n, 3), Å."""
    cell = host.cell.array
    margin = np.minimum(np.linalg.norm(cell.sum(axis=0)), _WIDEST_HOLE_A) / _heights(host)
    limits = np.ceil(margin).astype(int)
    shifts = np.array(list(np.ndindex(*(2 * limits + 1)))) - limits
    images = (host.get_scaled_positions()[None] + shifts[:, None]).reshape(-1, 3)
    near = ((images > -margin) & (images < 1 + margin)).all(axis=1)
    corners = np.linalg.solve(cell.T, Voronoi(images[near] @ cell).vertices.T).T
    inside = corners[((corners > -1e-9) & (corners < 1 - 1e-9)).all(axis=1)]
    _, once = np.unique(inside.round(6), axis=0, return_index=True)
    positions: NDArray[np.float64] = inside[np.sort(once)] @ cell
    return positions


def _heights(host: Atoms) -> NDArray[np.float64]:
    """Distances between opposite faces of the cell, Å."""
    heights: NDArray[np.float64] = 1 / np.linalg.norm(host.cell.reciprocal(), axis=1)
    return heights
