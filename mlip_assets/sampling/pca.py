"""Principal axes of standardised descriptors, fitted in one pass of bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.progress import Progress
from mlip_assets.sampling.source import DescriptorSource

Components = Literal["kaiser", "variance", "fixed"]

BATCH = 4096
#: Decimals of a score. Scores are in standard deviations of a feature; beyond these they tell no
#: two frames apart, and the order of a sum would decide between equal ones.
DECIMALS = 9
#: Roundings of the stored type below which a feature's spread is no signal.
_ROUNDINGS = 8


@dataclass(frozen=True)
class PrincipalAxes:
    """The fitted transform; whatever is projected on the same axes can be compared.

    Attributes
    ----------
    mean, scale
        (n_features,) of the descriptors; constant features have scale 1.
    components
        (n_components, n_features) orthonormal rows; the largest entry of each is positive.
    explained_variance
        (n_components,) eigenvalues of the correlation matrix, descending.
    explained_variance_ratio
        (n_components,) their shares of the total variance.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    components: NDArray[np.float64]
    explained_variance: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]

    @property
    def radius(self) -> float:
        """Root-mean-square distance from their mean of the frames that the axes were fitted to."""
        return float(np.sqrt(self.explained_variance.sum()))

    def project(self, descriptors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Scores (n, n_components) of descriptors (n, n_features); those of equal frames are equal."""
        if descriptors.ndim != 2 or descriptors.shape[1] != len(self.mean):
            raise ValueError(
                f"descriptors: shape {descriptors.shape}; these axes take (n, {len(self.mean)})"
            )
        scores = ((descriptors - self.mean) / self.scale) @ self.components.T
        return np.round(scores, DECIMALS) + 0.0  # and no -0


def fit_axes(
    source: DescriptorSource,
    *,
    components: Components = "variance",
    variance: float = 0.99,
    n_components: int | None = None,
) -> PrincipalAxes:
    """Standardise the features and find their principal axes.

    Mean and covariance are accumulated batch by batch in float64 (Chan, Golub and LeVeque, Am.
    Stat. 37, 242 (1983)), so a matrix far larger than memory can be fitted.

    Parameters
    ----------
    source
        Descriptors; read once.
    components
        Which axes are kept. ``kaiser``: eigenvalues above one, that is, more variance than one
        feature has (Kaiser, Educ. Psychol. Meas. 20, 141 (1960); as in DIRECT), at least the
        first. ``variance``: the fewest that explain the share ``variance`` of it. ``fixed``:
        ``n_components``.

    Raises
    ------
    ValueError
        No frames, values that are not finite, or more components than frames or features.
    """
    if not 0 < variance <= 1:
        raise ValueError(f"variance: {variance} is not a share; give more than 0 and at most 1")
    moments = _Moments(source)
    scale = moments.scale
    values, vectors = np.linalg.eigh(moments.covariance / np.outer(scale, scale))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    total = values.sum()
    most = min(moments.n_frames, len(values))
    match components:
        case "kaiser":
            kept = max(int(np.count_nonzero(values > 1)), 1)
        case "variance":
            too_few = np.cumsum(values) < variance * total * (1 - 1e-12)
            kept = 1 + int(np.count_nonzero(too_few))
        case "fixed":
            if n_components is None or not 1 <= n_components <= most:
                raise ValueError(
                    f"n_components: {n_components} wanted, but {moments.n_frames} frames of "
                    f"{len(values)} features have at most {most}"
                )
            kept = n_components
    kept = min(kept, most)
    return PrincipalAxes(
        mean=moments.mean,
        scale=scale,
        components=_with_positive_peaks(vectors[:, :kept].T),
        explained_variance=values[:kept],
        explained_variance_ratio=values[:kept] / (total or 1.0),
    )


class _Moments:
    """Mean, covariance and standardising scale of every feature."""

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
            raise ValueError("descriptors: there are no frames to embed")
        self.covariance = self._scatter / self.n_frames
        spread = np.sqrt(np.diag(self.covariance))
        # a spread that the rounding of the stored numbers explains is a constant
        self.scale = np.where(spread > _ROUNDINGS * resolution * self._largest, spread, 1.0)

    def _add(self, ids: NDArray[np.int64], rows: NDArray[np.float64]) -> None:
        largest = np.maximum(rows.max(axis=0), -rows.min(axis=0))
        if not np.isfinite(largest).all():
            bad = ~np.isfinite(rows).all(axis=1)
            raise ValueError(f"descriptors: frame {ids[bad][0]} holds NaN or infinite values")
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
    """Fix the sign that an eigenvector leaves open by its largest entry."""
    peaks = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), peaks])
    fixed: NDArray[np.float64] = components * signs[:, None]
    return fixed
