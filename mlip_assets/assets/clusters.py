"""Asset ``clusters``: clusters of the embedded frames."""

import dagster as dg

from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.refresh import find_candidates
from mlip_assets.sampling import Clusters, Embedding, cluster_pool
from mlip_assets.trajectory import Trajectory
from resources.campaigns import CampaignFolder
from resources.earlier import EarlierResults


@pipeline_asset(
    group="selection",
    kinds={"scikitlearn", "parquet"},
    io_manager="clusters",
    code_version="3",
    checks=[("no_empty_cluster", "the number of clusters in the campaign, none empty")],
)
def clusters(
    context: dg.AssetExecutionContext,
    surrogate_trajectory: Trajectory,
    pca_embedding: Embedding,
    campaigns: CampaignFolder,
    earlier: EarlierResults,
) -> dg.MaterializeResult[Clusters]:
    """Clusters of the embedded frames; very large pools are thinned first.

    A refresh clusters only the candidates for labels: frames far from every labelled frame, and
    frames with a large expected error of the model that explored.

    - `surrogate_trajectory`: force spread of the committee, which gives the expected error
    - `pca_embedding`: points to cluster
    """
    campaign = campaigns.begin_or_resume_round(context)
    sampling = campaign.sampling
    _, known = earlier.labelled_with_scores(campaign, pca_embedding.pca)
    pool, refreshed = pca_embedding, {}
    if campaign.round:
        candidates = find_candidates(
            pca_embedding,
            known,
            campaigns.coverage_radius(campaign),
            expected_error=earlier.expected_error(
                campaign, surrogate_trajectory, pca_embedding.frame_id
            ),
            error_limit=earlier.error_limit(campaign),
        )
        pool = pca_embedding.among(pca_embedding.frame_id[candidates.rows])
        campaigns.record(campaign, covered_fraction=candidates.covered_fraction)
        refreshed = {
            "covered_fraction": candidates.covered_fraction,
            "n_frames_far_from_labels": candidates.n_far,
            "n_frames_uncertain": candidates.n_uncertain,
        }
    found = cluster_pool(
        pool,
        sampling.n_samples,
        n_clusters=sampling.n_clusters,
        clustering=sampling.clustering,
        weighting=sampling.weighting,
        presample_above=sampling.presample_above,
        n_labelled=0 if campaign.round else len(known),
        seed=campaign.random_seed,
    )
    sizes = found.sizes
    wanted = sampling.n_clusters or len(sizes)
    return dg.MaterializeResult(
        value=found,
        metadata={
            "picture": figures.markdown(figures.cluster_plot(pool, found)),
            "n_clusters": len(sizes),
            "n_known_frames": len(known),
            **refreshed,
            "clustering": sampling.clustering,
            "weighting": sampling.weighting,
            "largest_cluster": int(sizes.max()),
            "smallest_cluster": int(sizes.min()),
            "clusters": figures.cluster_table(found),
        },
        check_results=[
            check("no_empty_cluster", len(sizes) == wanted and sizes.min() > 0, wanted=wanted)
        ],
    )
