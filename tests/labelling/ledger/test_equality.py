"""Permuted, wrapped and translated structures share a label; different structures do not."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.labelling import Calculation, Label, LabelLedger
from mlip_assets.labelling.ledger.equality import (
    TOLERANCE_A,
    fingerprint,
    fingerprint_tolerance,
    match_atoms,
)
from mlip_assets.labelling.structure import with_vacuum

SEEDS = st.integers(0, 10_000)
KINDS = st.sampled_from(["crystal", "perfect", "alloy", "slab", "cluster", "skewed"])


def frame(kind: str, seed: int) -> Atoms:
    if kind in {"crystal", "perfect", "alloy"}:
        atoms = bulk("Cu", cubic=True, a=3.7).repeat((2, 1, 1))
        if kind == "alloy":
            atoms.symbols[[0, 3, 5]] = "Au"
    elif kind == "slab":
        atoms = fcc111("Cu", (2, 2, 2), vacuum=3.0)
    elif kind == "cluster":
        atoms = Atoms("Cu4", [[0, 0, 0], [2.5, 0, 0], [0, 2.6, 0], [0, 0.3, 2.7]])
    else:
        atoms = bulk("Cu", a=3.7).repeat((2, 2, 1))
    if kind != "perfect":
        atoms.rattle(0.1, seed=seed)
    return atoms


def permuted(
    atoms: Atoms, rng: np.random.Generator, noise_A: float = 0.0
) -> tuple[Atoms, list[int]]:
    """The structure permuted, translated, each atom moved by lattice vectors, and with noise."""
    order = rng.permutation(len(atoms))
    other = atoms[order]
    periodic = np.asarray(atoms.pbc)
    other.positions += rng.uniform(-9, 9, 3)
    other.positions += (rng.integers(-3, 4, (len(atoms), 3)) * periodic) @ atoms.cell.array
    noise = rng.normal(size=(len(atoms), 3))
    # noise of the outermost atoms of a cluster also changes its centre
    other.positions += noise_A * noise / np.linalg.norm(noise, axis=1).max()
    return other, order.tolist()


@given(kind=KINDS, seed=SEEDS)
@settings(deadline=None, max_examples=150)
def test_match_atoms_finds_the_permutation_of_equal_structures(kind: str, seed: int) -> None:
    atoms = frame(kind, seed)
    other, order = permuted(atoms, np.random.default_rng(seed), noise_A=0.1 * TOLERANCE_A)
    structure, reference = with_vacuum(other, 4.0), with_vacuum(atoms, 4.0)
    permutation = match_atoms(structure, reference)
    assert permutation is not None
    assert sorted(permutation) == list(range(len(atoms)))
    if kind != "perfect":  # there several permutations are valid
        assert [order[index] for index in permutation] == list(range(len(atoms)))
    forces = []
    for computed in (structure, reference):
        computed.calc = EMT()
        forces.append(computed.get_forces())
    np.testing.assert_allclose(forces[0][permutation], forces[1], atol=2e-3)


@given(kind=KINDS, seed=SEEDS)
@settings(deadline=None, max_examples=100)
def test_match_atoms_refuses_atom_moved_by_ten_tolerances(kind: str, seed: int) -> None:
    atoms, rng = frame(kind, seed), np.random.default_rng(seed)
    other, _ = permuted(atoms, rng)
    move = rng.normal(size=3)
    other.positions[rng.integers(len(atoms))] += 10 * TOLERANCE_A * move / np.linalg.norm(move)
    assert match_atoms(with_vacuum(other, 4.0), with_vacuum(atoms, 4.0)) is None


@given(kind=KINDS, seed=SEEDS, noise_A=st.floats(0, 0.4 * TOLERANCE_A))
@settings(deadline=None, max_examples=150)
def test_fingerprint_of_equal_structure_is_within_tolerance(
    kind: str, seed: int, noise_A: float
) -> None:
    atoms = frame(kind, seed)
    structure = with_vacuum(permuted(atoms, np.random.default_rng(seed), noise_A)[0], 4.0)
    reference = with_vacuum(atoms, 4.0)
    if match_atoms(structure, reference) is not None:
        difference = np.abs(fingerprint(structure) - fingerprint(reference))
        assert (difference <= fingerprint_tolerance(structure)).all()


@given(kind=KINDS, seed=SEEDS, noise_A=st.floats(0, 5 * TOLERANCE_A))
@settings(deadline=None, max_examples=150)
def test_match_atoms_is_always_within_the_tolerance(kind: str, seed: int, noise_A: float) -> None:
    """Compared with all differences of positions minus one common translation."""
    atoms = frame(kind, seed)
    structure = with_vacuum(permuted(atoms, np.random.default_rng(seed), noise_A)[0], 4.0)
    reference = with_vacuum(atoms, 4.0)
    permutation = match_atoms(structure, reference)
    if permutation is None:
        return
    assert (structure.numbers[permutation] == reference.numbers).all()
    fractions = (structure.positions[permutation] - reference.positions) @ np.linalg.inv(
        structure.cell.array
    )
    fractions -= np.where(structure.pbc, fractions[0], 0)
    fractions -= np.where(structure.pbc, np.round(fractions), 0)
    fractions -= np.where(structure.pbc, fractions.mean(axis=0), 0)
    # the box of a cluster may also differ by the tolerance
    limit = TOLERANCE_A * (1.01 if structure.pbc.all() else 2.01)
    assert np.linalg.norm(fractions @ structure.cell.array, axis=1).max() < limit


def test_match_atoms_refuses_rotation_strain_supercell_and_moments() -> None:
    atoms = with_vacuum(frame("alloy", 1), 4.0)
    strained, element, turned, magnetic, slab = (atoms.copy() for _ in range(5))
    strained.set_cell(strained.cell.array * 1.001, scale_atoms=True)
    element.symbols[1] = "Ag"
    turned.rotate(90, "z", rotate_cell=True)
    magnetic.set_initial_magnetic_moments([1.0] + [0.0] * 7)
    slab.pbc = [True, True, False]
    mirrored = atoms.copy()
    mirrored.positions[:, 0] *= -1
    others = [strained, element, turned, magnetic, slab, mirrored, atoms.repeat((1, 2, 1))]
    assert [match_atoms(other, atoms) for other in others] == [None] * len(others)
    swapped = magnetic[[1, 0, 2, 3, 4, 5, 6, 7]]
    permutation = match_atoms(swapped, magnetic)
    assert permutation is not None
    assert permutation[0] == 1


@given(seeds=st.lists(SEEDS, min_size=2, max_size=6, unique=True), kind=KINDS)
@settings(deadline=None, max_examples=15)
def test_ledger_gives_forces_in_order_of_permuted_structure(seeds: list[int], kind: str) -> None:
    frames = [
        with_vacuum(frame(kind, seed), 4.0) for seed in (seeds if kind != "perfect" else seeds[:1])
    ]
    with TemporaryDirectory() as folder:
        ledger = LabelLedger(Path(folder) / "labels.db")
        entries = ledger.register(frames, "toy", "hash")
        assert len({entry.key for entry in entries}) == len(frames)
        for entry in entries:
            atoms = entry.structure.copy()
            atoms.calc = EMT()
            calculation = Calculation(atoms.get_potential_energy(), atoms.get_forces(), None)
            label = Label(entry.key, "toy", "hash", "done", "", 1, 1.0, 9.0, "toy 1", calculation)
            ledger.commit(label, entry.structure)
        for atoms, entry in zip(frames, entries, strict=True):
            other = with_vacuum(permuted(atoms, np.random.default_rng(seeds[0]))[0], 4.0)
            found = ledger.look_up(other, "toy", "hash")
            assert found is not None
            assert found.key == entry.key
            assert found.calculation is not None
            other.calc = EMT()
            np.testing.assert_allclose(found.calculation.forces, other.get_forces(), atol=1e-8)
            assert ledger.register([other], "toy", "hash")[0].key == entry.key
            assert ledger.look_up(other, "toy", "other settings") is None
            other.positions[0] += [20 * TOLERANCE_A, 0, 0]
            assert len(other) == 1 or ledger.look_up(with_vacuum(other, 4.0), "toy", "hash") is None


@pytest.mark.parametrize("n_repeat", [2, 5])
def test_match_atoms_of_perfect_supercell_is_fast(n_repeat: int) -> None:
    """Every atom is equivalent, so the first candidate must match."""
    import time

    crystal = bulk("Si", cubic=True).repeat(n_repeat)
    other, _ = permuted(crystal, np.random.default_rng(0))
    started = time.perf_counter()
    assert match_atoms(other, crystal) is not None
    assert time.perf_counter() - started < 1.0


def test_register_with_many_similar_structures_takes_milliseconds(tmp_path: Path) -> None:
    """A look-up must not compare with every structure of the ledger."""
    import time

    ledger = LabelLedger(tmp_path / "labels.db")
    crystal = bulk("Si", cubic=True).repeat(2)
    frames = [crystal.copy() for _ in range(1000)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    ledger.register(frames, "toy", "hash")
    others = [permuted(atoms, np.random.default_rng(1))[0] for atoms in frames[::10]]
    started = time.perf_counter()
    entries = ledger.register(others, "toy", "hash")
    assert time.perf_counter() - started < 0.02 * len(others)
    assert len({entry.key for entry in entries}) == len(others)
    assert len(ledger.register(frames + others, "toy", "hash")) == len(frames) + len(others)
