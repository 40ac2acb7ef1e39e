"""Asset ``surrogate_trajectory``: molecular dynamics of every seed with the surrogate."""

import dagster as dg
from ase import Atoms

from io_managers.storage import Storage
from mlip_assets import figures
from mlip_assets.assets.contract import check, observed_progress, pipeline_asset
from mlip_assets.compute.devices import GpuWatch
from mlip_assets.dynamics import Exploration, counts_by_reason, n_steps, unphysical_frames
from mlip_assets.trajectory import Trajectory
from resources.campaigns import CampaignFolder
from resources.compute import ComputeResource
from resources.surrogate import SurrogateResource


@pipeline_asset(
    group="exploration",
    kinds={"pytorch", "mace", "parquet"},
    io_manager="trajectory",
    code_version="2",
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
    surrogate: SurrogateResource,
    compute: ComputeResource,
    storage: Storage,
) -> dg.MaterializeResult[Trajectory]:
    """Langevin dynamics of every seed × temperature × pressure × replica with a surrogate.

    Frames are written as they are made, with an observation of the steps done and the time to go
    every ten seconds. A walker that breaks a guard (NaN, a force, temperature,
    volume or energy out of bounds, atoms too near or gone) goes on from its last good frame, slower
    and colder, a few times, then stops and keeps its good part. A killed run resumes.
    """
    campaign = campaigns.current(context)
    potential = surrogate.resolve(campaign)
    exploration = Exploration.plan(campaign, seeds, potential)
    with GpuWatch(potential.devices) as gpu:
        trajectory = exploration.run(
            str(storage.working_folder(context.partition_key, "surrogate_trajectory")),
            compute.workers(potential.devices),
            progress=observed_progress(
                context, "exploration", n_steps(exploration.walkers), "steps"
            ),
        )

    stopped = [walker for walker in trajectory.walkers if walker.stopped_by]
    broken = counts_by_reason(event for walker in trajectory.walkers for event in walker.events)
    atom_steps = sum(walker.n_steps * walker.n_atoms for walker in trajectory.walkers)
    walkers_s = sum(walker.wall_s for walker in trajectory.walkers)
    unphysical = unphysical_frames(trajectory, campaign.guards)
    return dg.MaterializeResult(
        value=trajectory,
        metadata={
            "n_frames": trajectory.n_frames,
            "n_walkers": len(exploration.walkers),
            "n_walkers_stopped": len(stopped),
            "n_guards_broken": sum(broken.values()),
            "guards_broken": dg.MetadataValue.json(broken),
            "simulated_ps": _simulated_ps(trajectory),
            "steps_per_s_per_worker": sum(w.n_steps for w in trajectory.walkers) / walkers_s,
            "atom_steps_per_s_per_worker": atom_steps / walkers_s,
            "walkers": figures.walker_table(trajectory),
            "guard_events": figures.guard_table(trajectory),
            "picture": figures.markdown(figures.trajectory_plot(trajectory)),
            "radial_distribution": figures.markdown(figures.rdf_plot(trajectory, seeds)),
            "engine": exploration.md_backend,
            **potential.metadata(),
            **gpu.summary(),
        },
        check_results=[
            check(
                "frames_physical", not unphysical, unphysical=dict(list(unphysical.items())[:10])
            ),
            check(
                "walkers_finished",
                2 * len(stopped) <= len(exploration.walkers),
                stopped={walker.name: walker.stopped_by for walker in stopped},
                guards_broken=broken,
            ),
        ],
    )


def _simulated_ps(trajectory: Trajectory) -> float:
    """Time of the last stored frame of every walker, summed: a retry shortens the step."""
    scalars = trajectory.scalars()
    last = scalars.group_by("walker").aggregate([("time_fs", "max")])["time_fs_max"]
    return float(sum(last.to_pylist())) / 1000
