"""Four ways to find so many centres among points, each behind the same call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Algorithm = Literal["kmeans", "minibatch_kmeans", "birch", "faiss"]
#: (points, weights of the points, number of centres, seed) -> centres
Partitioner = Callable[[NDArray[np.float64], NDArray[np.float64], int, int], NDArray[np.float64]]

#: BIRCH: sub-clusters allowed for each cluster wanted, which bounds its memory and time; below a
#: few dozen, counts jump too much between two thresholds to be asked to stay in between.
_SPARE, _FEW = 2, 64
#: BIRCH: halvings of an interval of thresholds, after which no threshold gives the number wanted.
_BISECTIONS = 30
_ITERATIONS = 20


def find_centres(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_clusters: int,
    *,
    algorithm: Algorithm,
    seed: int,
) -> NDArray[np.float64]:
    """Centres (n_clusters, n_dimensions) of groups of points.

    All k-means start from the farthest points of each other, so that what is rare and far from the
    rest has a centre of its own.

    Parameters
    ----------
    points
        (n_points, n_dimensions), at least ``n_clusters`` of them distinct.
    weights
        (n_points,) how often each point counts.
    algorithm
        ``kmeans``: Lloyd; nothing in it is random. ``minibatch_kmeans``: Sculley, WWW 2010.
        ``birch``: Zhang, Ramakrishnan and Livny, SIGMOD 1996, as in DIRECT; see :func:`birch`.
        ``faiss``: Lloyd in float32, on at most 256 random points a cluster (Douze et al., arXiv
        2401.08281).
    seed
        Decides random steps. The result does not depend on the number of threads.

    Raises
    ------
    ImportError
        ``faiss`` is asked for and not installed.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    partitioners: dict[Algorithm, Partitioner] = {
        "kmeans": _kmeans,
        "minibatch_kmeans": _minibatch_kmeans,
        "birch": birch,
        "faiss": _faiss,
    }
    # several threads sum in an order of their own, which can tip a point to another cluster
    with threadpool_limits(limits=1):
        return partitioners[algorithm](points, weights, n_clusters, seed)


def birch(
    points: NDArray[np.float64], weights: NDArray[np.float64], n_clusters: int, seed: int
) -> NDArray[np.float64]:
    """BIRCH with exactly as many clusters as wanted.

    The threshold is found by bisection, so that there are as many sub-clusters as clusters wanted,
    or up to twice as many; a tree is given up as soon as it has more. What is too many is merged by
    k-means of the sub-clusters, which, other than Ward's method, needs no matrix of all their
    distances; where no threshold gives enough, the points farthest from all centres are added.
    """
    from mlip_assets.sampling.distances import nearest

    most = max(_SPARE * n_clusters, _FEW)
    low, high = 0.0, 2 * float(np.linalg.norm(points.std(axis=0)))
    centres = points.mean(axis=0, keepdims=True)
    for _ in range(_BISECTIONS):
        if n_clusters <= len(centres):
            break
        threshold = (low + high) / 2
        found = _sub_clusters(points, threshold, most)
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
    points: NDArray[np.float64], threshold: float, most: int
) -> NDArray[np.float64] | None:
    """Centres of the leaves of one BIRCH tree; None when there are more than ``most``."""
    from sklearn.cluster import Birch

    tree = Birch(threshold=threshold, n_clusters=None, compute_labels=False)
    for batch in np.array_split(points, -(-len(points) // most)):
        tree.partial_fit(batch)
        if len(tree.subcluster_centers_) > most:
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
    engine = KMeans(n_clusters, init=start, n_init=1, max_iter=_ITERATIONS)
    return np.asarray(engine.fit(points, sample_weight=weights).cluster_centers_)


def _minibatch_kmeans(
    points: NDArray[np.float64], weights: NDArray[np.float64], n_clusters: int, seed: int
) -> NDArray[np.float64]:
    from sklearn.cluster import MiniBatchKMeans

    start = _spread(points, n_clusters)
    engine = MiniBatchKMeans(n_clusters, init=start, n_init=1, random_state=seed)
    return np.asarray(engine.fit(points, sample_weight=weights).cluster_centers_)


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
    engine = faiss.Kmeans(
        points.shape[1], n_clusters, niter=_ITERATIONS, seed=seed % 2**31, min_points_per_centroid=1
    )
    engine.train(
        points.astype(np.float32),
        weights=weights.astype(np.float32),
        init_centroids=_spread(points, n_clusters).astype(np.float32),
    )
    return np.asarray(engine.centroids, dtype=np.float64)


def _spread(
    points: NDArray[np.float64], n: int, taken: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """So many points (n, n_dimensions), each the farthest from those before and from ``taken``."""
    from mlip_assets.sampling.distances import farthest_points

    nothing = np.empty((0, points.shape[1]))
    rows, _ = farthest_points(points, nothing if taken is None else taken, n, 0.0)
    spread: NDArray[np.float64] = points[rows]
    return spread
