from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.sampling.distances import farthest_points, nearest, pick_unoccupied

NO_POINTS = np.empty((0, 3))


def plain_farthest(points: np.ndarray, occupied: np.ndarray, n: int) -> list[int]:
    """The definition, with every distance computed."""
    chosen: list[int] = []
    if not len(occupied):
        chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    while len(chosen) < n:
        before = np.concatenate([occupied, points[chosen]])
        gaps = np.linalg.norm(points[:, None] - before, axis=2).min(axis=1)
        chosen.append(int(gaps.argmax()))
    return chosen


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(1, 30), n_taken=st.integers(0, 4))
def test_farthest_points_equal_brute_force(seed: int, n: int, n_taken: int) -> None:
    rng = np.random.default_rng(seed)
    points, occupied = rng.normal(size=(60, 3)), rng.normal(size=(n_taken, 3))
    chosen, gaps = farthest_points(points, occupied, n, 0.0)
    assert chosen.tolist() == plain_farthest(points, occupied, n)
    assert (np.diff(gaps) <= 0).all()


def test_farthest_points_stop_at_tolerance() -> None:
    points = np.repeat(np.eye(3), 5, axis=0) + 1e-4 * np.random.default_rng(0).normal(size=(15, 3))
    assert len(farthest_points(points, NO_POINTS, 10, 0.01)[0]) == 3
    assert len(farthest_points(points, np.eye(3)[:2], 10, 0.01)[0]) == 1
    assert len(farthest_points(points, NO_POINTS, 10, 0.0)[0]) == 10


def test_farthest_points_resolve_ties_by_lowest_index() -> None:
    square = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    assert farthest_points(square, NO_POINTS, 4, 0.0)[0].tolist() == [0, 3, 1, 2]


def test_nearest_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(500, 4)), rng.normal(size=(40, 4))
    distances = np.linalg.norm(points[:, None] - centres, axis=2)
    index, distance = nearest(points, centres)
    assert np.array_equal(index, distances.argmin(axis=1))
    assert distance == pytest.approx(distances.min(axis=1))


def test_pick_unoccupied_searches_outward_from_wanted_position() -> None:
    line = np.array([[0.0], [1], [2], [2.001], [4], [5]])
    rows = np.arange(6)

    def pick(wanted: list[int], occupied: list[float], tolerance: float) -> list[int]:
        points = np.array(occupied + [0.0] * len(wanted))[:, None]
        return pick_unoccupied(
            line, rows, np.array(wanted), points, len(occupied), tolerance
        ).tolist()

    assert pick([0, 2, 5], [], 0.01) == [0, 2, 5]
    assert pick([2], [1.0, 2.0], 0.01) == [0]  # 0 and 4 are as near in rank; the inner one
    assert pick([2, 2, 2], [], 0.01) == [2, 1, 0]
    assert pick([0] * 6, [], 0.01) == [0, 1, 2, 4, 5]
    assert pick([0], [2.0], 10.0) == []
