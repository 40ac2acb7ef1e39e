"""The reference: equal to dscribe, to analytic results and to brute force."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from mlip_assets.descriptors.reference import (
    expand_density,
    gto_basis,
    neighbours,
    power_spectrum,
    soap_power_spectrum,
    solid_harmonics,
)

AVERAGES = ("off", "inner", "outer")
HYPER = {"r_cut": 4.0, "n_max": 4, "l_max": 3, "sigma": 0.5}

#: dscribe 2.1.2 rounds a constant, π√3/2: its features of l = 1 are 2.5e-11 too large.
DSCRIBE = 3e-11


def perturbed(atoms: Atoms, width: float = 0.1) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(5).normal(0, width, atoms.positions.shape)
    return atoms


def silicon() -> Atoms:
    return perturbed(bulk("Si"))


def rocksalt() -> Atoms:
    return perturbed(bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1)))


def oxide() -> Atoms:
    atoms = bulk("MgO", "rocksalt", a=4.21).repeat((2, 1, 1))
    atoms.symbols[0] = "Ni"
    return perturbed(atoms)


def triclinic() -> Atoms:
    cell = [[2.9, 0.0, 0.0], [1.1, 2.7, 0.0], [-0.8, 0.9, 3.1]]
    return Atoms("Cu2", [[0.1, 0.2, 0.3], [1.4, 1.6, 1.5]], cell=cell, pbc=True)


def left_handed() -> Atoms:
    atoms = triclinic()
    atoms.cell = atoms.cell[[1, 0, 2]]
    return atoms


def ethanol() -> Atoms:
    return molecule("CH3CH2OH")


def slab() -> Atoms:
    return perturbed(fcc111("Al", (1, 1, 3), vacuum=4.0))


def isolated_atom() -> Atoms:
    return Atoms("Ar", [[1.0, 2.0, 3.0]])


FRAMES = (silicon, rocksalt, oxide, triclinic, left_handed, ethanol, slab, isolated_atom)


def spectrum(atoms: Atoms, **changes: Any) -> np.ndarray:
    settings = {"species": sorted(set(atoms.symbols)), **HYPER, **changes}
    return soap_power_spectrum(
        atoms.positions, atoms.cell[:], atoms.pbc, atoms.numbers, **settings
    )[0]


def dscribe(atoms: Atoms, **changes: Any) -> np.ndarray:
    from dscribe.descriptors import SOAP

    settings = {"species": sorted(set(atoms.symbols)), "average": "outer", **HYPER, **changes}
    atoms = atoms.copy()
    atoms.wrap()
    return SOAP(periodic=bool(atoms.pbc.any()), **settings).create(atoms)


def errors(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Norm of the difference over the norm, and largest error over the largest value."""
    assert ours.shape == theirs.shape
    wrong = np.abs(ours - theirs)
    return np.linalg.norm(wrong) / np.linalg.norm(theirs), wrong.max() / np.abs(theirs).max()


def assert_same(ours: np.ndarray, theirs: np.ndarray, bound: float) -> None:
    assert max(errors(ours, theirs)) <= bound


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(("n_max", "l_max"), [(4, 3), (6, 4)])
@pytest.mark.parametrize("frame", FRAMES)
def test_reference_equals_dscribe(frame: Any, n_max: int, l_max: int, average: str) -> None:
    settings = {"n_max": n_max, "l_max": l_max, "average": average}
    assert_same(spectrum(frame(), **settings), dscribe(frame(), **settings), DSCRIBE)


@pytest.mark.parametrize("average", AVERAGES)
def test_reference_equals_dscribe_with_large_basis(average: str) -> None:
    settings = {"r_cut": 5.0, "n_max": 8, "l_max": 6, "average": average}
    assert_same(spectrum(silicon(), **settings), dscribe(silicon(), **settings), DSCRIBE)


@pytest.mark.parametrize(
    "changes", [{"sigma": 0.3}, {"sigma": 1.0}, {"r_cut": 6.0}, {"n_max": 1}, {"l_max": 0}]
)
def test_reference_equals_dscribe_with_other_settings(changes: dict[str, Any]) -> None:
    assert_same(spectrum(rocksalt(), **changes), dscribe(rocksalt(), **changes), DSCRIBE)


def test_reference_differs_from_dscribe_only_by_rounded_constant() -> None:
    atoms, settings = ethanol(), {"n_max": 1, "l_max": 6}
    ratio = (spectrum(atoms, **settings) / dscribe(atoms, **settings)).reshape(-1, 7)
    assert np.abs(np.delete(ratio, 1, axis=1) - 1).max() < 1e-12
    # its source contains 2.7206990463849543 for this constant, which enters squared
    rounded = (np.pi * np.sqrt(3) / 2 / 2.7206990463849543) ** 2
    assert np.abs(ratio[:, 1] - rounded).max() < 1e-12


@pytest.mark.parametrize("average", AVERAGES)
def test_reference_equals_dscribe_with_absent_species(average: str) -> None:
    settings = {"species": ["Na", "O", "Cl", "H"], "average": average}
    ours = spectrum(rocksalt(), **settings)
    assert_same(ours, dscribe(rocksalt(), **settings), DSCRIBE)
    assert_same(ours[ours != 0], spectrum(rocksalt(), average=average).ravel(), 1e-13)


@pytest.mark.parametrize("frame", [rocksalt, triclinic, ethanol, slab])
def test_reference_is_invariant_under_rotation_translation_permutation(frame: Any) -> None:
    atoms = frame()
    rotation = Rotation.random(random_state=3).as_matrix()
    order = np.random.default_rng(1).permutation(len(atoms))
    moved = Atoms(
        atoms.numbers[order],
        (atoms.positions[order] + [1.7, -30.0, 4.1]) @ rotation.T,
        cell=atoms.cell[:] @ rotation.T,
        pbc=atoms.pbc,
    )
    for average in ("inner", "outer"):
        assert_same(spectrum(moved, average=average), spectrum(atoms, average=average), 1e-12)
    assert_same(spectrum(moved, average="off"), spectrum(atoms, average="off")[order], 1e-12)


@pytest.mark.parametrize("average", ["inner", "outer"])
@pytest.mark.parametrize("frame", [rocksalt, triclinic])
def test_reference_does_not_depend_on_choice_of_cell(frame: Any, average: str) -> None:
    atoms = frame()
    sheared = atoms.copy()
    sheared.set_cell(np.array([[1, 0, 0], [2, 1, 0], [-1, 1, 1]]) @ atoms.cell[:])
    for other in (atoms.repeat((2, 1, 1)), atoms.repeat(2), sheared):
        assert_same(spectrum(other, average=average), spectrum(atoms, average=average), 1e-12)


def test_neighbours_are_all_images_within_the_radius() -> None:
    atoms, radius = triclinic(), 6.0
    centre = atoms.positions[0] + [9.0, -6.0, 3.0]
    owner, vectors = neighbours(centre, atoms.positions, atoms.cell[:], atoms.pbc, radius)
    by_brute_force = [
        [i, *(position + np.array(n) @ atoms.cell[:] - centre)]
        for i, position in enumerate(atoms.positions)
        for n in product(range(-10, 11), repeat=3)
    ]
    expected = np.array([row for row in by_brute_force if np.linalg.norm(row[1:]) <= radius])
    found = np.column_stack([owner, vectors])
    assert found.shape == expected.shape
    assert np.allclose(
        found[np.lexsort(np.round(found, 6).T)], expected[np.lexsort(np.round(expected, 6).T)]
    )


@pytest.mark.parametrize(("n_max", "degree"), [(4, 0), (4, 3), (6, 4), (8, 6)])
def test_radial_functions_are_orthonormal(n_max: int, degree: int) -> None:
    alpha, beta = gto_basis(5.0, n_max, degree)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    r, weights = 10 * (nodes + 1), 10 * weights
    g = beta @ (r**degree * np.exp(-np.outer(alpha, r**2)))
    assert np.abs((g * weights * r**2) @ g.T - np.eye(n_max)).max() < 1e-7
    assert np.allclose(beta, beta.T)  # Löwdin, not any other root of the inverse overlap


def test_solid_harmonics_equal_scipy() -> None:
    vectors = np.random.default_rng(4).normal(size=(20, 3))
    r = np.linalg.norm(vectors, axis=1)
    theta, phi = np.arccos(vectors[:, 2] / r), np.arctan2(vectors[:, 1], vectors[:, 0])
    for l in range(8):  # noqa: E741
        ours = solid_harmonics(vectors, l)
        assert np.allclose(ours[:, 0], r**l * sph_harm_y(l, 0, theta, phi).real, rtol=1e-12)
        for m in range(1, l + 1):
            theirs = (-1) ** m * np.sqrt(2) * r**l * sph_harm_y(l, m, theta, phi)
            assert np.allclose(ours[:, 2 * m - 1], theirs.real, rtol=1e-12)
            assert np.allclose(ours[:, 2 * m], theirs.imag, rtol=1e-12)


def test_expand_density_equals_numerical_integral() -> None:
    vectors, sigma = np.array([[0.7, -1.1, 0.4], [0.0, 0.0, 0.0], [1.5, 2.0, -1.0]]), 0.5
    basis = [gto_basis(4.0, 4, l) for l in range(4)]  # noqa: E741
    axis, step = np.linspace(-8, 8, 81, retstep=True)  # exponentially accurate for what decays
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    density = sum(np.exp(-((grid - v) ** 2).sum(axis=1) / (2 * sigma**2)) for v in vectors)
    r2 = (grid**2).sum(axis=1)
    for l, c in enumerate(expand_density(vectors, basis, sigma)):  # noqa: E741
        alpha, beta = basis[l]
        g = beta @ np.exp(-np.outer(alpha, r2))
        integral = (g * density) @ solid_harmonics(grid, l) * step**3
        assert np.allclose(c, integral, rtol=0, atol=1e-9 * np.abs(c).max())


def test_reference_sums_in_long_double_over_a_float64_basis() -> None:
    basis = [gto_basis(4.0, 4, l) for l in range(3)]  # noqa: E741
    assert all(array.dtype == np.float64 for pair in basis for array in pair)
    vectors = np.array([[0.7, -1.1, 0.4]], dtype=np.longdouble)
    expansion = expand_density(vectors, basis, 0.5)
    assert all(c.dtype == np.longdouble for c in expansion)
    assert power_spectrum([c[None] for c in expansion]).dtype == np.longdouble


def test_reference_shapes_and_dtypes() -> None:
    atoms = rocksalt()
    settings: dict[str, Any] = {"species": [11, 17], **HYPER}
    frames = np.stack([atoms.positions, atoms.positions + 0.3])
    batch = soap_power_spectrum(
        frames, atoms.cell[:], True, atoms.numbers, average="off", dtype="f4", **settings
    )
    assert batch.dtype == np.float32
    assert np.array_equal(batch[0], spectrum(atoms, average="off").astype(np.float32))
    none = soap_power_spectrum(frames[:0], atoms.cell[:], True, atoms.numbers, **settings)
    assert none.shape == (0, *spectrum(atoms).shape)


def test_reference_rejects_invalid_input() -> None:
    with pytest.raises(ValueError, match="not among the species"):
        spectrum(rocksalt(), species=["Na"])
    with pytest.raises(ValueError, match="n_threads"):
        spectrum(rocksalt(), n_threads=0)
    with pytest.raises(ValueError, match="linearly dependent for l = 0"):
        spectrum(rocksalt(), n_max=20)
