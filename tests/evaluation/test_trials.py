from __future__ import annotations

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from mlip_assets.evaluation.trials import run_trials

N_STEPS = 500


class Leaky(EMT):
    """Its forces are not those of its energy."""

    def calculate(self, *arguments, **named):
        super().calculate(*arguments, **named)
        self.results["forces"] = 1.15 * self.results["forces"]


class Explosive(EMT):
    """Atoms push apart however far they are."""

    def calculate(self, *arguments, **named):
        super().calculate(*arguments, **named)
        self.results["forces"] = -4 * self.results["forces"]


def trial(calculator, reference, temperature_K=600.0):
    (found,) = run_trials(
        bulk("Cu", cubic=True),
        calculator,
        reference,
        temperatures_K=[temperature_K],
        timestep_fs=4.0,
        n_steps=N_STEPS,
        seed=0,
    )
    return found


def test_a_sound_potential_lasts_keeps_its_energy_and_equals_itself():
    found = trial(EMT(), EMT())
    assert (found.n_steps, found.stopped_by) == (N_STEPS, None)
    assert found.keeps_energy
    assert found.rdf_difference == 0
    assert found.mean_temperature_K == pytest.approx(600, rel=0.35)  # equipartition, few atoms


def test_forces_of_another_energy_make_it_drift():
    sound, leaky = trial(EMT(), EMT()), trial(Leaky(), EMT())
    drifts = [abs(found.drift_meV_per_atom_per_ps) for found in (sound, leaky)]
    assert drifts[1] > 5 * drifts[0]
    assert leaky.rdf_difference > 0


def test_dynamics_that_break_a_guard_are_told_and_compared_with_nothing():
    found = trial(Explosive(), EMT())
    assert found.stopped_by is not None
    assert found.n_steps < N_STEPS
    assert found.drift_meV_per_atom_per_ps is None
    assert not found.keeps_energy
    assert found.rdf_difference is None


def test_a_primitive_cell_is_enlarged():
    (found,) = run_trials(
        bulk("Cu"), EMT(), EMT(), temperatures_K=[300.0], timestep_fs=2.0, n_steps=100, seed=0
    )
    assert found.stopped_by is None
    assert found.mean_temperature_K > 50
