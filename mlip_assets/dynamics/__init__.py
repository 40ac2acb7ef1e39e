"""Exploration by molecular dynamics: walkers, their guards, and the trajectory they write."""

from mlip_assets.dynamics.conditions import Conditions
from mlip_assets.dynamics.evaluation import BatchCalculator, Evaluation, force_spread
from mlip_assets.dynamics.exploration import n_steps, run_walker, run_walkers
from mlip_assets.dynamics.guards import Guards, close_contact, counts_by_reason, unphysical_frames
from mlip_assets.dynamics.stability import try_dynamics
from mlip_assets.dynamics.trajectory import (
    FRAME_SCHEMA,
    GuardEvent,
    Part,
    Trajectory,
    WalkerReport,
)
from mlip_assets.dynamics.walker import Walker, plan_walkers

__all__ = [
    "FRAME_SCHEMA",
    "BatchCalculator",
    "Conditions",
    "Evaluation",
    "GuardEvent",
    "Guards",
    "Part",
    "Trajectory",
    "Walker",
    "WalkerReport",
    "close_contact",
    "counts_by_reason",
    "force_spread",
    "n_steps",
    "plan_walkers",
    "run_walker",
    "run_walkers",
    "try_dynamics",
    "unphysical_frames",
]
