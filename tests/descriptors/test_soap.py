"""The compiled kernels: equal to dscribe and the reference, and invariant under symmetries."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.geometry import wrap_positions
from scipy.spatial.transform import Rotation

from mlip_assets.descriptors import n_soap_features, soap_power_spectrum
from mlip_assets.descriptors.frames import channel_pairs
from mlip_assets.descriptors.kernels.neighbours import MAX_NEIGHBOURS
from mlip_assets.descriptors.reference import gto_basis, neighbour_radius
from mlip_assets.descriptors.reference import soap_power_spectrum as reference
from tests.descriptors.structures import STRUCTURES, oxide, rattled, silicon, slab

SIZES = [(4, 3), (8, 6), pytest.param(10, 9, marks=pytest.mark.slow)]
SMALL: dict[str, Any] = {"r_cut": 4.0, "n_max": 4, "l_max": 3, "sigma": 0.5}

#: dscribe multiplies each coefficient of l = 1 by this number, which should be π√3/2.
DSCRIBE_L1 = 2.7206990463849543 / (np.pi * np.sqrt(3) / 2)


def rocksalt() -> Atoms:
    return rattled(bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1)))


def spectrum(atoms: Atoms, compute: Any = soap_power_spectrum, **changes: Any) -> np.ndarray:
    settings = {"species": sorted(set(atoms.symbols)), **SMALL, **changes}
    return compute(atoms.positions, atoms.cell[:], atoms.pbc, atoms.numbers, **settings)


def dscribe(atoms: Atoms, average: str = "outer", compression: str = "off", **changes: Any) -> Any:
    """Result of dscribe itself, with its rounded constant corrected."""
    from dscribe.descriptors import SOAP

    settings = {"species": sorted(set(atoms.symbols)), **SMALL, **changes}
    soap = SOAP(
        average=average,
        periodic=bool(atoms.pbc.any()),
        compression={"mode": compression},
        **settings,
    )
    wrapped = atoms.copy()
    wrapped.positions = wrap_positions(atoms.positions, atoms.cell[:], atoms.pbc, eps=0)
    theirs = soap.create(wrapped)
    n_max, l_max = settings["n_max"], settings["l_max"]
    degree = np.concatenate(
        [
            np.repeat(np.arange(l_max + 1), n_max * (n_max + 1) // 2 if one == other else n_max**2)
            for one, other in channel_pairs(len(settings["species"]), compression)
        ]
    )
    return np.where(degree == 1, theirs / DSCRIBE_L1**2, theirs)


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The larger of two errors: norm over norm, and largest error over largest value."""
    difference = np.asarray(ours, float) - theirs
    return float(
        max(
            np.linalg.norm(difference) / np.linalg.norm(theirs),
            np.abs(difference).max() / np.abs(theirs).max(),
        )
    )


@cache
def reference_spectrum(name: str, n_max: int, l_max: int) -> np.ndarray:
    return spectrum(STRUCTURES[name](), reference, r_cut=5.0, n_max=n_max, l_max=l_max)


@pytest.mark.slow
@pytest.mark.parametrize(("n_max", "l_max"), SIZES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_soap_equals_reference(name: str, n_max: int, l_max: int) -> None:
    size = {"r_cut": 5.0, "n_max": n_max, "l_max": l_max}
    expected, atoms = reference_spectrum(name, n_max, l_max), STRUCTURES[name]()
    assert error(spectrum(atoms, **size), expected) <= 1e-8
    assert error(spectrum(atoms, **size, radial_table="fine"), expected) <= 1e-12
    single = spectrum(atoms, **size, dtype=np.float32)
    assert single.dtype == np.float32
    assert error(single, expected) <= 1e-6


@pytest.mark.parametrize(("n_max", "l_max"), SIZES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_soap_equals_dscribe(name: str, n_max: int, l_max: int) -> None:
    size = {"r_cut": 5.0, "n_max": n_max, "l_max": l_max}
    atoms = STRUCTURES[name]()
    theirs = dscribe(atoms, **size)
    assert error(spectrum(atoms, **size), theirs) <= 1e-8
    # with more functions, dscribe's rounding in float64 is larger than our error: the reference,
    # which sums in long double, gives its size
    own = error(theirs, reference_spectrum(name, n_max, l_max)) if n_max > 8 else 0.0
    # which is a few roundings, multiplied by the largest coefficient of the radial functions
    assert own < 4 * np.finfo(np.float64).eps * np.abs(gto_basis(5.0, n_max, 0)[1]).max()
    assert error(spectrum(atoms, **size, radial_table="fine"), theirs) <= max(1e-12, own + 1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("average", ["off", "inner", "outer", "species"])
@pytest.mark.parametrize("build", [silicon, rocksalt, slab])
def test_averages_equal_reference(build: Any, average: Any) -> None:
    atoms = build()
    species = ["C", *set(atoms.symbols)]
    expected = spectrum(atoms, reference, species=species, average=average)
    for implementation in ("numba", "scalar"):
        ours = spectrum(atoms, species=species, average=average, implementation=implementation)
        assert ours.shape == expected.shape
        assert error(ours, expected) <= 1e-8
    if average != "species":
        theirs = spectrum(atoms, species=species, average=average, implementation="dscribe")
        assert error(theirs, expected) <= 3e-11


@pytest.mark.slow
@pytest.mark.parametrize("radial_table", ["standard", "fine"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scalar_kernel_equals_simd_kernel(dtype: Any, radial_table: Any) -> None:
    settings = {"n_max": 5, "l_max": 4, "dtype": dtype, "radial_table": radial_table}
    vectors = spectrum(rocksalt(), **settings)
    loops = spectrum(rocksalt(), **settings, implementation="scalar")
    assert error(vectors, loops) <= 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("average", ["off", "inner", "outer"])
@pytest.mark.parametrize("compression", ["mu2", "mu1nu1", "crossover"])
def test_compressions_equal_dscribe(compression: Any, average: Any) -> None:
    atoms = oxide()
    ours = spectrum(atoms, compression=compression, average=average)
    theirs = dscribe(atoms, compression=compression, average=average)
    assert ours.shape[1:] == theirs.shape
    assert ours.shape[-1] == n_soap_features(4, 4, 3, compression=compression)
    assert error(ours[0], theirs) <= 1e-8


def test_compressions_equal_sums_of_full_spectrum() -> None:
    """Features of mu1nu1 and mu2 are sums over species of the features without compression."""
    atoms = rocksalt()
    n = SMALL["n_max"]
    upper = np.triu_indices(n)
    blocks = spectrum(atoms)[0]
    split = np.cumsum([4 * n * (n + 1) // 2, 4 * n * n])
    alike, mixed, other = np.split(blocks, split)
    full = np.zeros((2, 2, 4, n, n))
    for a, values in ((0, alike), (1, other)):
        full[a, a][:, *upper] = values.reshape(4, -1)
        full[a, a] += np.triu(full[a, a], 1).swapaxes(1, 2)
    full[0, 1] = mixed.reshape(4, n, n)
    full[1, 0] = full[0, 1].swapaxes(1, 2)
    assert error(spectrum(atoms, compression="mu1nu1")[0], full.sum(axis=1).ravel()) < 1e-14
    mu2 = full.sum(axis=(0, 1))[:, *upper].ravel()
    assert error(spectrum(atoms, compression="mu2")[0], mu2) < 1e-14
    crossover = np.concatenate([alike, other])
    assert error(spectrum(atoms, compression="crossover")[0], crossover) < 1e-14


@pytest.mark.parametrize("pbc", [True, False, (True, True, False), (False, False, True)])
def test_soap_is_invariant_under_lattice_translations(pbc: Any) -> None:
    atoms = silicon()[:20]
    atoms.pbc = pbc
    shifts = np.random.default_rng(0).integers(-7, 8, (20, 3)) * atoms.pbc
    far = atoms.copy()
    far.positions += shifts @ atoms.cell[:]
    assert error(spectrum(far), spectrum(atoms)) < 1e-9


def test_soap_of_trajectory_equals_soap_of_single_frames() -> None:
    """Neighbour lists remain valid between frames, also when an atom is wrapped."""
    rng = np.random.default_rng(3)
    atoms = rocksalt()
    walk = atoms.positions + np.cumsum(rng.normal(0, 0.05, (300, len(atoms), 3)), axis=0)
    walk += rng.integers(-1, 2, (300, len(atoms), 1)) @ atoms.cell[:1]
    settings = {"species": ["Cl", "Na"], **SMALL}
    together = soap_power_spectrum(walk, atoms.cell[:], True, atoms.numbers, **settings)
    for frame in range(0, 300, 7):
        alone = soap_power_spectrum(walk[frame], atoms.cell[:], True, atoms.numbers, **settings)
        assert error(together[frame], alone[0]) < 1e-12


def test_soap_accepts_cells_and_pbc_per_frame() -> None:
    rng = np.random.default_rng(2)
    atoms = rocksalt()
    positions = atoms.positions + rng.normal(0, 0.3, (40, len(atoms), 3))
    cells = atoms.cell[:] * rng.uniform(0.95, 1.05, (40, 1, 1))
    cells[10:20] = cells[10]
    pbc = rng.random((40, 3)) < 0.5
    pbc[10:15] = pbc[10]
    settings = {"species": ["Cl", "Na"], **SMALL}
    batch = soap_power_spectrum(positions, cells, pbc, atoms.numbers, **settings)
    assert batch.shape == (40, n_soap_features(2, 4, 3))
    expected = reference(positions, cells, pbc, atoms.numbers, **settings)
    assert error(batch, expected) < 1e-8


def test_soap_bytes_do_not_depend_on_n_threads() -> None:
    atoms = rocksalt()
    steps = np.random.default_rng(4).normal(0, 0.02, (700, len(atoms), 3))
    walk = atoms.positions + np.cumsum(steps, axis=0)
    one, two, five = (
        soap_power_spectrum(
            walk, atoms.cell[:], True, atoms.numbers, species=[11, 17], n_threads=n, **SMALL
        )
        for n in (1, 2, 5)
    )
    assert np.array_equal(one, two)
    assert np.array_equal(one, five)


def test_neighbour_list_of_many_atoms_is_complete() -> None:
    """A perfect crystal has the spectrum of its unit cell, for any number of bins."""
    small, large = bulk("Cu", cubic=True), bulk("Cu", cubic=True) * (9, 8, 7)
    assert error(spectrum(large), spectrum(small)) < 1e-12
    gas = Atoms("Ar30", np.random.default_rng(0).uniform(-200, 200, (30, 3)))
    isolated = Atoms("Ar")
    gas.positions[:2] = [[0, 0, 0], [0, 0, 3.8]]
    pair = gas[:2]
    expected = (2 * spectrum(pair) + 28 * spectrum(isolated)) / 30
    assert error(spectrum(gas), expected) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["numba", "scalar"])
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-8), (np.float32, 1e-6)])
def test_soap_of_distances_rounded_up_to_radius(
    dtype: Any, bound: float, implementation: Any
) -> None:
    """In float32, many distances just below the radius are rounded to the radius; in float64, a few."""
    radius = neighbour_radius(SMALL["r_cut"], SMALL["sigma"])
    inside = radius * (1 - np.geomspace(1e-16, 1e-6, 200))
    pairs = np.zeros((200, 2, 3))
    pairs[:, 1] = inside[:, None] * Rotation.random(200, random_state=0).apply([0, 0, 1])
    settings: dict[str, Any] = {"species": ["Ar"], **SMALL}
    ours = soap_power_spectrum(
        pairs,
        np.zeros((3, 3)),
        False,
        [18, 18],
        **settings,
        dtype=dtype,
        implementation=implementation,
    )
    expected = reference(pairs, np.zeros((3, 3)), False, [18, 18], **settings)
    # beyond the radius a neighbour does not count; within 1e-16, rounding decides
    clear = np.abs(np.linalg.norm(pairs[:, 1], axis=1) / radius - 1) > 1e-14
    assert clear.sum() > 100
    assert error(ours[clear], expected[clear]) <= bound
    assert np.isfinite(ours).all()
    assert np.abs(ours / ours[clear].mean(axis=0) - 1)[:, ours[0] > 1e-3].max() < 1e-2


def test_soap_shapes_and_dtypes() -> None:
    atoms = silicon()
    assert spectrum(atoms, dtype=np.float32).dtype == np.float32
    assert spectrum(atoms, dtype=np.float32, implementation="dscribe").dtype == np.float32
    for average, shape in (("outer", (0, 40)), ("off", (0, 64, 40))):
        none = soap_power_spectrum(
            np.empty((0, 64, 3)),
            atoms.cell[:],
            True,
            atoms.numbers,
            species=["Si"],
            average=average,
            **SMALL,
        )
        assert none.shape == shape
    assert np.array_equal(spectrum(atoms, species=[14]), spectrum(atoms, species=["Si", "Si"]))


def test_soap_of_absent_species_is_zero_in_any_species_order() -> None:
    atoms = silicon()
    wide = spectrum(atoms, species=["C", "Si"])
    assert np.array_equal(wide, spectrum(atoms, species=["Si", "C"]))
    assert error(wide[wide != 0], spectrum(atoms)[0]) < 1e-14
    by_species = spectrum(atoms, species=["C", "Si"], average="species")[0]
    assert not by_species[: wide.shape[1]].any()
    assert error(by_species[wide.shape[1] :], wide[0]) < 1e-14


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.eye(3) * 12.0])
def test_soap_of_molecule_needs_no_cell(cell: np.ndarray) -> None:
    water = molecule("H2O")
    ours = soap_power_spectrum(
        water.positions, cell, False, water.numbers, species=["H", "O"], **SMALL
    )
    assert error(ours[0], dscribe(water)) <= 1e-8


def test_soap_of_slab_needs_no_third_lattice_vector() -> None:
    whole, flat = slab(), slab()
    flat.cell[2] = 0
    assert error(spectrum(flat), spectrum(whole)) < 1e-12


def _with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = np.array(array, dtype=float)
    changed[0, 0] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": ["C"]}, r"\[14\] are not among the species \['C'\]"),
        ({"species": []}, "species"),
        ({"species": ["Sj"]}, "species"),
        ({"r_cut": 1.0}, "r_cut: 1.0"),
        ({"r_cut": -5.0}, "r_cut: -5.0"),
        ({"r_cut": np.nan}, "r_cut"),
        ({"n_max": 0}, "n_max"),
        ({"n_max": 20}, "linearly dependent"),
        ({"l_max": -1}, "l_max"),
        ({"l_max": 21}, "l_max"),
        ({"sigma": 0.0}, "sigma"),
        ({"r_cut": 5000.0, "n_max": 1, "l_max": 0}, "r_cut: 8192 intervals do not resolve"),
        ({"average": "mean"}, "average"),
        ({"average": "species", "implementation": "dscribe"}, "use implementation 'numba'"),
        ({"dtype": np.int32}, "dtype"),
        ({"n_threads": 0}, "n_threads"),
        ({"compression": "mu3"}, "compression: 'mu3'"),
        ({"radial_table": "coarse"}, "radial_table: 'coarse'"),
        ({"implementation": "fortran"}, "implementation: 'fortran'"),
        ({"positions": _with_value(np.zeros((8, 3)), np.nan)}, "positions: frame 0 contains NaN"),
        (
            {"positions": _with_value(np.zeros((8, 3)), 1e200)},
            "positions: frame 0 has coordinates beyond",
        ),
        ({"positions": np.zeros((8, 2))}, r"positions: shape \(8, 2\)"),
        ({"positions": np.zeros((1, 0, 3)), "numbers": []}, "with at least one atom"),
        ({"positions": np.zeros((8, 3))}, "frame 0 has another atom at the position of atom 0"),
        ({"numbers": [14] * 7}, r"numbers: shape \(7,\)"),
        ({"numbers": [14.5] * 8}, "integers"),
        ({"cells": np.zeros((3, 3))}, "span no volume"),
        ({"cells": np.ones((3, 3))}, "span no volume"),
        ({"cells": _with_value(np.eye(3), np.inf)}, "cells: frame 0"),
        ({"cells": np.eye(3) * 0.1}, f"more than {MAX_NEIGHBOURS} atoms within"),
        ({"cells": np.eye(3) * 0.001}, "images of atoms around the cell"),
        ({"cells": np.zeros((2, 3, 3))}, "cells: shape"),
        ({"pbc": [True, False]}, "pbc: shape"),
    ],
)
def test_soap_rejects_invalid_input(changes: dict[str, Any], message: str) -> None:
    atoms = bulk("Si", cubic=True)
    arguments: dict[str, Any] = {
        "positions": atoms.positions,
        "cells": atoms.cell[:],
        "pbc": True,
        "numbers": atoms.numbers,
        "species": ["Si"],
        **SMALL,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        soap_power_spectrum(**arguments)


def test_soap_error_gives_index_of_invalid_frame() -> None:
    atoms = rocksalt()
    positions = np.repeat(atoms.positions[None], 400, axis=0)
    positions[311, 2] = positions[311, 1] + atoms.cell[0] - atoms.cell[1]
    with pytest.raises(ValueError, match="frame 311 has another atom at the position of atom 1"):
        soap_power_spectrum(
            positions, atoms.cell[:], True, atoms.numbers, species=[11, 17], n_threads=2, **SMALL
        )


@pytest.mark.parametrize(("species", "n_max", "l_max"), [(["Si"], 8, 6), (["H", "C", "O"], 3, 2)])
@pytest.mark.parametrize("compression", ["off", "mu2", "mu1nu1", "crossover"])
def test_n_soap_features_equals_dscribe(
    species: list[str], n_max: int, l_max: int, compression: Any
) -> None:
    from dscribe.descriptors import SOAP

    soap = SOAP(
        species=species, r_cut=4.0, n_max=n_max, l_max=l_max, compression={"mode": compression}
    )
    ours = n_soap_features(len(species), n_max, l_max, compression=compression)
    assert ours == soap.get_number_of_features()
