"""Labelling candidates, compared with the full matrix of distances and with known cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.refresh import coverage_radius, covered_fraction_by_round, find_candidates
from mlip_assets.sampling import Embedding, fit_principal_components
from mlip_assets.sampling.source import DescriptorArray


@pytest.fixture(scope="module")
def pca():
    return fit_principal_components(DescriptorArray(np.random.default_rng(0).normal(size=(50, 3))))


def embedding_of(scores, pca):
    return Embedding(np.arange(len(scores)) * 10, np.asarray(scores, dtype=float), pca)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n_labelled=st.integers(0, 5), radius=st.floats(0, 4))
def test_find_candidates_equals_brute_force(pca, seed, n_labelled, radius):
    rng = np.random.default_rng(seed)
    scores, labelled = rng.normal(size=(60, 3)), rng.normal(size=(n_labelled, 3))
    error = np.where(rng.random(60) < 0.2, np.nan, rng.random(60))
    found = find_candidates(
        embedding_of(scores, pca), labelled, radius, expected_error=error, error_limit=0.9
    )
    distance = np.linalg.norm(scores[:, None] - labelled, axis=2).min(axis=1, initial=np.inf)
    expected = np.flatnonzero((distance > radius) | (error > 0.9))
    assert found.covered_fraction == pytest.approx(1 - len(expected) / 60)
    assert found.n_far == (distance > radius).sum()
    assert found.n_uncertain == (error > 0.9).sum()
    if len(expected):
        assert found.rows.tolist() == expected.tolist()
    else:
        assert found.rows.tolist() == [distance.argmax()]


def test_coverage_radius_covers_nine_in_ten_frames(pca):
    embedding = embedding_of(np.random.default_rng(1).normal(size=(1000, 3)), pca)
    labelled = embedding.scores[::50]
    radius = coverage_radius(embedding, labelled)
    assert find_candidates(embedding, labelled, radius).covered_fraction == pytest.approx(0.9)


def test_find_candidates_ignores_unknown_expected_error(pca):
    embedding = embedding_of(np.zeros((4, 3)), pca)
    found = find_candidates(
        embedding, np.zeros((1, 3)), 1.0, expected_error=np.full(4, np.nan), error_limit=0.1
    )
    assert (found.n_uncertain, found.covered_fraction) == (0, 1.0)
    assert len(found.rows) == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.floats(0.1, 3))
def test_covered_fraction_by_round_increases(pca, seed, radius):
    rng = np.random.default_rng(seed)
    embedding, labelled = embedding_of(rng.normal(size=(60, 3)), pca), rng.normal(size=(9, 3))
    rounds = [0, 0, 0, 2, 2, 1, 1, 1, 2]
    fractions = covered_fraction_by_round(embedding, labelled, rounds, radius)
    assert list(fractions) == [0, 1, 2]
    assert fractions[0] <= fractions[1] <= fractions[2]
    all_rounds = find_candidates(embedding, labelled, radius)
    assert fractions[2] == pytest.approx(all_rounds.covered_fraction)
