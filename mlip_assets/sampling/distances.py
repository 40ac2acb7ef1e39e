"""Compiled searches among points: nearest centres, farthest points, unoccupied points.

Import this module inside functions: it imports Numba, which is slow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.compilation import cached_entry, compiled


def nearest(
    points: NDArray[np.float64], centres: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index (n_points,) of the centre nearest to each point, and its distance (n_points,)."""
    from sklearn.metrics import pairwise_distances_argmin_min

    index, distance = pairwise_distances_argmin_min(points, centres)
    return index.astype(np.int64), distance


@cached_entry
def farthest_points(
    points: NDArray[np.float64], occupied: NDArray[np.float64], n_points: int, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Farthest-point sampling: each chosen point is the farthest from all points before it.

    If no points are given to start from, the first is the one nearest to the mean. Ties are resolved
    by the lowest index. A distance is not computed if the triangle inequality shows that it cannot
    be the smallest (Elkan, ICML 2003), which changes no result.

    Parameters
    ----------
    points
        (n, n_dimensions) candidates.
    occupied
        (n_occupied, n_dimensions) points to start from.
    n_points
        Number of points to choose.
    tolerance
        Points within this distance of an earlier one are not chosen.

    Returns
    -------
    tuple
        Indices of the chosen points, and the distance of each from those before it; fewer than
        ``n_points`` if the other points are within ``tolerance``.
    """
    n_occupied, dimension = occupied.shape
    centres = np.empty((n_occupied + n_points, dimension))
    centres[:n_occupied] = occupied
    distance_sq = np.full(len(points), np.inf)
    owner = np.zeros(len(points), dtype=np.int64)
    farthest = 0
    for centre in range(n_occupied):
        farthest = _add_centre(points, centres, centre, distance_sq, owner)
    if n_occupied == 0:
        mean = np.zeros((1, dimension))
        for point in points:
            mean[0] += point / len(points)
        _add_centre(points, mean, 0, distance_sq, owner)
        farthest = int(np.argmin(distance_sq))
        distance_sq[:] = np.inf
    chosen = np.empty(n_points, dtype=np.int64)
    gaps = np.empty(n_points)
    for n in range(n_points):
        gaps[n] = np.sqrt(distance_sq[farthest])
        if gaps[n] <= tolerance:
            return chosen[:n], gaps[:n]
        chosen[n] = farthest
        centres[n_occupied + n] = points[farthest]
        farthest = _add_centre(points, centres, n_occupied + n, distance_sq, owner)
    return chosen, gaps


@cached_entry
def pick_unoccupied(
    points: NDArray[np.float64],
    rows: NDArray[np.int64],
    wanted: NDArray[np.int64],
    occupied: NDArray[np.float64],
    n_occupied: int,
    tolerance: float,
) -> NDArray[np.int64]:
    """Positions in ``rows``, nearest to the ``wanted`` ones, whose points are unoccupied.

    A point is occupied if one of ``occupied[:n_occupied]`` is within ``tolerance``. The chosen
    points are appended to ``occupied``, which needs space for them. The result is shorter than
    ``wanted`` if no unoccupied points remain.
    """
    tried = np.zeros(len(rows), dtype=np.bool_)
    picked = np.empty(len(wanted), dtype=np.int64)
    for n, position in enumerate(wanted):
        found = -1
        for step in range(2 * len(rows)):
            candidate = position + (step // 2 if step % 2 else -(step // 2))
            if candidate < 0 or candidate >= len(rows) or tried[candidate]:
                continue
            tried[candidate] = True
            if not _is_near(points[rows[candidate]], occupied[: n_occupied + n], tolerance):
                found = candidate
                break
        if found < 0:
            return picked[:n]
        picked[n] = found
        occupied[n_occupied + n] = points[rows[found]]
    return picked


@compiled
def _add_centre(
    points: NDArray[np.float64],
    centres: NDArray[np.float64],
    new: int,
    distance_sq: NDArray[np.float64],
    owner: NDArray[np.int64],
) -> int:
    """Update the distances for a new centre; returns the point that is then farthest from all."""
    centre_distance_sq = np.empty(new + 1)
    for other in range(new + 1):
        centre_distance_sq[other] = _distance_sq(centres[other], centres[new])
    farthest = 0
    for point in range(len(points)):
        if centre_distance_sq[owner[point]] < 4 * distance_sq[point]:
            new_sq = _distance_sq(points[point], centres[new])
            if new_sq < distance_sq[point]:
                distance_sq[point] = new_sq
                owner[point] = new
        if distance_sq[point] > distance_sq[farthest]:
            farthest = point
    return farthest


@compiled
def _is_near(point: NDArray[np.float64], others: NDArray[np.float64], tolerance: float) -> bool:
    for other in others:  # noqa: SIM110 - Numba compiles loops, not generators
        if _distance_sq(point, other) <= tolerance * tolerance:
            return True
    return False


@compiled
def _distance_sq(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    total = 0.0
    for axis in range(len(one)):
        total += (one[axis] - other[axis]) ** 2
    return total
