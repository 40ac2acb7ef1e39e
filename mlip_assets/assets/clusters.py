"""Asset ``clusters``: the regions of the map."""

import dagster as dg

from io_managers.earlier import EarlierRuns
from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.sampling import Clusters, Embedding, cluster_pool
from resources.campaigns import CampaignFolder


@pipeline_asset(
    group="selection",
    kinds={"scikitlearn", "parquet"},
    io_manager="clusters",
    code_version="2",
    checks=[("no_empty_cluster", "as many clusters as asked for, none empty")],
)
def clusters(
    context: dg.AssetExecutionContext,
    pca_embedding: Embedding,
    campaigns: CampaignFolder,
    earlier: EarlierRuns,
) -> dg.MaterializeResult[Clusters]:
    """Clusters of the embedded frames; very large pools are reduced before they are clustered."""
    campaign = campaigns.load(context.partition_key)
    sampling = campaign.sampling
    n_known = len(earlier.labelled_frames(campaign))
    found = cluster_pool(
        pca_embedding,
        sampling.n_samples,
        n_clusters=sampling.n_clusters,
        clustering=sampling.clustering,
        weighting=sampling.weighting,
        two_level_above=sampling.two_level_above,
        n_labelled=n_known,
        seed=campaign.seed,
    )
    sizes = found.sizes
    wanted = sampling.n_clusters or len(sizes)
    return dg.MaterializeResult(
        value=found,
        metadata={
            "n_clusters": len(sizes),
            "n_known_frames": n_known,
            "clustering": sampling.clustering,
            "weighting": sampling.weighting,
            "largest_cluster": int(sizes.max()),
            "smallest_cluster": int(sizes.min()),
            "clusters": figures.cluster_table(found),
            "picture": figures.markdown(figures.cluster_plot(pca_embedding, found)),
        },
        check_results=[
            check("no_empty_cluster", len(sizes) == wanted and sizes.min() > 0, wanted=wanted)
        ],
    )
