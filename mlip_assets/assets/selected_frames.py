"""Asset ``selected_frames``: the few frames worth a DFT calculation."""

import dagster as dg
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.dynamics import Trajectory
from mlip_assets.sampling import Clusters, Embedding, measure_coverage, select_frames
from resources.campaigns import CampaignFolder


@pipeline_asset(
    group="selection",
    kinds={"ase", "xyz"},
    io_manager="structures",
    code_version="2",
    required_info=("frame_id", "cluster", "reason", "seed_kind"),
    checks=[
        ("exact_count", "exactly the number of distinct frames asked for"),
        ("every_cluster_represented", "DIRECT leaves no region of the map out"),
        ("better_than_random", "DIRECT covers more of the map than random selections of its size"),
    ],
)
def selected_frames(
    context: dg.AssetExecutionContext,
    surrogate_trajectory: Trajectory,
    pca_embedding: Embedding,
    clusters: Clusters,
    campaigns: CampaignFolder,
) -> dg.MaterializeResult[list[Atoms]]:
    """Exactly ``n_samples`` frames: DIRECT, every cluster represented, or a baseline."""
    campaign = campaigns.load(context.partition_key)
    sampling = campaign.sampling
    selection = select_frames(
        pca_embedding,
        clusters,
        sampling.n_samples,
        method=sampling.method,
        allocation=sampling.allocation,
        duplicate_tolerance=sampling.duplicate_tolerance,
        n_atoms=_n_atoms(surrogate_trajectory) if sampling.prefer_small_cells else None,
        seed=campaign.seed,
    )
    frames = surrogate_trajectory.frames(clusters.frame_id[selection.indices])
    for atoms, row, reason in zip(frames, selection.indices, selection.reasons, strict=True):
        atoms.info.update(cluster=int(clusters.cluster[row]), reason=reason)

    coverage = measure_coverage(pca_embedding, selection.indices, seed=campaign.seed)
    distinct = len({atoms.info["frame_id"] for atoms in frames})
    hit, n_clusters = len({a.info["cluster"] for a in frames}), len(clusters.centres)
    is_baseline = sampling.method != "direct"
    return dg.MaterializeResult(
        value=frames,
        metadata={
            "n_selected": len(frames),
            "n_frames": surrogate_trajectory.n_frames,
            "method": sampling.method,
            "coverage": coverage.selection.score,
            "coverage_random_mean": coverage.random_mean.score,
            "coverage_random_sd": coverage.random_sd.score,
            "coverage_uniform_stride": coverage.uniform_stride.score,
            "distance_p50": coverage.selection.distance_p50,
            "distance_p99": coverage.selection.distance_p99,
            "distance_p99_random_mean": coverage.random_mean.distance_p99,
            "clusters_hit": hit,
            "clusters_hit_share": hit / n_clusters,
            "coverage_table": figures.coverage_table(coverage, sampling.method),
            "picks": figures.pick_table(frames),
            "picture": figures.markdown(
                figures.selection_map(pca_embedding, clusters, selection.indices)
            ),
        },
        check_results=[
            check("exact_count", distinct == sampling.n_samples, distinct=distinct),
            check(
                "every_cluster_represented",
                is_baseline or hit == n_clusters,
                hit=hit,
                clusters=n_clusters,
            ),
            check(
                "better_than_random",
                is_baseline or coverage.selection.score >= coverage.random_mean.score,
                coverage=coverage.selection.score,
                random=coverage.random_mean.score,
            ),
        ],
    )


def _n_atoms(trajectory: Trajectory) -> NDArray[np.int64]:
    """Atoms (n_frames,) in each frame, in frame order."""
    batches = trajectory.iter_batches(["numbers"])
    return np.concatenate([batch["numbers"].value_lengths().to_numpy() for batch in batches])
