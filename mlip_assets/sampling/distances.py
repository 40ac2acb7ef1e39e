"""Searches among points that compiled loops do best: farthest ones, and ones not seen before.

Importing this module imports Numba; do so where it is used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.compilation import cached_entry, compiled


def nearest(
    points: NDArray[np.float64], centres: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index (n_points,) of the centre nearest each point, and its distance, in bounded memory."""
    from sklearn.metrics import pairwise_distances_argmin_min

    index, distance = pairwise_distances_argmin_min(points, centres)
    return index.astype(np.int64), distance


@cached_entry
def farthest_points(
    points: NDArray[np.float64], taken: NDArray[np.float64], n_points: int, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Farthest-point sampling: each point chosen is the farthest from all taken or chosen before.

    With nothing taken, the first is the one nearest the mean. Equal distances go to the lowest
    index. A point is not measured again where the triangle inequality says that the new one cannot
    be nearer to it than the one it has (Elkan, ICML 2003), which changes no result.

    Returns
    -------
    Indices and distances to those before (n,); fewer than ``n_points`` when the others are all
    within ``tolerance`` of one of them.
    """
    n_taken, dimension = taken.shape
    centres = np.empty((n_taken + n_points, dimension))
    centres[:n_taken] = taken
    distance_sq = np.full(len(points), np.inf)
    owner = np.zeros(len(points), dtype=np.int64)
    farthest = 0
    for centre in range(n_taken):
        farthest = _approach(points, centres, centre, distance_sq, owner)
    if n_taken == 0:
        mean = np.zeros((1, dimension))
        for point in points:
            mean[0] += point / len(points)
        _approach(points, mean, 0, distance_sq, owner)
        farthest = int(np.argmin(distance_sq))
        distance_sq[:] = np.inf
    chosen = np.empty(n_points, dtype=np.int64)
    gaps = np.empty(n_points)
    for n in range(n_points):
        gaps[n] = np.sqrt(distance_sq[farthest])
        if gaps[n] <= tolerance:
            return chosen[:n], gaps[:n]
        chosen[n] = farthest
        centres[n_taken + n] = points[farthest]
        farthest = _approach(points, centres, n_taken + n, distance_sq, owner)
    return chosen, gaps


@cached_entry
def pick_new(
    points: NDArray[np.float64],
    rows: NDArray[np.int64],
    wanted: NDArray[np.int64],
    taken: NDArray[np.float64],
    n_taken: int,
    tolerance: float,
) -> NDArray[np.int64]:
    """Positions in ``rows`` nearest the ``wanted`` ones whose points are not taken yet.

    A point is taken when one of ``taken[:n_taken]`` lies within ``tolerance``; those picked are
    written there, so there must be room. Fewer are returned when no others are left.
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
            if not _within(points[rows[candidate]], taken[: n_taken + n], tolerance):
                found = candidate
                break
        if found < 0:
            return picked[:n]
        picked[n] = found
        taken[n_taken + n] = points[rows[found]]
    return picked


@compiled
def _approach(
    points: NDArray[np.float64],
    centres: NDArray[np.float64],
    new: int,
    distance_sq: NDArray[np.float64],
    owner: NDArray[np.int64],
) -> int:
    """Count in a new centre; returns the point that is then farthest from all."""
    apart_sq = np.empty(new + 1)
    for other in range(new + 1):
        apart_sq[other] = _distance_sq(centres[other], centres[new])
    farthest = 0
    for point in range(len(points)):
        if apart_sq[owner[point]] < 4 * distance_sq[point]:
            new_sq = _distance_sq(points[point], centres[new])
            if new_sq < distance_sq[point]:
                distance_sq[point] = new_sq
                owner[point] = new
        if distance_sq[point] > distance_sq[farthest]:
            farthest = point
    return farthest


@compiled
def _within(point: NDArray[np.float64], others: NDArray[np.float64], tolerance: float) -> bool:
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
