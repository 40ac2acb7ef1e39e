from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from mlip_assets.descriptors import DescriptorMatrix, descriptor_schema
from mlip_assets.sampling import DescriptorSource, fit_embedding


def correlated(n_frames: int = 500, n_features: int = 20, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_features, n_features)) * np.geomspace(1, 1e-3, n_features)
    return rng.normal(size=(n_frames, n_features)) @ mixing.T * 10.0 ** rng.integers(-3, 4) + 7


class Batches:
    """A matrix handed out in pieces of any size."""

    def __init__(self, rows: np.ndarray, cuts: list[int]) -> None:
        self.rows, self.cuts = rows, cuts

    def iter_batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        ids = np.arange(len(self.rows)) + 50
        yield from zip(np.split(ids, self.cuts), np.split(self.rows, self.cuts), strict=True)


@pytest.mark.parametrize("shape", [(500, 20), (12, 40)])
def test_equals_sklearn(shape: tuple[int, int]) -> None:
    rows = correlated(*shape)
    ours = fit_embedding(rows, n_components=5)
    standard = StandardScaler().fit_transform(rows)
    theirs = PCA(5, svd_solver="full").fit(standard)
    assert ours.mean == pytest.approx(rows.mean(axis=0))
    assert ours.scale == pytest.approx(rows.std(axis=0))
    assert ours.explained_variance_ratio == pytest.approx(theirs.explained_variance_ratio_)
    signs = np.sign((ours.components * theirs.components_).sum(axis=1))
    assert ours.components == pytest.approx(theirs.components_ * signs[:, None], abs=1e-7)
    assert ours.scores == pytest.approx(theirs.transform(standard) * signs, abs=1e-6)


def test_signs_and_order_are_fixed() -> None:
    embedding = fit_embedding(correlated(), variance=1.0)
    peaks = np.abs(embedding.components).argmax(axis=1)
    assert (embedding.components[np.arange(len(peaks)), peaks] > 0).all()
    assert (np.diff(embedding.explained_variance_ratio) <= 0).all()
    identity = embedding.components @ embedding.components.T
    assert identity == pytest.approx(np.eye(len(identity)), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=6), offset=st.sampled_from([0.0, 1e6]))
def test_batches_do_not_matter(cuts: list[int], offset: float) -> None:
    rows = correlated(60, 6) + offset
    whole = fit_embedding(rows, n_components=3)
    pieces = fit_embedding(Batches(rows, sorted(cuts)), n_components=3)
    assert pieces.frame_id.tolist() == list(range(50, 110))
    assert pieces.scores == pytest.approx(whole.scores, abs=1e-5)
    assert pieces.project(rows) == pytest.approx(pieces.scores)


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99, 1.0])
def test_fewest_components_that_explain_the_variance(variance: float) -> None:
    rows = correlated()
    ratios = fit_embedding(rows, variance=variance).explained_variance_ratio
    assert ratios.sum() >= variance - 1e-9
    assert ratios[:-1].sum() < variance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_features_get_scale_one_and_no_say(dtype: type) -> None:
    rows = np.ones((40, 4), dtype=dtype) * np.array([0.1, 3e5, 0, 0], dtype=dtype)
    rows[:, 1] = np.where(np.arange(40) % 2, rows[0, 1], np.nextafter(rows[0, 1], dtype(0)))
    rows[:, 3] = np.random.default_rng(0).normal(size=40)
    embedding = fit_embedding(rows)
    assert embedding.scale[:3].tolist() == [1, 1, 1]
    assert embedding.components[0] == pytest.approx([0, 0, 0, 1], abs=1e-2)
    assert embedding.explained_variance_ratio[0] > 0.999


def test_equal_frames_are_one_point() -> None:
    embedding = fit_embedding(np.full((9, 5), 0.1))
    assert embedding.scores.shape == (9, 1)
    assert np.abs(embedding.scores).max() < 1e-12


def test_new_frames_land_on_the_same_axes() -> None:
    rows = correlated()
    embedding = fit_embedding(rows[:400], n_components=4)
    by_hand = (rows[400:] - embedding.mean) / embedding.scale @ embedding.components.T
    assert embedding.project(rows[400:]) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match=r"\(n, 20\)"):
        embedding.project(rows[:, :3])


def test_bad_input_is_named() -> None:
    rows = correlated(10, 3)
    rows[4, 1] = np.nan
    with pytest.raises(ValueError, match="frame 14 holds NaN"):
        fit_embedding(rows, np.arange(10, 20))
    with pytest.raises(ValueError, match="no frames"):
        fit_embedding(np.empty((0, 3)))
    with pytest.raises(ValueError, match="need floating numbers"):
        fit_embedding(np.ones(3))
    with pytest.raises(ValueError, match="frame_ids"):
        fit_embedding(correlated(10, 3), np.arange(9))
    with pytest.raises(ValueError, match="10 frames of 3 features have at most 3"):
        fit_embedding(correlated(10, 3), n_components=4)
    with pytest.raises(ValueError, match="variance"):
        fit_embedding(correlated(10, 3), variance=0)


def test_a_descriptor_matrix_on_disk_is_a_source(tmp_path: Path) -> None:
    rows = correlated(300, 6).astype(np.float32)
    schema = descriptor_schema(6, {})
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 6)
    pq.write_table(
        pa.table([pa.array(np.arange(300)), lists], schema=schema), tmp_path / "d.parquet"
    )
    matrix: DescriptorSource = DescriptorMatrix(tmp_path / "d.parquet")
    stored, in_memory = fit_embedding(matrix), fit_embedding(rows)
    assert np.array_equal(stored.frame_id, in_memory.frame_id)
    assert stored.scores == pytest.approx(in_memory.scores)
