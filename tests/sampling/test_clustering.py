from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.sampling import count_distinct_points, fit_clusters, fit_embedding
from mlip_assets.sampling.clustering import _without_empty

ALGORITHMS = ["kmeans", "minibatch_kmeans", "birch"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_fit_clusters_finds_blobs_numbered_by_size(
    blobs: tuple[np.ndarray, np.ndarray], algorithm: Any
) -> None:
    rows, blob = blobs
    clusters = fit_clusters(fit_embedding(rows), 3, algorithm=algorithm)
    assert np.array_equal(clusters.cluster, blob)
    assert clusters.sizes.tolist() == [700, 290, 10]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("weighting", ["explained_variance", "off"])
def test_cluster_centres_are_means_and_distances_are_to_centres(
    blobs: tuple[np.ndarray, np.ndarray], algorithm: Any, weighting: Any
) -> None:
    embedding = fit_embedding(blobs[0], components="fixed", n_components=4)
    clusters = fit_clusters(embedding, 20, algorithm=algorithm, weighting=weighting)
    space = embedding.scores * embedding.weights(weighting)
    for cluster, centre in enumerate(clusters.centres):
        members = clusters.cluster == cluster
        assert space[members].mean(axis=0) == pytest.approx(centre)
        distances = np.linalg.norm(space[members] - centre, axis=1)
        assert clusters.distance_to_centre[members] == pytest.approx(distances)
    assert (np.diff(clusters.sizes) <= 0).all()


def test_predict_assigns_new_frames_to_nearest_centre(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    rows, blob = blobs
    embedding = fit_embedding(rows[:800])
    clusters = fit_clusters(embedding, 3)
    assert np.array_equal(clusters.predict(embedding.pca.transform(rows[800:])), blob[800:])
    assert clusters.predict(np.empty((0, embedding.scores.shape[1]))).tolist() == []


def test_fit_clusters_among_rows_assigns_other_frames(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    rows, blob = blobs
    embedding = fit_embedding(rows)
    clusters = fit_clusters(embedding, 3, among=np.flatnonzero(np.arange(1000) % 5 == 0))
    assert np.array_equal(clusters.cluster, blob)
    points = embedding.scores * clusters.weights
    means = [points[blob == b].mean(axis=0) for b in range(3)]
    assert clusters.centres == pytest.approx(np.array(means))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=25),
    algorithm=st.sampled_from(ALGORITHMS),
    data=st.data(),
)
def test_clustering_gives_the_requested_number_even_with_duplicates(
    values: list[int], algorithm: Any, data: st.DataObject
) -> None:
    embedding = fit_embedding(np.array(values, dtype=float)[:, None] * [1.0, 0.5])
    distinct = len(set(values))
    assert count_distinct_points(embedding.scores) == distinct
    n_clusters = data.draw(st.integers(1, distinct))
    clusters = fit_clusters(embedding, n_clusters, algorithm=algorithm)
    assert set(clusters.cluster) == set(range(n_clusters))
    by_value = {value: set(clusters.cluster[np.array(values) == value]) for value in values}
    assert all(len(labels) == 1 for labels in by_value.values())
    with pytest.raises(ValueError, match=f"{distinct} distinct points"):
        fit_clusters(embedding, distinct + 1, algorithm=algorithm)


def test_without_empty_moves_farthest_points_to_empty_clusters() -> None:
    labels, distances = np.array([0, 0, 0, 2, 4]), np.array([3.0, 2.0, 7.0, 9.0, 8.0])
    assert _without_empty(labels, distances, 5).tolist() == [3, 0, 1, 2, 4]


def test_fit_clusters_does_not_depend_on_row_order(
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
