"""Four clustering algorithms that return the requested number of centres."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Algorithm = Literal["kmeans", "minibatch_kmeans", "birch", "faiss"]
#: (points, weights of the points, number of centres, seed) -> centres
Partitioner = Callable[[NDArray[np.float64], NDArray[np.float64], int, int], NDArray[np.float64]]

#: BIRCH: largest number of sub-clusters per cluster, which limits memory and time. Below the minimum
#: the number changes too much between two thresholds for a bisection.
_MAX_SUBCLUSTERS_PER_CLUSTER, _MIN_SUBCLUSTER_LIMIT = 2, 64
#: BIRCH: largest number of bisections of the threshold.
_MAX_BISECTIONS = 30
_MAX_ITERATIONS = 20


def find_centres(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_clusters: int,
    *,
    algorithm: Algorithm,
    seed: int,
) -> NDArray[np.float64]:
    """Centres (n_clusters, n_dimensions) of groups of points.

    All k-means start from farthest points, so that rare and distant points have their own centre.

    Parameters
    ----------
    points
        (n_points, n_dimensions), at least ``n_clusters`` of them distinct.
    weights
        (n_points,) weight of each point.
    n_clusters
        Number of centres.
    algorithm
        ``kmeans``: Lloyd, deterministic. ``minibatch_kmeans``: Sculley, WWW 2010. ``birch``: Zhang,
        Ramakrishnan and Livny, SIGMOD 1996, as in DIRECT; see :func:`birch`. ``faiss``: Lloyd in
        float32, on at max_subclusters 256 random points per cluster (Douze et al., arXiv 2401.08281).
    seed
        Random seed. The result does not depend on the number of threads.

    Raises
    ------
    ImportError
        ``faiss`` is not installed.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    partitioners: dict[Algorithm, Partitioner] = {
        "kmeans": _kmeans,
        "minibatch_kmeans": _minibatch_kmeans,
        "birch": birch,
        "faiss": _faiss,
    }
    # the order of the sums of several threads varies, and can assign a point to another cluster
    with threadpool_limits(limits=1):
        return partitioners[algorithm](points, weights, n_clusters, seed)


def birch(
    points: NDArray[np.float64], weights: NDArray[np.float64], n_clusters: int, seed: int
) -> NDArray[np.float64]:
    """BIRCH with exactly ``n_clusters`` clusters.

    The threshold is found by bisection, such that there are between one and two sub-clusters per
    cluster. A tree with more is abandoned. K-means merges surplus sub-clusters; Ward's method would
    need the matrix of all their distances. If no threshold gives enough sub-clusters, the points
    farthest from all centres are added.
    """
    from mlip_assets.sampling.distances import nearest

    max_subclusters = max(_MAX_SUBCLUSTERS_PER_CLUSTER * n_clusters, _MIN_SUBCLUSTER_LIMIT)
    low, high = 0.0, 2 * float(np.linalg.norm(points.std(axis=0)))
    centres = points.mean(axis=0, keepdims=True)
    for _ in range(_MAX_BISECTIONS):
        if n_clusters <= len(centres):
            break
        threshold = (low + high) / 2
        found = _sub_clusters(points, threshold, max_subclusters)
        if found is None:
            low = threshold
        else:
            high, centres = threshold, max(centres, found, key=len)
    if len(centres) > n_clusters:
        members, _ = nearest(points, centres)
        sizes = np.bincount(members, weights, minlength=len(centres)).astype(np.float64)
        return _kmeans(centres, sizes, n_clusters, seed)
    return np.concatenate([centres, _spread(points, n_clusters - len(centres), centres)])


def _sub_clusters(
    points: NDArray[np.float64], threshold: float, max_subclusters: int
) -> NDArray[np.float64] | None:
    """Centres of the leaves of one BIRCH tree; None if there are more than ``max_subclusters``."""
    from sklearn.cluster import Birch

    tree = Birch(threshold=threshold, n_clusters=None, compute_labels=False)
    for batch in np.array_split(points, -(-len(points) // max_subclusters)):
        tree.partial_fit(batch)
        if len(tree.subcluster_centers_) > max_subclusters:
            return None
    centres: NDArray[np.float64] = tree.subcluster_centers_
    return centres


def _kmeans(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_clusters: int,
    seed: int,  # noqa: ARG001 - one signature for all
) -> NDArray[np.float64]:
    from sklearn.cluster import KMeans

    start = _spread(points, n_clusters)
    model = KMeans(n_clusters, init=start, n_init=1, max_iter=_MAX_ITERATIONS)
    return np.asarray(model.fit(points, sample_weight=weights).cluster_centers_)


def _minibatch_kmeans(
    points: NDArray[np.float64], weights: NDArray[np.float64], n_clusters: int, seed: int
) -> NDArray[np.float64]:
    from sklearn.cluster import MiniBatchKMeans

    start = _spread(points, n_clusters)
    model = MiniBatchKMeans(n_clusters, init=start, n_init=1, random_state=seed)
    return np.asarray(model.fit(points, sample_weight=weights).cluster_centers_)


def _faiss(
    points: NDArray[np.float64], weights: NDArray[np.float64], n_clusters: int, seed: int
) -> NDArray[np.float64]:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "clustering: faiss is not installed; run pip install 'mlip-autopipe[faiss]', or choose "
            "minibatch_kmeans"
        ) from error
    model = faiss.Kmeans(
        points.shape[1],
        n_clusters,
        niter=_MAX_ITERATIONS,
        seed=seed % 2**31,
        min_points_per_centroid=1,
    )
    model.train(
        points.astype(np.float32),
        weights=weights.astype(np.float32),
        init_centroids=_spread(points, n_clusters).astype(np.float32),
    )
    return np.asarray(model.centroids, dtype=np.float64)


def _spread(
    points: NDArray[np.float64], n: int, occupied: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """``n`` points (n, n_dimensions), each the farthest from ``occupied`` and from those before it."""
    from mlip_assets.sampling.distances import farthest_points

    if occupied is None:
        occupied = np.empty((0, points.shape[1]))
    rows, _ = farthest_points(points, occupied, n, 0.0)
    spread: NDArray[np.float64] = points[rows]
    return spread
