"""Presampling: very large pools are reduced before they are clustered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlip_assets.sampling.embedding import Embedding, Weighting

#: Consecutive frames that are reduced together.
_BLOCK_FRAMES = 1024


def presample(
    embedding: Embedding, n_kept: int, *, weighting: Weighting = "off"
) -> NDArray[np.int64]:
    """Rows of about ``n_kept`` frames that represent all, ascending by frame id.

    The Ti-H recipe of DIRECT reduces each molecular-dynamics run, then selects from the union (Qi
    et al., npj Comput. Mater. 10, 43 (2024)). Here each block of 1024 consecutive frames of a run
    contributes in proportion to its size, and at least one frame. Farthest-point sampling within a
    block keeps its rare frames. The cost is linear in the number of frames.

    Parameters
    ----------
    embedding
        All frames; those of one run have consecutive ids.
    n_kept
        Size of the union.
    weighting
        Whether components are weighted by the variance they explain.
    """
    from mlip_assets.sampling.distances import farthest_points

    by_id = np.argsort(embedding.frame_id, kind="stable")
    points, weights = embedding.scores, embedding.weights(weighting)
    no_points = np.empty((0, points.shape[1]))
    kept = []
    for start in range(0, len(by_id), _BLOCK_FRAMES):
        rows = by_id[start : start + _BLOCK_FRAMES]
        n_block = max(len(rows) * n_kept // len(by_id), 1)
        chosen, _ = farthest_points(points[rows] * weights, no_points, n_block, 0.0)
        kept.append(rows[np.sort(chosen)])
    return np.concatenate(kept)
