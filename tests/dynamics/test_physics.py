"""The ensembles against averages that are known exactly."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import GPa, kB

from mlip_assets.dynamics import run_walkers
from tests.dynamics.oscillators import Harmonic, IdealGas, copper, walkers

BIG = (2, 2, 2)
N_ATOMS = 32
FREEDOM = 3 * N_ATOMS - 3  # the centre of mass is fixed
NO_GUARDS = {
    "check_every": 1_000_000,
    "min_distance_ratio": 1e-6,
    "min_volume_ratio": 1e-6,
    "max_volume_ratio": 1e6,
    "max_gap_ratio": None,
}


def test_langevin_samples_the_canonical_ensemble(tmp_path):
    """Equipartition in the mean, and the chi-squared law of f quadratic terms in the variance.

    <E_pot> = f/2 kT, <T> = T, var T / T² = 2/f, var E_pot / <E_pot>² = 2/f.
    """
    given = {"n_steps": 6000, "sample_every": 4, "temperatures_K": [600]}
    trajectory = run_walkers(
        walkers([copper(size=BIG)], **given), lambda: Harmonic(size=BIG), tmp_path
    )
    scalars = trajectory.scalars().slice(250)
    temperature = scalars["temperature_K"].to_numpy()
    potential = scalars["energy_eV"].to_numpy()
    assert temperature.mean() == pytest.approx(600, rel=0.02)
    assert potential.mean() == pytest.approx(FREEDOM / 2 * kB * 600, rel=0.03)
    for values in (temperature, potential):
        assert values.var() / values.mean() ** 2 == pytest.approx(2 / FREEDOM, rel=0.2)


def test_nve_conserves_energy(tmp_path):
    """Copper in EMT, 2 ps at 1 fs: no drift, and fluctuations far below kT."""
    given = {"ensemble": "nve", "n_steps": 2000, "timestep_fs": 1.0, "sample_every": 10}
    trajectory = run_walkers(
        walkers([copper(size=BIG)], **given, temperatures_K=[600]), EMT, tmp_path
    )
    scalars = trajectory.scalars()
    kinetic = FREEDOM / 2 * kB * scalars["temperature_K"].to_numpy()
    total = (scalars["energy_eV"].to_numpy() + kinetic) / N_ATOMS
    drift_per_ps = np.polyfit(scalars["time_fs"].to_numpy() / 1000, total, 1)[0]
    assert abs(drift_per_ps) < 2e-5
    assert total.std() < 2e-4
    assert kinetic.std() / N_ATOMS > 20 * total.std(), "energy went to and fro meanwhile"


def test_ideal_gas_has_its_volume(tmp_path):
    """p<V> = N kT, and volume fluctuations of relative size 1/√N.

    Only with the shape of the cell held: nothing in a gas would keep it from shearing away.
    """
    given = {
        "ensemble": "npt_isotropic",
        "temperatures_K": [2000],
        "pressures_GPa": [1],
        "barostat_period_fs": 15,
        "n_steps": 6000,
        "sample_every": 20,
    }
    seed = copper(size=BIG)
    seed.set_cell(seed.cell * (2000 * kB / GPa / 11.81) ** (1 / 3), scale_atoms=True)
    trajectory = run_walkers(walkers([seed], NO_GUARDS, **given), IdealGas, tmp_path)
    cells = np.concatenate(
        [np.stack(b["cell"].to_numpy(False)) for b in trajectory.iter_batches(["cell"])]
    )
    volume = np.abs(np.linalg.det(cells.reshape(-1, 3, 3)))[50:]
    pressure = trajectory.scalars().slice(50)["pressure_GPa"].to_numpy()
    expected = N_ATOMS * kB * 2000 / GPa
    assert volume.mean() == pytest.approx(expected, rel=0.06)
    assert volume.std() / volume.mean() == pytest.approx(N_ATOMS**-0.5, rel=0.25)
    assert pressure.mean() == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize("ensemble", ["npt_isotropic", "npt_full"])
def test_copper_under_pressure_has_the_density_of_its_equation_of_state(tmp_path, ensemble):
    """NPT at 10 GPa finds the volume at which static EMT, plus the thermal pressure, gives 10 GPa.

    The thermal part is taken from the quasi-harmonic γ·3NkT/V with the Grüneisen parameter that
    EMT's own bulk modulus gives; at 100 K it is a correction of a few tenths of a GPa.
    """
    given = {
        "ensemble": ensemble,
        "temperatures_K": [100],
        "pressures_GPa": [10],
        "timestep_fs": 5.0,
        "barostat_period_fs": 200,
        "n_steps": 1000,
    }
    trajectory = run_walkers(walkers([copper(size=BIG)], **given), EMT, tmp_path)
    cells = np.concatenate(
        [np.stack(b["cell"].to_numpy(False)) for b in trajectory.iter_batches(["cell"])]
    )
    volume = np.linalg.det(cells.reshape(-1, 3, 3))[100:].mean() / N_ATOMS
    trial = np.linspace(10.5, 12, 31)
    static = []
    for v in trial:
        atoms = bulk("Cu", a=(4 * v) ** (1 / 3))
        atoms.calc = EMT()
        static.append(-atoms.get_stress()[:3].mean() / GPa)
    thermal = 2.0 * 3 * kB * 100 / trial / GPa
    expected = np.interp(-10, -(np.array(static) + thermal), trial)
    assert volume == pytest.approx(expected, rel=0.003)
    assert trajectory.scalars().slice(100)["pressure_GPa"].to_numpy().mean() == pytest.approx(
        10, abs=0.4
    )
