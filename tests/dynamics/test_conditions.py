"""Conditions: ensembles, ramps and pressures, each resumed and extended to the same bits."""

import numpy as np
import pytest
from ase import Atoms

from mlip_assets.dynamics import Conditions, run_walkers
from mlip_assets.dynamics.integrator import make_integrator
from tests.dynamics.oscillators import Harmonic, campaign, columns, copper, same, walkers

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
def test_interrupted_and_extended_is_unbroken(tmp_path, exploration):
    """Ten times stopped at an awkward step, and run on: the same frames to the last bit."""
    given = {**exploration, "barostat_period_fs": 200, "checkpoint_every": 40}
    unbroken = run_walkers(walkers(**given, n_steps=300), Harmonic, tmp_path / "unbroken")
    for n_steps in range(29, 300, 29):
        run_walkers(walkers(**given, n_steps=n_steps), Harmonic, tmp_path / "broken")
    broken = run_walkers(walkers(**given, n_steps=300), Harmonic, tmp_path / "broken")
    assert unbroken.n_frames == 100
    assert same(columns(unbroken), columns(broken))
    assert unbroken.walkers == broken.walkers
    if "npt" in given.get("ensemble", ""):
        cells = columns(unbroken)["cell"]
        assert np.ptp(np.linalg.det(cells.reshape(-1, 3, 3))) > 0.1


def test_more_steps_compute_only_the_new_ones(tmp_path):
    calculators = []

    def counted():
        calculators.append(Harmonic())
        return calculators[-1]

    for n_steps in (100, 130, 130, 90):
        run_walkers(walkers(n_steps=n_steps, temperatures_K=[300]), counted, tmp_path)
    assert [calculator.calls for calculator in calculators] == [101, 31]


def test_a_ramp_is_a_function_of_the_absolute_step(tmp_path):
    given = {"temperatures_K": [], "temperature_ramps_K": [RAMP], "sample_every": 50}
    trajectory = run_walkers(walkers(**given, n_steps=400), Harmonic, tmp_path)
    targets = trajectory.scalars()["target_temperature_K"].to_pylist()
    assert targets == [300, 600, 900, 750, 600, 600, 600, 600]
    (report,) = trajectory.walkers
    assert report.target_temperature_K == 600
    assert report.conditions == "nvt 300-900-600K-in-50-150-250"


def test_the_thermostat_follows_the_ramp(tmp_path):
    """Heating by a hundred times the relaxation time, the oscillators keep up."""
    ramp = ((0, 200.0), (4000, 2000.0))
    given = {"temperatures_K": [], "temperature_ramps_K": [ramp], "friction_per_ps": 25}
    seed = copper(size=(2, 2, 2))
    trajectory = run_walkers(
        walkers([seed], **given, n_steps=4000), lambda: Harmonic(size=(2, 2, 2)), tmp_path
    )
    scalars = trajectory.scalars()
    ratio = scalars["temperature_K"].to_numpy() / scalars["target_temperature_K"].to_numpy()
    quarters = [part.mean() for part in np.array_split(ratio, 4)]
    assert quarters == pytest.approx([1, 1, 1, 1], abs=0.08)


def test_every_condition_is_a_walker_of_its_own():
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
    own = walkers([molecule], **given)
    assert {walker.conditions.ensemble for walker in own} == {"nvt"}
    assert len(own) == 6, "no pressure, so once a temperature"


def test_the_drag_of_a_breathing_cell_does_not_shear():
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
    drag = integrator._barostat_BAOAB_OU_gamma_mod()
    assert np.array_equal(drag, np.diag(np.diag(drag)))
    assert drag[0, 0] == pytest.approx((1 + 3 / (3 * 8)) * 3.0 / integrator.barostat_mass)
