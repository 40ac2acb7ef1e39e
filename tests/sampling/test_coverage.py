from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.sampling import coverage_score


def test_by_hand() -> None:
    # first component occupies bins 0, 1, 4 of 5 (width 2), second 0, 4 (width 1)
    scores = np.array([[0.0, 0.0], [1.9, 0.5], [2.0, 5.0], [10.0, 4.9]])
    assert coverage_score(scores, [0], bins=5) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert coverage_score(scores, [0, 1], bins=5) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert coverage_score(scores, [0, 2], bins=5) == pytest.approx((2 / 3 + 1) / 2)
    assert coverage_score(scores, [0, 2, 3], bins=5) == 1.0


def test_mask_and_indices_agree_and_ends_are_exact() -> None:
    scores = np.random.default_rng(0).normal(size=(200, 4))
    mask = np.arange(200) % 7 == 0
    assert coverage_score(scores, mask) == coverage_score(scores, np.flatnonzero(mask))
    assert coverage_score(scores, np.arange(200)) == 1.0
    assert coverage_score(scores, []) == 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), bins=st.integers(1, 60))
def test_agrees_with_numpy_histograms_and_grows_with_the_selection(seed: int, bins: int) -> None:
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


def test_a_constant_component_is_one_bin() -> None:
    assert coverage_score(np.ones((5, 1)), [3]) == 1.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="bins: 0"):
        coverage_score(np.ones((5, 1)), [0], bins=0)
    with pytest.raises(ValueError, match=r"shape \(0, 2\)"):
        coverage_score(np.ones((0, 2)), [])
    with pytest.raises(IndexError):
        coverage_score(np.ones((5, 1)), [5])
