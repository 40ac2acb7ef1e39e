"""Point defects: interstitials and antisites."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances
from numpy.typing import NDArray
from scipy.spatial import Voronoi  # type: ignore[import-untyped]

#: Atoms up to this distance outside the cell are included in the Voronoi construction.
_MAX_VOID_A = 12.0


def with_interstitial(host: Atoms, symbol: str, rng: np.random.Generator) -> Atoms:
    """Add an atom at the centre of the largest void, one of the equivalent ones at random.

    The size of a void is the smallest distance from its centre to an atom over the sum of their
    covalent radii. The candidates are the vertices of the Voronoi cells of the host.

    Parameters
    ----------
    host
        The crystal; it is not changed.
    symbol
        Element of the added atom, which is the last of the result.
    rng
        Draws one of the equivalent voids.

    Raises
    ------
    ValueError
        The host is not periodic in all three directions.
    """
    if not host.pbc.all():
        raise ValueError("an interstitial needs a host that is periodic in all three directions")
    vertices = _voronoi_vertices(host)
    radii = covalent_radii[host.numbers] + covalent_radii[atomic_numbers[symbol]]
    _, distances = get_distances(vertices, host.positions, cell=host.cell, pbc=True)
    size = (distances / radii).min(axis=1)
    largest = np.flatnonzero(size > size.max() - 1e-6)
    defective: Atoms = host.copy()
    defective.append(symbol)
    defective.positions[-1] = vertices[rng.choice(largest)]
    return defective


def with_antisite(host: Atoms, symbol: str, on: str, rng: np.random.Generator) -> Atoms:
    """Replace one atom of element ``on``, chosen at random, by an atom of element ``symbol``.

    Raises
    ------
    ValueError
        The host has no atom of element ``on``.
    """
    sites = np.flatnonzero(host.symbols == on)
    if not len(sites):
        raise ValueError(
            f"there is no {on} in {host.get_chemical_formula()} to replace by {symbol}"
        )
    defective: Atoms = host.copy()
    defective.symbols[rng.choice(sites)] = symbol
    return defective


def _voronoi_vertices(host: Atoms) -> NDArray[np.float64]:
    """Vertices of the Voronoi cells within the unit cell, each once, shape (n, 3), Å."""
    cell = host.cell.array
    margin = np.minimum(np.linalg.norm(cell.sum(axis=0)), _MAX_VOID_A) / _heights(host)
    limits = np.ceil(margin).astype(int)
    shifts = np.array(list(np.ndindex(*(2 * limits + 1)))) - limits
    images = (host.get_scaled_positions()[None] + shifts[:, None]).reshape(-1, 3)
    included = ((images > -margin) & (images < 1 + margin)).all(axis=1)
    vertices = np.linalg.solve(cell.T, Voronoi(images[included] @ cell).vertices.T).T
    inside = vertices[((vertices > -1e-9) & (vertices < 1 - 1e-9)).all(axis=1)]
    _, first = np.unique(inside.round(6), axis=0, return_index=True)
    positions: NDArray[np.float64] = inside[np.sort(first)] @ cell
    return positions


def _heights(host: Atoms) -> NDArray[np.float64]:
    """Distances between opposite faces of the cell, shape (3,), Å."""
    heights: NDArray[np.float64] = 1 / np.linalg.norm(host.cell.reciprocal(), axis=1)
    return heights
