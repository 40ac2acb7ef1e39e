"""MD stability tests: guards of exploration, energy conservation, radial distribution."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from mlip_assets.campaign import ExplorationSettings, GuardSettings
from mlip_assets.common.progress import Progress
from mlip_assets.dynamics.conditions import Conditions
from mlip_assets.dynamics.exploration import run_walker
from mlip_assets.dynamics.walker import Walker
from mlip_assets.trajectory import WalkerReport
from mlip_assets.trajectory.radial_distribution import radial_distribution

#: Steps between two samples of the energy and of the radial distribution.
SAMPLE_EVERY = 5
#: Smaller crystals are repeated, because two atoms do not define a temperature.
MIN_ATOMS = 8
MAX_RDF_DISTANCE_A = 6.0
#: Measured on silicon at 1 and 2 fs and on copper: 0.003 to 0.02, in float32 as in float64.
MAX_DRIFT_MEV_PER_ATOM_PER_PS = 1.0


@dataclass(frozen=True)
class StabilityTest:
    """Result of the stability test at one temperature."""

    temperature_K: float
    n_steps: int
    """Number of completed steps with a thermostat and the guards of exploration."""
    stopped_by: str | None
    """The guard that stopped the dynamics; None when every step was completed."""
    drift_meV_per_atom_per_ps: float | None
    """Slope of the total energy in NVE dynamics; None where the dynamics was stopped."""
    mean_temperature_K: float | None
    """Mean temperature in NVE dynamics."""
    distances_A: tuple[float, ...]
    distribution: tuple[float, ...]
    """Radial distribution function in NVE dynamics; empty where the dynamics was stopped."""
    reference_distribution: tuple[float, ...]
    """Radial distribution function of the reference potential from the same initial state."""
    drift_error_meV_per_atom_per_ps: float = 0.0
    """Standard error of the drift; large in a short run, where the energy error of velocity Verlet
    fluctuates."""

    @property
    def conserves_energy(self) -> bool:
        """Whether the drift is at most ``MAX_DRIFT_MEV_PER_ATOM_PER_PS``, within two standard errors.

        False where the dynamics was stopped.
        """
        drift, error = self.drift_meV_per_atom_per_ps, self.drift_error_meV_per_atom_per_ps
        return drift is not None and abs(drift) <= MAX_DRIFT_MEV_PER_ATOM_PER_PS + 2 * error

    @property
    def rdf_difference(self) -> float | None:
        """Area between the two distributions, relative to the area of the reference."""
        if not self.distribution or not self.reference_distribution:
            return None
        ours, theirs = np.array(self.distribution), np.array(self.reference_distribution)
        return float(np.abs(ours - theirs).sum() / theirs.sum())


def run_stability_tests(
    start: Atoms,
    calculator: Calculator,
    reference: Calculator,
    *,
    temperatures_K: Sequence[float],
    timestep_fs: float,
    n_steps: int,
    seed: int,
) -> list[StabilityTest]:
    """Test the dynamics of any ASE calculator at each temperature.

    Each test is Langevin dynamics with the guards of exploration and, if no guard stops it, NVE
    dynamics with ``calculator`` and with ``reference`` from the same initial state.

    Parameters
    ----------
    start
        Initial structure; repeated along periodic directions to at least ``MIN_ATOMS`` atoms.
    calculator
        The potential under test.
    reference
        The potential whose radial distribution function is compared.
    temperatures_K
        One test for each. NVE dynamics starts with twice the kinetic energy, half of which becomes
        potential energy if ``start`` is at a minimum.
    timestep_fs
        Time step.
    n_steps
        Number of Langevin steps; half of it for NVE.
    seed
        Random seed of the velocities and of the thermostat.
    """
    enlarged = _enlarged(start)
    max_distance = _max_rdf_distance(enlarged)
    distances, _ = radial_distribution([], r_max_A=max_distance)
    tests = []
    for temperature in temperatures_K:
        report = run_guarded_md(
            enlarged,
            calculator,
            temperature_K=temperature,
            n_steps=n_steps,
            timestep_fs=timestep_fs,
            seed=seed,
        )
        runs = [
            _nve_run(enlarged, potential, temperature, timestep_fs, n_steps // 2, seed)
            for potential in ((calculator, reference) if report.stopped_by is None else ())
        ]
        run, reference_run = runs or (None, None)
        drift, drift_error = run.drift() if run else (None, 0.0)
        distributions = [
            radial_distribution(one.frames, r_max_A=max_distance)[1] if one else np.array([])
            for one in (run, reference_run)
        ]
        tests.append(
            StabilityTest(
                temperature_K=float(temperature),
                n_steps=report.n_steps,
                stopped_by=report.stopped_by,
                drift_meV_per_atom_per_ps=drift,
                drift_error_meV_per_atom_per_ps=drift_error,
                mean_temperature_K=run.mean_temperature() if run else None,
                distances_A=tuple(map(float, distances)),
                distribution=tuple(map(float, distributions[0])),
                reference_distribution=tuple(map(float, distributions[1])),
            )
        )
    return tests


def run_guarded_md(
    atoms: Atoms,
    calculator: Calculator,
    *,
    temperature_K: float = 300.0,
    n_steps: int = 1000,
    timestep_fs: float = 1.0,
    seed: int = 0,
) -> WalkerReport:
    """Run Langevin dynamics with the guards of exploration.

    Returns
    -------
    WalkerReport
        ``n_steps`` completed, and ``stopped_by``, None when every step was completed.
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
        initial_structure=start,
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


@dataclass(frozen=True)
class _NveRun:
    times_ps: NDArray[np.float64]
    energies_eV_per_atom: NDArray[np.float64]
    temperatures_K: NDArray[np.float64]
    frames: list[Atoms]
    """Of the second half."""

    def drift(self) -> tuple[float, float]:
        """Slope of the total energy and its standard error, meV/atom/ps; at least three samples."""
        fit, covariance = np.polyfit(self.times_ps, self.energies_eV_per_atom, 1, cov=True)
        return float(fit[0] * 1e3), float(np.sqrt(covariance[0, 0]) * 1e3)

    def mean_temperature(self) -> float:
        """Mean over the second half, K."""
        return float(self.temperatures_K[len(self.temperatures_K) // 2 :].mean())


def _nve_run(
    start: Atoms,
    calculator: Calculator,
    temperature_K: float,
    timestep_fs: float,
    n_steps: int,
    seed: int,
) -> _NveRun | None:
    """Velocity Verlet dynamics; None when the energy is no longer finite."""
    from ase.md.velocitydistribution import Stationary, thermalize_momenta
    from ase.md.verlet import VelocityVerlet

    atoms = start.copy()
    atoms.calc = calculator
    generator = np.random.default_rng(seed)
    thermalize_momenta(atoms, temperature_K=2 * temperature_K, rng=generator)
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, timestep=timestep_fs * units.fs)
    samples, frames = [], []
    for step in range(0, n_steps + 1, SAMPLE_EVERY):
        if step:
            dynamics.run(SAMPLE_EVERY)
        total = float(atoms.get_total_energy()) / len(atoms)
        if not np.isfinite(total):
            return None
        samples.append((step * timestep_fs / 1e3, total, float(atoms.get_temperature())))
        if step > n_steps // 2:
            frames.append(atoms.copy())
    times, totals, temperatures = np.array(samples).T
    return _NveRun(times, totals, temperatures, frames)


def _max_rdf_distance(atoms: Atoms) -> float:
    """Largest distance of the distributions, Å: below the distance of an atom from its images."""
    lengths = atoms.cell.lengths()[atoms.pbc]
    return float(min([MAX_RDF_DISTANCE_A, *(0.95 * lengths)]))


def _enlarged(atoms: Atoms) -> Atoms:
    """The structure repeated along its shortest periodic directions to at least ``MIN_ATOMS``."""
    enlarged = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    while enlarged.pbc.any() and len(enlarged) < MIN_ATOMS:
        lengths = np.where(enlarged.pbc, enlarged.cell.lengths(), np.inf)
        repeats = np.ones(3, dtype=int)
        repeats[np.argmin(lengths)] = 2
        enlarged = enlarged.repeat(tuple(repeats))
    return enlarged
