"""Principal components of standardised descriptors, fitted in one pass of bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.progress import Progress
from mlip_assets.sampling.source import DescriptorSource

Components = Literal["kaiser", "variance", "fixed"]

BATCH = 4096
#: Decimals of a score. Scores are in units of the standard deviation of a feature. Further decimals
#: distinguish no frames, and depend on the order of a sum.
DECIMALS = 9
#: A feature is constant if its standard deviation is below this number of rounding errors.
_MIN_ROUNDING_ERRORS = 8


@dataclass(frozen=True)
class PrincipalComponents:
    """Fitted standardisation and principal components, with the attribute names of scikit-learn.

    Scores of the same components can be compared. ``StandardScaler`` and ``PCA`` of scikit-learn
    give the same values, except that here the variance is divided by n, and not by n - 1.

    Attributes
    ----------
    mean_, scale_
        (n_features,) mean and standard deviation of the descriptors; the scale of a constant
        feature is 1.
    components_
        (n_components, n_features) orthonormal rows; the entry of largest magnitude is positive.
    explained_variance_
        (n_components,) eigenvalues of the correlation matrix, descending.
    explained_variance_ratio_
        (n_components,) fraction of the total variance.
    """

    mean_: NDArray[np.float64]
    scale_: NDArray[np.float64]
    components_: NDArray[np.float64]
    explained_variance_: NDArray[np.float64]
    explained_variance_ratio_: NDArray[np.float64]

    @property
    def radius(self) -> float:
        """Root-mean-square distance of the fitted frames from their mean, in these components."""
        return float(np.sqrt(self.explained_variance_.sum()))

    def transform(self, descriptors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Scores (n, n_components) of descriptors (n, n_features); equal rows have equal scores.

        Raises
        ------
        ValueError
            The number of features differs from that of the fit.
        """
        if descriptors.ndim != 2 or descriptors.shape[1] != len(self.mean_):
            raise ValueError(
                f"descriptors: shape {descriptors.shape}; these principal components need "
                f"(n, {len(self.mean_)})"
            )
        scores = ((descriptors - self.mean_) / self.scale_) @ self.components_.T
        return np.round(scores, DECIMALS) + 0.0  # no negative zero

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """The attributes by the names under which they are stored: without the underscore."""
        return {name.removesuffix("_"): array for name, array in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(**{f"{name}_": array for name, array in arrays.items()})


def fit_principal_components(
    source: DescriptorSource,
    *,
    components: Components = "variance",
    variance: float = 0.99,
    n_components: int | None = None,
) -> PrincipalComponents:
    """Standardise the features and find their principal components.

    Mean and covariance are accumulated over batches in float64 (Chan, Golub and LeVeque, Am. Stat.
    37, 242 (1983)), so that the matrix may be much larger than memory.

    Parameters
    ----------
    source
        Descriptors; read once.
    components
        Which components are kept. ``kaiser``: those with an eigenvalue above one, the variance of
        one feature (Kaiser, Educ. Psychol. Meas. 20, 141 (1960)), as in DIRECT; at least the first.
        ``variance``: the fewest that explain the fraction ``variance``. ``fixed``:
        ``n_components``.
    variance
        Fraction of the total variance, more than 0 and at most 1.
    n_components
        Number of components with ``fixed``.

    Raises
    ------
    ValueError
        No frames, values that are not finite, or more components than frames or features.
    """
    if not 0 < variance <= 1:
        raise ValueError(f"variance: {variance}; need more than 0 and at most 1")
    moments = _Moments(source)
    scale = moments.scale
    values, vectors = np.linalg.eigh(moments.covariance / np.outer(scale, scale))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    total = values.sum()
    max_components = min(moments.n_frames, len(values))
    match components:
        case "kaiser":
            kept = max(int(np.count_nonzero(values > 1)), 1)
        case "variance":
            too_few = np.cumsum(values) < variance * total * (1 - 1e-12)
            kept = 1 + int(np.count_nonzero(too_few))
        case "fixed":
            if n_components is None or not 1 <= n_components <= max_components:
                raise ValueError(
                    f"n_components: {n_components}, but {moments.n_frames} frames of "
                    f"{len(values)} features have at most {max_components}"
                )
            kept = n_components
    kept = min(kept, max_components)
    return PrincipalComponents(
        mean_=moments.mean,
        scale_=scale,
        components_=_with_positive_peaks(vectors[:, :kept].T),
        explained_variance_=values[:kept],
        explained_variance_ratio_=values[:kept] / (total or 1.0),
    )


class _Moments:
    """Mean, covariance and scale of all features."""

    def __init__(self, source: DescriptorSource) -> None:
        self.n_frames = 0
        self.mean, self._largest, self._scatter = np.zeros(1), np.zeros(1), np.zeros((1, 1))
        resolution = 0.0
        progress = Progress("PCA, covariance", source.n_frames, "frames")
        for ids, batch in source.iter_batches(BATCH):
            if not len(batch):
                continue
            resolution = max(resolution, float(np.finfo(batch.dtype).eps))
            self._add(ids, batch.astype(np.float64))
            progress.advance(len(ids))
        if self.n_frames == 0:
            raise ValueError("descriptors: no frames")
        self.covariance = self._scatter / self.n_frames
        spread = np.sqrt(np.diag(self.covariance))
        # a constant feature varies by the rounding of the stored numbers
        self.scale = np.where(
            spread > _MIN_ROUNDING_ERRORS * resolution * self._largest, spread, 1.0
        )

    def _add(self, ids: NDArray[np.int64], rows: NDArray[np.float64]) -> None:
        largest = np.maximum(rows.max(axis=0), -rows.min(axis=0))
        if not np.isfinite(largest).all():
            bad = ~np.isfinite(rows).all(axis=1)
            raise ValueError(f"descriptors: frame {ids[bad][0]} contains NaN or infinite values")
        total = self.n_frames + len(rows)
        mean = rows.mean(axis=0)
        shift = mean - self.mean
        between = np.outer(shift, shift) * (self.n_frames * len(rows) / total)
        rows -= mean
        self._scatter = self._scatter + between + rows.T @ rows
        self.mean = self.mean + shift * (len(rows) / total)
        self._largest = np.maximum(self._largest, largest)
        self.n_frames = total


def _with_positive_peaks(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Choose the sign of each row such that its entry of largest magnitude is positive."""
    peaks = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), peaks])
    fixed: NDArray[np.float64] = components * signs[:, None]
    return fixed
