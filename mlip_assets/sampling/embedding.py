"""Principal components of standardised descriptors, fitted in one pass of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_BATCH = 4096
#: Roundings of the stored type below which a feature's spread is no signal.
_ROUNDINGS = 8


class DescriptorSource(Protocol):
    """Anything that hands out descriptors in batches, again each time it is asked."""

    def iter_batches(
        self, batch_size: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]:
        """Frame ids (n,) and descriptors (n, n_features), at most ``batch_size`` rows each."""


@dataclass(frozen=True)
class Embedding:
    """Frames in principal components, with what is needed to put new frames on the same axes.

    Attributes
    ----------
    frame_id
        (n_frames,) int64.
    scores
        (n_frames, n_components) float64; each component centred, unweighted.
    mean, scale
        (n_features,) of the descriptors; constant features have scale 1.
    components
        (n_components, n_features) orthonormal rows; the largest entry of each is positive.
    explained_variance_ratio
        (n_components,) share of the total variance of the standardised features, descending.
    """

    frame_id: NDArray[np.int64]
    scores: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    components: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]

    def project(self, descriptors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Scores (n, n_components) of descriptors (n, n_features) on these axes."""
        if descriptors.ndim != 2 or descriptors.shape[1] != len(self.mean):
            raise ValueError(
                f"descriptors: shape {descriptors.shape}; these axes take (n, {len(self.mean)})"
            )
        return _project(descriptors, self.mean, self.scale, self.components)


def fit_embedding(
    descriptors: DescriptorSource | NDArray[np.floating[Any]],
    frame_ids: NDArray[np.int64] | None = None,
    *,
    variance: float = 0.99,
    n_components: int | None = None,
) -> Embedding:
    """Standardise the features and find the principal components that explain their variance.

    The covariance is accumulated batch by batch in float64 (Chan, Golub and LeVeque, Am. Stat. 37,
    242 (1983)), so a matrix far larger than memory can be embedded.

    Parameters
    ----------
    descriptors
        (n_frames, n_features), or a source of batches that can be iterated twice.
    frame_ids
        (n_frames,) ids of the rows of an array; by default their indices.
    variance
        Share of the variance that the components must explain together.
    n_components
        Their number; overrides ``variance``.

    Raises
    ------
    ValueError
        No frames, values that are not finite, or more components than frames or features.
    """
    if not 0 < variance <= 1:
        raise ValueError(f"variance: {variance} is not a share; give more than 0 and at most 1")
    source = (
        _InMemory(descriptors, frame_ids) if isinstance(descriptors, np.ndarray) else descriptors
    )
    moments = _Moments(source)
    scale = moments.scale
    values, vectors = np.linalg.eigh(moments.covariance / np.outer(scale, scale))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    ratios = values / values.sum() if values.sum() > 0 else values
    most = min(moments.n_frames, len(values))
    if n_components is None:
        enough = np.flatnonzero(np.cumsum(ratios) >= variance - 1e-12)
        n_components = min(int(enough[0]) + 1 if len(enough) else 1, most)
    if not 1 <= n_components <= most:
        raise ValueError(
            f"n_components: {n_components} wanted, but {moments.n_frames} frames of "
            f"{len(values)} features have at most {most}"
        )
    components = _with_positive_peaks(vectors[:, :n_components].T)
    ids, scores = [], []
    for batch_ids, batch in source.iter_batches(_BATCH):
        ids.append(batch_ids)
        scores.append(_project(batch, moments.mean, scale, components))
    return Embedding(
        frame_id=np.concatenate(ids),
        scores=np.concatenate(scores),
        mean=moments.mean,
        scale=scale,
        components=components,
        explained_variance_ratio=ratios[:n_components],
    )


class _Moments:
    """Mean, covariance and standardising scale of every feature."""

    def __init__(self, source: DescriptorSource) -> None:
        self.n_frames = 0
        self.mean, self._largest, self._scatter = np.zeros(1), np.zeros(1), np.zeros((1, 1))
        resolution = 0.0
        for ids, batch in source.iter_batches(_BATCH):
            if not len(batch):
                continue
            resolution = max(resolution, float(np.finfo(batch.dtype).eps))
            self._add(ids, batch.astype(np.float64))
        if self.n_frames == 0:
            raise ValueError("descriptors: there are no frames to embed")
        self.covariance = self._scatter / self.n_frames
        spread = np.sqrt(np.diag(self.covariance))
        # a spread that the rounding of the stored numbers explains is a constant
        self.scale = np.where(spread > _ROUNDINGS * resolution * self._largest, spread, 1.0)

    def _add(self, ids: NDArray[np.int64], rows: NDArray[np.float64]) -> None:
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise ValueError(f"descriptors: frame {ids[bad][0]} holds NaN or infinite values")
        total = self.n_frames + len(rows)
        mean = rows.mean(axis=0)
        shift = mean - self.mean
        between = np.outer(shift, shift) * (self.n_frames * len(rows) / total)
        self._scatter = self._scatter + between + (rows - mean).T @ (rows - mean)
        self.mean = self.mean + shift * (len(rows) / total)
        self._largest = np.maximum(self._largest, np.abs(rows).max(axis=0))
        self.n_frames = total


class _InMemory:
    """An array as a source of batches."""

    def __init__(
        self, descriptors: NDArray[np.floating[Any]], frame_ids: NDArray[np.int64] | None
    ) -> None:
        if descriptors.ndim != 2 or descriptors.dtype.kind != "f":
            raise ValueError(
                f"descriptors: shape {descriptors.shape} of {descriptors.dtype}; need floating "
                "numbers (n_frames, n_features)"
            )
        self._ids = np.arange(len(descriptors)) if frame_ids is None else np.asarray(frame_ids)
        if self._ids.shape != (len(descriptors),):
            raise ValueError(
                f"frame_ids: shape {self._ids.shape}; need one for each of {len(descriptors)} rows"
            )
        self._descriptors = descriptors

    def iter_batches(
        self, batch_size: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]:
        for start in range(0, len(self._ids), batch_size):
            rows = slice(start, start + batch_size)
            yield self._ids[rows], self._descriptors[rows]


def _project(
    descriptors: NDArray[np.floating[Any]],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    components: NDArray[np.float64],
) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = ((descriptors - mean) / scale) @ components.T
    return scores


def _with_positive_peaks(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fix the sign that an eigenvector leaves open by its largest entry."""
    peaks = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), peaks])
    fixed: NDArray[np.float64] = components * signs[:, None]
    return fixed
