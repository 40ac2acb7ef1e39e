"""Asset ``surrogate_trajectory``: molecular dynamics of every seed with the surrogate."""

from pathlib import Path

import dagster as dg
from ase import Atoms

from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import check, pipeline_asset
from mlip_assets.dynamics import Trajectory, plan_walkers, run_walkers, unphysical_frames
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource
from resources.mace import MaceResource


@pipeline_asset(
    group="exploration",
    kinds={"pytorch", "mace", "parquet"},
    io_manager="trajectory",
    code_version="1",
    pool="gpu",
    checks=[
        ("frames_physical", "a sample of the stored frames is finite and without close contacts"),
        ("walkers_finished", "at least half of the walkers ran to their last step"),
    ],
)
def surrogate_trajectory(
    context: dg.AssetExecutionContext,
    seeds: list[Atoms],
    campaigns: CampaignFolder,
    mace: MaceResource,
    compute: ComputeResource,
    storage: Storage,
) -> dg.MaterializeResult[Trajectory]:
    """Langevin dynamics of every seed × temperature × replica with a MACE surrogate.

    Frames are written as they are made. A walker that meets NaN, an exploding temperature or
    force, or overlapping atoms stops and keeps its good part. A killed run resumes.
    """
    campaign = campaigns.load(context.partition_key)
    surrogate = mace.surrogate(campaign)
    walkers = plan_walkers(campaign, seeds, surrogate.sha256)
    trajectory = run_walkers(
        walkers,
        surrogate.calculator,
        Path(str(storage.working_folder(context.partition_key, "surrogate_trajectory"))),
        n_workers=compute.workers(surrogate.device),
    )

    stopped = [walker for walker in trajectory.walkers if walker.stopped_by]
    unphysical = unphysical_frames(trajectory, campaign.guards)
    return dg.MaterializeResult(
        value=trajectory,
        metadata={
            "n_frames": trajectory.n_frames,
            "n_walkers": len(walkers),
            "n_walkers_stopped": len(stopped),
            "simulated_ps": sum(w.n_steps for w in trajectory.walkers)
            * campaign.exploration.timestep_fs
            / 1000,
            "walkers": figures.walker_table(trajectory),
            "picture": figures.markdown(figures.trajectory_plot(trajectory)),
            **surrogate.metadata(),
        },
        check_results=[
            check(
                "frames_physical", not unphysical, unphysical=dict(list(unphysical.items())[:10])
            ),
            check(
                "walkers_finished",
                2 * len(stopped) <= len(walkers),
                stopped={walker.name: walker.stopped_by for walker in stopped},
            ),
        ],
    )
