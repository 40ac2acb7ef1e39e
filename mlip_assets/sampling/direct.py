"""DIRECT: DImensionality-Reduced Encoded Clusters with sTratified sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlip_assets.sampling.clustering import (
    Algorithm,
    Clusters,
    default_n_clusters,
    fit_clusters,
)
from mlip_assets.sampling.embedding import Embedding, fit_embedding
from mlip_assets.sampling.selection import select_stratified


@dataclass(frozen=True)
class DirectSelection:
    """What was chosen, why, and the two steps that led there.

    Attributes
    ----------
    indices
        (n_samples,) int64 rows of the descriptors, ascending and distinct.
    clusters, embedding
        Tables with one row a frame, by ascending frame id.
    reasons
        Why each of ``indices`` was chosen.
    """

    indices: NDArray[np.int64]
    clusters: Clusters
    embedding: Embedding
    reasons: tuple[str, ...]


def direct_select(
    descriptors: NDArray[np.floating[Any]],
    n_samples: int,
    *,
    n_clusters: int | None = None,
    variance: float = 0.99,
    n_components: int | None = None,
    clustering: Algorithm = "kmeans",
    seed: int = 0,
    frame_ids: ArrayLike | None = None,
) -> DirectSelection:
    """Choose frames that cover the whole pool, rare configurations included.

    Standardise, reduce to principal components, weight them by their explained variance, cluster,
    and choose from every cluster (Qi, Ko, Wood, Pham and Ong, npj Comput. Mater. 10, 43 (2024)),
    with k-means in place of BIRCH, so that the number of clusters is exact.

    Parameters
    ----------
    descriptors
        (n_frames, n_features) floating point, one row a frame.
    n_samples
        How many frames to choose.
    n_clusters
        Number of clusters; None is one a sample, or one a distinct point where there are fewer.
    variance, n_components
        See :func:`~mlip_assets.sampling.embedding.fit_embedding`.
    clustering
        See :func:`~mlip_assets.sampling.clustering.fit_clusters`.
    seed
        Decides the start of the clustering, the only random step.
    frame_ids
        (n_frames,) unique ids; by default the row indices. The frames chosen depend on these and
        not on the order of the rows.

    Raises
    ------
    ValueError
        More samples than frames, fewer samples than clusters, more clusters than distinct points,
        descriptors that are not finite, or ids that are not unique.
    """
    n_frames = len(descriptors)
    ids = np.arange(n_frames) if frame_ids is None else np.asarray(frame_ids, dtype=np.int64)
    if ids.shape != (n_frames,):
        raise ValueError(f"frame_ids: shape {ids.shape}; need one for each of {n_frames} rows")
    if not 1 <= n_samples <= n_frames:
        raise ValueError(f"n_samples: {n_samples} frames wanted of {n_frames}")
    by_id = np.argsort(ids, kind="stable")
    embedding = fit_embedding(
        descriptors[by_id], ids[by_id], variance=variance, n_components=n_components
    )
    if n_clusters is None:
        n_clusters = default_n_clusters(embedding, n_samples)
    clusters = fit_clusters(embedding, n_clusters, algorithm=clustering, seed=seed)
    selection = select_stratified(clusters, n_samples)
    rows = by_id[selection.indices]
    ascending = np.argsort(rows)
    return DirectSelection(
        indices=rows[ascending],
        clusters=clusters,
        embedding=embedding,
        reasons=tuple(selection.reasons[index] for index in ascending),
    )
