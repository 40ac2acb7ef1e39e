"""Dimers: every pair at every distance, bound in the middle and repelled at the core."""

import numpy as np
import pytest
from ase.data import atomic_numbers, covalent_radii

from mlip_assets.campaign import Campaign
from mlip_assets.labelling import EmtEngine, LabelLedger, dimers, label_frames

RATIOS = (0.7, 0.85, 1.0, 1.3, 2.0)


def test_every_pair_at_every_distance():
    made = dimers(["Cu", "Au"], RATIOS)
    assert len(made) == 3 * len(RATIOS)
    assert len({atoms.info["frame_id"] for atoms in made}) == len(made)
    assert max(atoms.info["frame_id"] for atoms in made) < 0
    for atoms, ratio in zip(made, RATIOS * 3, strict=True):
        radii = covalent_radii[[atomic_numbers[symbol] for symbol in atoms.symbols]]
        assert atoms.get_distance(0, 1) == pytest.approx(ratio * radii.sum())
        assert not atoms.pbc.any()
    assert dimers(["Cu", "Au"], ()) == []


def test_labels_of_dimers_are_a_bond(tmp_path):
    made = label_frames(dimers(["Cu"], RATIOS), EmtEngine(), LabelLedger(tmp_path / "labels.db"))
    assert [atoms.info["seed_kind"] for atoms in made.labelled] == ["dimer"] * len(RATIOS)
    along = np.array([atoms.arrays["REF_forces"][1, 0] for atoms in made.labelled])
    assert along[0] > 5  # the core repels
    assert (along[1:] < 0).all()  # beyond the bond they attract, at last hardly
    assert along[-1] > -0.2
    assert made.binding_energies().min() < 0


def test_distances_that_cannot_be_computed_are_refused():
    with pytest.raises(ValueError, match=r"dimers"):
        Campaign(name="si", composition="Si", labelling={"dimers": [0.2]})
