"""Asset ``descriptor_matrix``: one SOAP vector a frame."""

import dagster as dg

from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.descriptors import DescriptorMatrix, describe_trajectory
from mlip_assets.dynamics import Trajectory
from mlip_assets.progress import Progress
from resources.campaigns import CampaignFolder


@pipeline_asset(
    group="selection",
    kinds={"numpy", "parquet"},
    io_manager="descriptors",
    code_version="1",
    checks=[("one_row_a_frame", "as many descriptors as frames")],
)
def descriptor_matrix(
    context: dg.AssetExecutionContext,
    surrogate_trajectory: Trajectory,
    campaigns: CampaignFolder,
    storage: Storage,
) -> dg.MaterializeResult[DescriptorMatrix]:
    """SOAP power spectra, averaged over the atoms of each frame."""
    campaign = campaigns.load(context.partition_key)
    matrix = describe_trajectory(
        surrogate_trajectory,
        campaign.descriptors,
        campaign.elements,
        storage.folder(context.partition_key) / "descriptor_matrix.parquet",
        progress=Progress("SOAP", surrogate_trajectory.n_frames, "frames"),
    )
    return dg.MaterializeResult(
        value=matrix,
        metadata={
            "n_frames": matrix.n_frames,
            "n_features": matrix.n_features,
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
