from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.sampling import (
    Clusters,
    Embedding,
    fit_clusters,
    fit_embedding,
    select_frames,
)

METHODS = ["direct", "random", "uniform_stride", "fps"]
ALLOCATIONS = st.sampled_from(["equitable", "proportional"])


def pool_of(sizes: list[int], seed: int = 0) -> tuple[Embedding, Clusters]:
    """Frames of given clusters: points on a line; the centres have a distance of 10."""
    rng = np.random.default_rng(seed)
    n_frames = sum(sizes)
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    offsets = rng.permutation(n_frames) / n_frames
    embedding = fit_embedding(np.ones((n_frames, 1)))
    embedding = replace(
        embedding,
        frame_id=rng.permutation(10 * n_frames)[:n_frames],
        scores=(10.0 * cluster + offsets)[:, None],
    )
    centres = 10.0 * np.arange(len(sizes))[:, None]
    return embedding, Clusters(embedding.frame_id, cluster, offsets, centres, np.ones(1))


def shuffled(
    embedding: Embedding, clusters: Clusters, order: np.ndarray
) -> tuple[Embedding, Clusters]:
    return (
        replace(embedding, frame_id=embedding.frame_id[order], scores=embedding.scores[order]),
        replace(
            clusters,
            frame_id=clusters.frame_id[order],
            cluster=clusters.cluster[order],
            distance_to_centre=clusters.distance_to_centre[order],
        ),
    )


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    allocation=ALLOCATIONS,
    data=st.data(),
)
def test_select_frames_is_exact_with_every_cluster_and_medoids_first(
    sizes: list[int], seed: int, allocation: Any, data: st.DataObject
) -> None:
    embedding, clusters = pool_of(sizes, seed)
    n_samples = data.draw(st.integers(1, sum(sizes)))
    selection = select_frames(embedding, clusters, n_samples, allocation=allocation)
    assert len(selection.indices) == len(selection.reasons) == n_samples
    assert (np.diff(selection.indices) > 0).all()
    quotas = np.bincount(clusters.cluster[selection.indices], minlength=len(sizes))
    assert (quotas >= 1).all() if n_samples >= len(sizes) else (quotas <= 1).all()
    unfilled = quotas < np.array(sizes)
    if allocation == "equitable" and unfilled.any():
        assert quotas.max() - quotas[unfilled].min() <= 1
    for index, reason in zip(selection.indices, selection.reasons, strict=True):
        cluster = clusters.cluster[index]
        members = np.flatnonzero(clusters.cluster == cluster)
        inner = np.sort(clusters.distance_to_centre[members])
        rank = int(np.searchsorted(inner, clusters.distance_to_centre[index]))
        wanted = f"rank {rank + 1} of {len(members)}" if rank else "medoid of"
        assert re.fullmatch(f"{wanted}( in)? cluster {cluster}", reason)
    medoids = sum(reason.startswith("medoid") for reason in selection.reasons)
    assert medoids == min(len(sizes), n_samples)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), method=st.sampled_from(METHODS), allocation=ALLOCATIONS)
def test_select_frames_does_not_depend_on_row_order(
    seed: int, method: Any, allocation: Any
) -> None:
    pool = pool_of([20, 9, 4, 2], seed)
    other = shuffled(*pool, np.random.default_rng(seed).permutation(35))
    chosen = [
        set(e.frame_id[select_frames(e, c, 13, method=method, allocation=allocation).indices])
        for e, c in (pool, other)
    ]
    assert chosen[0] == chosen[1]


def test_select_frames_at_constant_rank_intervals() -> None:
    embedding, clusters = pool_of([9])
    inside_out = np.argsort(clusters.distance_to_centre)
    for n, ranks in [(1, [0]), (2, [0, 8]), (3, [0, 4, 8]), (5, [0, 2, 4, 6, 8])]:
        chosen = select_frames(embedding, clusters, n).indices
        assert set(chosen) == set(inside_out[ranks])


def test_select_frames_reallocates_quota_of_small_clusters() -> None:
    embedding, clusters = pool_of([50, 40, 3, 1])
    chosen = select_frames(embedding, clusters, 25).indices
    assert np.bincount(clusters.cluster[chosen]).tolist() == [11, 10, 3, 1]


def test_proportional_follows_the_sizes_after_one_frame_per_cluster() -> None:
    embedding, clusters = pool_of([600, 300, 90, 9, 1])
    chosen = select_frames(embedding, clusters, 100, allocation="proportional").indices
    assert np.bincount(clusters.cluster[chosen]).tolist() == [59, 30, 9, 1, 1]


def test_labelled_frames_count_towards_cluster_quota() -> None:
    embedding, clusters = pool_of([50, 40, 30, 20])
    labelled = np.array([[0.5], [10.5], [10.6]])
    select = {
        n: np.bincount(
            clusters.cluster[select_frames(embedding, clusters, n, labelled=labelled).indices],
            minlength=4,
        ).tolist()
        for n in (2, 5, 9)
    }
    assert select == {2: [0, 0, 1, 1], 5: [1, 0, 2, 2], 9: [2, 1, 3, 3]}


@pytest.mark.parametrize("method", METHODS)
def test_select_frames_excludes_near_duplicates_of_labelled_frames(method: Any) -> None:
    """No selected frame is within the tolerance of a labelled or another selected frame."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 5))
    rows[:200] = rows[0] + 1e-4 * rng.normal(size=(200, 5))  # nearly equal frames of a crystal
    embedding = fit_embedding(rows)
    clusters = fit_clusters(embedding, 60)
    labelled = embedding.scores[[0, 250, 251, 252]]
    chosen = select_frames(
        embedding, clusters, 60, method=method, labelled=labelled, duplicate_tolerance=0.01
    ).indices
    occupied = np.concatenate([labelled, embedding.scores[chosen]])
    gaps = np.linalg.norm(occupied[:, None] - occupied[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert len(chosen) == 60
    assert gaps.min() > 0.01 * embedding.pca.radius


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(0, 8), min_size=1, max_size=30),
    method=st.sampled_from(METHODS),
    labelled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_select_frames_gives_all_distinct_frames_or_error_with_their_number(
    values: list[int], method: Any, labelled: bool, seed: int
) -> None:
    embedding = fit_embedding(np.array(values, dtype=float)[:, None])
    known = embedding.scores[:1] if labelled else None
    distinct = len(set(values)) - labelled
    clusters = fit_clusters(embedding, len(set(values)))
    settings_ = {"method": method, "labelled": known, "seed": seed}
    if distinct:
        chosen = select_frames(embedding, clusters, distinct, **settings_).indices
        found = {values[i] for i in chosen} | ({values[0]} if labelled else set())
        assert found == set(values)
    if distinct < len(values):
        with pytest.raises(ValueError, match=rf"only {distinct} are\s+distinct"):
            select_frames(embedding, clusters, distinct + 1, **settings_)
    if distinct:
        fewer = select_frames(embedding, clusters, 99, allow_fewer=True, **settings_).indices
        assert len(fewer) == distinct
        assert {values[i] for i in fewer} | found == found


def test_expected_error_selects_most_uncertain_frame_of_every_cluster() -> None:
    embedding, clusters = pool_of([40, 20, 10, 5])
    error = np.random.default_rng(5).random(75)
    error[np.argmax(error)] = np.nan  # an unknown error has the lowest priority
    chosen = select_frames(embedding, clusters, 4, expected_error=error)
    largest = [
        np.nanmax(np.where(clusters.cluster == cluster, error, np.nan)) for cluster in range(4)
    ]
    assert sorted(error[chosen.indices]) == sorted(largest)
    assert all(reason.startswith("most uncertain of cluster") for reason in chosen.reasons)


def test_n_atoms_selects_small_cells() -> None:
    embedding, clusters = pool_of([30, 30, 30])
    n_atoms = np.random.default_rng(0).choice([8, 16, 64], 90)
    plain = select_frames(embedding, clusters, 9)
    small = select_frames(embedding, clusters, 9, n_atoms=n_atoms)
    assert n_atoms[plain.indices].max() > 8
    assert (n_atoms[small.indices] == 8).all()
    assert np.bincount(clusters.cluster[small.indices]).tolist() == [3, 3, 3]
    assert all("smallest cells" in reason for reason in small.reasons)
    one_of_each = np.arange(90)
    smallest = select_frames(embedding, clusters, 3, n_atoms=one_of_each).indices
    assert smallest.tolist() == sorted(int(np.argmax(clusters.cluster == c)) for c in range(3))


def test_random_selection_is_seeded_and_uniform() -> None:
    embedding, clusters = pool_of([20])

    def draw(seed: int) -> np.ndarray:
        return select_frames(embedding, clusters, 5, method="random", seed=seed).indices

    assert np.array_equal(draw(1), draw(1))
    hits = sum(np.bincount(draw(seed), minlength=20) for seed in range(2000))
    assert np.abs(hits / 2000 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_uniform_stride_is_constant_in_frame_id() -> None:
    embedding, clusters = pool_of([101])
    chosen = select_frames(embedding, clusters, 5, method="uniform_stride").indices
    ranks = np.searchsorted(np.sort(embedding.frame_id), np.sort(embedding.frame_id[chosen]))
    assert ranks.tolist() == [0, 25, 50, 75, 100]


def test_fps_selects_both_ends() -> None:
    embedding, clusters = pool_of([40, 3])
    chosen = select_frames(embedding, clusters, 3, method="fps").indices
    assert {embedding.scores.argmin(), embedding.scores.argmax()} <= set(chosen)


def test_select_frames_rejects_impossible_requests() -> None:
    embedding, clusters = pool_of([5, 3, 2])
    for n_samples in (0, 11):
        with pytest.raises(ValueError, match=f"{n_samples} frames requested of 10"):
            select_frames(embedding, clusters, n_samples)
    other = replace(clusters, frame_id=clusters.frame_id + 1)
    with pytest.raises(ValueError, match="frames differ from those of the embedding"):
        select_frames(embedding, other, 3)
    same = np.zeros(10, dtype=np.int64)
    with pytest.raises(ValueError, match="more than once"):
        select_frames(replace(embedding, frame_id=same), replace(clusters, frame_id=same), 3)
