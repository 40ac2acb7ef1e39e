"""Which frames of a new exploration the labels do not cover yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlip_assets.sampling.embedding import Embedding

#: Percentile of the distances to the nearest labelled frame, in the first exploration, that sets
#: what counts as known: one frame in ten was farther from every label, and is worth another look.
KNOWN_PERCENTILE = 90.0


@dataclass(frozen=True)
class Frontier:
    """Frames that are worth a label.

    Attributes
    ----------
    rows
        (n,) int64 rows of the embedding, ascending; never empty.
    n_far
        Frames farther from every labelled frame than counts as known.
    n_unsure
        Frames whose expected error is above the limit, far or not.
    known_share
        Share of all frames that are neither.
    """

    rows: NDArray[np.int64]
    n_far: int
    n_unsure: int
    known_share: float


def distance_to_labels(embedding: Embedding, labelled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (n_frames,) in the map from each frame to the nearest labelled one.

    Parameters
    ----------
    labelled
        (n_labelled, n_components) scores on the same axes.
    """
    from mlip_assets.sampling.distances import nearest

    if len(labelled) == 0:
        return np.full(len(embedding.scores), np.inf)
    return nearest(embedding.scores, labelled)[1]


def known_distance(embedding: Embedding, labelled: NDArray[np.float64]) -> float:
    """The distance from labels within which nine in ten frames of this exploration lie."""
    return float(np.percentile(distance_to_labels(embedding, labelled), KNOWN_PERCENTILE))


def find_frontier(
    embedding: Embedding,
    labelled: NDArray[np.float64],
    within: float,
    *,
    expected_error: NDArray[np.float64] | None = None,
    error_limit: float = np.inf,
) -> Frontier:
    """Frames that lie beyond the labels, or on which the model is not to be trusted.

    Where there are none, the one farthest from the labels stands in for them.

    Parameters
    ----------
    labelled
        (n_labelled, n_components) scores of labelled frames on the axes of ``embedding``.
    within
        Distance from a label at which a frame is known, from :func:`known_distance`.
    expected_error
        (n_frames,) calibrated force error of the model, eV/Å, where there is one; NaN: unknown.
    error_limit
        From which a frame is worth a label wherever it lies, eV/Å.
    """
    distance = distance_to_labels(embedding, labelled)
    far = distance > within
    unsure = np.zeros(len(far), dtype=bool)
    if expected_error is not None:
        unsure = expected_error > error_limit
    rows = np.flatnonzero(far | unsure)
    known_share = 1 - len(rows) / len(far)
    if len(rows) == 0:
        rows = np.array([np.argmax(distance)])
    return Frontier(rows, int(far.sum()), int(unsure.sum()), known_share)


def known_share_by_round(
    embedding: Embedding, labelled: NDArray[np.float64], rounds: Sequence[int], within: float
) -> dict[int, float]:
    """Share of the frames that the labels of each round and of those before it cover.

    Measured on the same frames, the shares of all rounds can be compared: they grow.

    Parameters
    ----------
    labelled
        (n_labelled, n_components) scores of labelled frames on the axes of ``embedding``.
    rounds
        The round of each of them.
    within
        As in :func:`find_frontier`.
    """
    number = np.asarray(rounds)
    return {
        int(last): float(np.mean(distance_to_labels(embedding, labelled[number <= last]) <= within))
        for last in np.unique(number)
    }
