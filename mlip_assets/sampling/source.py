"""Sources of descriptors: a matrix on disk, read in batches, or an array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Batches = Iterator[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]


class DescriptorSource(Protocol):
    """Source of descriptors in batches, which can be iterated several times."""

    @property
    def n_frames(self) -> int:
        """Total number of rows."""

    def iter_batches(self, batch_size: int) -> Batches:
        """Frame ids (n,) and descriptors (n, n_features), at most ``batch_size`` rows each."""


class DescriptorArray:
    """An array as a source; its batches are in the order of ascending frame id.

    Parameters
    ----------
    descriptors
        (n_frames, n_features) floating point; may be memory-mapped. Only batches are copied.
    frame_ids
        (n_frames,) ids of the rows; by default their indices.

    Attributes
    ----------
    order
        (n_frames,) row of the array at each position of the source.

    Raises
    ------
    ValueError
        Other shapes or types than the above.
    """

    def __init__(
        self, descriptors: NDArray[np.floating[Any]], frame_ids: ArrayLike | None = None
    ) -> None:
        if descriptors.ndim != 2 or descriptors.dtype.kind != "f":
            raise ValueError(
                f"descriptors: shape {descriptors.shape} of {descriptors.dtype}; need floating "
                "numbers (n_frames, n_features)"
            )
        self.n_frames = len(descriptors)
        ids = np.arange(self.n_frames) if frame_ids is None else np.asarray(frame_ids)
        if ids.shape != (self.n_frames,):
            raise ValueError(
                f"frame_ids: shape {ids.shape}; need one for each of {self.n_frames} rows"
            )
        self._descriptors, self._ids = descriptors, ids.astype(np.int64)
        self.order = np.argsort(self._ids, kind="stable")

    def iter_batches(self, batch_size: int) -> Batches:
        """Frame ids (n,) and rows (n, n_features), ascending by id."""
        for start in range(0, self.n_frames, batch_size):
            rows = self.order[start : start + batch_size]
            yield self._ids[rows], self._descriptors[rows]
