"""Averages of each ensemble against exact values, in standard errors."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import GPa, kB

from mlip_assets.dynamics import run_walkers
from tests.dynamics.oscillators import Harmonic, IdealGas, copper, walkers
from tests.dynamics.statistics import assert_within_sigma

BIG = (2, 2, 2)
N_ATOMS = 32
FREEDOM = 3 * N_ATOMS - 3  # the centre of mass is fixed
CANONICAL_FREEDOM = 3 * 108 - 3
NO_GUARDS = {
    "check_every": 1_000_000,
    "min_distance_ratio": 1e-6,
    "min_volume_ratio": 1e-6,
    "max_volume_ratio": 1e6,
    "max_gap_ratio": None,
}


@pytest.fixture(scope="module")
def canonical_samples(tmp_path_factory):
    """Temperature over 600 K, and potential energy over its exact mean, of 48 ps at 600 K."""
    size = (3, 3, 3)
    given = {
        "n_steps": 24_000,
        "sample_every": 10,
        "temperatures_K": [600],
        "friction_per_ps": 30,
    }
    trajectory = run_walkers(
        walkers([copper(size=size)], NO_GUARDS, **given),
        lambda: Harmonic(size=size),
        tmp_path_factory.mktemp("canonical"),
    )
    scalars = trajectory.scalars().slice(100)
    mean_energy_eV = CANONICAL_FREEDOM / 2 * kB * 600
    return {
        "temperature": scalars["temperature_K"].to_numpy() / 600,
        "potential": scalars["energy_eV"].to_numpy() / mean_energy_eV,
    }


@pytest.mark.slow
@pytest.mark.parametrize("quantity", ["temperature", "potential"])
def test_langevin_samples_canonical_ensemble(canonical_samples, quantity):
    """Equipartition in the mean; the chi-squared law of f quadratic terms in the variance.

    <T> = T, <E_pot> = f/2 kT, var T / T² = var E_pot / <E_pot>² = 2/f.
    """
    ratio = canonical_samples[quantity]
    assert_within_sigma(ratio, 1, max_relative_error=0.004)
    assert_within_sigma((ratio - 1) ** 2, 2 / CANONICAL_FREEDOM, max_relative_error=0.05)


@pytest.mark.parametrize("quantity", ["temperature", "potential"])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_canonical_samples_detect_temperature_error_of_two_percent(
    canonical_samples, quantity, factor
):
    with pytest.raises(AssertionError, match=r"deviates by [+-]\d+\.\d+ sigma"):
        assert_within_sigma(factor * canonical_samples[quantity], 1)


def test_canonical_samples_detect_suppressed_fluctuations(canonical_samples):
    """A velocity rescaling thermostat gives the right mean with a too small variance."""
    rescaled = 1 + 0.85 * (canonical_samples["temperature"] - 1)
    assert_within_sigma(rescaled, 1)
    with pytest.raises(AssertionError, match="sigma"):
        assert_within_sigma((rescaled - 1) ** 2, 2 / CANONICAL_FREEDOM)


@pytest.mark.slow
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
    assert kinetic.std() / N_ATOMS > 20 * total.std(), "kinetic and potential energy are exchanged"


def test_npt_isotropic_samples_volume_of_ideal_gas(tmp_path):
    """p<V> = N kT, <p> = p, and var V / <V>² = 1/N.

    With the shape of the cell fixed: a gas has no shear stress that limits the shape.
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
    assert_within_sigma(volume, expected, max_relative_error=0.015)
    assert_within_sigma((volume / expected - 1) ** 2, 1 / N_ATOMS, max_relative_error=0.125)
    assert_within_sigma(pressure, 1.0, max_relative_error=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ["npt_isotropic", "npt_full"])
def test_npt_samples_volume_of_equation_of_state(tmp_path, ensemble):
    """The mean volume at 10 GPa is that of static EMT plus thermal pressure.

    The thermal pressure is the quasi-harmonic γ·3NkT/V with the Grüneisen parameter γ = 2.0 of
    EMT copper. It is 0.7 GPa at 100 K; an error of 15 % of it changes the volume by 0.07 %.
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
    volume = np.linalg.det(cells.reshape(-1, 3, 3))[100:] / N_ATOMS
    trial = np.linspace(10.5, 12, 31)
    static = []
    for v in trial:
        atoms = bulk("Cu", a=(4 * v) ** (1 / 3))
        atoms.calc = EMT()
        static.append(-atoms.get_stress()[:3].mean() / GPa)
    thermal = 2.0 * 3 * kB * 100 / trial / GPa
    expected = np.interp(-10, -(np.array(static) + thermal), trial)
    assert_within_sigma(volume, expected, max_relative_error=0.0007)
    pressure = trajectory.scalars().slice(100)["pressure_GPa"].to_numpy()
    assert_within_sigma(pressure, 10, max_relative_error=0.01)
