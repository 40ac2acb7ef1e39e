"""Asset ``clusters``: the regions of the map."""

import dagster as dg
import numpy as np

from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.sampling import Clusters, Embedding, default_n_clusters, fit_clusters
from resources.campaigns import CampaignFolder


@pipeline_asset(
    group="selection",
    kinds={"scikitlearn", "parquet"},
    io_manager="clusters",
    code_version="1",
    checks=[("no_empty_cluster", "as many clusters as asked for, none empty")],
)
def clusters(
    context: dg.AssetExecutionContext, pca_embedding: Embedding, campaigns: CampaignFolder
) -> dg.MaterializeResult[Clusters]:
    """Clusters of the embedded frames, components weighted by the variance they explain."""
    campaign = campaigns.load(context.partition_key)
    sampling = campaign.sampling
    n_clusters = sampling.n_clusters or default_n_clusters(pca_embedding, sampling.n_samples)
    found = fit_clusters(
        pca_embedding, n_clusters=n_clusters, algorithm=sampling.clustering, seed=campaign.seed
    )
    sizes = np.bincount(found.cluster)
    return dg.MaterializeResult(
        value=found,
        metadata={
            "n_clusters": len(sizes),
            "largest_cluster": int(sizes.max()),
            "smallest_cluster": int(sizes.min()),
            "clusters": figures.cluster_table(found),
            "picture": figures.markdown(figures.cluster_plot(pca_embedding, found)),
        },
        check_results=[
            check(
                "no_empty_cluster", len(sizes) == n_clusters and sizes.min() > 0, wanted=n_clusters
            )
        ],
    )
