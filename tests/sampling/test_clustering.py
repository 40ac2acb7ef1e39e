from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.sampling import count_distinct_points, fit_clusters, fit_embedding
from mlip_assets.sampling.clustering import _without_empty

ALGORITHMS = ["kmeans", "minibatch_kmeans"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_blobs_are_found_and_numbered_by_size(
    blobs: tuple[np.ndarray, np.ndarray], algorithm: Any
) -> None:
    rows, blob = blobs
    clusters = fit_clusters(fit_embedding(rows), 3, algorithm=algorithm)
    assert np.array_equal(clusters.cluster, blob)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("weighting", [True, False])
def test_centres_are_means_and_distances_are_to_them(
    blobs: tuple[np.ndarray, np.ndarray], algorithm: Any, weighting: bool
) -> None:
    embedding = fit_embedding(blobs[0], n_components=4)
    clusters = fit_clusters(embedding, 20, algorithm=algorithm, weighting=weighting)
    space = embedding.scores * (embedding.explained_variance_ratio if weighting else 1)
    for cluster, centre in enumerate(clusters.centres):
        members = clusters.cluster == cluster
        assert space[members].mean(axis=0) == pytest.approx(centre)
        distances = np.linalg.norm(space[members] - centre, axis=1)
        assert clusters.distance_to_centre[members] == pytest.approx(distances)
    assert (np.diff(np.bincount(clusters.cluster)) <= 0).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_same_seed_same_clusters(blobs: tuple[np.ndarray, np.ndarray], algorithm: Any) -> None:
    embedding = fit_embedding(blobs[0])
    first, again, other = (
        fit_clusters(embedding, 40, algorithm=algorithm, seed=seed) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.cluster, again.cluster)
    assert not np.array_equal(first.cluster, other.cluster)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=25),
    algorithm=st.sampled_from(ALGORITHMS),
    data=st.data(),
)
def test_exactly_so_many_clusters_even_with_duplicates(
    values: list[int], algorithm: Any, data: st.DataObject
) -> None:
    embedding = fit_embedding(np.array(values, dtype=float)[:, None] * [1.0, 0.5])
    distinct = len(set(values))
    assert count_distinct_points(embedding) == distinct
    n_clusters = data.draw(st.integers(1, distinct))
    clusters = fit_clusters(embedding, n_clusters, algorithm=algorithm)
    assert set(clusters.cluster) == set(range(n_clusters))
    by_value = {value: set(clusters.cluster[np.array(values) == value]) for value in values}
    assert all(len(labels) == 1 for labels in by_value.values())
    with pytest.raises(ValueError, match=f"{distinct} distinct points"):
        fit_clusters(embedding, distinct + 1, algorithm=algorithm)


def test_empty_clusters_take_the_farthest_points() -> None:
    points = np.array([[0.0], [1.0], [9.0], [20.0], [20.0]])
    labels = _without_empty(np.array([0, 0, 0, 2, 2]), points, np.ones(5, dtype=int), 4)
    assert labels[2] == 1
    assert sorted(set(labels)) == [0, 1, 2, 3]


def test_rows_in_another_order_make_the_same_clusters(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    embedding = fit_embedding(blobs[0])
    order = np.random.default_rng(0).permutation(1000)
    shuffled = replace(
        embedding, frame_id=embedding.frame_id[order], scores=embedding.scores[order]
    )
    assert np.array_equal(
        fit_clusters(shuffled, 30).cluster, fit_clusters(embedding, 30).cluster[order]
    )
