"""Asset ``selected_frames``: the few frames for which DFT labels are computed."""

from collections.abc import Sequence

import dagster as dg
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import check, download, pipeline_asset
from mlip_assets.campaign import Campaign
from mlip_assets.common.files import write_text
from mlip_assets.figures.map_page import map_page
from mlip_assets.refresh import coverage_radius, covered_fraction_by_round
from mlip_assets.sampling import (
    Clusters,
    CoverageReport,
    Embedding,
    Selection,
    measure_coverage,
    select_frames,
)
from mlip_assets.trajectory import Trajectory, round_of
from resources.campaigns import CampaignFolder
from resources.earlier import EarlierResults


@pipeline_asset(
    group="selection",
    kinds={"ase", "xyz"},
    io_manager="structures",
    code_version="3",
    required_info=("frame_id", "cluster", "reason", "seed_kind"),
    blocking_checks=[("exact_count", "exactly the number of distinct frames in the campaign")],
    checks=[
        ("every_cluster_represented", "DIRECT selects from every cluster without a label"),
        (
            "better_than_random",
            "P99 distance to the nearest selected frame is at most that of random selections",
        ),
    ],
)
def selected_frames(
    context: dg.AssetExecutionContext,
    surrogate_trajectory: Trajectory,
    pca_embedding: Embedding,
    clusters: Clusters,
    campaigns: CampaignFolder,
    earlier: EarlierResults,
    storage: Storage,
) -> dg.MaterializeResult[list[Atoms]]:
    """Exactly `n_samples` frames, from every cluster by DIRECT, or by a baseline method.

    Frames labelled in the campaigns of `sampling.exclude_labelled_in` count as selected. A refresh
    selects among the clustered candidates only, and fewer frames if there are fewer candidates.
    The map page shows the embedding; a click on a point shows the structure.

    - `surrogate_trajectory`: structures of the frames
    - `pca_embedding`: positions of the frames in descriptor space
    - `clusters`: strata of the selection
    """
    campaign = campaigns.begin_or_resume_round(context)
    labelled, known = earlier.labelled_with_scores(campaign, pca_embedding.pca)
    pool = pca_embedding.among(clusters.frame_id)
    # in a refresh the clusters hold only frames far from the labels: none counts as selected
    counted = known[:0] if campaign.round else known
    selection = _select(campaign, surrogate_trajectory, pool, clusters, counted, earlier)
    frames = surrogate_trajectory.frames(clusters.frame_id[selection.indices])
    for atoms, row, reason in zip(frames, selection.indices, selection.reasons, strict=True):
        atoms.info.update(cluster=int(clusters.cluster[row]), reason=reason)

    page = map_page(
        campaign.name,
        pool,
        clusters,
        frames,
        surrogate_trajectory.frames,
        seed=campaign.random_seed,
    )
    page_file = storage.folder(context.partition_key) / "selected_frames.html"
    write_text(page_file, page)

    chosen = np.flatnonzero(np.isin(pca_embedding.frame_id, pool.frame_id[selection.indices]))
    coverage = measure_coverage(pca_embedding, chosen, labelled=known, seed=campaign.random_seed)
    reached = np.concatenate([known, pca_embedding.scores[chosen]])
    if campaign.round:
        radius = campaigns.coverage_radius(campaign)
    else:
        radius = coverage_radius(pca_embedding, reached)
        campaigns.record(campaign, coverage_radius=radius)
    covered = covered_fraction_by_round(
        pca_embedding,
        reached,
        [round_of(atoms.info["frame_id"]) for atoms in [*labelled, *frames]],
        radius,
    )
    hit = {atoms.info["cluster"] for atoms in frames}
    known_cells = set(clusters.predict(counted).tolist())
    plot = figures.selection_map(pool, clusters, selection.indices, known)
    return dg.MaterializeResult(
        value=frames,
        metadata={
            "picture": figures.markdown(plot),
            **download(context, "map_page", page),
            "map_page": dg.MetadataValue.path(str(page_file)),
            "n_selected": len(frames),
            "n_frames": surrogate_trajectory.n_frames,
            "method": campaign.sampling.method,
            **_coverage_numbers(coverage),
            "clusters_hit": len(hit),
            "clusters_hit_share": len(hit) / len(clusters.centres),
            "n_known_frames": len(known),
            "clusters_known": len(known_cells),
            "clusters_new": len(hit - known_cells),
            "covered_fraction_by_round": figures.table(
                {"labels_of_rounds_until": number, "covered_fraction": fraction}
                for number, fraction in covered.items()
            ),
            "coverage_table": figures.coverage_table(coverage, campaign.sampling.method),
            "picks": figures.pick_table(frames),
        },
        check_results=_checks(campaign, frames, hit, known_cells, len(clusters.centres), coverage),
    )


def _select(
    campaign: Campaign,
    trajectory: Trajectory,
    pool: Embedding,
    clusters: Clusters,
    counted: NDArray[np.float64],
    earlier: EarlierResults,
) -> Selection:
    sampling = campaign.sampling
    return select_frames(
        pool,
        clusters,
        sampling.n_samples,
        method=sampling.method,
        allocation=sampling.allocation,
        labelled=counted,
        duplicate_tolerance=sampling.duplicate_tolerance,
        n_atoms=_n_atoms(trajectory, pool) if sampling.prefer_small_cells else None,
        expected_error=earlier.expected_error(campaign, trajectory, pool.frame_id),
        allow_fewer=campaign.round > 0,
        seed=campaign.random_seed,
    )


def _coverage_numbers(report: CoverageReport) -> dict[str, float]:
    return {
        "coverage": report.selection.score,
        "coverage_random_mean": report.random_mean.score,
        "coverage_random_sd": report.random_sd.score,
        "coverage_uniform_stride": report.uniform_stride.score,
        "distance_p50": report.selection.distance_p50,
        "distance_p99": report.selection.distance_p99,
        "distance_p99_random_mean": report.random_mean.distance_p99,
    }


def _checks(
    campaign: Campaign,
    frames: Sequence[Atoms],
    hit: set[int],
    known_cells: set[int],
    n_clusters: int,
    coverage: CoverageReport,
) -> list[dg.AssetCheckResult]:
    wanted = len(frames) if campaign.round else campaign.sampling.n_samples
    distinct = len({atoms.info["frame_id"] for atoms in frames})
    is_baseline = campaign.sampling.method != "direct"
    n_reachable = min(n_clusters - len(known_cells), len(frames))
    p99, random_p99 = coverage.selection.distance_p99, coverage.random_mean.distance_p99
    return [
        check(
            "exact_count",
            distinct == wanted <= campaign.sampling.n_samples,
            distinct=distinct,
            wanted=wanted,
        ),
        check(
            "every_cluster_represented",
            is_baseline or len(hit - known_cells) == n_reachable,
            hit=len(hit),
            known=len(known_cells),
            clusters=n_clusters,
        ),
        check(
            "better_than_random",
            is_baseline or p99 <= random_p99,
            distance_p99=p99,
            random=random_p99,
        ),
    ]


def _n_atoms(trajectory: Trajectory, pool: Embedding) -> NDArray[np.int64]:
    """Atoms (n_frames,) in each frame of the pool."""
    batches = list(trajectory.iter_batches(["frame_id", "numbers"]))
    ids = np.concatenate([batch["frame_id"].to_numpy() for batch in batches])
    n_atoms = np.concatenate([batch["numbers"].value_lengths().to_numpy() for batch in batches])
    return n_atoms[np.isin(ids, pool.frame_id)]
