from __future__ import annotations

import numpy as np
import pytest

from mlip_assets.sampling import DescriptorArray, embed, fit_embedding


def test_embed_projects_new_frames_on_fitted_components(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    rows, _ = blobs
    first = fit_embedding(rows[:600], components="fixed", n_components=3)
    later = embed(rows[600:], first.pca)
    pca = first.pca
    by_hand = (rows[600:] - pca.mean_) / pca.scale_ @ pca.components_.T
    assert later.scores == pytest.approx(by_hand, abs=1e-9)
    assert later.pca is pca
    assert later.frame_id.tolist() == list(range(400))
    assert np.array_equal(embed(rows[:600], pca).scores, first.scores)


def test_fit_embedding_bits_do_not_depend_on_row_order() -> None:
    rng = np.random.default_rng(0)
    rows, ids = rng.normal(size=(5000, 7)).astype(np.float32), rng.permutation(9000)[:5000]
    order = rng.permutation(5000)
    one = fit_embedding(DescriptorArray(rows, ids))
    other = fit_embedding(DescriptorArray(rows[order], ids[order]))
    assert np.array_equal(one.frame_id, np.sort(ids))
    assert np.array_equal(one.frame_id, other.frame_id)
    assert np.array_equal(one.scores, other.scores)


def test_weights_of_embedding() -> None:
    embedding = fit_embedding(np.random.default_rng(0).normal(size=(50, 4)), variance=1.0)
    assert embedding.weights("off").tolist() == [1, 1, 1, 1]
    assert embedding.weights("explained_variance").sum() == pytest.approx(1)


def test_fit_embedding_of_equal_frames_is_one_point() -> None:
    embedding = fit_embedding(np.full((9, 5), 0.1))
    assert embedding.scores.shape == (9, 1)
    assert np.abs(embedding.scores).max() < 1e-12


def test_fit_embedding_rejects_invalid_arrays() -> None:
    with pytest.raises(ValueError, match="need floating numbers"):
        fit_embedding(np.ones(3))
    with pytest.raises(ValueError, match="frame_ids"):
        DescriptorArray(np.ones((10, 3)), np.arange(9))
