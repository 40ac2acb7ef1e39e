from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.cluster import KMeans

from mlip_assets.sampling.distances import nearest
from mlip_assets.sampling.partition import birch, find_centres

BIRCH_OF_MANY = """
import resource, numpy as np
from mlip_assets.sampling.partition import birch
points = np.random.default_rng(0).normal(size=(274_000, 7)) * np.geomspace(1, 0.1, 7)
centres = birch(points, np.ones(len(points)), 5000, 0)
print(len(centres), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
ALGORITHMS = ["kmeans", "minibatch_kmeans", "birch", "faiss"]


def find(algorithm: str, points: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    if algorithm == "faiss":
        pytest.importorskip("faiss")
    return find_centres(points, np.ones(len(points)), n, algorithm=algorithm, seed=seed)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_find_centres_inertia_is_close_to_best_kmeans(algorithm: str) -> None:
    points = np.random.default_rng(0).normal(size=(4000, 4))
    best = KMeans(100, n_init=3, random_state=0).fit(points).inertia_
    inertia = (nearest(points, find(algorithm, points, 100))[1] ** 2).sum()
    assert inertia < 1.35 * best


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_find_centres_is_deterministic_for_a_seed(algorithm: str) -> None:
    points = np.random.default_rng(0).normal(size=(2000, 4))
    first, again = (find(algorithm, points, 50, seed=3) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (50, 4)


@pytest.mark.parametrize("n_clusters", [1, 2, 7, 60, 119, 120])
def test_birch_gives_the_requested_number(n_clusters: int) -> None:
    points = np.random.default_rng(0).normal(size=(120, 3))
    centres = birch(points, np.ones(120), n_clusters, 0)
    assert len(np.unique(centres, axis=0)) == n_clusters


def test_birch_adds_farthest_points_if_no_threshold_suffices() -> None:
    """On a lattice all neighbours are equally far, so they all merge in one step."""
    lattice = np.stack(np.meshgrid(*[np.arange(12.0)] * 2), axis=-1).reshape(-1, 2)
    centres = birch(lattice, np.ones(len(lattice)), 140, 0)
    assert len(np.unique(centres, axis=0)) == 140


@pytest.mark.slow
def test_birch_memory_of_5000_clusters_of_274000_points() -> None:
    """274 000 points of 7 components and n = 5000; maml needs a matrix of 83 671² distances, 26 GiB."""
    alone = subprocess.run(  # a separate process, to measure its peak memory only
        [sys.executable, "-c", BIRCH_OF_MANY], capture_output=True, text=True, check=True
    )
    n_centres, peak_KiB = map(int, alone.stdout.split())
    assert n_centres == 5000
    if sys.platform == "linux":
        assert peak_KiB < 2 * 1024**2


def test_find_centres_without_faiss_raises_with_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"mlip-autopipe\[faiss\].*minibatch_kmeans"):
        find_centres(np.ones((3, 1)), np.ones(3), 1, algorithm="faiss", seed=0)
