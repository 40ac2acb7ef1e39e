"""From all frames to the few worth labelling: DIRECT, its baselines, and their measure, coverage."""

from __future__ import annotations

from mlip_assets.sampling.clustering import Clusters, count_distinct_points, fit_clusters
from mlip_assets.sampling.coverage import (
    Coverage,
    CoverageReport,
    coverage_score,
    measure_coverage,
)
from mlip_assets.sampling.direct import DirectSelection, cluster_pool, direct_select
from mlip_assets.sampling.embedding import Embedding, embed, fit_embedding
from mlip_assets.sampling.pca import PrincipalAxes, fit_axes
from mlip_assets.sampling.projection import project_frames
from mlip_assets.sampling.reduction import representatives
from mlip_assets.sampling.selection import Selection, select_frames
from mlip_assets.sampling.source import DescriptorArray, DescriptorSource

__all__ = [
    "Clusters",
    "Coverage",
    "CoverageReport",
    "DescriptorArray",
    "DescriptorSource",
    "DirectSelection",
    "Embedding",
    "PrincipalAxes",
    "Selection",
    "cluster_pool",
    "count_distinct_points",
    "coverage_score",
    "direct_select",
    "embed",
    "fit_axes",
    "fit_clusters",
    "fit_embedding",
    "measure_coverage",
    "project_frames",
    "representatives",
    "select_frames",
]
