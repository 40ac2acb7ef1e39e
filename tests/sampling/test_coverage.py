from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.sampling import coverage_score, fit_embedding, measure_coverage


def test_coverage_score_of_hand_computed_bins() -> None:
    # first component occupies bins 0, 1, 4 of 5 (width 2), second 0, 4 (width 1)
    scores = np.array([[0.0, 0.0], [1.9, 0.5], [2.0, 5.0], [10.0, 4.9]])
    assert coverage_score(scores, [0], bins=5) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert coverage_score(scores, [0, 1], bins=5) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert coverage_score(scores, [0, 2], bins=5) == pytest.approx((2 / 3 + 1) / 2)
    assert coverage_score(scores, [0, 2, 3], bins=5) == 1.0


def test_coverage_score_accepts_mask_or_indices_and_is_0_to_1() -> None:
    scores = np.random.default_rng(0).normal(size=(200, 4))
    mask = np.arange(200) % 7 == 0
    assert coverage_score(scores, mask) == coverage_score(scores, np.flatnonzero(mask))
    assert coverage_score(scores, np.arange(200)) == 1.0
    assert coverage_score(scores, []) == 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), bins=st.integers(1, 60))
def test_coverage_score_equals_numpy_histograms_and_increases(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(80, 3))
    chosen = rng.permutation(80)[:20]
    shares = []
    for column in scores.T:
        edges = np.linspace(column.min(), column.max(), bins + 1)
        pool, part = (np.histogram(x, edges)[0] > 0 for x in (column, column[chosen]))
        shares.append(part.sum() / pool.sum())
    assert coverage_score(scores, chosen, bins) == pytest.approx(np.mean(shares))
    assert coverage_score(scores, chosen[:10], bins) <= coverage_score(scores, chosen, bins)


def test_coverage_score_of_constant_component_is_one_bin() -> None:
    assert coverage_score(np.ones((5, 1)), [3]) == 1.0


def test_measure_coverage_reports_selection_stride_and_random() -> None:
    rng = np.random.default_rng(0)
    embedding = fit_embedding(rng.normal(size=(2000, 3)) ** 3)
    ends = np.argsort(np.abs(embedding.scores).max(axis=1))[-100:]
    report = measure_coverage(embedding, ends, seed=3, n_random=4)
    assert report == measure_coverage(embedding, ends, seed=3, n_random=4)
    assert report.n_random == 4
    assert report.selection.score == coverage_score(embedding.scores, ends)
    assert report.uniform_stride.score == coverage_score(embedding.scores, np.arange(0, 2000, 20))
    drawn = [
        coverage_score(
            embedding.scores, np.random.default_rng(seed).choice(2000, 100, replace=False)
        )
        for seed in range(3, 7)
    ]
    assert report.random_mean.score == pytest.approx(np.mean(drawn))
    assert report.random_sd.score == pytest.approx(np.std(drawn, ddof=1))
    rest = np.setdiff1d(np.arange(2000), ends)
    gaps = np.linalg.norm(embedding.scores[rest, None] - embedding.scores[ends], axis=2).min(axis=1)
    percentiles = np.percentile(gaps, [50, 99]) / embedding.pca.radius
    found = [report.selection.distance_p50, report.selection.distance_p99]
    assert found == pytest.approx(percentiles.tolist())


def test_measure_coverage_adds_labelled_frames_to_every_selection() -> None:
    embedding = fit_embedding(np.random.default_rng(0).normal(size=(300, 2)))
    everything, beyond = embedding.scores, np.full((1, 2), 1e6)
    report = measure_coverage(embedding, np.array([3]), labelled=everything, seed=0, n_random=2)
    assert report.random_mean.score == report.selection.score == 1
    assert report.random_mean.distance_p99 == report.selection.distance_p99 == 0
    alone = measure_coverage(embedding, np.array([3]), seed=0, n_random=2)
    assert measure_coverage(embedding, np.array([3]), labelled=beyond, seed=0, n_random=2) == alone


def test_measure_coverage_of_all_frames_is_complete() -> None:
    embedding = fit_embedding(np.random.default_rng(0).normal(size=(30, 2)))
    everything = measure_coverage(embedding, np.arange(30), seed=0, n_random=2).selection
    assert (everything.score, everything.distance_p99) == (1, 0)


def test_coverage_score_rejects_invalid_input() -> None:
    with pytest.raises(ValueError, match="bins: 0"):
        coverage_score(np.ones((5, 1)), [0], bins=0)
    with pytest.raises(ValueError, match=r"shape \(0, 2\)"):
        coverage_score(np.ones((0, 2)), [])
    with pytest.raises(IndexError):
        coverage_score(np.ones((5, 1)), [5])
