"""Dimers of every pair at every distance: bond and repulsive core."""

import numpy as np
import pytest
from ase.data import atomic_numbers, covalent_radii

from mlip_assets.campaign import Campaign, GateSettings
from mlip_assets.labelling import EmtEngine, LabelLedger, dimers, label_frames
from mlip_assets.labelling.gates import energy_outliers

RATIOS = (0.7, 0.85, 1.0, 1.3, 2.0)


def test_dimers_have_every_pair_at_every_distance():
    made = dimers(["Cu", "Au"], RATIOS)
    assert len(made) == 3 * len(RATIOS)
    assert len({atoms.info["frame_id"] for atoms in made}) == len(made)
    assert max(atoms.info["frame_id"] for atoms in made) < 0
    for atoms, ratio in zip(made, RATIOS * 3, strict=True):
        radii = covalent_radii[[atomic_numbers[symbol] for symbol in atoms.symbols]]
        assert atoms.get_distance(0, 1) == pytest.approx(ratio * radii.sum())
        assert not atoms.pbc.any()
    assert dimers(["Cu", "Au"], ()) == []


@pytest.mark.slow
def test_dimer_labels_are_repulsive_in_the_core_and_attractive_beyond(tmp_path):
    made = label_frames(dimers(["Cu"], RATIOS), EmtEngine(), LabelLedger(tmp_path / "labels.db"))
    assert [atoms.info["seed_kind"] for atoms in made.labelled] == ["dimer"] * len(RATIOS)
    forces_x = np.array([atoms.arrays["REF_forces"][1, 0] for atoms in made.labelled])
    assert forces_x[0] > 5  # repulsive core
    assert (forces_x[1:] < 0).all()  # attractive at larger distances, with decreasing force
    assert forces_x[-1] > -0.2
    assert made.binding_energies().min() < 0


@pytest.mark.parametrize(
    ("labelling", "message"),
    [
        ({"dimers": [0.2]}, "dimers"),
        ({"dimers": [0.4, 1.0]}, r"dimers: 0\.4 is below gates\.min_distance_ratio = 0\.5"),
    ],
)
def test_dimer_distances_below_the_gate_are_refused(labelling, message):
    with pytest.raises(ValueError, match=message):
        Campaign(name="si", composition="Si", labelling=labelling)


def test_dimers_may_be_nearer_with_a_lower_gate():
    labelling = {"dimers": [0.3], "gates": {"min_distance_ratio": 0.25}}
    assert Campaign(name="si", composition="Si", labelling=labelling).labelling.dimers == (0.3,)


def test_dimer_is_never_an_energy_outlier():
    near_bond = dimers(["Cu"], np.linspace(0.9, 1.2, 12))
    (compressed,) = dimers(["Cu"], [0.3])
    plain = compressed.copy()
    plain.info.clear()
    energies = np.array([*np.linspace(-1.0, -0.9, 12), 300.0])
    assert energy_outliers([*near_bond, compressed], energies, GateSettings()) == [None] * 13
    group = [atoms.copy() for atoms in near_bond]
    for atoms in group:
        atoms.info.clear()
    *none, reason = energy_outliers([*group, plain], energies, GateSettings())
    assert set(none) == {None}
    assert "above the median" in reason
