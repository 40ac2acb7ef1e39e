"""The k-point rule of all engines."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.dft.kpoints import monkhorst_pack

from mlip_assets.labelling import isolated_atom
from mlip_assets.labelling.engines.kpoints import k_grid, k_points
from mlip_assets.labelling.structure import with_vacuum

CUBE = bulk("Si", "diamond", a=5.43, cubic=True)  # 2π/a = 1.157 1/Å


def test_k_points_are_within_the_spacing() -> None:
    numbers = [len(k_points(CUBE, spacing)) for spacing in (1.2, 1.157, 0.6, 0.45, 0.3)]
    assert numbers == [1, 8, 8, 27, 64]


@pytest.mark.parametrize("spacing_per_A", [0.6, 0.45, 0.3, 0.25])
def test_k_points_pair_with_their_negative_and_exclude_gamma(spacing_per_A: float) -> None:
    points = k_points(CUBE, spacing_per_A)
    assert np.linalg.norm(points, axis=1).min() > 0.05
    for point in points:
        difference = points + point
        assert (abs(difference - np.round(difference)) < 1e-12).all(axis=1).sum() == 1


def test_even_grid_equals_monkhorst_pack() -> None:
    np.testing.assert_allclose(k_points(CUBE, 0.3), monkhorst_pack((4, 4, 4)))


@pytest.mark.parametrize("spacing_per_A", [1.2, 0.6, 0.45, 0.3, 0.25])
def test_grid_with_shift_gives_the_same_points(spacing_per_A: float) -> None:
    """The convention of Quantum ESPRESSO and VASP: points i/n, shifted by half a step."""
    size, shifted = k_grid(CUBE, spacing_per_A)
    steps = np.indices(size).reshape(3, -1).T + 0.5 * np.array(shifted)
    shifted_points = steps / size
    points = k_points(CUBE, spacing_per_A)
    difference = points[:, None] - shifted_points[None]
    same = (abs(difference - np.round(difference)) < 1e-12).all(axis=2)
    assert (same.sum(axis=0) == 1).all()
    assert (same.sum(axis=1) == 1).all()


def test_directions_that_are_not_periodic_have_one_k_point() -> None:
    slab = CUBE.copy()
    slab.pbc = [True, True, False]
    points = k_points(with_vacuum(slab, 4.5), 0.45)
    assert len(points) == 9
    assert not points[:, 2].any()
    assert not k_points(with_vacuum(isolated_atom("Si"), 4.5), 0.1).any()
