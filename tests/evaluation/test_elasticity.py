"""Elasticity compared with published constants of EMT, and with relations of pair potentials."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from mlip_assets.evaluation.elasticity import CrystalError, equation_of_state, relax, stiffness
from mlip_assets.evaluation.phonons import gamma_phonons


@pytest.fixture(scope="module")
def copper():
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.05, seed=0)
    return relax(rattled, EMT())


def test_elastic_constants_of_emt_copper_are_the_published_ones(copper):
    """EMT's own fit (Jacobsen, Stoltze, Nørskov 1996): 134 GPa; C11, C12, C44 = 173, 116, 91."""
    curve, elastic = equation_of_state(copper, EMT()), stiffness(copper, EMT())
    assert curve.volume_A3_per_atom * 4 == pytest.approx(3.59**3, rel=5e-3)
    assert curve.bulk_modulus_GPa == pytest.approx(134, rel=0.02)
    assert elastic.cubic_GPa == pytest.approx({"C11": 173, "C12": 116, "C44": 91}, rel=0.02)
    assert elastic.is_stable


def test_bulk_modulus_from_stiffness_equals_that_of_equation_of_state(copper):
    curve, elastic = equation_of_state(copper, EMT()), stiffness(copper, EMT())
    assert elastic.bulk_modulus_GPa == pytest.approx(curve.bulk_modulus_GPa, rel=0.01)


def test_stiffness_of_pair_potential_obeys_cauchy_relation():
    """Central forces at a centre of symmetry without pressure: C12 = C44 (Born and Huang 1954)."""
    potential = LennardJones(sigma=3.4, epsilon=0.0104, rc=12, smooth=True, ro=11)
    elastic = stiffness(relax(bulk("Ar", a=5.26, cubic=True), potential), potential)
    assert elastic.cubic_GPa["C12"] == pytest.approx(elastic.cubic_GPa["C44"], rel=0.03)


def test_stiffness_of_hexagonal_crystal_has_no_cubic_constants():
    elastic = stiffness(relax(bulk("Cu", "hcp", a=2.55, c=4.16), EMT()), EMT())
    assert elastic.cubic_GPa is None
    matrix = np.array(elastic.voigt_GPa)
    assert matrix[0, 0] == pytest.approx(matrix[1, 1], rel=0.02)  # isotropic in the plane:
    assert matrix[5, 5] == pytest.approx((matrix[0, 0] - matrix[0, 1]) / 2, rel=0.05)


def test_equation_of_state_requires_minimum_in_scan():
    swollen = bulk("Cu", a=4.2, cubic=True)
    with pytest.raises(CrystalError, match="no minimum within 6%"):
        equation_of_state(swollen, EMT())


def test_phonons_of_fcc_have_three_translations_and_no_imaginary_mode(copper):
    phonons = gamma_phonons(copper, EMT())
    assert len(phonons.frequencies_per_cm) == 3 * len(copper)
    assert np.sum(np.abs(phonons.frequencies_per_cm) < 5) == 3
    assert phonons.n_imaginary == 0


def test_phonons_highest_frequency_equals_that_of_frozen_phonon(copper):
    """Opposite displacements of planes along z: the longitudinal branch at X."""
    frozen, amplitude_A = copper.copy(), 0.02
    height = frozen.get_scaled_positions()[:, 2]
    frozen.positions[:, 2] += amplitude_A * np.cos(2 * np.pi * (height - height[0]))
    energies = []
    for atoms in (copper.copy(), frozen):
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    mass = frozen.get_masses().sum()
    omega = np.sqrt(2 * (energies[1] - energies[0]) / (mass * amplitude_A**2))
    highest = gamma_phonons(copper, EMT()).frequencies_per_cm[-1]
    assert highest == pytest.approx(omega * units._hbar * units.J * units.s / units.invcm, rel=0.02)


def test_phonons_of_unstable_crystal_are_imaginary():
    """Simple cubic copper: its folded zone contains the shear that transforms it to fcc."""
    sc = bulk("Cu", "sc", a=2.4).repeat(2)
    assert gamma_phonons(sc, EMT()).n_imaginary > 0


def test_phonons_of_large_cell_are_not_computed():
    assert gamma_phonons(bulk("Cu").repeat(5), EMT()) is None
