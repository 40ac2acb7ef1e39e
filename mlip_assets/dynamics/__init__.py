"""Exploration by molecular dynamics: walkers, their guards, and the trajectory they write."""

from mlip_assets.dynamics.exploration import run_walkers
from mlip_assets.dynamics.guards import broken_guard, close_contact, unphysical_frames
from mlip_assets.dynamics.stability import try_dynamics
from mlip_assets.dynamics.trajectory import FRAME_SCHEMA, Part, Trajectory, WalkerReport
from mlip_assets.dynamics.walker import Walker, plan_walkers, run_walker

__all__ = [
    "FRAME_SCHEMA",
    "Part",
    "Trajectory",
    "Walker",
    "WalkerReport",
    "broken_guard",
    "close_contact",
    "plan_walkers",
    "run_walker",
    "run_walkers",
    "try_dynamics",
    "unphysical_frames",
]
