"""Which frames labels do not cover: against distances in the full matrix, and known cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.refresh import find_candidates, coverage_radius, covered_fraction_by_round
from mlip_assets.sampling import Embedding, fit_principal_components
from mlip_assets.sampling.source import DescriptorArray


@pytest.fixture(scope="module")
def axes():
    return fit_principal_components(DescriptorArray(np.random.default_rng(0).normal(size=(50, 3))))


def embedding_of(scores, axes):
    return Embedding(np.arange(len(scores)) * 10, np.asarray(scores, dtype=float), axes)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n_labelled=st.integers(0, 5), within=st.floats(0, 4))
def test_agrees_with_the_whole_matrix(axes, seed, n_labelled, within):
    rng = np.random.default_rng(seed)
    scores, labelled = rng.normal(size=(60, 3)), rng.normal(size=(n_labelled, 3))
    error = np.where(rng.random(60) < 0.2, np.nan, rng.random(60))
    found = find_candidates(
        embedding_of(scores, axes), labelled, within, expected_error=error, error_limit=0.9
    )
    distance = np.linalg.norm(scores[:, None] - labelled, axis=2).min(axis=1, initial=np.inf)
    wanted = np.flatnonzero((distance > within) | (error > 0.9))
    assert found.covered_fraction == pytest.approx(1 - len(wanted) / 60)
    assert found.n_far == (distance > within).sum()
    assert found.n_uncertain == (error > 0.9).sum()
    if len(wanted):
        assert found.rows.tolist() == wanted.tolist()
    else:
        assert found.rows.tolist() == [distance.argmax()]


def test_nine_in_ten_frames_of_the_first_exploration_are_known(axes):
    embedding = embedding_of(np.random.default_rng(1).normal(size=(1000, 3)), axes)
    labelled = embedding.scores[::50]
    within = coverage_radius(embedding, labelled)
    assert find_candidates(embedding, labelled, within).covered_fraction == pytest.approx(0.9)


def test_an_error_that_is_not_known_is_no_reason_to_label(axes):
    embedding = embedding_of(np.zeros((4, 3)), axes)
    found = find_candidates(
        embedding, np.zeros((1, 3)), 1.0, expected_error=np.full(4, np.nan), error_limit=0.1
    )
    assert (found.n_uncertain, found.covered_fraction) == (0, 1.0)
    assert len(found.rows) == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), within=st.floats(0.1, 3))
def test_what_more_rounds_cover_only_grows(axes, seed, within):
    rng = np.random.default_rng(seed)
    embedding, labelled = embedding_of(rng.normal(size=(60, 3)), axes), rng.normal(size=(9, 3))
    rounds = [0, 0, 0, 2, 2, 1, 1, 1, 2]
    shares = covered_fraction_by_round(embedding, labelled, rounds, within)
    assert list(shares) == [0, 1, 2]
    assert shares[0] <= shares[1] <= shares[2]
    all_of_them = find_candidates(embedding, labelled, within)
    assert shares[2] == pytest.approx(all_of_them.covered_fraction)
