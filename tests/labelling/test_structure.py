from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlip_assets.labelling.ledger.equality import match_atoms
from mlip_assets.labelling.structure import invalid_reason, label_key, with_vacuum


def key(atoms: Atoms, vacuum_A: float = 4.0) -> str:
    return label_key(with_vacuum(atoms, vacuum_A), "gpaw", "settings")


def crystal(seed: int = 0) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.rattle(0.1, seed=seed)
    return atoms


def cluster(seed: int = 0) -> Atoms:
    positions = np.random.default_rng(seed).normal(0, 2, (5, 3))
    return Atoms("Si5", positions, cell=[20, 20, 20], pbc=False)


def test_label_key_depends_on_every_bit() -> None:
    other_cell = crystal()
    other_cell.set_cell(other_cell.cell.array * (1 + 1e-15))
    magnetic = crystal()
    magnetic.set_initial_magnetic_moments([1, 0])
    slab = crystal()
    slab.pbc = [True, True, False]
    variants = [crystal(), other_cell, crystal()[[1, 0]], magnetic, slab]
    structure = with_vacuum(crystal(), 4.0)
    keys = [key(atoms) for atoms in variants]
    keys += [label_key(structure, "qe", "settings"), label_key(structure, "gpaw", "others")]
    assert len(set(keys)) == len(keys)


@given(offset=hnp.arrays(np.float64, 3, elements=st.floats(-30, 30)), size=st.floats(1, 60))
def test_with_vacuum_makes_drifted_clusters_equal(offset: np.ndarray, size: float) -> None:
    moved = cluster()
    moved.positions += offset
    moved.set_cell([size] * 3)
    assert match_atoms(with_vacuum(moved, 4.0), with_vacuum(cluster(), 4.0)) is not None


def test_label_key_does_not_depend_on_info_and_arrays() -> None:
    noted = crystal()
    noted.info["frame_id"] = 7
    noted.set_array("forces_of_the_surrogate", np.ones((2, 3)))
    noted.set_velocities(np.ones((2, 3)))
    assert key(noted) == key(crystal())


def test_with_vacuum_changes_directions_that_are_not_periodic_only() -> None:
    structure = with_vacuum(cluster(), 4.0)
    low, high = structure.positions.min(axis=0), structure.positions.max(axis=0)
    np.testing.assert_allclose(low, 4.0)
    np.testing.assert_allclose(structure.cell.lengths() - high, 4.0)
    np.testing.assert_allclose(
        structure.get_all_distances(), cluster().get_all_distances(), atol=1e-12
    )

    slab = fcc111("Cu", (2, 2, 3), vacuum=1.0)
    boxed_slab = with_vacuum(slab, 6.0)
    np.testing.assert_allclose(boxed_slab.cell[:2], slab.cell[:2])
    height = np.ptp(slab.positions[:, 2])
    assert boxed_slab.cell[2, 2] == pytest.approx(height + 12.0)


def test_with_vacuum_gives_an_isolated_atom_a_cell() -> None:
    structure = with_vacuum(Atoms("Si"), 4.5)
    np.testing.assert_allclose(structure.cell.array, np.diag([9.0] * 3))
    np.testing.assert_allclose(structure.positions, [[4.5] * 3])


@pytest.mark.parametrize(
    ("atoms", "flaw"),
    [
        (Atoms(), "no atoms"),
        (Atoms("Si", [[np.nan, 0, 0]]), "not finite"),
        (Atoms("Si", cell=[3, 3, np.inf], pbc=True), "not finite"),
        (Atoms("Si", cell=[3, 3, 0], pbc=True), "zero or parallel"),
        (Atoms("Si", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True), "zero or parallel"),
    ],
)
def test_invalid_reason_names_the_problem(atoms: Atoms, flaw: str) -> None:
    assert flaw in (invalid_reason(atoms) or "")


def test_invalid_reason_of_valid_atoms_is_none() -> None:
    assert all(invalid_reason(atoms) is None for atoms in (crystal(), cluster(), Atoms("Si")))
