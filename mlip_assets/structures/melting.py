"""Melt and quench: a liquid equilibrated at high temperature, then cooled to a glass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from mlip_assets.common.progress import Progress

_CHECK_EVERY = 20
_QUENCH_END_K = 300.0
_FRICTION_PER_PS = 10.0


def melt_and_quench(
    packed: Atoms,
    calculator: Any,
    *,
    melt_temperature_K: float,
    melt_steps: int,
    quench_steps: int,
    timestep_fs: float,
    is_physical: Callable[[Atoms], bool],
    rng: np.random.Generator,
) -> tuple[Atoms, Atoms]:
    """Langevin dynamics at constant volume: constant temperature of the melt, then linear cooling.

    Parameters
    ----------
    packed
        A disordered structure, such as from :func:`mlip_assets.structures.packing.pack_liquid`.
    calculator
        ASE calculator that moves the atoms.
    melt_temperature_K, melt_steps
        Temperature of the melt, and number of steps at it.
    quench_steps
        Number of steps of cooling to 300 K.
    timestep_fs
        Time step, fs.
    is_physical
        Whether a configuration is physical; evaluated every 20 steps.
    rng
        Draws the initial velocities and the random forces of the thermostat.

    Returns
    -------
    tuple[Atoms, Atoms]
        The liquid at the end of the melt, and the glass at the end of the quench, both without
        velocities.

    Raises
    ------
    FloatingPointError
        A configuration is not physical, or a position is not finite.
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
            if not (np.isfinite(atoms.positions).all() and is_physical(atoms)):
                raise FloatingPointError(
                    f"{packed.get_chemical_formula()} is unphysical after {done + steps} steps "
                    f"of the {'melt' if end_K == melt_temperature_K else 'quench'}"
                )
        snapshot = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        snapshot.wrap()
        return snapshot

    return run(melt_steps, melt_temperature_K), run(quench_steps, _QUENCH_END_K)
