"""Asset ``descriptor_matrix``: one SOAP vector per frame."""

import dagster as dg

from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import check, observed_progress, pipeline_asset
from mlip_assets.descriptors import DescriptorMatrix, compute_descriptors
from mlip_assets.trajectory import Trajectory
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource


@pipeline_asset(
    group="selection",
    kinds={"numba", "parquet"},
    io_manager="descriptors",
    code_version="2",
    blocking_checks=[("one_row_per_frame", "the matrix has one row for each frame")],
)
def descriptor_matrix(
    context: dg.AssetExecutionContext,
    surrogate_trajectory: Trajectory,
    campaigns: CampaignFolder,
    compute: ComputeResource,
    storage: Storage,
) -> dg.MaterializeResult[DescriptorMatrix]:
    """SOAP power spectra, averaged over the atoms of each frame.

    The matrix is written in parts, and the frames done are reported every ten seconds. An
    interrupted run is resumed.

    - `surrogate_trajectory`: frames to describe
    """
    campaign = campaigns.begin_or_resume_round(context)
    if surrogate_trajectory.n_frames == 0:
        raise ValueError(
            f"the trajectory of campaign '{campaign.name}' has no frames, because guards stopped "
            "every walker at its first step; its metadata list them, see 'guards' in the campaign"
        )
    progress = observed_progress(context, "SOAP", surrogate_trajectory.n_frames, "frames")
    n_threads = compute.workers()
    matrix = compute_descriptors(
        surrogate_trajectory,
        campaign.descriptors,
        campaign.elements,
        storage.folder(context.partition_key) / "descriptor_matrix",
        progress=progress,
        n_threads=n_threads,
    )
    return dg.MaterializeResult(
        value=matrix,
        metadata={
            "picture": figures.markdown(figures.descriptor_plot(matrix)),
            "n_frames": matrix.n_frames,
            "n_frames_resumed": progress.already_done,
            "n_features": matrix.n_features,
            "frames_per_s": progress.report().rate_per_s,
            "n_threads": n_threads,
            "settings": dg.MetadataValue.json(campaign.descriptors.model_dump()),
            "statistics": figures.descriptor_table(matrix),
        },
        check_results=[
            check(
                "one_row_per_frame",
                matrix.n_frames == surrogate_trajectory.n_frames,
                descriptors=matrix.n_frames,
                frames=surrogate_trajectory.n_frames,
            )
        ],
    )
