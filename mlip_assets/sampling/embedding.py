"""The PCA embedding: the scores of all frames in their principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.progress import Progress
from mlip_assets.sampling.pca import (
    BATCH,
    Components,
    PrincipalComponents,
    fit_principal_components,
)
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
    pca
        The fitted transform, which also projects other frames.
    """

    frame_id: NDArray[np.int64]
    scores: NDArray[np.float64]
    pca: PrincipalComponents

    @property
    def explained_variance_ratio(self) -> NDArray[np.float64]:
        """(n_components,) fraction of the total variance that each component explains."""
        return self.pca.explained_variance_ratio_

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
        """The frames with these ids only, in the order of this embedding."""
        kept = np.isin(self.frame_id, frame_ids)
        return Embedding(self.frame_id[kept], self.scores[kept], self.pca)

    def weights(self, weighting: Weighting) -> NDArray[np.float64]:
        """(n_components,) factors of the scores in the distances between frames.

        DIRECT uses the explained-variance ratios (Qi et al., npj Comput. Mater. 10, 43 (2024)).
        """
        if weighting == "off":
            return np.ones(self.scores.shape[1])
        return self.explained_variance_ratio


def embed(
    descriptors: DescriptorSource | NDArray[np.floating[Any]], pca: PrincipalComponents
) -> Embedding:
    """Project frames on fitted principal components, in one pass of bounded memory.

    Parameters
    ----------
    descriptors
        A source of batches, or an array (n_frames, n_features) whose rows are numbered from 0.
    pca
        Fitted to descriptors with the same features.
    """
    source = _as_source(descriptors)
    ids, scores = [np.empty(0, dtype=np.int64)], [np.empty((0, len(pca.components_)))]
    progress = Progress("PCA, projection", source.n_frames, "frames")
    for batch_ids, batch in source.iter_batches(BATCH):
        ids.append(np.array(batch_ids))
        scores.append(pca.transform(batch))
        progress.advance(len(batch_ids))
    return Embedding(np.concatenate(ids), np.concatenate(scores), pca)


def fit_embedding(
    descriptors: DescriptorSource | NDArray[np.floating[Any]],
    *,
    components: Components = "variance",
    variance: float = 0.99,
    n_components: int | None = None,
) -> Embedding:
    """Fit the principal components of frames and project the frames on them, in two passes.

    The parameters and errors are those of
    :func:`~mlip_assets.sampling.pca.fit_principal_components`.
    """
    source = _as_source(descriptors)
    pca = fit_principal_components(
        source, components=components, variance=variance, n_components=n_components
    )
    return embed(source, pca)


def _as_source(descriptors: DescriptorSource | NDArray[np.floating[Any]]) -> DescriptorSource:
    return DescriptorArray(descriptors) if isinstance(descriptors, np.ndarray) else descriptors
