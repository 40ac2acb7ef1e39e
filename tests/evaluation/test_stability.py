from __future__ import annotations

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from mlip_assets.evaluation.stability import StabilityTest, run_stability_tests

N_STEPS = 500


class Leaky(EMT):
    """EMT with forces that are not the derivative of its energy."""

    def calculate(self, *arguments, **named):
        super().calculate(*arguments, **named)
        self.results["forces"] = 1.15 * self.results["forces"]


class Explosive(EMT):
    """EMT with reversed and larger forces, which is unstable."""

    def calculate(self, *arguments, **named):
        super().calculate(*arguments, **named)
        self.results["forces"] = -4 * self.results["forces"]


def stability_test(calculator, reference, temperature_K=600.0):
    (found,) = run_stability_tests(
        bulk("Cu", cubic=True),
        calculator,
        reference,
        temperatures_K=[temperature_K],
        timestep_fs=4.0,
        n_steps=N_STEPS,
        seed=0,
    )
    return found


@pytest.mark.slow
def test_stability_of_emt_conserves_energy_and_equals_itself():
    found = stability_test(EMT(), EMT())
    assert (found.n_steps, found.stopped_by) == (N_STEPS, None)
    assert found.conserves_energy
    assert found.rdf_difference == 0
    assert found.mean_temperature_K == pytest.approx(600, rel=0.35)  # equipartition, few atoms


@pytest.mark.slow
def test_stability_detects_drift_of_inconsistent_forces():
    sound, leaky = stability_test(EMT(), EMT()), stability_test(Leaky(), EMT())
    drifts = [abs(found.drift_meV_per_atom_per_ps) for found in (sound, leaky)]
    assert drifts[1] > 5 * drifts[0]
    assert leaky.rdf_difference > 0


@pytest.mark.parametrize(
    ("drift", "error", "conserved"), [(1.7, 0.0, False), (1.7, 0.4, True), (-2.0, 0.4, False)]
)
def test_stability_conserves_energy_within_two_standard_errors(drift, error, conserved):
    found = StabilityTest(300.0, 100, None, drift, 300.0, (), (), (), error)
    assert found.conserves_energy is conserved


def test_stability_reports_guard_and_makes_no_comparison():
    found = stability_test(Explosive(), EMT())
    assert found.stopped_by is not None
    assert found.n_steps < N_STEPS
    assert found.drift_meV_per_atom_per_ps is None
    assert not found.conserves_energy
    assert found.rdf_difference is None


def test_stability_enlarges_primitive_cell():
    (found,) = run_stability_tests(
        bulk("Cu"), EMT(), EMT(), temperatures_K=[300.0], timestep_fs=2.0, n_steps=100, seed=0
    )
    assert found.stopped_by is None
    assert found.mean_temperature_K > 50
