"""Asset ``selected_frames``: the few frames worth a DFT calculation."""

import dagster as dg
from ase import Atoms

from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.dynamics import Trajectory
from mlip_assets.sampling import Clusters, Embedding, coverage_against_random, select_stratified
from resources.campaigns import CampaignFolder


@pipeline_asset(
    group="selection",
    kinds={"ase", "xyz"},
    io_manager="structures",
    code_version="1",
    required_info=("frame_id", "cluster", "reason", "seed_kind"),
    checks=[
        ("exact_count", "exactly the number of distinct frames asked for"),
        ("every_cluster_represented", "no region of the map is left out"),
        ("better_than_random", "the selection covers more of the map than random ones of its size"),
    ],
)
def selected_frames(
    context: dg.AssetExecutionContext,
    surrogate_trajectory: Trajectory,
    pca_embedding: Embedding,
    clusters: Clusters,
    campaigns: CampaignFolder,
) -> dg.MaterializeResult[list[Atoms]]:
    """DIRECT selection: exactly ``n_samples`` frames, every cluster represented."""
    campaign = campaigns.load(context.partition_key)
    selection = select_stratified(clusters, campaign.sampling.n_samples)
    frames = surrogate_trajectory.frames(clusters.frame_id[selection.indices])
    for atoms, row, reason in zip(frames, selection.indices, selection.reasons, strict=True):
        atoms.info.update(cluster=int(clusters.cluster[row]), reason=reason)

    coverage = coverage_against_random(pca_embedding.scores, selection.indices, seed=campaign.seed)
    distinct = len({atoms.info["frame_id"] for atoms in frames})
    hit, n_clusters = len({a.info["cluster"] for a in frames}), int(clusters.cluster.max()) + 1
    return dg.MaterializeResult(
        value=frames,
        metadata={
            "n_selected": len(frames),
            "n_frames": surrogate_trajectory.n_frames,
            "coverage": coverage.selection,
            "coverage_random_mean": coverage.random_mean,
            "coverage_random_sd": coverage.random_sd,
            "clusters_hit": hit,
            "picks": figures.pick_table(frames),
            "picture": figures.markdown(
                figures.selection_map(pca_embedding, clusters, selection.indices)
            ),
        },
        check_results=[
            check("exact_count", distinct == campaign.sampling.n_samples, distinct=distinct),
            check("every_cluster_represented", hit == n_clusters, hit=hit, clusters=n_clusters),
            check(
                "better_than_random",
                coverage.selection >= coverage.random_mean,
                coverage=coverage.selection,
                random=coverage.random_mean,
            ),
        ],
    )
