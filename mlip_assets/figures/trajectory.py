"""What the walkers did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from mlip_assets.figures.canvas import canvas, png, table

if TYPE_CHECKING:
    from ase import Atoms

    from mlip_assets.trajectory import Trajectory

#: Points of all the curves in one panel together.
CURVE_POINTS = 50_000
#: Frames a radial distribution is averaged over.
RDF_FRAMES = 60


def walker_table(trajectory: Trajectory) -> dg.MetadataValue:
    """How every walker ended, and how fast it was."""
    return table(
        {
            "walker": walker.name,
            "conditions": walker.conditions,
            "atoms": walker.n_atoms,
            "steps": walker.n_steps,
            "frames": walker.n_frames,
            "steps_per_s": walker.steps_per_s,
            "retries": sum(event.resumed_from_step is not None for event in walker.events),
            "stopped_by": walker.stopped_by or "",
        }
        for walker in trajectory.walkers
    )


def guard_table(trajectory: Trajectory) -> dg.MetadataValue:
    """Every guard that was broken, and what came of it."""
    return table(
        {
            "walker": walker.name,
            "step": event.step,
            "time_fs": event.time_fs,
            "guard": event.reason,
            "detail": event.detail,
            "target_temperature_K": event.target_temperature_K,
            "timestep_fs": event.timestep_fs,
            "then": "stopped"
            if event.resumed_from_step is None
            else f"retried from step {event.resumed_from_step}",
        }
        for walker in trajectory.walkers
        for event in walker.events
    )


def trajectory_plot(trajectory: Trajectory) -> bytes:
    """Temperature, energy and pressure of every walker against time; dotted, what was aimed at.

    Below them, of a committee, the largest spread of a force.
    """
    from mlip_assets.trajectory import FRAME_ID_STRIDE

    scalars = trajectory.scalars()
    every = max(1, trajectory.n_frames // CURVE_POINTS)
    columns = {
        name: scalars[name].to_numpy()
        for name in scalars.column_names
        if name not in ("walker", "step")
    }
    walker = columns["frame_id"] // FRAME_ID_STRIDE
    colours = _colours(trajectory)
    target_of = {report.number: report.target_temperature_K for report in trajectory.walkers}
    spread = columns["force_spread_eV_per_A"]
    has_spread = bool(np.isfinite(spread).any())
    figure, (upper, middle, lower, *lowest) = canvas(3 + has_spread, 1, 8, 2.2)
    for rows in np.split(np.arange(len(walker)), np.flatnonzero(np.diff(walker)) + 1):
        if len(rows) == 0:
            continue
        picked = rows[::every]
        time_ps = columns["time_fs"][picked] / 1000
        style = {"color": colours[target_of[walker[rows[0]]]], "lw": 0.7}
        upper.plot(time_ps, columns["temperature_K"][picked], alpha=0.7, **style)
        upper.plot(time_ps, columns["target_temperature_K"][picked], ls=":", **style)
        energy = columns["energy_eV"][picked] - columns["energy_eV"][rows[0]]
        middle.plot(time_ps, energy, alpha=0.7, **style)
        lower.plot(time_ps, columns["pressure_GPa"][picked], alpha=0.7, **style)
        for axis in lowest:
            axis.plot(time_ps, spread[picked], alpha=0.7, **style)
    upper.set_ylabel("temperature / K")
    middle.set_ylabel("energy change / eV")
    lower.set_ylabel("pressure / GPa")
    for axis in lowest:
        axis.set_ylabel("force spread / eV/Å")
    (lowest or [lower])[-1].set_xlabel("time / ps")
    return png(figure)


def rdf_plot(trajectory: Trajectory, seeds: Sequence[Atoms]) -> bytes:
    """Radial distribution of the frames of every seed, by final temperature, over the seed's own."""
    from mlip_assets.trajectory import FRAME_ID_STRIDE
    from mlip_assets.trajectory.radial_distribution import radial_distribution

    shown = list(seeds[:12])
    columns = min(len(shown), 3)
    figure, axes = canvas(-(-len(shown) // columns), columns, 3.4, 2.4)
    frame_id = trajectory.scalars()["frame_id"].to_numpy()
    for axis, seed in zip(axes, shown, strict=False):
        highest = 0.0
        for target, colour in _colours(trajectory).items():
            numbers = [
                walker.number
                for walker in trajectory.walkers
                if walker.seed_name == seed.info["seed_name"]
                and walker.target_temperature_K == target
            ]
            own = frame_id[np.isin(frame_id // FRAME_ID_STRIDE, numbers)]
            if len(own) == 0:
                continue
            picked = own[:: max(1, len(own) // RDF_FRAMES)]
            r, g = radial_distribution(trajectory.iter_frames(picked))
            axis.plot(r, g, colour, lw=1, label=f"{target:g} K")
            highest = max(highest, g.max())
        r, g = radial_distribution([seed])
        axis.fill_between(r, g, color="0.85", lw=0, step="mid", label="seed")
        axis.set(title=seed.info["seed_name"], xlabel="distance / Å")
        axis.set_ylim(0, 1.2 * highest or None)
        axis.legend(fontsize=6)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    return png(figure)


def _colours(trajectory: Trajectory) -> dict[float, str]:
    """A colour for every temperature that walkers end at."""
    targets = sorted({walker.target_temperature_K for walker in trajectory.walkers})
    return {target: f"C{i % 10}" for i, target in enumerate(targets)}
