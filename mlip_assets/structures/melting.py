"""Melt and quench: a liquid held hot until it has forgotten its packing, then frozen to a glass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from mlip_assets.common.progress import Progress

_CHECK_EVERY = 20
_QUENCHED_K = 300.0
_FRICTION_PER_PS = 10.0


def melt_and_quench(
    packed: Atoms,
    calculator: Any,
    *,
    melt_temperature_K: float,
    melt_steps: int,
    quench_steps: int,
    timestep_fs: float,
    sound: Callable[[Atoms], bool],
    rng: np.random.Generator,
) -> tuple[Atoms, Atoms]:
    """Langevin dynamics at constant volume: hold at the melt's temperature, then cool linearly.

    Parameters
    ----------
    packed
        A disordered start, such as :func:`mlip_assets.structures.packing.pack_liquid` gives.
    calculator
        ASE calculator that moves the atoms.
    melt_temperature_K, melt_steps
        How hot, and for how many steps.
    quench_steps
        Steps in which it cools to 300 K.
    timestep_fs
        Time step, fs.
    sound
        Whether a configuration is physical; looked at every 20 steps.
    rng
        Draws velocities and the thermostat's noise.

    Returns
    -------
    tuple[Atoms, Atoms]
        The liquid at the end of the melt, and the glass at the end of the quench. Neither carries
        velocities.

    Raises
    ------
    FloatingPointError
        The model drove atoms onto each other or to infinity.
    """
    atoms: Atoms = packed.copy()
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature_K=melt_temperature_K, rng=rng)
    dynamics = Langevin(
        atoms,
        timestep=timestep_fs * units.fs,
        temperature_K=melt_temperature_K,
        friction=_FRICTION_PER_PS / (1000 * units.fs),
        rng=rng,
        fixcm=False,
    )
    progress = Progress("melt and quench", melt_steps + quench_steps, "steps")

    def run(n_steps: int, end_K: float) -> Atoms:
        for done in range(0, n_steps, _CHECK_EVERY):
            steps = min(_CHECK_EVERY, n_steps - done)
            reached = (done + steps) / n_steps
            dynamics.set_temperature(
                temperature_K=melt_temperature_K + reached * (end_K - melt_temperature_K)
            )
            dynamics.run(steps)
            progress.advance(steps)
            if not (np.isfinite(atoms.positions).all() and sound(atoms)):
                raise FloatingPointError(
                    f"{packed.get_chemical_formula()} fell together or apart {done + steps} steps "
                    f"into the {'melt' if end_K == melt_temperature_K else 'quench'}"
                )
        snapshot = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        snapshot.wrap()
        return snapshot

    return run(melt_steps, melt_temperature_K), run(quench_steps, _QUENCHED_K)
