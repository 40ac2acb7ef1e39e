"""Clusters of similar frames in the space of their principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlip_assets.sampling.embedding import Embedding

Algorithm = Literal["kmeans", "minibatch_kmeans"]

#: Scores are in standard deviations of a feature; below this they tell no two frames apart.
_SAME_POINT = 1e-9


@dataclass(frozen=True)
class Clusters:
    """Which cluster each frame belongs to.

    Attributes
    ----------
    frame_id
        (n_frames,) int64.
    cluster
        (n_frames,) int64 from 0; clusters are numbered from the largest to the smallest, equal
        ones by their lowest frame id. None is empty.
    distance_to_centre
        (n_frames,) float64, in the space the clusters were made in.
    centres
        (n_clusters, n_components) float64, the mean of each cluster's frames in that space.
    """

    frame_id: NDArray[np.int64]
    cluster: NDArray[np.int64]
    distance_to_centre: NDArray[np.float64]
    centres: NDArray[np.float64]


def fit_clusters(
    embedding: Embedding,
    n_clusters: int,
    *,
    algorithm: Algorithm = "kmeans",
    weighting: bool = True,
    seed: int = 0,
) -> Clusters:
    """Partition the frames into exactly ``n_clusters`` groups by k-means.

    Parameters
    ----------
    embedding
        Frames in principal components.
    n_clusters
        Number of clusters, none of which will be empty.
    algorithm
        ``kmeans`` (Lloyd, k-means++ start, best of three) or ``minibatch_kmeans`` for pools of
        more than about 100 000 frames.
    weighting
        Scale each component by its explained-variance ratio, as DIRECT does (Qi et al.,
        npj Comput. Mater. 10, 43 (2024)).
    seed
        Decides the random starts. The result does not depend on the number of threads.

    Raises
    ------
    ValueError
        Fewer distinct points than clusters; the message says how many there are.
    """
    distinct, member_of = _distinct_points(embedding.scores)
    if not 1 <= n_clusters <= len(distinct):
        raise ValueError(
            f"n_clusters: {n_clusters} wanted, but the {len(member_of)} frames make "
            f"{len(distinct)} distinct points; give 1 to {len(distinct)}"
        )
    points = distinct * embedding.explained_variance_ratio if weighting else distinct
    counts = np.bincount(member_of)
    labels = _k_means(points, counts, n_clusters, algorithm, seed)
    labels = _without_empty(labels, points, counts, n_clusters)
    labels = _numbered_by_size(labels, member_of, embedding.frame_id)
    centres = _means(points, counts, labels, n_clusters)
    distances = np.linalg.norm(points - centres[labels], axis=1)
    return Clusters(
        frame_id=embedding.frame_id,
        cluster=labels[member_of],
        distance_to_centre=distances[member_of],
        centres=centres,
    )


def count_distinct_points(embedding: Embedding) -> int:
    """Number of frames that differ in their scores, which bounds the number of clusters."""
    return len(_distinct_points(embedding.scores)[0])


def default_n_clusters(embedding: Embedding, n_samples: int) -> int:
    """One cluster a sample, or one a distinct point where there are fewer."""
    return min(n_samples, count_distinct_points(embedding))


def _distinct_points(
    scores: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The different rows, in an order of their own, and for each frame which of them it is."""
    rounded = np.round(scores / _SAME_POINT)
    _, first, inverse = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    return scores[first], inverse.reshape(-1)


def _k_means(
    points: NDArray[np.float64],
    counts: NDArray[np.int64],
    n_clusters: int,
    algorithm: Algorithm,
    seed: int,
) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    method = {"kmeans": KMeans, "minibatch_kmeans": MiniBatchKMeans}[algorithm]
    # several threads sum in an order of their own, which can tip a frame to another cluster
    with threadpool_limits(limits=1):
        fitted = method(n_clusters, n_init=3, random_state=seed).fit(points, sample_weight=counts)
    return np.asarray(fitted.labels_, dtype=np.int64)


def _without_empty(
    labels: NDArray[np.int64],
    points: NDArray[np.float64],
    counts: NDArray[np.int64],
    n_clusters: int,
) -> NDArray[np.int64]:
    """Give each empty cluster the point farthest from its centre that leaves none empty behind."""
    labels = labels.copy()
    sizes = np.bincount(labels, minlength=n_clusters)
    for empty in np.flatnonzero(sizes == 0):
        centres = _means(points, counts, labels, n_clusters)
        distances = np.linalg.norm(points - centres[labels], axis=1)
        farthest = np.where(sizes[labels] > 1, distances, -1.0).argmax()
        sizes[labels[farthest]] -= 1
        sizes[empty] += 1
        labels[farthest] = empty
    return labels


def _means(
    points: NDArray[np.float64],
    counts: NDArray[np.int64],
    labels: NDArray[np.int64],
    n_clusters: int,
) -> NDArray[np.float64]:
    """Mean (n_clusters, n_components) of the frames of each cluster; 0 for an empty one."""
    sums = np.zeros((n_clusters, points.shape[1]))
    np.add.at(sums, labels, points * counts[:, None])
    frames = np.bincount(labels, weights=counts, minlength=n_clusters)
    means: NDArray[np.float64] = sums / np.maximum(frames, 1)[:, None]
    return means


def _numbered_by_size(
    labels: NDArray[np.int64], member_of: NDArray[np.int64], frame_id: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Labels of the points such that cluster 0 has most frames; ties by the lowest frame id."""
    of_frames = labels[member_of]
    sizes = np.bincount(of_frames)
    lowest = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(lowest, of_frames, frame_id)
    number = np.empty(len(sizes), dtype=np.int64)
    number[np.lexsort((lowest, -sizes))] = np.arange(len(sizes))
    return number[labels]
