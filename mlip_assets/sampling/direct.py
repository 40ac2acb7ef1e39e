"""DIRECT: DImensionality-Reduced Encoded Clusters with sTratified sampling, from end to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlip_assets.sampling.clustering import Clusters, count_distinct_points, fit_clusters
from mlip_assets.sampling.embedding import Embedding, Weighting, embed, fit_embedding
from mlip_assets.sampling.partition import Algorithm
from mlip_assets.sampling.pca import Components, PrincipalAxes
from mlip_assets.sampling.reduction import representatives
from mlip_assets.sampling.selection import (
    DUPLICATE_TOLERANCE,
    Allocation,
    Method,
    select_frames,
)
from mlip_assets.sampling.source import DescriptorArray, DescriptorSource

if TYPE_CHECKING:
    import pandas as pd

#: Largest pool that is clustered whole; larger ones are reduced to as many frames first.
TWO_LEVEL_ABOVE = 100_000
#: Frames for each one to choose that a pool is never reduced below.
_CHOICE = 10


@dataclass(frozen=True)
class DirectSelection:
    """What was chosen, why, and the two steps that led there.

    Attributes
    ----------
    indices
        (n_samples,) int64 rows of the descriptors, ascending and distinct.
    frame_id
        (n_samples,) int64 identifiers of these rows.
    clusters, embedding
        Tables with one row a frame: by ascending frame id for an array, else as the source has
        them.
    reasons
        Why each of ``indices`` was chosen.
    """

    indices: NDArray[np.int64]
    clusters: Clusters
    embedding: Embedding
    reasons: tuple[str, ...]
    frame_id: NDArray[np.int64]

    def to_dataframe(self) -> pd.DataFrame:
        """One row per selected frame.

        ``row`` is its row of the descriptors; ``frame_id``, ``cluster`` and ``distance_to_centre``
        are those of :class:`Clusters`, ``pc1``, ``pc2``, … those of :class:`Embedding`, ``reason``
        is why it was selected. Distances and scores have no unit.
        """
        clusters, scores = (
            part.to_dataframe().set_index("frame_id") for part in (self.clusters, self.embedding)
        )
        table = clusters.loc[self.frame_id].join(scores).reset_index()
        table.insert(0, "row", self.indices)
        return table.assign(reason=self.reasons)


def cluster_pool(
    embedding: Embedding,
    n_samples: int,
    *,
    n_clusters: int | None = None,
    clustering: Algorithm = "kmeans",
    weighting: Weighting = "off",
    two_level_above: int | None = TWO_LEVEL_ABOVE,
    n_labelled: int = 0,
    seed: int = 0,
) -> Clusters:
    """Clusters to choose ``n_samples`` frames from, on two levels where the pool is very large.

    Parameters
    ----------
    n_clusters
        None: one for each frame to choose or labelled already, or one for each distinct point
        where there are fewer.
    clustering, weighting, seed
        See :func:`~mlip_assets.sampling.clustering.fit_clusters`.
    two_level_above
        Pools of more frames, and of more than ten for each to choose, are reduced to about as
        many, among which the clusters are found (see
        :func:`~mlip_assets.sampling.reduction.representatives`); None: never.
    """
    among = None
    if two_level_above is not None:
        n_kept = max(two_level_above, _CHOICE * (n_samples + n_labelled))
        if len(embedding.frame_id) > n_kept:
            among = representatives(embedding, n_kept, weighting=weighting)
    if n_clusters is None:
        pool = embedding.scores if among is None else embedding.scores[among]
        n_clusters = min(n_samples + n_labelled, count_distinct_points(pool))
    return fit_clusters(
        embedding, n_clusters, algorithm=clustering, weighting=weighting, seed=seed, among=among
    )


def direct_select(
    descriptors: DescriptorSource | NDArray[np.floating[Any]],
    n_samples: int,
    *,
    method: Method = "direct",
    components: Components = "variance",
    variance: float = 0.99,
    n_components: int | None = None,
    axes: PrincipalAxes | None = None,
    weighting: Weighting = "off",
    clustering: Algorithm = "kmeans",
    n_clusters: int | None = None,
    two_level_above: int | None = TWO_LEVEL_ABOVE,
    allocation: Allocation = "equitable",
    labelled: NDArray[np.floating[Any]] | None = None,
    duplicate_tolerance: float = DUPLICATE_TOLERANCE,
    n_atoms: ArrayLike | None = None,
    seed: int = 0,
    frame_ids: ArrayLike | None = None,
) -> DirectSelection:
    """Choose frames that cover the whole pool, rare configurations included.

    Standardise, reduce to principal components, cluster, and choose from every cluster (Qi, Ko,
    Wood, Pham and Ong, npj Comput. Mater. 10, 43 (2024)). The defaults differ from the paper where
    that measured better: components are not weighted by the variance they explain, and k-means
    from farthest points takes the place of BIRCH. ``components="kaiser"``,
    ``weighting="explained_variance"`` and ``clustering="birch"`` are the paper's.

    Parameters
    ----------
    descriptors
        (n_frames, n_features) floating point, one row a frame, or a source of batches such as a
        :class:`~mlip_assets.descriptors.DescriptorMatrix`; read twice, never whole.
    n_samples
        How many frames to choose.
    components, variance, n_components
        See :func:`~mlip_assets.sampling.pca.fit_axes`.
    axes
        Of an earlier embedding, to use in place of new ones.
    weighting, clustering, n_clusters, two_level_above
        See :func:`cluster_pool`.
    method, allocation, duplicate_tolerance
        See :func:`~mlip_assets.sampling.selection.select_frames`.
    labelled
        (n_labelled, n_features) descriptors of frames that are labelled already.
    n_atoms
        (n_frames,) atoms in each frame, in the order of the rows, to prefer small cells.
    seed
        Decides what is random: minibatch_kmeans, faiss and the random baseline.
    frame_ids
        (n_frames,) unique ids of the rows of an array; by default their indices. The frames chosen
        depend on these and not on the order of the rows.

    Raises
    ------
    ValueError
        Fewer distinct frames than samples, more clusters than distinct points, descriptors that
        are not finite, or ids that are not unique.
    """
    if isinstance(descriptors, np.ndarray):
        array = DescriptorArray(descriptors, frame_ids)
        source: DescriptorSource = array
        order = array.order
    else:
        source, order = descriptors, np.arange(descriptors.n_frames)
    if not 1 <= n_samples <= len(order):
        raise ValueError(f"n_samples: {n_samples} frames wanted of {len(order)}")
    if axes is None:
        embedding = fit_embedding(
            source, components=components, variance=variance, n_components=n_components
        )
    else:
        embedding = embed(source, axes)
    known = None if labelled is None else embedding.axes.project(labelled)
    clusters = cluster_pool(
        embedding,
        n_samples,
        n_clusters=n_clusters,
        clustering=clustering,
        weighting=weighting,
        two_level_above=two_level_above,
        n_labelled=0 if known is None else len(known),
        seed=seed,
    )
    selection = select_frames(
        embedding,
        clusters,
        n_samples,
        method=method,
        allocation=allocation,
        labelled=known,
        duplicate_tolerance=duplicate_tolerance,
        n_atoms=None if n_atoms is None else np.asarray(n_atoms)[order],
        seed=seed,
    )
    rows = order[selection.indices]
    ascending = np.argsort(rows)
    return DirectSelection(
        indices=rows[ascending],
        clusters=clusters,
        embedding=embedding,
        reasons=tuple(selection.reasons[index] for index in ascending),
        frame_id=clusters.frame_id[selection.indices[ascending]],
    )
