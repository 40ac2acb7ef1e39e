"""Renumbered, wrapped and shifted structures share a label, atom by atom; others never do."""

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


def renamed(
    atoms: Atoms, rng: np.random.Generator, noise_A: float = 0.0
) -> tuple[Atoms, list[int]]:
    """The same structure: renumbered, shifted, each atom moved by whole cells, and noisy."""
    order = rng.permutation(len(atoms))
    other = atoms[order]
    periodic = np.asarray(atoms.pbc)
    other.positions += rng.uniform(-9, 9, 3)
    other.positions += (rng.integers(-3, 4, (len(atoms), 3)) * periodic) @ atoms.cell.array
    noise = rng.normal(size=(len(atoms), 3))
    # a cluster is centred by its outermost atoms, which noise moves twice as far
    other.positions += noise_A * noise / np.linalg.norm(noise, axis=1).max()
    return other, order.tolist()


@given(kind=KINDS, seed=SEEDS)
@settings(deadline=None, max_examples=150)
def test_match_atoms_finds_the_permutation_of_equal_structures(kind: str, seed: int) -> None:
    atoms = frame(kind, seed)
    other, order = renamed(atoms, np.random.default_rng(seed), noise_A=0.1 * TOLERANCE_A)
    mine, theirs = with_vacuum(other, 4.0), with_vacuum(atoms, 4.0)
    partners = match_atoms(mine, theirs)
    assert partners is not None
    assert sorted(partners) == list(range(len(atoms)))
    if kind != "perfect":  # where atoms may stand for each other
        assert [order[partner] for partner in partners] == list(range(len(atoms)))
    forces = []
    for structure in (mine, theirs):
        structure.calc = EMT()
        forces.append(structure.get_forces())
    np.testing.assert_allclose(forces[0][partners], forces[1], atol=2e-3)


@given(kind=KINDS, seed=SEEDS)
@settings(deadline=None, max_examples=100)
def test_match_atoms_refuses_atom_moved_by_ten_tolerances(kind: str, seed: int) -> None:
    atoms, rng = frame(kind, seed), np.random.default_rng(seed)
    other, _ = renamed(atoms, rng)
    move = rng.normal(size=3)
    other.positions[rng.integers(len(atoms))] += 10 * TOLERANCE_A * move / np.linalg.norm(move)
    assert match_atoms(with_vacuum(other, 4.0), with_vacuum(atoms, 4.0)) is None


@given(kind=KINDS, seed=SEEDS, noise_A=st.floats(0, 0.4 * TOLERANCE_A))
@settings(deadline=None, max_examples=150)
def test_fingerprint_of_equal_structure_is_within_tolerance(
    kind: str, seed: int, noise_A: float
) -> None:
    atoms = frame(kind, seed)
    mine = with_vacuum(renamed(atoms, np.random.default_rng(seed), noise_A)[0], 4.0)
    theirs = with_vacuum(atoms, 4.0)
    if match_atoms(mine, theirs) is not None:
        apart = np.abs(fingerprint(mine) - fingerprint(theirs))
        assert (apart <= fingerprint_tolerance(mine)).all()


@given(kind=KINDS, seed=SEEDS, noise_A=st.floats(0, 5 * TOLERANCE_A))
@settings(deadline=None, max_examples=150)
def test_match_atoms_is_always_within_the_tolerance(kind: str, seed: int, noise_A: float) -> None:
    """Recomputed the slow way: all differences of places, less one shift along the lattice."""
    atoms = frame(kind, seed)
    mine = with_vacuum(renamed(atoms, np.random.default_rng(seed), noise_A)[0], 4.0)
    theirs = with_vacuum(atoms, 4.0)
    partners = match_atoms(mine, theirs)
    if partners is None:
        return
    assert (mine.numbers[partners] == theirs.numbers).all()
    fractions = (mine.positions[partners] - theirs.positions) @ np.linalg.inv(mine.cell.array)
    fractions -= np.where(mine.pbc, fractions[0], 0)
    fractions -= np.where(mine.pbc, np.round(fractions), 0)
    fractions -= np.where(mine.pbc, fractions.mean(axis=0), 0)
    # a box that is drawn around the atoms may itself differ by the tolerance
    limit = TOLERANCE_A * (1.01 if mine.pbc.all() else 2.01)
    assert np.linalg.norm(fractions @ mine.cell.array, axis=1).max() < limit


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
    partners = match_atoms(swapped, magnetic)
    assert partners is not None
    assert partners[0] == 1


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
            other = with_vacuum(renamed(atoms, np.random.default_rng(seeds[0]))[0], 4.0)
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
    """Every atom can take the place of every other; the first candidate must do."""
    import time

    crystal = bulk("Si", cubic=True).repeat(n_repeat)
    other, _ = renamed(crystal, np.random.default_rng(0))
    started = time.perf_counter()
    assert match_atoms(other, crystal) is not None
    assert time.perf_counter() - started < 1.0


def test_register_with_many_similar_structures_takes_milliseconds(tmp_path: Path) -> None:
    """A ledger is asked for each frame of each campaign: it must not compare with all it holds."""
    import time

    ledger = LabelLedger(tmp_path / "labels.db")
    crystal = bulk("Si", cubic=True).repeat(2)
    frames = [crystal.copy() for _ in range(1000)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    ledger.register(frames, "toy", "hash")
    others = [renamed(atoms, np.random.default_rng(1))[0] for atoms in frames[::10]]
    started = time.perf_counter()
    entries = ledger.register(others, "toy", "hash")
    assert time.perf_counter() - started < 0.02 * len(others)
    assert len({entry.key for entry in entries}) == len(others)
    assert len(ledger.register(frames + others, "toy", "hash")) == len(frames) + len(others)
