from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.sampling import DescriptorArray, direct_select, measure_coverage


@pytest.mark.parametrize("n_samples", [3, 10, 100, 1000])
def test_direct_select_includes_rare_blob(
    blobs: tuple[np.ndarray, np.ndarray], n_samples: int
) -> None:
    rows, blob = blobs
    chosen = direct_select(rows, n_samples)
    assert len(chosen.indices) == len(chosen.reasons) == n_samples
    assert (np.diff(chosen.indices) > 0).all()
    assert set(blob[chosen.indices]) == {0, 1, 2}


@pytest.mark.parametrize("n_samples", [60, 200])
def test_direct_select_covers_more_than_random(
    blobs: tuple[np.ndarray, np.ndarray], n_samples: int
) -> None:
    rows, _ = blobs
    chosen = direct_select(rows, n_samples)
    report = measure_coverage(chosen.embedding, chosen.indices, seed=0)
    assert report.selection.score > report.random_mean.score + 3 * report.random_sd.score
    assert report.selection.distance_p99 < report.random_mean.distance_p99


@pytest.mark.parametrize("clustering", ["kmeans", "minibatch_kmeans", "birch"])
@pytest.mark.parametrize("method", ["direct", "random", "uniform_stride", "fps"])
def test_direct_select_is_deterministic_for_a_seed(
    blobs: tuple[np.ndarray, np.ndarray], method: Any, clustering: Any
) -> None:
    first, again, other = (
        direct_select(blobs[0], 50, method=method, clustering=clustering, seed=seed).indices
        for seed in (5, 5, 6)
    )
    assert np.array_equal(first, again)
    is_random = method == "random" or (method, clustering) == ("direct", "minibatch_kmeans")
    assert np.array_equal(first, other) != is_random


def test_direct_select_tables_and_reasons_match_rows(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    rows, blob = blobs
    ids = np.random.default_rng(0).permutation(5000)[:1000]
    chosen = direct_select(rows, 30, n_clusters=3, frame_ids=ids)
    assert np.array_equal(chosen.embedding.frame_id, np.sort(ids))
    assert np.array_equal(chosen.clusters.frame_id, np.sort(ids))
    assert np.array_equal(chosen.clusters.cluster, blob[np.argsort(ids)])
    for row, reason in zip(chosen.indices, chosen.reasons, strict=True):
        assert reason.endswith(f"cluster {blob[row]}")
    assert np.bincount(blob[chosen.indices]).tolist() == [10, 10, 10]


def test_to_dataframe_has_the_selected_rows_of_both_tables(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    rows, _ = blobs
    ids = np.random.default_rng(0).permutation(5000)[:1000]
    chosen = direct_select(rows, 30, frame_ids=ids)
    table = chosen.to_dataframe()
    components = [f"pc{i + 1}" for i in range(chosen.embedding.scores.shape[1])]
    names = ["row", "frame_id", "cluster", "distance_to_centre", *components, "reason"]
    assert table.columns.tolist() == names
    assert np.array_equal(table["row"], chosen.indices)
    assert np.array_equal(table["frame_id"], ids[chosen.indices])
    assert np.array_equal(chosen.frame_id, ids[chosen.indices])
    assert table["reason"].tolist() == list(chosen.reasons)
    at = np.searchsorted(chosen.embedding.frame_id, chosen.frame_id)
    assert np.array_equal(table[components], chosen.embedding.scores[at])
    assert np.array_equal(table["cluster"], chosen.clusters.cluster[at])
    assert np.array_equal(table["distance_to_centre"], chosen.clusters.distance_to_centre[at])


def test_to_dataframe_of_embedding_and_clusters_has_every_frame(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    chosen = direct_select(blobs[0], 30)
    embedding, clusters = chosen.embedding.to_dataframe(), chosen.clusters.to_dataframe()
    assert np.array_equal(embedding["frame_id"], chosen.embedding.frame_id)
    assert np.array_equal(embedding.drop(columns="frame_id"), chosen.embedding.scores)
    for name in ("frame_id", "cluster", "distance_to_centre"):
        assert np.array_equal(clusters[name], getattr(chosen.clusters, name))


@st.composite
def awkward_pools(draw: st.DrawFn) -> np.ndarray:
    """Small pools with repeated rows, constant columns and columns of very different size."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_frames, n_features = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    rows = rng.normal(size=(n_frames, n_features)) * 10.0 ** rng.integers(-6, 7, n_features)
    rows[:, rng.random(n_features) < draw(st.sampled_from([0, 0.5, 1]))] = 0.1
    rows = rows[rng.integers(0, n_frames, n_frames)] if draw(st.booleans()) else rows
    return rows.astype(draw(st.sampled_from([np.float32, np.float64])))


@settings(max_examples=60, deadline=None)
@given(
    rows=awkward_pools(),
    clustering=st.sampled_from(["kmeans", "minibatch_kmeans", "birch"]),
    data=st.data(),
)
def test_direct_select_is_exact_and_independent_of_row_order(
    rows: np.ndarray, clustering: Any, data: st.DataObject
) -> None:
    n_frames = len(rows)
    n_samples = data.draw(st.integers(1, len(np.unique(rows, axis=0))))
    ids = np.random.default_rng(0).permutation(3 * n_frames)[:n_frames]
    settings_ = {"clustering": clustering, "seed": 1, "duplicate_tolerance": 0}
    chosen = direct_select(rows, n_samples, frame_ids=ids, **settings_)
    assert len(np.unique(chosen.indices)) == len(chosen.reasons) == n_samples
    labels = chosen.clusters.cluster
    picked = np.isin(chosen.clusters.frame_id, ids[chosen.indices])
    assert set(labels[picked]) == set(labels)
    order = data.draw(st.permutations(range(n_frames)))
    again = direct_select(rows[order], n_samples, frame_ids=ids[order], **settings_)
    assert set(ids[order][again.indices]) == set(ids[chosen.indices])


def test_direct_select_rejects_impossible_requests() -> None:
    rows = np.repeat(np.eye(3), 4, axis=0)
    with pytest.raises(ValueError, match="13 frames requested of 12"):
        direct_select(rows, 13)
    with pytest.raises(ValueError, match="only 3 are distinct"):
        direct_select(rows, 6)
    with pytest.raises(ValueError, match="3 distinct points"):
        direct_select(rows, 6, n_clusters=5)
    with pytest.raises(ValueError, match="more than once"):
        direct_select(rows, 3, frame_ids=np.zeros(12))
    with pytest.raises(ValueError, match="frame_ids: shape"):
        direct_select(rows, 3, frame_ids=np.arange(13))
    rows[5, 0] = np.inf
    with pytest.raises(ValueError, match="frame 5 contains NaN or infinite"):
        direct_select(rows, 3)


def test_direct_select_of_batches_equals_array(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    rows, _ = blobs
    streamed = direct_select(DescriptorArray(rows), 40)
    assert np.array_equal(streamed.indices, direct_select(rows, 40).indices)


def test_direct_select_with_pca_and_labelled_excludes_labelled_frames(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    rows, blob = blobs
    first = direct_select(rows[:700], 30)
    labelled = rows[first.indices]
    again = direct_select(rows, 30, pca=first.embedding.pca, labelled=labelled)
    assert again.embedding.pca is first.embedding.pca
    assert not set(again.indices) & set(first.indices)
    assert len(again.clusters.centres) == 60
    # both selections together cover more than the same number of random frames
    both = np.concatenate([first.indices, again.indices])
    report = measure_coverage(again.embedding, both, seed=0)
    assert report.selection.score > report.random_mean.score + 3 * report.random_sd.score
    assert set(blob[both]) == {0, 1, 2}


def test_direct_select_near_number_of_distinct_frames_is_exact() -> None:
    """200 samples of 200 distinct points in 1900 frames, for which maml gave 199."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(200, 6)), 10, axis=0)[:1900]
    rows = np.concatenate([rows, rng.normal(size=(10, 6))])
    assert len(direct_select(rows, 200).indices) == 200
    with pytest.raises(ValueError, match="only 200 are distinct"):
        direct_select(rows, 201)


@pytest.mark.parametrize("method", ["direct", "fps"])
def test_direct_select_of_equal_frames_chooses_first(method: Any) -> None:
    """A vacancy among perfect crystals is selected, with one crystal that represents the others."""
    rows = np.full((10_001, 252), 0.3, dtype=np.float32)
    rows[7777] += 0.05
    assert direct_select(rows, 2, method=method).indices.tolist() == [0, 7777]
