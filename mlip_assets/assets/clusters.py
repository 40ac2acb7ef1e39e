"""Asset ``clusters``: the regions of the map."""

import dagster as dg

from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.refresh import find_frontier
from mlip_assets.sampling import Clusters, Embedding, cluster_pool
from mlip_assets.trajectory import Trajectory
from resources.campaigns import CampaignFolder
from resources.earlier import EarlierRuns


@pipeline_asset(
    group="selection",
    kinds={"scikitlearn", "parquet"},
    io_manager="clusters",
    code_version="3",
    checks=[("no_empty_cluster", "as many clusters as asked for, none empty")],
)
def clusters(
    context: dg.AssetExecutionContext,
    surrogate_trajectory: Trajectory,
    pca_embedding: Embedding,
    campaigns: CampaignFolder,
    earlier: EarlierRuns,
) -> dg.MaterializeResult[Clusters]:
    """Clusters of the embedded frames; very large pools are reduced before they are clustered.

    In a refresh, of those frames alone that are worth a label: unlike every labelled one, or such
    that the committee of the model that explored disagrees.
    """
    campaign = campaigns.current(context)
    sampling = campaign.sampling
    _, known = earlier.labelled_on(campaign, pca_embedding.axes)
    pool, refreshed = pca_embedding, {}
    if campaign.round:
        frontier = find_frontier(
            pca_embedding,
            known,
            campaigns.known_distance(campaign),
            expected_error=earlier.expected_error(
                campaign, surrogate_trajectory, pca_embedding.frame_id
            ),
            error_limit=earlier.error_limit(campaign),
        )
        pool = pca_embedding.among(pca_embedding.frame_id[frontier.rows])
        campaigns.record(campaign, known_share=frontier.known_share)
        refreshed = {
            "known_share": frontier.known_share,
            "n_frames_far_from_labels": frontier.n_far,
            "n_frames_unsure": frontier.n_unsure,
        }
    found = cluster_pool(
        pool,
        sampling.n_samples,
        n_clusters=sampling.n_clusters,
        clustering=sampling.clustering,
        weighting=sampling.weighting,
        two_level_above=sampling.presample_above,
        n_labelled=0 if campaign.round else len(known),
        seed=campaign.random_seed,
    )
    sizes = found.sizes
    wanted = sampling.n_clusters or len(sizes)
    return dg.MaterializeResult(
        value=found,
        metadata={
            "n_clusters": len(sizes),
            "n_known_frames": len(known),
            **refreshed,
            "clustering": sampling.clustering,
            "weighting": sampling.weighting,
            "largest_cluster": int(sizes.max()),
            "smallest_cluster": int(sizes.min()),
            "clusters": figures.cluster_table(found),
            "picture": figures.markdown(figures.cluster_plot(pool, found)),
        },
        check_results=[
            check("no_empty_cluster", len(sizes) == wanted and sizes.min() > 0, wanted=wanted)
        ],
    )
