"""Short molecular dynamics: whether a potential lasts, keeps its energy and moves like another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from mlip_assets.evaluation.stability import try_dynamics
from mlip_assets.trajectory.radial_distribution import radial_distribution

#: The energy is looked at, and a frame kept for the distribution, every so many steps.
EVERY = 5
#: Smaller crystals are repeated: two atoms have no temperature.
FEWEST_ATOMS = 8
MAX_REACH_A = 6.0
#: Measured on silicon at 1 and 2 fs and on copper: 0.003 to 0.02, in float32 as in float64.
MAX_DRIFT_MEV_PER_ATOM_PER_PS = 1.0


@dataclass(frozen=True)
class Trial:
    """What came of one temperature."""

    temperature_K: float
    n_steps: int
    """Made under the thermostat and the guards of exploration."""
    stopped_by: str | None
    """The guard that was broken; None when every step was made."""
    drift_meV_per_atom_per_ps: float | None
    """Slope of the total energy without a thermostat; None where the dynamics did not last."""
    mean_temperature_K: float | None
    """Without a thermostat."""
    distances_A: tuple[float, ...]
    distribution: tuple[float, ...]
    """Radial distribution without a thermostat; empty where the dynamics did not last."""
    reference_distribution: tuple[float, ...]
    """That of the reference from the same start."""

    @property
    def keeps_energy(self) -> bool:
        """Whether the drift is known and small."""
        drift = self.drift_meV_per_atom_per_ps
        return drift is not None and abs(drift) <= MAX_DRIFT_MEV_PER_ATOM_PER_PS

    @property
    def rdf_difference(self) -> float | None:
        """Area between the two distributions over that under the reference's."""
        if not self.distribution or not self.reference_distribution:
            return None
        ours, theirs = np.array(self.distribution), np.array(self.reference_distribution)
        return float(np.abs(ours - theirs).sum() / theirs.sum())


def run_trials(
    start: Atoms,
    calculator: Calculator,
    reference: Calculator,
    *,
    temperatures_K: Sequence[float],
    timestep_fs: float,
    n_steps: int,
    seed: int,
) -> list[Trial]:
    """Dynamics at each temperature: with a thermostat, without, and without by the reference.

    ``n_steps`` with a thermostat, and half as many without.

    Without a thermostat the atoms start from where they are with twice the kinetic energy, half of
    which becomes potential energy when ``start`` is at rest.
    """
    enlarged = _enlarged(start)
    reach = _reach(enlarged)
    trials = []
    for temperature in temperatures_K:
        report = try_dynamics(
            enlarged,
            calculator,
            temperature_K=temperature,
            n_steps=n_steps,
            timestep_fs=timestep_fs,
            seed=seed,
        )
        runs = [
            _free_run(enlarged, potential, temperature, timestep_fs, n_steps // 2, seed)
            for potential in ((calculator, reference) if report.stopped_by is None else ())
        ]
        ours, theirs = runs or (None, None)
        distances, _ = radial_distribution([], r_max_A=reach)
        distributions = [
            radial_distribution(run.frames, r_max_A=reach)[1] if run else np.array([])
            for run in (ours, theirs)
        ]
        trials.append(
            Trial(
                temperature_K=float(temperature),
                n_steps=report.n_steps,
                stopped_by=report.stopped_by,
                drift_meV_per_atom_per_ps=ours.drift() if ours else None,
                mean_temperature_K=ours.mean_temperature() if ours else None,
                distances_A=tuple(map(float, distances)),
                distribution=tuple(map(float, distributions[0])),
                reference_distribution=tuple(map(float, distributions[1])),
            )
        )
    return trials


@dataclass(frozen=True)
class _Run:
    times_ps: NDArray[np.float64]
    energies_eV_per_atom: NDArray[np.float64]
    temperatures_K: NDArray[np.float64]
    frames: list[Atoms]

    def drift(self) -> float:
        return float(np.polyfit(self.times_ps, self.energies_eV_per_atom, 1)[0] * 1e3)

    def mean_temperature(self) -> float:
        return float(self.temperatures_K[len(self.temperatures_K) // 2 :].mean())


def _free_run(
    start: Atoms,
    calculator: Calculator,
    temperature_K: float,
    timestep_fs: float,
    n_steps: int,
    seed: int,
) -> _Run | None:
    """NVE; None when the energy is no longer finite. Distributions are those of the second half."""
    from ase.md.velocitydistribution import Stationary, thermalize_momenta
    from ase.md.verlet import VelocityVerlet

    atoms = start.copy()
    atoms.calc = calculator
    generator = np.random.default_rng(seed)
    thermalize_momenta(atoms, temperature_K=2 * temperature_K, rng=generator)
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, timestep=timestep_fs * units.fs)
    samples, frames = [], []
    for step in range(0, n_steps + 1, EVERY):
        if step:
            dynamics.run(EVERY)
        total = float(atoms.get_total_energy()) / len(atoms)
        if not np.isfinite(total):
            return None
        samples.append((step * timestep_fs / 1e3, total, float(atoms.get_temperature())))
        if step > n_steps // 2:
            frames.append(atoms.copy())
    times, totals, temperatures = np.array(samples).T
    return _Run(times, totals, temperatures, frames)


def _reach(atoms: Atoms) -> float:
    """As far as distributions go, Å: short of an atom's own images, which stand still beside it."""
    lengths = atoms.cell.lengths()[atoms.pbc]
    return float(min([MAX_REACH_A, *(0.95 * lengths)]))


def _enlarged(atoms: Atoms) -> Atoms:
    """Repeated along its shortest periodic directions until it has enough atoms."""
    enlarged = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    while enlarged.pbc.any() and len(enlarged) < FEWEST_ATOMS:
        lengths = np.where(enlarged.pbc, enlarged.cell.lengths(), np.inf)
        repeats = np.ones(3, dtype=int)
        repeats[np.argmin(lengths)] = 2
        enlarged = enlarged.repeat(tuple(repeats))
    return enlarged
