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
    kinds={"pytorch", "parquet"},
    io_manager="trajectory",
    code_version="2",
    pool="gpu",
    blocking_checks=[
        ("frames_physical", "a sample of the stored frames is finite and without close contacts")
    ],
    checks=[("walkers_finished", "at least half of the walkers completed their last step")],
)
def surrogate_trajectory(
    context: dg.AssetExecutionContext,
    seeds: list[Atoms],
    campaigns: CampaignFolder,
    surrogate: SurrogateResource,
    compute: ComputeResource,
    storage: Storage,
) -> dg.MaterializeResult[Trajectory]:
    """Molecular dynamics with the surrogate: one walker per seed, temperature, pressure and replica.

    A guard stops a walker at an unphysical configuration: NaN, atoms too close or lost, or a force,
    temperature, volume or energy out of bounds. The walker resumes from its last valid frame with
    a shorter time step and a lower temperature, a few times; then it ends, and its valid frames
    are kept. An interrupted run is resumed. The steps done are reported every ten seconds.

    - `seeds`: initial structures of the walkers
    """
    campaign = campaigns.begin_or_resume_round(context)
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
            "picture": figures.markdown(figures.trajectory_plot(trajectory)),
            "radial_distribution": figures.markdown(figures.rdf_plot(trajectory, seeds)),
            "n_frames": trajectory.n_frames,
            "n_walkers": len(exploration.walkers),
            "n_walkers_stopped": len(stopped),
            "n_guards_broken": sum(broken.values()),
            "guards_broken": broken,
            "simulated_ps": _simulated_ps(trajectory),
            "steps_per_s_per_worker": sum(w.n_steps for w in trajectory.walkers) / walkers_s,
            "atom_steps_per_s_per_worker": atom_steps / walkers_s,
            "md_backend": exploration.md_backend,
            **potential.metadata(),
            **gpu.summary(),
            "walkers": figures.walker_table(trajectory),
            "guard_events": figures.guard_table(trajectory),
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
    """Sum of the times of the last stored frames; not steps × time step, which a retry shortens."""
    scalars = trajectory.scalars()
    last = scalars.group_by("walker").aggregate([("time_fs", "max")])["time_fs_max"]
    return float(sum(last.to_pylist())) / 1000
