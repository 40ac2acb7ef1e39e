"""Selection of the frames to label: PCA, clustering, DIRECT, its baselines, and coverage."""

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
from mlip_assets.sampling.pca import PrincipalComponents, fit_principal_components
from mlip_assets.sampling.presampling import presample
from mlip_assets.sampling.projection import project_frames
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
    "PrincipalComponents",
    "Selection",
    "cluster_pool",
    "count_distinct_points",
    "coverage_score",
    "direct_select",
    "embed",
    "fit_clusters",
    "fit_embedding",
    "fit_principal_components",
    "measure_coverage",
    "presample",
    "project_frames",
    "select_frames",
]
