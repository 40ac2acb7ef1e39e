from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from mlip_assets.evaluation.pair_curves import pair_curves


class Toy(Calculator):
    """A pair potential; ``wrong`` is added to the energy but not to the forces."""

    implemented_properties = ("energy", "forces")

    def __init__(self, energy, wrong=lambda r: 0.0):
        super().__init__()
        self.energy, self.wrong = energy, wrong

    def calculate(self, atoms=None, properties=(), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        forces = np.zeros((len(atoms), 3))
        if len(atoms) == 1:
            self.results = {"energy": 0.0, "forces": forces}
            return
        r = atoms.get_distance(0, 1)
        slope = (self.energy(r + 1e-5) - self.energy(r - 1e-5)) / 2e-5
        forces[:, 2] = slope, -slope
        self.results = {"energy": self.energy(r) + self.wrong(r), "forces": forces}


def morse(r):
    return 3.0 * ((1 - np.exp(-1.4 * (r - 2.2))) ** 2 - 1)


def test_pair_curve_of_morse_potential_is_smooth_repulsive_and_has_its_minimum():
    (curve,) = pair_curves(Toy(morse), ["Cu"])
    assert curve.is_repulsive
    assert curve.is_smooth
    assert curve.bond_length_A == pytest.approx(2.2, abs=0.03)
    assert curve.binding_energy_eV == pytest.approx(-3.0, abs=0.01)


def test_pair_curve_detects_minimum_in_core():
    (curve,) = pair_curves(Toy(lambda r: morse(r) - 40 * np.exp(-((r - 1.2) ** 2) / 0.02)), ["Cu"])
    assert not curve.is_repulsive


def test_pair_curve_detects_energy_step_without_force():
    (curve,) = pair_curves(Toy(morse, wrong=lambda r: 0.05 * (r > 4.0)), ["Cu"])
    assert curve.largest_jump_eV == pytest.approx(0.05, abs=0.005)
    assert not curve.is_smooth


def test_pair_curve_of_steep_core_is_smooth():
    (curve,) = pair_curves(
        Toy(lambda r: 150 * np.exp(-9 * (r - 1.3)) * (1 + np.sin(18 * r) / 3)), ["Cu"]
    )
    assert curve.is_smooth
    (curve,) = pair_curves(Toy(lambda r: 150 * np.exp(-9 * (r - 1.3)), lambda r: r < 1.6), ["Cu"])
    assert not curve.is_smooth


def test_pair_curves_are_relative_to_isolated_atoms_for_every_pair():
    curves = pair_curves(EMT(), ["Cu", "Ag"])
    assert [curve.pair for curve in curves] == ["Cu-Cu", "Cu-Ag", "Ag-Ag"]
    for curve in curves:
        assert -5 < curve.binding_energy_eV < -0.5
        assert abs(curve.energies_eV[-1]) < 0.1 * -curve.binding_energy_eV


@pytest.mark.slow
def test_pair_curve_of_trained_model_is_repulsive(trained):
    (curve,) = pair_curves(trained.calculator(dtype="float64"), trained.elements)
    assert curve.is_repulsive  # by its Ziegler-Biersack-Littmark term, without one such label
    assert curve.is_smooth
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, curve.distances_A[0]]])
    atoms.calc = trained.calculator(dtype="float64")
    assert atoms.get_forces()[1, 2] > 5
