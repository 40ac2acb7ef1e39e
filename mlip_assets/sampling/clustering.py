"""Clusters of similar frames in the space of their principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlip_assets.sampling.embedding import Embedding, Weighting
from mlip_assets.sampling.partition import Algorithm, find_centres

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Clusters:
    """The cluster of each frame.

    Attributes
    ----------
    frame_id
        (n_frames,) int64.
    cluster
        (n_frames,) int64 from 0. Clusters are numbered from the largest to the smallest, equal
        ones by their lowest frame id. None is empty.
    distance_to_centre
        (n_frames,) float64, in the space of the clustering: that of the weighted scores.
    centres
        (n_clusters, n_components) float64, the mean of each cluster's frames in that space.
    weights
        (n_components,) float64 factors of the scores in that space.
    """

    frame_id: NDArray[np.int64]
    cluster: NDArray[np.int64]
    distance_to_centre: NDArray[np.float64]
    centres: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(n_clusters,) frames in each cluster."""
        return np.bincount(self.cluster, minlength=len(self.centres))

    def to_dataframe(self) -> pd.DataFrame:
        """One row per frame: ``frame_id``, ``cluster``, ``distance_to_centre`` (no unit)."""
        import pandas as pd

        names = ("frame_id", "cluster", "distance_to_centre")
        return pd.DataFrame({name: getattr(self, name) for name in names})

    def predict(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Cluster (n,) with the nearest centre; ``scores`` (n, n_components) are unweighted."""
        from mlip_assets.sampling.distances import nearest

        if len(scores) == 0:
            return np.empty(0, dtype=np.int64)
        return nearest(scores * self.weights, self.centres)[0]


def fit_clusters(
    embedding: Embedding,
    n_clusters: int,
    *,
    algorithm: Algorithm = "kmeans",
    weighting: Weighting = "off",
    seed: int = 0,
    among: NDArray[np.int64] | None = None,
) -> Clusters:
    """Partition the frames into exactly ``n_clusters`` groups.

    Parameters
    ----------
    embedding
        Frames in principal components.
    n_clusters
        Number of clusters; none of them is empty.
    algorithm, seed
        See :func:`~mlip_assets.sampling.partition.find_centres`.
    weighting
        Whether components are weighted by the variance they explain.
    among
        Rows that are clustered, such as those of
        :func:`~mlip_assets.sampling.presampling.presample`; the other frames are assigned to the
        nearest cluster. By default all rows.

    Raises
    ------
    ValueError
        Fewer distinct points than clusters; the message gives their number.
    """
    weights = embedding.weights(weighting)
    points = embedding.scores * weights
    if among is None:
        labels = _labels(embedding.scores, weights, n_clusters, algorithm, seed)
    else:
        from mlip_assets.sampling.distances import nearest

        found = _labels(embedding.scores[among], weights, n_clusters, algorithm, seed)
        labels, _ = nearest(points, _means(points[among], found, n_clusters))
        labels[among] = found
    labels = _numbered_by_size(labels, embedding.frame_id)
    centres = _means(points, labels, n_clusters)
    return Clusters(
        frame_id=embedding.frame_id,
        cluster=labels,
        distance_to_centre=np.linalg.norm(points - centres[labels], axis=1),
        centres=centres,
        weights=weights,
    )


def count_distinct_points(scores: NDArray[np.float64]) -> int:
    """Number of distinct rows (n, n_components): the largest possible number of clusters."""
    return len(_distinct_points(scores)[0])


def _distinct_points(
    scores: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distinct rows, sorted, and for each row (n,) the index of its distinct row."""
    distinct, inverse = np.unique(scores, axis=0, return_inverse=True)
    return distinct, inverse.reshape(-1)


def _labels(
    scores: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_clusters: int,
    algorithm: Algorithm,
    seed: int,
) -> NDArray[np.int64]:
    """Cluster (n,) of each row; equal rows have the same cluster, and no cluster is empty."""
    from mlip_assets.sampling.distances import nearest

    distinct, member_of = _distinct_points(scores)
    if not 1 <= n_clusters <= len(distinct):
        raise ValueError(
            f"n_clusters: {n_clusters}, but the {len(scores)} frames are {len(distinct)} distinct "
            f"points; give 1 to {len(distinct)}"
        )
    points, counts = distinct * weights, np.bincount(member_of).astype(np.float64)
    centres = find_centres(points, counts, n_clusters, algorithm=algorithm, seed=seed)
    labels, distances = nearest(points, centres)
    return _without_empty(labels, distances, n_clusters)[member_of]


def _without_empty(
    labels: NDArray[np.int64], distances: NDArray[np.float64], n_clusters: int
) -> NDArray[np.int64]:
    """Move to each empty cluster the point farthest from its centre, from a cluster of several."""
    labels = labels.copy()
    sizes = np.bincount(labels, minlength=n_clusters)
    empty = list(np.flatnonzero(sizes == 0))
    for point in np.argsort(-distances, kind="stable"):
        if not empty:
            break
        if sizes[labels[point]] > 1:
            sizes[labels[point]] -= 1
            labels[point] = empty.pop(0)
    return labels


def _means(
    points: NDArray[np.float64], labels: NDArray[np.int64], n_clusters: int
) -> NDArray[np.float64]:
    """Mean (n_clusters, n_components) of the points of each cluster, none of them empty."""
    sums = [np.bincount(labels, axis, minlength=n_clusters) for axis in points.T]
    means: NDArray[np.float64] = np.stack(sums, axis=1) / np.bincount(labels)[:, None]
    return means


def _numbered_by_size(labels: NDArray[np.int64], frame_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels renumbered by size, the largest cluster first; ties by the lowest frame id."""
    sizes = np.bincount(labels)
    lowest = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(lowest, labels, frame_id)
    number = np.empty(len(sizes), dtype=np.int64)
    number[np.lexsort((lowest, -sizes))] = np.arange(len(sizes))
    return number[labels]
