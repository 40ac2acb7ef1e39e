"""DIRECT: dimensionality reduction, clustering and stratified sampling of a pool of frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlip_assets.sampling.clustering import Clusters, count_distinct_points, fit_clusters
from mlip_assets.sampling.embedding import Embedding, Weighting, embed, fit_embedding
from mlip_assets.sampling.partition import Algorithm
from mlip_assets.sampling.pca import Components, PrincipalComponents
from mlip_assets.sampling.presampling import presample
from mlip_assets.sampling.selection import (
    DUPLICATE_TOLERANCE,
    Allocation,
    Method,
    select_frames,
)
from mlip_assets.sampling.source import DescriptorArray, DescriptorSource

if TYPE_CHECKING:
    import pandas as pd

#: Largest pool that is clustered without presampling; larger ones are reduced to this size first.
PRESAMPLE_ABOVE = 100_000
#: Presampling keeps at least this number of frames per sample.
_MIN_FRAMES_PER_SAMPLE = 10


@dataclass(frozen=True)
class DirectSelection:
    """Chosen frames, the reason for each, and the embedding and clusters that led to them.

    Attributes
    ----------
    indices
        (n_samples,) int64 rows of the descriptors, ascending and distinct.
    frame_id
        (n_samples,) int64 identifiers of these rows.
    clusters, embedding
        Tables with one row per frame: by ascending frame id for an array, else in the order of the
        source.
    reasons
        Reason for each of ``indices``.
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
    presample_above: int | None = PRESAMPLE_ABOVE,
    n_labelled: int = 0,
    seed: int = 0,
) -> Clusters:
    """Clusters from which ``n_samples`` frames are chosen; very large pools are presampled.

    Parameters
    ----------
    embedding
        All frames of the pool.
    n_samples
        Number of frames that will be chosen.
    n_clusters
        None: one per frame to choose or already labelled, and at most one per distinct point.
    clustering, weighting, seed
        See :func:`~mlip_assets.sampling.clustering.fit_clusters`.
    presample_above
        Larger pools are reduced to about this number of frames, at least ten per sample, before
        they are clustered (:func:`~mlip_assets.sampling.presampling.presample`). None: never.
    n_labelled
        Number of frames of the pool that are already labelled.
    """
    among = None
    if presample_above is not None:
        n_kept = max(presample_above, _MIN_FRAMES_PER_SAMPLE * (n_samples + n_labelled))
        if len(embedding.frame_id) > n_kept:
            among = presample(embedding, n_kept, weighting=weighting)
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
    pca: PrincipalComponents | None = None,
    weighting: Weighting = "off",
    clustering: Algorithm = "kmeans",
    n_clusters: int | None = None,
    presample_above: int | None = PRESAMPLE_ABOVE,
    allocation: Allocation = "equitable",
    labelled: NDArray[np.floating[Any]] | None = None,
    duplicate_tolerance: float = DUPLICATE_TOLERANCE,
    n_atoms: ArrayLike | None = None,
    seed: int = 0,
    frame_ids: ArrayLike | None = None,
) -> DirectSelection:
    """Choose frames that cover the whole pool, including rare configurations.

    DIRECT [1]_ standardises the descriptors, reduces them to principal components, clusters the
    frames and chooses from every cluster. The defaults differ from the paper where a variant gave
    better coverage: components are not weighted by the variance that they explain, and k-means
    started from farthest points replaces BIRCH. ``components="kaiser"``,
    ``weighting="explained_variance"`` and ``clustering="birch"`` are the settings of the paper.

    Parameters
    ----------
    descriptors : NDArray or DescriptorSource
        (n_frames, n_features) floating point, one row per frame, or a source of batches such as a
        :class:`~mlip_assets.descriptors.DescriptorMatrix`. It is read twice, batch by batch.
    n_samples : int
        Number of frames to choose.
    method : {"direct", "random", "uniform_stride", "fps"}
        DIRECT or a baseline; see :func:`~mlip_assets.sampling.selection.select_frames`.
    components, variance, n_components
        See :func:`~mlip_assets.sampling.pca.fit_principal_components`.
    pca : PrincipalComponents, optional
        Of an earlier embedding, used instead of fitting.
    weighting, clustering, n_clusters, presample_above
        See :func:`cluster_pool`.
    allocation, duplicate_tolerance
        See :func:`~mlip_assets.sampling.selection.select_frames`.
    labelled : NDArray, optional
        (n_labelled, n_features) descriptors of frames that are already labelled.
    n_atoms : array_like of int, optional
        (n_frames,) atoms in each frame, in the order of the rows; small cells are then preferred.
    seed : int
        Random seed of ``minibatch_kmeans``, ``faiss`` and the random baseline. Everything else is
        deterministic.
    frame_ids : array_like of int, optional
        (n_frames,) unique ids of the rows of an array; by default their indices. The chosen frames
        depend on the ids, and not on the order of the rows.

    Returns
    -------
    DirectSelection
        ``indices`` (n_samples,) int64, with ``reasons``, ``clusters`` and ``embedding``.

    Raises
    ------
    ValueError
        Fewer distinct frames than samples, more clusters than distinct points, descriptors that
        are not finite, or ids that are not unique.

    References
    ----------
    .. [1] J. Qi, T. W. Ko, B. C. Wood, T. A. Pham and S. P. Ong, npj Comput. Mater. 10, 43 (2024).

    Examples
    --------
    Of 1000 frames, one is far from the others. The selection contains it:

    >>> import numpy as np
    >>> from mlip_assets import direct_select
    >>> descriptors = np.random.default_rng(0).normal(size=(1000, 6))
    >>> descriptors[123] += 20
    >>> selection = direct_select(descriptors, 10)
    >>> len(selection.indices), 123 in selection.indices
    (10, True)

    A second selection, in the same principal components, excludes what is already labelled:

    >>> labelled = descriptors[selection.indices]
    >>> second = direct_select(descriptors, 5, pca=selection.embedding.pca, labelled=labelled)
    >>> set(second.indices) & set(selection.indices)
    set()
    """
    if isinstance(descriptors, np.ndarray):
        array = DescriptorArray(descriptors, frame_ids)
        source: DescriptorSource = array
        order = array.order
    else:
        source, order = descriptors, np.arange(descriptors.n_frames)
    if not 1 <= n_samples <= len(order):
        raise ValueError(f"n_samples: {n_samples} frames requested of {len(order)}")
    if pca is None:
        embedding = fit_embedding(
            source, components=components, variance=variance, n_components=n_components
        )
    else:
        embedding = embed(source, pca)
    labelled_scores = None if labelled is None else embedding.pca.transform(labelled)
    clusters = cluster_pool(
        embedding,
        n_samples,
        n_clusters=n_clusters,
        clustering=clustering,
        weighting=weighting,
        presample_above=presample_above,
        n_labelled=0 if labelled_scores is None else len(labelled_scores),
        seed=seed,
    )
    selection = select_frames(
        embedding,
        clusters,
        n_samples,
        method=method,
        allocation=allocation,
        labelled=labelled_scores,
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
