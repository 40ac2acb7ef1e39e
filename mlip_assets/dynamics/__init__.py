"""Exploration by molecular dynamics: walkers, guards and checkpoints."""

from __future__ import annotations

from mlip_assets.dynamics.conditions import Conditions
from mlip_assets.dynamics.exploration import n_steps, run_walker, run_walkers
from mlip_assets.dynamics.explore import Exploration, explore
from mlip_assets.dynamics.guards import Guards, close_contact, counts_by_reason, unphysical_frames
from mlip_assets.dynamics.walker import Walker, plan_walkers

__all__ = [
    "Conditions",
    "Exploration",
    "Guards",
    "Walker",
    "close_contact",
    "counts_by_reason",
    "explore",
    "n_steps",
    "plan_walkers",
    "run_walker",
    "run_walkers",
    "unphysical_frames",
]
