from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from mlip_assets.descriptors import n_soap_features, soap_power_spectrum

HYPER = {"r_cut": 4.0, "n_max": 4, "l_max": 3, "sigma": 0.5}


def crystal(composition: str = "Si") -> Atoms:
    if composition == "Si":
        atoms = bulk("Si", cubic=True)
    else:
        atoms = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))
    atoms.positions += np.random.default_rng(5).normal(0, 0.1, atoms.positions.shape)
    return atoms


def spectrum(atoms: Atoms, **changes: Any) -> np.ndarray:
    settings = {"species": sorted(set(atoms.symbols)), **HYPER, **changes}
    return soap_power_spectrum(
        atoms.positions[None], atoms.cell[:], atoms.pbc, atoms.numbers, **settings
    )


def dscribe(atoms: Atoms, average: str, **changes: Any) -> np.ndarray:
    from dscribe.descriptors import SOAP

    settings = {"species": sorted(set(atoms.symbols)), **HYPER, **changes}
    soap = SOAP(average=average, periodic=bool(atoms.pbc.any()), **settings)
    return soap.create(atoms)


def assert_same(ours: np.ndarray, theirs: np.ndarray, rtol: float = 1e-9) -> None:
    assert np.abs(ours - theirs).max() <= rtol * np.abs(theirs).max()


@pytest.mark.parametrize("average", ["off", "inner", "outer"])
@pytest.mark.parametrize("composition", ["Si", "NaCl"])
def test_equals_dscribe_on_wrapped_atoms(composition: str, average: Any) -> None:
    atoms = crystal(composition)
    wrapped = atoms.copy()
    wrapped.wrap()
    ours = spectrum(atoms, average=average)[0]
    theirs = dscribe(wrapped, average)
    assert ours.shape == theirs.shape
    assert_same(ours, theirs)


@pytest.mark.parametrize("pbc", [True, False, (True, True, False), (False, False, True)])
def test_atoms_far_outside_the_cell_are_the_same_atoms(pbc: Any) -> None:
    atoms = crystal()
    atoms.pbc = pbc
    shifts = np.random.default_rng(0).integers(-7, 8, (8, 3)) * atoms.pbc
    far = atoms.copy()
    far.positions += shifts @ atoms.cell[:]
    assert_same(spectrum(far), spectrum(atoms))


@pytest.mark.parametrize("composition", ["Si", "NaCl"])
def test_invariant_under_rotation_translation_and_permutation(composition: str) -> None:
    atoms = crystal(composition)
    turn = Rotation.random(random_state=3).as_matrix()
    order = np.random.default_rng(1).permutation(len(atoms))
    moved = Atoms(
        atoms.numbers[order],
        (atoms.positions[order] + [1.7, -30.0, 4.1]) @ turn.T,
        cell=atoms.cell[:] @ turn.T,
        pbc=True,
    )
    assert_same(spectrum(moved), spectrum(atoms), rtol=1e-8)


def test_intensive_in_the_supercell() -> None:
    assert_same(spectrum(crystal().repeat((2, 1, 1))), spectrum(crystal()))


def test_a_batch_is_its_frames_one_by_one() -> None:
    rng = np.random.default_rng(2)
    atoms = crystal("NaCl")
    positions = atoms.positions + rng.normal(0, 0.3, (5, len(atoms), 3))
    cells = atoms.cell[:] * rng.uniform(0.95, 1.05, (5, 1, 1))
    pbc = rng.random((5, 3)) < 0.5
    settings = {"species": ["Cl", "Na"], **HYPER}
    batch = soap_power_spectrum(positions, cells, pbc, atoms.numbers, **settings)
    assert batch.shape == (5, n_soap_features(2, 4, 3))
    for frame in range(5):
        one = soap_power_spectrum(
            positions[frame], cells[frame], pbc[frame], atoms.numbers, **settings
        )
        assert_same(batch[frame], one[0])
    shared = soap_power_spectrum(
        positions, cells, pbc, atoms.numbers, **settings, average="off", n_threads=2
    )
    assert shared.shape == (5, len(atoms), batch.shape[1])
    assert_same(shared.mean(axis=1), batch)


def test_shapes_and_types() -> None:
    atoms = crystal()
    assert spectrum(atoms, dtype=np.float32).dtype == np.float32
    none = soap_power_spectrum(
        np.empty((0, 8, 3)), atoms.cell[:], True, atoms.numbers, species=["Si"], **HYPER
    )
    assert none.shape == (0, n_soap_features(1, 4, 3))
    assert_same(spectrum(atoms, species=[14]), spectrum(atoms, species=["Si", "Si"]))


def test_species_order_does_not_matter_and_absent_species_are_zero() -> None:
    atoms = crystal()
    wide = spectrum(atoms, species=["C", "Si"])
    assert_same(wide, spectrum(atoms, species=["Si", "C"]))
    assert_same(wide[wide != 0], spectrum(atoms)[0])


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.eye(3) * 12.0])
def test_a_molecule_needs_no_cell(cell: np.ndarray) -> None:
    water = molecule("H2O")
    ours = soap_power_spectrum(
        water.positions, cell, False, water.numbers, species=["H", "O"], **HYPER
    )
    assert_same(ours[0], dscribe(water, "outer"))


def test_a_slab_needs_no_third_vector() -> None:
    slab = crystal()
    slab.pbc = (True, True, False)
    cell = slab.cell[:].copy()
    cell[2] = 0
    flat = Atoms(slab.numbers, slab.positions, cell=cell, pbc=slab.pbc)
    wrapped = slab.copy()
    wrapped.wrap()
    assert_same(spectrum(flat)[0], dscribe(wrapped, "outer"))


def _with(array: np.ndarray, value: float) -> np.ndarray:
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
        ({"r_cut": np.nan}, "r_cut"),
        ({"n_max": 0}, "n_max"),
        ({"l_max": -1}, "l_max"),
        ({"l_max": 21}, "l_max"),
        ({"sigma": 0.0}, "sigma"),
        ({"average": "mean"}, "average"),
        ({"dtype": np.int32}, "dtype"),
        ({"n_threads": 0}, "n_threads"),
        ({"positions": _with(np.zeros((8, 3)), np.nan)}, "positions: frame 0 holds NaN"),
        ({"positions": np.zeros((8, 2))}, r"positions: shape \(8, 2\)"),
        ({"positions": np.zeros((1, 0, 3)), "numbers": []}, "with atoms in it"),
        ({"numbers": [14] * 7}, r"numbers: shape \(7,\)"),
        ({"numbers": [14.5] * 8}, "integers"),
        ({"cells": np.zeros((3, 3))}, "span no volume"),
        ({"cells": np.ones((3, 3))}, "span no volume"),
        ({"cells": _with(np.eye(3), np.inf)}, "cells: frame 0"),
        ({"cells": np.zeros((2, 3, 3))}, "cells: shape"),
        ({"pbc": [True, False]}, "pbc: shape"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    atoms = crystal()
    arguments: dict[str, Any] = {
        "positions": atoms.positions,
        "cells": atoms.cell[:],
        "pbc": True,
        "numbers": atoms.numbers,
        "species": ["Si"],
        **HYPER,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        soap_power_spectrum(**arguments)


@pytest.mark.parametrize(("species", "n_max", "l_max"), [(["Si"], 8, 6), (["H", "C", "O"], 3, 2)])
def test_feature_count_is_that_of_dscribe(species: list[str], n_max: int, l_max: int) -> None:
    from dscribe.descriptors import SOAP

    soap = SOAP(species=species, r_cut=4.0, n_max=n_max, l_max=l_max)
    assert n_soap_features(len(species), n_max, l_max) == soap.get_number_of_features()
