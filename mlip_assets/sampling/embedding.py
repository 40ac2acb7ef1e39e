"""The map: every frame in principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.progress import Progress
from mlip_assets.sampling.pca import BATCH, Components, PrincipalAxes, fit_axes
from mlip_assets.sampling.source import DescriptorArray, DescriptorSource

if TYPE_CHECKING:
    import pandas as pd

Weighting = Literal["explained_variance", "off"]


@dataclass(frozen=True)
class Embedding:
    """Frames in principal components.

    Attributes
    ----------
    frame_id
        (n_frames,) int64.
    scores
        (n_frames, n_components) float64, unweighted.
    axes
        The transform that made them, for other frames.
    """

    frame_id: NDArray[np.int64]
    scores: NDArray[np.float64]
    axes: PrincipalAxes

    @property
    def explained_variance_ratio(self) -> NDArray[np.float64]:
        """(n_components,) share of the total variance that each component explains."""
        return self.axes.explained_variance_ratio

    def columns(self) -> dict[str, NDArray[Any]]:
        """``frame_id``, then ``pc1``, ``pc2``, …: the scores on each component, (n_frames,) each."""
        return {"frame_id": self.frame_id} | {
            f"pc{number}": scores for number, scores in enumerate(self.scores.T, 1)
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per frame with :meth:`columns`; the scores have no unit."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    def among(self, frame_ids: NDArray[np.int64]) -> Embedding:
        """Only the frames with these ids, in the order they have here."""
        kept = np.isin(self.frame_id, frame_ids)
        return Embedding(self.frame_id[kept], self.scores[kept], self.axes)

    def weights(self, weighting: Weighting) -> NDArray[np.float64]:
        """(n_components,) factors on the scores where frames are compared.

        DIRECT takes the explained-variance ratios (Qi et al., npj Comput. Mater. 10, 43 (2024)).
        """
        if weighting == "off":
            return np.ones(self.scores.shape[1])
        return self.explained_variance_ratio


def embed(
    descriptors: DescriptorSource | NDArray[np.floating[Any]], axes: PrincipalAxes
) -> Embedding:
    """Put frames on axes that are there already, in one pass of bounded memory.

    Parameters
    ----------
    descriptors
        A source of batches, or an array (n_frames, n_features) whose rows are numbered from 0.
    """
    source = _as_source(descriptors)
    ids, scores = [np.empty(0, dtype=np.int64)], [np.empty((0, len(axes.components)))]
    progress = Progress("PCA, projection", source.n_frames, "frames")
    for batch_ids, batch in source.iter_batches(BATCH):
        ids.append(np.array(batch_ids))
        scores.append(axes.project(batch))
        progress.advance(len(batch_ids))
    return Embedding(np.concatenate(ids), np.concatenate(scores), axes)


def fit_embedding(
    descriptors: DescriptorSource | NDArray[np.floating[Any]],
    *,
    components: Components = "variance",
    variance: float = 0.99,
    n_components: int | None = None,
) -> Embedding:
    """Find the principal axes of the frames and put them there; two passes over the source.

    Parameters and errors are those of :func:`~mlip_assets.sampling.pca.fit_axes`.
    """
    source = _as_source(descriptors)
    axes = fit_axes(source, components=components, variance=variance, n_components=n_components)
    return embed(source, axes)


def _as_source(descriptors: DescriptorSource | NDArray[np.floating[Any]]) -> DescriptorSource:
    return DescriptorArray(descriptors) if isinstance(descriptors, np.ndarray) else descriptors
