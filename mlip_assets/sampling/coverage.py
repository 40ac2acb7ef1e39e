"""How much of the pool's configuration space a selection reaches."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlip_assets.sampling.embedding import Embedding

#: Bins along each component, as in the figures of the paper.
BINS = 100
#: Frames, evenly spaced by id, from which the distances to a selection are measured.
_MEASURED = 50_000


@dataclass(frozen=True)
class Coverage:
    """Two views of one selection: the bins of the map it reaches, and how far the rest is from it.

    Attributes
    ----------
    score
        See :func:`coverage_score`.
    distance_p50, distance_p99
        Percentiles of the distance in the map from a frame that was not selected to the nearest
        that was, in units of the map's radius; 0 when all were selected.
    """

    score: float
    distance_p50: float
    distance_p99: float


@dataclass(frozen=True)
class CoverageReport:
    """A selection beside constant stride and ``n_random`` random selections of as many frames."""

    selection: Coverage
    uniform_stride: Coverage
    random_mean: Coverage
    random_sd: Coverage
    n_random: int


def coverage_score(scores: NDArray[np.float64], selected: ArrayLike, bins: int = BINS) -> float:
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
    chosen = np.asarray(selected)
    return _Histograms(scores, bins).share(
        scores[chosen if chosen.dtype == bool else chosen.astype(np.int64)]
    )


def measure_coverage(
    embedding: Embedding,
    selected: NDArray[np.int64],
    *,
    labelled: NDArray[np.float64] | None = None,
    seed: int,
    n_random: int = 20,
) -> CoverageReport:
    """Measure a selection, and what a selection without any thought would have reached.

    Parameters
    ----------
    selected
        (n_samples,) chosen rows.
    labelled
        (n_labelled, n_components) scores of frames labelled before, which every selection that is
        measured is joined to.
    seed
        Of the first random selection; the others take the seeds after it.
    n_random
        How many random selections of distinct frames are measured, at least two.
    """
    scores, n_frames = embedding.scores, len(embedding.scores)
    by_id = np.argsort(embedding.frame_id, kind="stable")
    measured = by_id[:: -(-n_frames // _MEASURED)]
    radius = embedding.axes.radius or 1.0
    histograms = _Histograms(scores, BINS)
    known = np.empty((0, scores.shape[1])) if labelled is None else labelled

    def measure(rows: NDArray[np.int64]) -> Coverage:
        from mlip_assets.sampling.distances import nearest

        rest = np.setdiff1d(measured, rows)
        reached = np.concatenate([scores[rows], known])
        distances = nearest(scores[rest], reached)[1] / radius if len(rest) else np.zeros(1)
        median, tail = np.percentile(distances, [50, 99])
        return Coverage(histograms.share(reached), float(median), float(tail))

    n_samples = len(selected)
    random = [
        measure(np.random.default_rng(seed + i).choice(n_frames, n_samples, replace=False))
        for i in range(n_random)
    ]
    spread = np.array([astuple(coverage) for coverage in random])
    return CoverageReport(
        selection=measure(np.asarray(selected)),
        uniform_stride=measure(by_id[np.arange(n_samples) * n_frames // n_samples]),
        random_mean=Coverage(*spread.mean(axis=0).tolist()),
        random_sd=Coverage(*spread.std(axis=0, ddof=1).tolist()),
        n_random=n_random,
    )


class _Histograms:
    """The bins that a pool occupies along each component."""

    def __init__(self, scores: NDArray[np.float64], bins: int) -> None:
        if bins < 1 or scores.ndim != 2 or scores.size == 0:
            raise ValueError(
                f"scores: shape {scores.shape}, bins: {bins}; need (n_frames, n_components) with "
                "frames in it and at least one bin"
            )
        low, high = scores.min(axis=0), scores.max(axis=0)
        self._low, self._high, self._bins = low, high, bins
        self._width = np.where(high > low, high - low, 1.0) / bins
        self._occupied = self._bins_of(scores)

    def share(self, scores: NDArray[np.float64]) -> float:
        """Mean over the components of the share of occupied bins in which these scores fall."""
        reached = zip(self._bins_of(scores), self._occupied, strict=True)
        return float(np.mean([len(ours & pool) / len(pool) for ours, pool in reached]))

    def _bins_of(self, scores: NDArray[np.float64]) -> list[set[int]]:
        """The bins of each component; scores beyond the pool's fall in none of its own."""
        bin_of = np.minimum(((scores - self._low) / self._width).astype(np.int64), self._bins - 1)
        bin_of[(scores < self._low) | (scores > self._high)] = -1
        return [set(column.tolist()) for column in bin_of.T]
