"""From all frames to the few worth labelling: DIRECT sampling and its measure, coverage."""

from __future__ import annotations

from mlip_assets.sampling.clustering import (
    Clusters,
    count_distinct_points,
    default_n_clusters,
    fit_clusters,
)
from mlip_assets.sampling.coverage import Coverage, coverage_against_random, coverage_score
from mlip_assets.sampling.direct import DirectSelection, direct_select
from mlip_assets.sampling.embedding import DescriptorSource, Embedding, fit_embedding
from mlip_assets.sampling.selection import Selection, random_selection, select_stratified

__all__ = [
    "Clusters",
    "Coverage",
    "DescriptorSource",
    "DirectSelection",
    "Embedding",
    "Selection",
    "count_distinct_points",
    "coverage_against_random",
    "coverage_score",
    "default_n_clusters",
    "direct_select",
    "fit_clusters",
    "fit_embedding",
    "random_selection",
    "select_stratified",
]
