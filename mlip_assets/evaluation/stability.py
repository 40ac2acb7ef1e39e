"""Stability: whether a potential carries a structure through molecular dynamics."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip_assets.campaign import ExplorationSettings, GuardSettings
from mlip_assets.common.progress import Progress
from mlip_assets.dynamics.conditions import Conditions
from mlip_assets.dynamics.exploration import run_walker
from mlip_assets.dynamics.walker import Walker
from mlip_assets.trajectory.trajectory import WalkerReport


def try_dynamics(
    atoms: Atoms,
    calculator: Calculator,
    *,
    temperature_K: float = 300.0,
    n_steps: int = 1000,
    timestep_fs: float = 1.0,
    seed: int = 0,
) -> WalkerReport:
    """Run Langevin dynamics under the guards of exploration and report how it ended.

    ``stopped_by`` is None when every step was made.
    """
    settings = ExplorationSettings(
        temperatures_K=(temperature_K,),
        n_steps=n_steps,
        sample_every=n_steps,
        timestep_fs=timestep_fs,
    )
    start = atoms.copy()
    start.info = {"seed_name": "stability", "seed_kind": "stability"}
    walker = Walker(
        number=0,
        name="stability",
        seed=start,
        conditions=Conditions.constant(temperature_K),
        replica=0,
        random_seed=(seed,),
        settings=settings,
        guards=GuardSettings(retries=0),
        surrogate_sha256="",
    )
    with tempfile.TemporaryDirectory() as folder:
        progress = Progress("stability", n_steps, "steps")
        report, _ = run_walker(walker, calculator, Path(folder), on_steps=progress.advance)
    return report
