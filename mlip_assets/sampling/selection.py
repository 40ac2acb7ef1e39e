"""Which frames of each cluster are labelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlip_assets.sampling.clustering import Clusters


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


def select_stratified(clusters: Clusters, n_samples: int) -> Selection:
    """Choose frames from every cluster, as evenly as their sizes allow.

    All clusters get the same number; what small ones cannot give is shared among the others, and
    a remainder goes to the first. In a cluster, the frame nearest the centre comes first and the
    others at constant rank intervals out to the farthest (Qi et al., npj Comput. Mater. 10, 43
    (2024)); equal distances rank by frame id.

    Raises
    ------
    ValueError
        More samples than frames, fewer samples than clusters, or a frame id that is not unique.
    """
    n_frames, sizes = len(clusters.frame_id), np.bincount(clusters.cluster)
    if len(np.unique(clusters.frame_id)) != n_frames:
        raise ValueError("frame_id: some ids occur more than once; give each frame its own")
    if not len(sizes) <= n_samples <= n_frames:
        raise ValueError(
            f"n_samples: {n_samples} frames wanted of {n_frames} in {len(sizes)} clusters; give "
            f"{len(sizes)} to {n_frames}"
        )
    inside_out = np.lexsort((clusters.frame_id, clusters.distance_to_centre, clusters.cluster))
    reasons: dict[int, str] = {}
    for cluster, (members, quota) in enumerate(
        zip(np.split(inside_out, np.cumsum(sizes)[:-1]), _allocate(sizes, n_samples), strict=True)
    ):
        last = len(members) - 1
        for rank in np.arange(quota) * last // max(quota - 1, 1):
            reasons[int(members[rank])] = (
                f"rank {rank + 1} of {len(members)} in cluster {cluster}"
                if rank
                else f"medoid of cluster {cluster}"
            )
    indices = sorted(reasons)
    return Selection(np.array(indices), tuple(reasons[index] for index in indices))


def random_selection(n_frames: int, n_samples: int, seed: int) -> NDArray[np.int64]:
    """Distinct rows drawn with equal chances, ascending: the baseline to beat."""
    if not 0 <= n_samples <= n_frames:
        raise ValueError(f"n_samples: {n_samples} frames wanted of {n_frames}")
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(n_frames, n_samples, replace=False))


def _allocate(sizes: NDArray[np.int64], n_samples: int) -> NDArray[np.int64]:
    """Equal shares, none above its cluster's size, that sum to ``n_samples``."""
    quotas = np.zeros_like(sizes)
    while left := n_samples - quotas.sum():
        unfilled = np.flatnonzero(quotas < sizes)
        share = max(left // len(unfilled), 1)
        receivers = unfilled[:left]
        quotas[receivers] = np.minimum(quotas[receivers] + share, sizes[receivers])
    return quotas
