"""Asset ``selected_frames``: the few frames worth a DFT calculation."""

import dagster as dg
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.common.files import write_text
from mlip_assets.figures.map_page import map_page
from mlip_assets.refresh import known_distance, known_share_by_round
from mlip_assets.sampling import Clusters, Embedding, measure_coverage, select_frames
from mlip_assets.trajectory import Trajectory, round_of
from resources.campaigns import CampaignFolder
from resources.earlier import EarlierRuns


@pipeline_asset(
    group="selection",
    kinds={"ase", "xyz"},
    io_manager="structures",
    code_version="3",
    required_info=("frame_id", "cluster", "reason", "seed_kind"),
    checks=[
        ("exact_count", "exactly the number of distinct frames asked for"),
        ("every_cluster_represented", "DIRECT leaves no region of the map out"),
        (
            "better_than_random",
            "DIRECT leaves no frame as far from a selected one as random does (P99)",
        ),
    ],
)
def selected_frames(
    context: dg.AssetExecutionContext,
    surrogate_trajectory: Trajectory,
    pca_embedding: Embedding,
    clusters: Clusters,
    campaigns: CampaignFolder,
    earlier: EarlierRuns,
    storage: Storage,
) -> dg.MaterializeResult[list[Atoms]]:
    """Exactly ``n_samples`` frames: DIRECT, every cluster represented, or a baseline.

    Frames labelled in the campaigns of ``sampling.exclude_labelled_in`` count as selected already.
    A refresh chooses among the clustered frames alone, and fewer where these are fewer. Beside the frames
    lies a web page of the map; a click on it shows a structure.
    """
    campaign = campaigns.current(context)
    sampling = campaign.sampling
    labelled, known = earlier.labelled_on(campaign, pca_embedding.axes)
    pool = pca_embedding.among(clusters.frame_id)
    # of a refresh, the clusters hold what the labels leave out: none of them is served yet
    counted = known[:0] if campaign.round else known
    selection = select_frames(
        pool,
        clusters,
        sampling.n_samples,
        method=sampling.method,
        allocation=sampling.allocation,
        labelled=counted,
        duplicate_tolerance=sampling.duplicate_tolerance,
        n_atoms=_n_atoms(surrogate_trajectory, pool) if sampling.prefer_small_cells else None,
        expected_error=earlier.expected_error(campaign, surrogate_trajectory, pool.frame_id),
        fewer_will_do=campaign.round > 0,
        seed=campaign.random_seed,
    )
    frames = surrogate_trajectory.frames(clusters.frame_id[selection.indices])
    for atoms, row, reason in zip(frames, selection.indices, selection.reasons, strict=True):
        atoms.info.update(cluster=int(clusters.cluster[row]), reason=reason)

    page = storage.folder(context.partition_key) / "selected_frames.html"
    write_text(
        page,
        map_page(
            campaign.name,
            pool,
            clusters,
            frames,
            surrogate_trajectory.frames,
            seed=campaign.random_seed,
        ),
    )

    chosen = np.flatnonzero(np.isin(pca_embedding.frame_id, pool.frame_id[selection.indices]))
    coverage = measure_coverage(pca_embedding, chosen, labelled=known, seed=campaign.random_seed)
    reached = np.concatenate([known, pca_embedding.scores[chosen]])
    if campaign.round:
        within = campaigns.known_distance(campaign)
    else:
        within = known_distance(pca_embedding, reached)
        campaigns.record(campaign, known_distance=within)
    covered = known_share_by_round(
        pca_embedding,
        reached,
        [round_of(atoms.info["frame_id"]) for atoms in [*labelled, *frames]],
        within,
    )
    wanted = len(frames) if campaign.round else sampling.n_samples
    distinct = len({atoms.info["frame_id"] for atoms in frames})
    hit = {atoms.info["cluster"] for atoms in frames}
    known_cells = set(clusters.predict(counted).tolist())
    new_cells, n_clusters = len(hit - known_cells), len(clusters.centres)
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
            "clusters_hit": len(hit),
            "clusters_hit_share": len(hit) / n_clusters,
            "n_known_frames": len(known),
            "clusters_known": len(known_cells),
            "clusters_new": new_cells,
            "map_page": dg.MetadataValue.path(str(page)),
            "known_share_by_round": figures.table(
                {"labels_of_rounds_until": number, "known_share": share}
                for number, share in covered.items()
            ),
            "coverage_table": figures.coverage_table(coverage, sampling.method),
            "picks": figures.pick_table(frames),
            "picture": figures.markdown(
                figures.selection_map(pool, clusters, selection.indices, known)
            ),
        },
        check_results=[
            check("exact_count", distinct == wanted <= sampling.n_samples, distinct=distinct),
            check(
                "every_cluster_represented",
                is_baseline or new_cells == min(n_clusters - len(known_cells), len(frames)),
                hit=len(hit),
                known=len(known_cells),
                clusters=n_clusters,
            ),
            check(
                "better_than_random",
                is_baseline or coverage.selection.distance_p99 <= coverage.random_mean.distance_p99,
                distance_p99=coverage.selection.distance_p99,
                random=coverage.random_mean.distance_p99,
            ),
        ],
    )


def _n_atoms(trajectory: Trajectory, pool: Embedding) -> NDArray[np.int64]:
    """Atoms (n_frames,) in each frame of the pool."""
    batches = list(trajectory.iter_batches(["frame_id", "numbers"]))
    ids = np.concatenate([batch["frame_id"].to_numpy() for batch in batches])
    n_atoms = np.concatenate([batch["numbers"].value_lengths().to_numpy() for batch in batches])
    return n_atoms[np.isin(ids, pool.frame_id)]
