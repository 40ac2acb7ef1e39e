from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.sampling import Clusters, random_selection, select_stratified


def clusters_of(sizes: list[int], seed: int = 0, *, ties: bool = False) -> Clusters:
    rng = np.random.default_rng(seed)
    n_frames = sum(sizes)
    distances = rng.integers(0, 3, n_frames) if ties else rng.random(n_frames)
    return Clusters(
        frame_id=rng.permutation(10 * n_frames)[:n_frames],
        cluster=rng.permutation(np.repeat(np.arange(len(sizes)), sizes)),
        distance_to_centre=distances.astype(float),
        centres=np.zeros((len(sizes), 1)),
    )


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    ties=st.booleans(),
    data=st.data(),
)
def test_exact_distinct_fair_and_medoids_first(
    sizes: list[int], seed: int, ties: bool, data: st.DataObject
) -> None:
    clusters = clusters_of(sizes, seed, ties=ties)
    n_samples = data.draw(st.integers(len(sizes), sum(sizes)))
    selection = select_stratified(clusters, n_samples)
    assert len(selection.indices) == len(selection.reasons) == n_samples
    assert (np.diff(selection.indices) > 0).all()
    quotas = np.bincount(clusters.cluster[selection.indices], minlength=len(sizes))
    assert quotas.min() >= 1
    unfilled = quotas < np.array(sizes)
    assert not unfilled.any() or quotas.max() - quotas[unfilled].min() <= 1
    for index, reason in zip(selection.indices, selection.reasons, strict=True):
        cluster = clusters.cluster[index]
        members = np.flatnonzero(clusters.cluster == cluster)
        inner = sorted((clusters.distance_to_centre[m], clusters.frame_id[m]) for m in members)
        rank = inner.index((clusters.distance_to_centre[index], clusters.frame_id[index]))
        wanted = f"rank {rank + 1} of {len(members)}" if rank else "medoid of"
        assert re.fullmatch(f"{wanted}( in)? cluster {cluster}", reason)
    assert sum(reason.startswith("medoid") for reason in selection.reasons) == len(sizes)


def test_constant_rank_intervals_from_nearest_to_farthest() -> None:
    clusters = Clusters(np.arange(9), np.zeros(9, int), np.arange(9.0), np.zeros((1, 1)))
    chosen = [select_stratified(clusters, n).indices.tolist() for n in (1, 2, 3, 5, 9)]
    assert chosen == [[0], [0, 8], [0, 4, 8], [0, 2, 4, 6, 8], list(range(9))]


def test_small_clusters_leave_their_share_to_the_others() -> None:
    clusters = clusters_of([50, 40, 3, 1])
    chosen = select_stratified(clusters, 25).indices
    assert np.bincount(clusters.cluster[chosen]).tolist() == [11, 10, 3, 1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), ties=st.booleans())
def test_order_of_rows_does_not_matter(seed: int, ties: bool) -> None:
    clusters = clusters_of([20, 9, 4, 2], seed, ties=ties)
    order = np.random.default_rng(seed).permutation(35)
    shuffled = Clusters(
        clusters.frame_id[order],
        clusters.cluster[order],
        clusters.distance_to_centre[order],
        clusters.centres,
    )
    chosen = [set(c.frame_id[select_stratified(c, 13).indices]) for c in (clusters, shuffled)]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("n_samples", [0, 2, 11])
def test_impossible_numbers_are_refused(n_samples: int) -> None:
    with pytest.raises(ValueError, match="give 3 to 10"):
        select_stratified(clusters_of([5, 3, 2]), n_samples)


def test_ids_must_be_unique() -> None:
    clusters = Clusters(np.array([1, 1]), np.zeros(2, int), np.zeros(2), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="more than once"):
        select_stratified(clusters, 1)


def test_random_selection_is_seeded_distinct_and_fair() -> None:
    first, again, other = (random_selection(100, 30, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (np.diff(first) > 0).all()
    hits = sum(np.bincount(random_selection(20, 5, seed), minlength=20) for seed in range(2000))
    assert np.abs(hits / 2000 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)
    with pytest.raises(ValueError, match="6 frames wanted of 5"):
        random_selection(5, 6, 0)
