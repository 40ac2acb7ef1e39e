"""How much of the pool's configuration space a selection reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlip_assets.sampling.selection import random_selection


@dataclass(frozen=True)
class Coverage:
    """Coverage score of a selection beside that of random ones of its size."""

    selection: float
    random_mean: float
    random_sd: float


def coverage_score(scores: NDArray[np.float64], selected: ArrayLike, bins: int = 100) -> float:
    """Share of the pool's occupied histogram bins that the selection occupies too.

    Mean over the principal components, each with equal bins from the pool's smallest to its
    largest score (Qi et al., npj Comput. Mater. 10, 43 (2024)). It depends on the number of bins:
    compare only scores with equal bins and equal numbers of samples, and with a random selection.

    Parameters
    ----------
    scores
        (n_frames, n_components) unweighted principal components of the pool.
    selected
        Indices (n_samples,) of chosen rows, or a boolean mask (n_frames,).
    bins
        Bins along each component.

    Returns
    -------
    float
        From 0, nothing selected, to 1, every bin that the pool occupies.

    Raises
    ------
    ValueError
        No bins, or an empty pool.
    IndexError
        A selected row that the pool does not have.
    """
    if bins < 1 or scores.ndim != 2 or scores.size == 0:
        raise ValueError(
            f"scores: shape {scores.shape}, bins: {bins}; need (n_frames, n_components) with "
            "frames in it and at least one bin"
        )
    chosen = np.asarray(selected)
    low, high = scores.min(axis=0), scores.max(axis=0)
    width = np.where(high > low, high - low, 1.0) / bins
    bin_of = np.minimum(((scores - low) / width).astype(np.int64), bins - 1)
    chosen_bins = bin_of[chosen if chosen.dtype == bool else chosen.astype(np.int64)]
    shares = [
        len(np.unique(reached)) / len(np.unique(occupied))
        for reached, occupied in zip(chosen_bins.T, bin_of.T, strict=True)
    ]
    return float(np.mean(shares))


def coverage_against_random(
    scores: NDArray[np.float64],
    selected: ArrayLike,
    *,
    seed: int,
    n_random: int = 20,
    bins: int = 100,
) -> Coverage:
    """Score a selection, and ``n_random`` seeded random selections of as many frames."""
    n_samples = len(np.asarray(selected))
    random = [
        coverage_score(scores, random_selection(len(scores), n_samples, seed + i), bins)
        for i in range(n_random)
    ]
    score = coverage_score(scores, selected, bins)
    return Coverage(score, float(np.mean(random)), float(np.std(random, ddof=1)))
