from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from mlip_assets.sampling import DescriptorArray, PrincipalComponents, fit_principal_components
from mlip_assets.sampling.pca import Components


class Batches:
    """A source with batches of any size."""

    def __init__(self, rows: np.ndarray, cuts: list[int]) -> None:
        self.n_frames, self.rows, self.cuts = len(rows), rows, cuts

    def iter_batches(self, batch_size: int):
        ids = np.arange(len(self.rows)) + 50
        yield from zip(np.split(ids, self.cuts), np.split(self.rows, self.cuts), strict=True)


def fit(
    rows: np.ndarray, components: Components = "variance", **keywords: float
) -> PrincipalComponents:
    return fit_principal_components(DescriptorArray(rows), components=components, **keywords)


def correlated(n_frames: int = 500, n_features: int = 20, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_features, n_features)) * np.geomspace(1, 1e-3, n_features)
    return rng.normal(size=(n_frames, n_features)) @ mixing.T * 10.0 ** rng.integers(-3, 4) + 7


@pytest.mark.parametrize("shape", [(500, 20), (12, 40), (10_000, 5)])
def test_principal_components_equal_sklearn(shape: tuple[int, int]) -> None:
    rows = correlated(*shape)
    ours = fit(rows, "fixed", n_components=5)
    standard = StandardScaler().fit_transform(rows)
    theirs = PCA(5, svd_solver="full").fit(standard)
    assert ours.mean_ == pytest.approx(rows.mean(axis=0))
    assert ours.scale_ == pytest.approx(rows.std(axis=0))
    assert ours.explained_variance_ratio_ == pytest.approx(theirs.explained_variance_ratio_)
    # scikit-learn divides by n - 1
    unbiased = ours.explained_variance_ * len(rows) / (len(rows) - 1)
    assert unbiased == pytest.approx(theirs.explained_variance_)
    signs = np.sign((ours.components_ * theirs.components_).sum(axis=1))
    assert ours.components_ == pytest.approx(theirs.components_ * signs[:, None], abs=1e-7)
    assert ours.transform(rows) == pytest.approx(theirs.transform(standard) * signs, abs=1e-6)


def test_principal_components_of_float32_with_large_mean_are_accurate() -> None:
    """A standard deviation of 1e-3 at a mean of 1 in float32, which raw squares would not resolve."""
    rng = np.random.default_rng(0)
    rows = (1 + 1e-3 * rng.normal(size=(20_000, 6)) @ rng.normal(size=(6, 6))).astype(np.float32)
    ours = fit(rows, "fixed", n_components=6)
    exact = np.linalg.eigvalsh(np.corrcoef(rows.astype(np.longdouble).astype(float).T))[::-1]
    assert ours.explained_variance_ == pytest.approx(exact, rel=1e-9)


def test_principal_components_have_fixed_signs_and_order() -> None:
    pca = fit(correlated(), variance=1.0)
    peaks = np.abs(pca.components_).argmax(axis=1)
    assert (pca.components_[np.arange(len(peaks)), peaks] > 0).all()
    assert (np.diff(pca.explained_variance_ratio_) <= 0).all()
    assert pca.components_ @ pca.components_.T == pytest.approx(np.eye(len(peaks)), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=6), offset=st.sampled_from([0.0, 1e6]))
def test_principal_components_do_not_depend_on_batches(cuts: list[int], offset: float) -> None:
    rows = correlated(60, 6) + offset
    whole = fit(rows, "fixed", n_components=3)
    pieces = fit_principal_components(
        Batches(rows, sorted(cuts)), components="fixed", n_components=3
    )
    assert pieces.transform(rows) == pytest.approx(whole.transform(rows), abs=1e-5)


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99, 1.0])
def test_variance_keeps_fewest_components(variance: float) -> None:
    ratios = fit(correlated(), variance=variance).explained_variance_ratio_
    assert ratios.sum() >= variance - 1e-9
    assert ratios[:-1].sum() < variance


def test_kaiser_keeps_eigenvalues_above_one() -> None:
    rows = correlated()
    values = np.linalg.eigvalsh(np.corrcoef(rows.T))[::-1]
    kept = fit(rows, "kaiser").explained_variance_
    assert 1 < len(kept) < 20
    assert kept == pytest.approx(values[values > 1])


def test_kaiser_without_eigenvalue_above_one_keeps_first() -> None:
    both_signs = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])  # two equal eigenvalues of one
    assert len(fit(both_signs, "kaiser").components_) == 1
    assert len(fit(np.ones((5, 3)), "kaiser").components_) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_features_have_scale_one_and_no_weight(dtype: type) -> None:
    rows = np.ones((40, 4), dtype=dtype) * np.array([0.1, 3e5, 0, 0], dtype=dtype)
    rows[:, 1] = np.where(np.arange(40) % 2, rows[0, 1], np.nextafter(rows[0, 1], dtype(0)))
    rows[:, 3] = np.random.default_rng(0).normal(size=40)
    pca = fit(rows)
    assert pca.scale_[:3].tolist() == [1, 1, 1]
    assert pca.components_[0] == pytest.approx([0, 0, 0, 1], abs=1e-2)
    assert pca.explained_variance_ratio_[0] > 0.999


def test_radius_is_rms_distance_from_mean() -> None:
    rows = correlated()
    pca = fit(rows, "fixed", n_components=4)
    distances = np.linalg.norm(pca.transform(rows), axis=1)
    assert pca.radius == pytest.approx(np.sqrt(np.mean(distances**2)))


def test_fit_principal_components_rejects_invalid_input() -> None:
    rows = correlated(10, 3)
    rows[4, 1] = np.nan
    with pytest.raises(ValueError, match="frame 14 contains NaN"):
        fit_principal_components(DescriptorArray(rows, np.arange(10, 20)))
    with pytest.raises(ValueError, match="no frames"):
        fit(np.empty((0, 3)))
    with pytest.raises(ValueError, match="10 frames of 3 features have at most 3"):
        fit(correlated(10, 3), "fixed", n_components=4)
    with pytest.raises(ValueError, match="n_components: None"):
        fit(correlated(10, 3), "fixed")
    with pytest.raises(ValueError, match="variance"):
        fit(correlated(10, 3), variance=0)
    with pytest.raises(ValueError, match=r"\(n, 3\)"):
        fit(correlated(10, 3)).transform(np.ones((2, 4)))
