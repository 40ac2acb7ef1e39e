"""Guards against a brute-force look at all pairs and images."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.dynamics import close_contact


def worst_margin(atoms, ratio):
    """Distance less the allowed one, least over all pairs and near images."""
    images = [range(-2, 3) if periodic else (0,) for periodic in atoms.pbc]
    radii = ratio * covalent_radii[atoms.numbers]
    worst = np.inf
    for shift in itertools.product(*images):
        vectors = (
            atoms.positions[:, None] - atoms.positions[None] + np.array(shift) @ atoms.cell.array
        )
        margin = np.linalg.norm(vectors, axis=-1) - radii[:, None] - radii
        if not any(shift):
            np.fill_diagonal(margin, np.inf)
        worst = min(worst, margin.min())
    return worst


@given(
    seed=st.integers(0, 10_000),
    n_atoms=st.integers(1, 6),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    ratio=st.floats(0.3, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_close_contacts_are_those_of_brute_force(seed, n_atoms, pbc, ratio):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(4, 6, 3)) + np.triu(rng.uniform(-1, 1, (3, 3)), 1)
    numbers = rng.choice([8, 14, 29], n_atoms)
    atoms = Atoms(numbers, rng.uniform(0, 1, (n_atoms, 3)) @ cell, cell=cell, pbc=pbc)
    worst = worst_margin(atoms, ratio)
    if abs(worst) > 1e-9:
        assert (close_contact(atoms, ratio) is not None) == (worst < 0)


def test_the_message_names_the_pair_and_the_distances():
    atoms = Atoms("SiO", [[0, 0, 0], [0.7, 0, 0]])
    said = close_contact(atoms, 0.55)
    assert said == "close_contact: Si-O at 0.70 Å, below 0.97" or said.startswith(
        "close_contact: O-Si"
    )


def test_a_lone_atom_touches_nothing_unless_its_image_is_near():
    assert close_contact(Atoms("Si"), 0.55) is None
    assert close_contact(Atoms("Si", cell=np.eye(3), pbc=True), 0.55) is not None


@pytest.mark.parametrize("ratio", [0.55, 0.95])
def test_crystals_are_never_too_close(ratio):
    from ase.build import bulk

    assert close_contact(bulk("Si", cubic=True), ratio) is None
