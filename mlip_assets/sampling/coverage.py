"""Coverage: the part of the pool's embedding that a selection represents."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlip_assets.sampling.embedding import Embedding

#: Bins along each component, as in the figures of the paper (Ti-H).
BINS = 100
#: Largest number of frames, evenly spaced by id, whose distances to a selection are measured.
_MAX_MEASURED = 50_000


@dataclass(frozen=True)
class Coverage:
    """Coverage of one selection: its histogram bins, and the distances of the other frames.

    Attributes
    ----------
    score
        See :func:`coverage_score`.
    distance_p50, distance_p99
        Percentiles of the distance in the embedding from a frame that is not selected to the
        nearest selected one, in units of the embedding's radius; 0 if all are selected.
    """

    score: float
    distance_p50: float
    distance_p99: float


@dataclass(frozen=True)
class CoverageReport:
    """Coverage of a selection, and of baselines with the same number of frames.

    Attributes
    ----------
    selection, uniform_stride
        Of the selection, and of a constant stride in frame id.
    random_mean, random_sd
        Mean and sample standard deviation over ``n_random`` random selections.
    n_random
        Number of random selections.
    """

    selection: Coverage
    uniform_stride: Coverage
    random_mean: Coverage
    random_sd: Coverage
    n_random: int


def coverage_score(scores: NDArray[np.float64], selected: ArrayLike, bins: int = BINS) -> float:
    """Fraction of the pool's occupied histogram bins that the selection occupies.

    The fraction is averaged over the principal components, each with equal bins from the pool's
    smallest to its largest score [1]_. It depends on the number of bins: compare only scores with
    equal bins and equal numbers of samples, and with a random selection.

    Parameters
    ----------
    scores : NDArray
        (n_frames, n_components) unweighted scores of the pool.
    selected : array_like
        Indices (n_samples,) of the chosen rows, or a boolean mask (n_frames,).
    bins : int
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
        A selected row that does not exist.

    References
    ----------
    .. [1] J. Qi, T. W. Ko, B. C. Wood, T. A. Pham and S. P. Ong, npj Comput. Mater. 10, 43 (2024).

    Examples
    --------
    Ten frames, evenly spaced along one component, occupy all ten bins. Two of them occupy two:

    >>> import numpy as np
    >>> from mlip_assets.sampling import coverage_score
    >>> coverage_score(np.arange(10.0)[:, None], [0, 9], bins=10)
    0.2
    """
    chosen = np.asarray(selected)
    return _Histograms(scores, bins).covered_fraction(
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
    """Coverage of a selection, of a constant stride, and of random selections of equal size.

    Parameters
    ----------
    embedding : Embedding
        All frames of the pool.
    selected : NDArray
        (n_samples,) chosen rows.
    labelled : NDArray, optional
        (n_labelled, n_components) scores of frames labelled before. They are added to each
        selection that is measured.
    seed : int
        Random seed of the first random selection; the others use the seeds after it.
    n_random : int
        Number of random selections of distinct frames, at least two.

    Returns
    -------
    CoverageReport
        Scores from 0 to 1; distances in units of the embedding's radius.

    Raises
    ------
    ValueError
        An empty pool.
    IndexError
        A selected row that does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from mlip_assets import direct_select, measure_coverage
    >>> descriptors = np.random.default_rng(0).normal(size=(1000, 6))
    >>> descriptors[:20] += 20
    >>> selection = direct_select(descriptors, 30)
    >>> report = measure_coverage(selection.embedding, selection.indices, seed=0)
    >>> report.selection.distance_p99 < report.random_mean.distance_p99
    True
    """
    scores, n_frames = embedding.scores, len(embedding.scores)
    by_id = np.argsort(embedding.frame_id, kind="stable")
    measured = by_id[:: -(-n_frames // _MAX_MEASURED)]
    radius = embedding.pca.radius or 1.0
    histograms = _Histograms(scores, BINS)
    if labelled is None:
        labelled = np.empty((0, scores.shape[1]))

    def measure(rows: NDArray[np.int64]) -> Coverage:
        from mlip_assets.sampling.distances import nearest

        rest = np.setdiff1d(measured, rows)
        covered = np.concatenate([scores[rows], labelled])
        distances = nearest(scores[rest], covered)[1] / radius if len(rest) else np.zeros(1)
        median, tail = np.percentile(distances, [50, 99])
        return Coverage(histograms.covered_fraction(covered), float(median), float(tail))

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
                "at least one frame and one bin"
            )
        low, high = scores.min(axis=0), scores.max(axis=0)
        self._low, self._high, self._bins = low, high, bins
        self._width = np.where(high > low, high - low, 1.0) / bins
        self._occupied = self._bins_of(scores)

    def covered_fraction(self, scores: NDArray[np.float64]) -> float:
        """Fraction of the occupied bins that contain one of these scores, averaged over components."""
        bins = zip(self._bins_of(scores), self._occupied, strict=True)
        return float(np.mean([len(found & pool) / len(pool) for found, pool in bins]))

    def _bins_of(self, scores: NDArray[np.float64]) -> list[set[int]]:
        """Bins of these scores along each component; -1 for scores outside the range of the pool."""
        bin_of = np.minimum(((scores - self._low) / self._width).astype(np.int64), self._bins - 1)
        bin_of[(scores < self._low) | (scores > self._high)] = -1
        return [set(column.tolist()) for column in bin_of.T]
