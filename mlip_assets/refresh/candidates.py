"""Labelling candidates: frames of a new exploration that the labels do not cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlip_assets.sampling.embedding import Embedding

#: The coverage radius is this percentile of the distances to the nearest label in the first
#: exploration: one frame in ten of it is not covered.
COVERAGE_PERCENTILE = 90.0


@dataclass(frozen=True)
class LabellingCandidates:
    """Frames that may be labelled.

    Attributes
    ----------
    rows
        (n,) int64 rows of the embedding, ascending; at least one.
    n_far
        Number of frames farther from every label than the coverage radius.
    n_uncertain
        Number of frames with an expected error above the limit, far or not.
    covered_fraction
        Fraction of all frames that are neither far nor uncertain.
    """

    rows: NDArray[np.int64]
    n_far: int
    n_uncertain: int
    covered_fraction: float


def distance_to_labels(embedding: Embedding, labelled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (n_frames,) in the embedding from each frame to the nearest labelled one.

    Parameters
    ----------
    embedding
        All frames.
    labelled
        (n_labelled, n_components) scores in the same principal components. Without any, all
        distances are infinite.
    """
    from mlip_assets.sampling.distances import nearest

    if len(labelled) == 0:
        return np.full(len(embedding.scores), np.inf)
    return nearest(embedding.scores, labelled)[1]


def coverage_radius(embedding: Embedding, labelled: NDArray[np.float64]) -> float:
    """Distance from the labels within which nine in ten frames of this exploration are.

    The parameters are those of :func:`distance_to_labels`.
    """
    return float(np.percentile(distance_to_labels(embedding, labelled), COVERAGE_PERCENTILE))


def find_candidates(
    embedding: Embedding,
    labelled: NDArray[np.float64],
    radius: float,
    *,
    expected_error: NDArray[np.float64] | None = None,
    error_limit: float = np.inf,
) -> LabellingCandidates:
    """Frames that are not covered by labels, or for which the model is uncertain.

    If there are none, the frame farthest from the labels is the only candidate.

    Parameters
    ----------
    embedding
        All frames of the exploration.
    labelled
        (n_labelled, n_components) scores of labelled frames in the components of ``embedding``.
    radius
        Distance within which a label covers a frame, from :func:`coverage_radius`.
    expected_error
        (n_frames,) calibrated force error of the model, eV/Å; NaN where it is not known.
    error_limit
        Expected error above which a covered frame is a candidate too, eV/Å.
    """
    distance = distance_to_labels(embedding, labelled)
    far = distance > radius
    uncertain = np.zeros(len(far), dtype=bool)
    if expected_error is not None:
        uncertain = expected_error > error_limit
    rows = np.flatnonzero(far | uncertain)
    covered_fraction = 1 - len(rows) / len(far)
    if len(rows) == 0:
        rows = np.array([np.argmax(distance)])
    return LabellingCandidates(rows, int(far.sum()), int(uncertain.sum()), covered_fraction)


def covered_fraction_by_round(
    embedding: Embedding, labelled: NDArray[np.float64], rounds: Sequence[int], radius: float
) -> dict[int, float]:
    """Fraction of the frames that the labels of all rounds up to each round cover.

    All fractions are measured on the same frames, so they can be compared. They increase.

    Parameters
    ----------
    embedding
        The frames.
    labelled
        (n_labelled, n_components) scores of labelled frames in the components of ``embedding``.
    rounds
        Round of each labelled frame.
    radius
        Distance within which a label covers a frame, from :func:`coverage_radius`.
    """
    number = np.asarray(rounds)
    return {
        int(last): float(np.mean(distance_to_labels(embedding, labelled[number <= last]) <= radius))
        for last in np.unique(number)
    }
