"""Which frames are labelled: DIRECT's stratified choice, and the baselines it has to beat."""

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

#: What makes two frames near-duplicates by default, as a fraction of the radius of the map.
DUPLICATE_TOLERANCE = 1e-3

#: The chosen rows, each with its reason.
_Picks = dict[int, str]


@dataclass(frozen=True)
class Selection:
    """Chosen rows and why.

    Attributes
    ----------
    indices
        (n_samples,) int64 rows of the table chosen from, ascending and distinct.
    reasons
        For each, such as ``medoid of cluster 7`` or ``rank 12 of 40 in cluster 7``; rank 1 is
        the frame nearest the centre.
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
    fewer_will_do: bool = False,
    seed: int = 0,
) -> Selection:
    """Choose exactly ``n_samples`` frames, none nearly equal to another or to a labelled one.

    Parameters
    ----------
    embedding, clusters
        Of the same frames, in the same order.
    n_samples
        How many frames to choose.
    method
        ``direct``: from every cluster the frame nearest its centre, which is its medoid in squared
        distance, and further ones at constant rank intervals out to the farthest (Qi et al., npj
        Comput. Mater. 10, 43 (2024)). ``random``: equal chances. ``uniform_stride``: constant
        intervals of frame ids. ``fps``: each frame the farthest from those before, from the one
        nearest the mean on. Only ``direct`` looks at the clusters.
    allocation
        ``equitable``: every cluster is served before any is served again. ``proportional``: so is
        it, and what is left goes by the sizes of the clusters (Sainte-Laguë).
    labelled
        (n_labelled, n_components) scores of frames that have labels already, on the axes of
        ``embedding``. They count as helpings of the clusters they fall in.
    duplicate_tolerance
        Distance in the map within which two frames are near-duplicates, as a fraction of its
        radius (:attr:`~mlip_assets.sampling.pca.PrincipalAxes.radius`); 0 is equality.
    n_atoms
        (n_frames,) sizes of the frames; given, ``direct`` chooses in each cluster among the
        smallest cells that suffice, as 2DIRECT does (Kaplan et al., arXiv 2503.04070).
    expected_error
        (n_frames,) of a model, such as the calibrated spread of a committee; given, ``direct``
        chooses from every cluster the frame with the largest, and further ones at constant rank
        intervals down to the smallest.
    fewer_will_do
        Choose all the distinct frames there are where they are fewer than ``n_samples``.
    seed
        Decides ``random``.

    Raises
    ------
    ValueError
        Fewer frames than samples that are neither near-duplicates of each other nor labelled (the
        message says how many there are), a frame id that is not unique, or tables that differ.
    """
    ids = embedding.frame_id
    if not np.array_equal(ids, clusters.frame_id):
        raise ValueError("clusters: made of other frames than the embedding; make them again")
    if len(np.unique(ids)) != len(ids):
        raise ValueError("frame_id: some ids occur more than once; give each frame its own")
    if fewer_will_do:
        n_samples = min(n_samples, len(ids))
    if not 1 <= n_samples <= len(ids):
        raise ValueError(f"n_samples: {n_samples} frames wanted of {len(ids)}")
    known = np.empty((0, embedding.scores.shape[1])) if labelled is None else labelled
    taken = _Taken(
        known, n_samples, max(duplicate_tolerance * embedding.axes.radius, 2 * 10.0**-DECIMALS)
    )
    by_id = np.argsort(ids)
    match method:
        case "direct":
            picks = _direct(
                embedding, clusters, n_samples, allocation, taken, n_atoms, expected_error
            )
        case "random":
            picks = _random(embedding, by_id, n_samples, taken, seed)
        case "uniform_stride":
            picks = _uniform_stride(embedding, by_id, n_samples, taken)
        case "fps":
            picks = _farthest(embedding, by_id, n_samples, taken)
    if len(picks) < n_samples and not (fewer_will_do and picks):
        unlike = " and from those labelled" if len(known) else ""
        raise ValueError(
            f"n_samples: {n_samples} frames wanted, but of {len(ids)} only {len(picks)} are "
            f"distinct, that is, farther than duplicate_tolerance = {duplicate_tolerance:g} of the "
            f"map's radius from each other{unlike}; lower n_samples to {len(picks)}, lower "
            "duplicate_tolerance, or explore further"
        )
    indices = sorted(picks)
    return Selection(np.array(indices), tuple(picks[index] for index in indices))


class _Taken:
    """The points of the map that are labelled or chosen, near which no frame is chosen again."""

    def __init__(self, labelled: NDArray[np.float64], n_more: int, tolerance: float) -> None:
        self.labelled, self.tolerance = labelled, tolerance
        self._points = np.concatenate([labelled, np.empty((n_more, labelled.shape[1]))])
        self._n = len(labelled)

    def pick(
        self, scores: NDArray[np.float64], rows: NDArray[np.int64], wanted: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Take the positions in ``rows`` nearest the wanted ones that are not near what is taken."""
        from mlip_assets.sampling.distances import pick_new

        picked = pick_new(scores, rows, wanted, self._points, self._n, self.tolerance)
        self._n += len(picked)
        return picked


def _direct(
    embedding: Embedding,
    clusters: Clusters,
    n_samples: int,
    allocation: Allocation,
    taken: _Taken,
    n_atoms: NDArray[np.integer] | None,
    expected_error: NDArray[np.float64] | None,
) -> _Picks:
    sizes = clusters.sizes
    order, best = clusters.distance_to_centre, "medoid"
    if expected_error is not None:
        order, best = -np.nan_to_num(expected_error), "most uncertain"
    ranked = np.lexsort((clusters.frame_id, order, clusters.cluster))
    members = np.split(ranked, np.cumsum(sizes)[:-1])
    served = np.bincount(clusters.predict(taken.labelled), minlength=len(sizes))
    room = sizes.copy()
    picks: _Picks = {}
    # a cluster full of near-duplicates gives less than its share; others then make up for it
    while len(picks) < n_samples and room.any():
        shares = _allocate(n_samples - len(picks), sizes, served, room, allocation)
        for cluster in np.flatnonzero(shares):
            share, before = shares[cluster], served[cluster]
            rows = members[cluster]
            if n_atoms is not None:
                rows = _smallest(rows, n_atoms, before + share)
            intervals = max(before + share - 1, 1)
            wanted = np.arange(before, before + share) * (len(rows) - 1) // intervals
            picked = taken.pick(embedding.scores, rows, wanted)
            among = f"{len(rows)}" if n_atoms is None else f"the {len(rows)} smallest cells"
            for rank in picked:
                picks[int(rows[rank])] = (
                    f"rank {rank + 1} of {among} in cluster {cluster}"
                    if rank or n_atoms is not None
                    else f"{best} of cluster {cluster}"
                )
            served[cluster] += len(picked)
            room[cluster] = room[cluster] - share if len(picked) == share else 0
    return picks


def _allocate(
    n_samples: int,
    sizes: NDArray[np.int64],
    served: NDArray[np.int64],
    room: NDArray[np.int64],
    allocation: Allocation,
) -> NDArray[np.int64]:
    """How many more frames (n_clusters,) each cluster gives, none above its room."""

    def claim(cluster: int) -> tuple[float, ...]:
        helpings = served[cluster] + shares[cluster]
        if allocation == "equitable":
            return (helpings, cluster)
        return (helpings > 0, (helpings + 0.5) / sizes[cluster], cluster)

    shares = np.zeros_like(sizes)
    queue = [claim(int(cluster)) for cluster in np.flatnonzero(room)]
    heapq.heapify(queue)
    for _ in range(min(n_samples, int(room.sum()))):
        cluster = int(queue[0][-1])
        shares[cluster] += 1
        if shares[cluster] < room[cluster]:
            heapq.heapreplace(queue, claim(cluster))
        else:
            heapq.heappop(queue)
    return shares


def _smallest(
    rows: NDArray[np.int64], n_atoms: NDArray[np.integer], n_needed: int
) -> NDArray[np.int64]:
    """The rows with the smallest cells, in their order, so many sizes of them as are needed."""
    sizes = n_atoms[rows]
    largest = np.sort(sizes)[min(n_needed, len(rows)) - 1]
    return rows[np.flatnonzero(sizes <= largest)]


def _random(
    embedding: Embedding, by_id: NDArray[np.int64], n_samples: int, taken: _Taken, seed: int
) -> _Picks:
    shuffled = np.random.default_rng(seed).permutation(by_id)
    picked = taken.pick(embedding.scores, shuffled, np.arange(n_samples))
    return {int(row): "drawn at random" for row in shuffled[picked]}


def _uniform_stride(
    embedding: Embedding, by_id: NDArray[np.int64], n_samples: int, taken: _Taken
) -> _Picks:
    wanted = np.arange(n_samples) * (len(by_id) - 1) // max(n_samples - 1, 1)
    picked = taken.pick(embedding.scores, by_id, wanted)
    return {int(by_id[rank]): f"frame {rank + 1} of {len(by_id)} in a stride" for rank in picked}


def _farthest(
    embedding: Embedding, by_id: NDArray[np.int64], n_samples: int, taken: _Taken
) -> _Picks:
    from mlip_assets.sampling.distances import farthest_points

    chosen, gaps = farthest_points(
        embedding.scores[by_id], taken.labelled, n_samples, taken.tolerance
    )
    return {
        int(by_id[point]): f"{gap:.3g} from the nearest before it"
        if np.isfinite(gap)
        else "nearest the mean"
        for point, gap in zip(chosen, gaps, strict=True)
    }
