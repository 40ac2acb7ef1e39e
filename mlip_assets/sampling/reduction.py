"""The first of two levels, for very large pools: a few frames stand for many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlip_assets.sampling.embedding import Embedding, Weighting

#: Consecutive frames that are reduced together.
_STRETCH = 1024


def representatives(
    embedding: Embedding, n_kept: int, *, weighting: Weighting = "off"
) -> NDArray[np.int64]:
    """Rows of at most about ``n_kept`` frames that stand for all, ascending by frame id.

    The Ti-H recipe of DIRECT reduces each molecular-dynamics run, then selects from the union (Qi
    et al., npj Comput. Mater. 10, 43 (2024)). Here a run, or each stretch of 1024 frames of it,
    gives its share of frames by farthest-point sampling, so that what is rare in it is kept; every
    stretch gives at least one, and the cost is linear in the frames.

    Parameters
    ----------
    embedding
        All frames; those of one run have consecutive ids.
    n_kept
        Size of the union.
    weighting
        Whether components count by the variance they explain.
    """
    from mlip_assets.sampling.distances import farthest_points

    by_id = np.argsort(embedding.frame_id, kind="stable")
    points, weights = embedding.scores, embedding.weights(weighting)
    nothing = np.empty((0, points.shape[1]))
    kept = []
    for start in range(0, len(by_id), _STRETCH):
        rows = by_id[start : start + _STRETCH]
        share = max(len(rows) * n_kept // len(by_id), 1)
        chosen, _ = farthest_points(points[rows] * weights, nothing, share, 0.0)
        kept.append(rows[np.sort(chosen)])
    return np.concatenate(kept)
