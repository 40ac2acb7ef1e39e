"""Conditions: ensembles, ramps and pressures; interrupted and extended runs are bit-identical."""

import numpy as np
import pytest
from ase import Atoms

from mlip_assets.dynamics import Conditions, run_walkers
from mlip_assets.dynamics.integrator import make_integrator
from tests.dynamics.oscillators import Harmonic, campaign, columns, copper, same, walkers
from tests.dynamics.statistics import assert_within_sigma

RAMP = ((50, 300.0), (150, 900.0), (250, 600.0))


@pytest.mark.parametrize(
    "exploration",
    [
        {"ensemble": "nve", "temperatures_K": [300]},
        {"temperatures_K": [], "temperature_ramps_K": [RAMP]},
        {"ensemble": "npt_isotropic", "temperatures_K": [300], "pressures_GPa": [5]},
        {"ensemble": "npt_full", "temperatures_K": [], "temperature_ramps_K": [RAMP]},
    ],
    ids=["nve", "ramp", "npt_isotropic", "npt_full_ramp"],
)
def test_run_walkers_interrupted_and_extended_is_bit_identical(tmp_path, exploration):
    """Ten interruptions between two samples or checkpoints do not change the frames."""
    given = {**exploration, "barostat_period_fs": 200, "checkpoint_every": 40}
    uninterrupted = run_walkers(walkers(**given, n_steps=300), Harmonic, tmp_path / "uninterrupted")
    for n_steps in range(29, 300, 29):
        run_walkers(walkers(**given, n_steps=n_steps), Harmonic, tmp_path / "interrupted")
    interrupted = run_walkers(walkers(**given, n_steps=300), Harmonic, tmp_path / "interrupted")
    assert uninterrupted.n_frames == 100
    assert same(columns(uninterrupted), columns(interrupted))
    assert uninterrupted.walkers == interrupted.walkers
    if "npt" in given.get("ensemble", ""):
        cells = columns(uninterrupted)["cell"]
        assert np.ptp(np.linalg.det(cells.reshape(-1, 3, 3))) > 0.1


def test_run_walkers_computes_only_additional_steps(tmp_path):
    calculators = []

    def counted():
        calculators.append(Harmonic())
        return calculators[-1]

    for n_steps in (100, 130, 130, 90):
        run_walkers(walkers(n_steps=n_steps, temperatures_K=[300]), counted, tmp_path)
    assert [calculator.calls for calculator in calculators] == [101, 31]


def test_temperature_ramp_is_a_function_of_absolute_step(tmp_path):
    given = {"temperatures_K": [], "temperature_ramps_K": [RAMP], "sample_every": 50}
    trajectory = run_walkers(walkers(**given, n_steps=400), Harmonic, tmp_path)
    targets = trajectory.scalars()["target_temperature_K"].to_pylist()
    assert targets == [300, 600, 900, 750, 600, 600, 600, 600]
    (report,) = trajectory.walkers
    assert report.target_temperature_K == 600
    assert report.conditions == "nvt 300-900-600K-in-50-150-250"


def test_thermostat_follows_temperature_ramp(tmp_path):
    """A ramp of a hundred relaxation times: the temperature equals the target in each quarter."""
    ramp = ((0, 200.0), (4000, 2000.0))
    given = {"temperatures_K": [], "temperature_ramps_K": [ramp], "friction_per_ps": 25}
    seed = copper(size=(2, 2, 2))
    trajectory = run_walkers(
        walkers([seed], **given, n_steps=4000), lambda: Harmonic(size=(2, 2, 2)), tmp_path
    )
    scalars = trajectory.scalars()
    ratio = scalars["temperature_K"].to_numpy() / scalars["target_temperature_K"].to_numpy()
    for quarter in np.array_split(ratio, 4):
        assert_within_sigma(quarter, 1, max_relative_error=0.02)


def test_plan_walkers_makes_one_walker_per_condition():
    given = {
        "ensemble": "npt_isotropic",
        "temperatures_K": [300, 600],
        "temperature_ramps_K": [RAMP],
        "pressures_GPa": [0, 5],
        "replicas": 2,
    }
    planned = walkers(**given)
    assert len({walker.name for walker in planned}) == len(planned) == 12
    assert len({walker.random_seed for walker in planned}) == 12
    assert planned[0].name == "crystal_300K_0GPa_r0"
    assert {walker.folder for walker in planned} & {w.folder for w in walkers(**given)}
    molecule = Atoms("Cu2", [[0, 0, 0], [2.3, 0, 0]], info={"seed_name": "m", "seed_kind": "m"})
    molecules = walkers([molecule], **given)
    assert {walker.conditions.ensemble for walker in molecules} == {"nvt"}
    assert len(molecules) == 6, "without pressure: one walker per temperature and replica"


def test_integrator_friction_of_isotropic_strain_rate_is_diagonal():
    atoms = copper()
    atoms.calc = Harmonic()
    integrator = make_integrator(
        atoms,
        Conditions.constant(300, "npt_full", 0.0),
        campaign().exploration,
        timestep_fs=1.0,
        temperature_K=300,
        volume_A3=atoms.cell.volume,
        rng=np.random.default_rng(0),
        barostat=np.array([3.0 * np.identity(3), np.zeros((3, 3))]),
    )
    friction = integrator._barostat_BAOAB_OU_gamma_mod()
    assert np.array_equal(friction, np.diag(np.diag(friction)))
    assert friction[0, 0] == pytest.approx((1 + 3 / (3 * 8)) * 3.0 / integrator.barostat_mass)
