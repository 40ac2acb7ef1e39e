"""Radial distributions of a crystal, of random points and of a molecule."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.trajectory.radial_distribution import radial_distribution


def test_radial_distribution_has_shells_of_fcc():
    """fcc: 12, 6, 24 neighbours at a/√2, a, a√1.5."""
    a, atoms = 3.61, bulk("Cu", cubic=True)
    r, g = radial_distribution([atoms, atoms], r_max_A=5.0, n_bins=500)
    count = g * 4 * np.pi * r**2 * 0.01 * 4 / a**3
    shells = np.split(count, np.searchsorted(r, [2.8, 3.9, 4.7]))
    assert [s.sum() for s in shells] == pytest.approx([12, 6, 24, 0], rel=1e-3)
    assert r[np.argmax(count[:300])] == pytest.approx(a / np.sqrt(2), abs=0.01)


def test_radial_distribution_of_random_points_is_one():
    rng = np.random.default_rng(0)
    gas = [Atoms("Ar500", rng.uniform(0, 20, (500, 3)), cell=[20] * 3, pbc=True) for _ in range(8)]
    _, g = radial_distribution(gas, n_bins=12)
    assert g[3:] == pytest.approx(np.ones(9), abs=0.05)


def test_radial_distribution_accepts_molecule_without_cell():
    r, g = radial_distribution([Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]])])
    assert r[np.flatnonzero(g)] == pytest.approx([2.2], abs=0.03)
