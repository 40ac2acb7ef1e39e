"""Selection of frames from clusters: DIRECT's stratified sampling, and baselines."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlip_assets.sampling.clustering import Clusters
from mlip_assets.sampling.embedding import Embedding
from mlip_assets.sampling.pca import DECIMALS

Method = Literal["direct", "random", "uniform_stride", "fps"]
Allocation = Literal["equitable", "proportional"]

#: Default distance of near-duplicates, as a fraction of the radius of the embedding.
DUPLICATE_TOLERANCE = 1e-3

#: Reason for each chosen row.
_Picks = dict[int, str]


@dataclass(frozen=True)
class Selection:
    """Chosen rows, and the reason for each.

    Attributes
    ----------
    indices
        (n_samples,) int64 rows of the embedding, ascending and distinct.
    reasons
        One for each row, such as ``medoid of cluster 7`` or ``rank 12 of 40 in cluster 7``. Rank 1
        is the frame nearest to the centre.
    """

    indices: NDArray[np.int64]
    reasons: tuple[str, ...]


def select_frames(
    embedding: Embedding,
    clusters: Clusters,
    n_samples: int,
    *,
    method: Method = "direct",
    allocation: Allocation = "equitable",
    labelled: NDArray[np.float64] | None = None,
    duplicate_tolerance: float = DUPLICATE_TOLERANCE,
    n_atoms: NDArray[np.integer] | None = None,
    expected_error: NDArray[np.float64] | None = None,
    allow_fewer: bool = False,
    seed: int = 0,
) -> Selection:
    """Choose exactly ``n_samples`` frames without near-duplicates of each other or of labels.

    Parameters
    ----------
    embedding, clusters
        Of the same frames, in the same order.
    n_samples
        Number of frames.
    method
        ``direct``: from every cluster the frame nearest to its centre, which is its medoid in
        squared distance. Further frames are at constant rank intervals, up to the farthest (Qi et
        al., npj Comput. Mater. 10, 43 (2024)). ``random``: equal probabilities.
        ``uniform_stride``: constant intervals of frame ids. ``fps``: farthest-point sampling,
        beginning with the frame nearest to the mean. Only ``direct`` uses the clusters.
    allocation
        ``equitable``: the clusters contribute equal numbers as far as their sizes allow.
        ``proportional``: one frame from each cluster, and the others in proportion to the sizes of
        the clusters (Sainte-Laguë).
    labelled
        (n_labelled, n_components) scores of frames that have labels, in the components of
        ``embedding``. They count towards the quota of their cluster.
    duplicate_tolerance
        Distance in the embedding within which two frames are near-duplicates, as a fraction of its
        radius (:attr:`~mlip_assets.sampling.pca.PrincipalComponents.radius`). With 0, only equal
        frames are.
    n_atoms
        (n_frames,) sizes of the frames. If given, ``direct`` chooses in each cluster among the
        smallest cells that suffice, as 2DIRECT does (Kaplan et al., arXiv 2503.04070).
    expected_error
        (n_frames,) expected error of a model, such as the calibrated spread of a committee. If
        given, ``direct`` chooses the frame with the largest from every cluster, and further frames
        at constant rank intervals down to the smallest.
    allow_fewer
        If fewer than ``n_samples`` frames are distinct, choose all of them instead of raising.
    seed
        Random seed of ``random``.

    Raises
    ------
    ValueError
        Fewer frames than samples that are neither near-duplicates of each other nor labelled (the
        message gives their number), a frame id that is not unique, or tables that differ.
    """
    ids = embedding.frame_id
    if not np.array_equal(ids, clusters.frame_id):
        raise ValueError("clusters: their frames differ from those of the embedding; cluster again")
    if len(np.unique(ids)) != len(ids):
        raise ValueError("frame_id: some ids occur more than once; give each frame a unique id")
    if allow_fewer:
        n_samples = min(n_samples, len(ids))
    if not 1 <= n_samples <= len(ids):
        raise ValueError(f"n_samples: {n_samples} frames requested of {len(ids)}")
    if labelled is None:
        labelled = np.empty((0, embedding.scores.shape[1]))
    tolerance = max(duplicate_tolerance * embedding.pca.radius, 2 * 10.0**-DECIMALS)
    occupied = _OccupiedPoints(labelled, n_samples, tolerance)
    by_id = np.argsort(ids)
    match method:
        case "direct":
            picks = _direct(
                embedding, clusters, n_samples, allocation, occupied, n_atoms, expected_error
            )
        case "random":
            picks = _random(embedding, by_id, n_samples, occupied, seed)
        case "uniform_stride":
            picks = _uniform_stride(embedding, by_id, n_samples, occupied)
        case "fps":
            picks = _farthest(embedding, by_id, n_samples, occupied)
    if len(picks) < n_samples and not (allow_fewer and picks):
        unlike = " and from the labelled frames" if len(labelled) else ""
        raise ValueError(
            f"n_samples: {n_samples} frames requested, but of {len(ids)} only {len(picks)} are "
            f"distinct: farther than duplicate_tolerance = {duplicate_tolerance:g} of the "
            f"embedding's radius from each other{unlike}. Lower n_samples to {len(picks)}, lower "
            "duplicate_tolerance, or explore further"
        )
    indices = sorted(picks)
    return Selection(np.array(indices), tuple(picks[index] for index in indices))


class _OccupiedPoints:
    """Points of the embedding that are labelled or chosen; no frame near them is chosen."""

    def __init__(self, labelled: NDArray[np.float64], n_more: int, tolerance: float) -> None:
        self.labelled, self.tolerance = labelled, tolerance
        self._points = np.concatenate([labelled, np.empty((n_more, labelled.shape[1]))])
        self._n = len(labelled)

    def pick(
        self, scores: NDArray[np.float64], rows: NDArray[np.int64], wanted: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Choose the unoccupied points nearest to the wanted positions in ``rows``; they become occupied.

        Returns
        -------
        NDArray
            Positions in ``rows``.
        """
        from mlip_assets.sampling.distances import pick_unoccupied

        picked = pick_unoccupied(scores, rows, wanted, self._points, self._n, self.tolerance)
        self._n += len(picked)
        return picked


def _direct(
    embedding: Embedding,
    clusters: Clusters,
    n_samples: int,
    allocation: Allocation,
    occupied: _OccupiedPoints,
    n_atoms: NDArray[np.integer] | None,
    expected_error: NDArray[np.float64] | None,
) -> _Picks:
    sizes = clusters.sizes
    order, best = clusters.distance_to_centre, "medoid"
    if expected_error is not None:
        order, best = -np.nan_to_num(expected_error), "most uncertain"
    ranked = np.lexsort((clusters.frame_id, order, clusters.cluster))
    members = np.split(ranked, np.cumsum(sizes)[:-1])
    n_selected = np.bincount(clusters.predict(occupied.labelled), minlength=len(sizes))
    n_available = sizes.copy()
    picks: _Picks = {}
    # a cluster of near-duplicates cannot fill its quota: the rest is allocated to other clusters
    while len(picks) < n_samples and n_available.any():
        quotas = _allocate(n_samples - len(picks), sizes, n_selected, n_available, allocation)
        for cluster in np.flatnonzero(quotas):
            quota, before = quotas[cluster], n_selected[cluster]
            rows = members[cluster]
            if n_atoms is not None:
                rows = _smallest(rows, n_atoms, before + quota)
            intervals = max(before + quota - 1, 1)
            wanted = np.arange(before, before + quota) * (len(rows) - 1) // intervals
            picked = occupied.pick(embedding.scores, rows, wanted)
            among = f"{len(rows)}" if n_atoms is None else f"the {len(rows)} smallest cells"
            for rank in picked:
                picks[int(rows[rank])] = (
                    f"rank {rank + 1} of {among} in cluster {cluster}"
                    if rank or n_atoms is not None
                    else f"{best} of cluster {cluster}"
                )
            n_selected[cluster] += len(picked)
            n_available[cluster] = n_available[cluster] - quota if len(picked) == quota else 0
    return picks


def _allocate(
    n_samples: int,
    sizes: NDArray[np.int64],
    n_selected: NDArray[np.int64],
    n_available: NDArray[np.int64],
    allocation: Allocation,
) -> NDArray[np.int64]:
    """Number of further frames (n_clusters,) of each cluster, at most those available."""

    def priority(cluster: int) -> tuple[float, ...]:
        """Sort key of a cluster; the smallest is next."""
        n_frames = n_selected[cluster] + quotas[cluster]
        if allocation == "equitable":
            return (n_frames, cluster)
        return (n_frames > 0, (n_frames + 0.5) / sizes[cluster], cluster)

    quotas = np.zeros_like(sizes)
    queue = [priority(int(cluster)) for cluster in np.flatnonzero(n_available)]
    heapq.heapify(queue)
    for _ in range(min(n_samples, int(n_available.sum()))):
        cluster = int(queue[0][-1])
        quotas[cluster] += 1
        if quotas[cluster] < n_available[cluster]:
            heapq.heapreplace(queue, priority(cluster))
        else:
            heapq.heappop(queue)
    return quotas


def _smallest(
    rows: NDArray[np.int64], n_atoms: NDArray[np.integer], n_needed: int
) -> NDArray[np.int64]:
    """The rows with the smallest cells, in their order: at least ``n_needed``, and all of a size."""
    sizes = n_atoms[rows]
    largest = np.sort(sizes)[min(n_needed, len(rows)) - 1]
    return rows[np.flatnonzero(sizes <= largest)]


def _random(
    embedding: Embedding,
    by_id: NDArray[np.int64],
    n_samples: int,
    occupied: _OccupiedPoints,
    seed: int,
) -> _Picks:
    shuffled = np.random.default_rng(seed).permutation(by_id)
    picked = occupied.pick(embedding.scores, shuffled, np.arange(n_samples))
    return {int(row): "drawn at random" for row in shuffled[picked]}


def _uniform_stride(
    embedding: Embedding, by_id: NDArray[np.int64], n_samples: int, occupied: _OccupiedPoints
) -> _Picks:
    wanted = np.arange(n_samples) * (len(by_id) - 1) // max(n_samples - 1, 1)
    picked = occupied.pick(embedding.scores, by_id, wanted)
    return {int(by_id[rank]): f"frame {rank + 1} of {len(by_id)} in a stride" for rank in picked}


def _farthest(
    embedding: Embedding, by_id: NDArray[np.int64], n_samples: int, occupied: _OccupiedPoints
) -> _Picks:
    from mlip_assets.sampling.distances import farthest_points

    chosen, gaps = farthest_points(
        embedding.scores[by_id], occupied.labelled, n_samples, occupied.tolerance
    )
    return {
        int(by_id[point]): f"{gap:.3g} from the nearest before it"
        if np.isfinite(gap)
        else "nearest the mean"
        for point, gap in zip(chosen, gaps, strict=True)
    }
