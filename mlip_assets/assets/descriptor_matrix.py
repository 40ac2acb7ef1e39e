"""Asset ``descriptor_matrix``: one SOAP vector a frame."""

import dagster as dg

from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import check, observed_progress, pipeline_asset
from mlip_assets.descriptors import DescriptorMatrix, describe_trajectory
from mlip_assets.trajectory import Trajectory
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource


@pipeline_asset(
    group="selection",
    kinds={"numba", "parquet"},
    io_manager="descriptors",
    code_version="2",
    checks=[("one_row_a_frame", "as many descriptors as frames")],
)
def descriptor_matrix(
    context: dg.AssetExecutionContext,
    surrogate_trajectory: Trajectory,
    campaigns: CampaignFolder,
    compute: ComputeResource,
    storage: Storage,
) -> dg.MaterializeResult[DescriptorMatrix]:
    """SOAP power spectra, averaged over the atoms of each frame.

    Written part by part, with an observation of the frames done, frames a second and seconds to go
    every ten seconds. A killed run resumes.
    """
    campaign = campaigns.current(context)
    if surrogate_trajectory.n_frames == 0:
        raise ValueError(
            f"the trajectory of campaign '{campaign.name}' has no frames, because guards stopped "
            "every walker at once; its metadata say which, see 'guards' in the campaign"
        )
    progress = observed_progress(context, "SOAP", surrogate_trajectory.n_frames, "frames")
    n_threads = compute.workers()
    matrix = describe_trajectory(
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
            "n_frames": matrix.n_frames,
            "n_frames_resumed": progress.already_done,
            "n_features": matrix.n_features,
            "frames_per_s": round(progress.report().rate_per_s, 1),
            "n_threads": n_threads,
            "settings": campaign.descriptors.model_dump(),
            "statistics": figures.descriptor_table(matrix),
            "picture": figures.markdown(figures.descriptor_plot(matrix)),
        },
        check_results=[
            check(
                "one_row_a_frame",
                matrix.n_frames == surrogate_trajectory.n_frames,
                descriptors=matrix.n_frames,
                frames=surrogate_trajectory.n_frames,
            )
        ],
    )
