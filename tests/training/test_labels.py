from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from mlip_assets.campaign import GateSettings
from mlip_assets.training import LabelError, check_labels
from mlip_assets.training.labels import dataset_sha256, formation_energy


def altered(labelled, change):
    frames = [atoms.copy() for atoms in labelled[:6]]
    change(frames[2])
    return frames


def test_check_labels_accepts_valid_labels(labelled, isolated_energies):
    check_labels(labelled, isolated_energies)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.info.pop("REF_energy"), "REF_energy'] is missing"),
        (lambda a: a.info.update(REF_energy=float("nan")), "REF_energy is nan"),
        (lambda a: a.arrays.pop("REF_forces"), "REF_forces'] is missing"),
        (lambda a: a.arrays["REF_forces"].__setitem__((0, 0), np.inf), "REF_forces has values"),
        (lambda a: a.info.update(REF_stress=np.zeros(6)), r"REF_stress has shape \(6,\)"),
        (lambda a: a.info.update(REF_stress=np.full((3, 3), np.nan)), "REF_stress has values"),
        (lambda a: a.info.update(REF_energy=4000.0), r"formation energy .* is outside"),
        (lambda a: a.symbols.__setitem__(0, "Ag"), "isolated_energies lacks Ag"),
    ],
)
def test_check_labels_names_invalid_label(labelled, isolated_energies, change, message):
    with pytest.raises(LabelError, match=f"frame 2000 .*{message}"):
        check_labels(altered(labelled, change), isolated_energies)


def test_check_labels_accepts_any_positive_energy_of_dimer(labelled, isolated_energies):
    frames = [atoms.copy() for atoms in labelled[:6]]
    crushed = Atoms("Cu2", [[0, 0, 0], [0.8, 0, 0]], info={"REF_energy": 300.0})
    crushed.arrays["REF_forces"] = np.array([[-1400.0, 0, 0], [1400.0, 0, 0]])
    with pytest.raises(LabelError, match=r"formation energy .* is outside"):
        check_labels([*frames, crushed], isolated_energies)
    crushed.info["seed_kind"] = "dimer"
    check_labels([*frames, *[crushed] * 8], isolated_energies)  # dimers do not count in the median


def test_check_labels_applies_gates_of_campaign_to_energy_outliers(labelled, isolated_energies):
    def lift(atoms):
        atoms.info["REF_energy"] += 6.0 * len(atoms)

    frames = [atoms.copy() for atoms in labelled]
    lift(frames[3])
    with pytest.raises(LabelError, match="above the median"):
        check_labels(frames, isolated_energies)
    wider = GateSettings(max_energy_deviation_eV_per_atom=50)
    check_labels(frames, isolated_energies, wider)


def test_check_labels_refuses_inconsistent_isolated_atoms(labelled):
    with pytest.raises(LabelError, match="same settings"):
        check_labels(labelled, {"Cu": 3000.0})
    with pytest.raises(LabelError, match="most frames are not bound"):
        check_labels(labelled, {"Cu": -1.0})


def test_check_labels_refuses_mixed_settings(labelled, isolated_energies):
    frames = altered(labelled, lambda a: a.info.update(settings_hash="other"))
    with pytest.raises(LabelError, match="2 different settings are mixed"):
        check_labels(frames, isolated_energies)


def test_check_labels_lists_ten_problems(labelled, isolated_energies):
    frames = [atoms.copy() for atoms in labelled]
    for atoms in frames:
        del atoms.info["REF_energy"]
    with pytest.raises(LabelError, match="and 30 more"):
        check_labels(frames, isolated_energies)


def test_check_labels_refuses_empty_list(isolated_energies):
    with pytest.raises(LabelError, match="no labelled frames"):
        check_labels([], isolated_energies)


def test_formation_energy_is_minus_the_cohesive_energy_of_the_crystal(isolated_energies):
    from ase.build import bulk
    from ase.calculators.emt import EMT

    crystal = bulk("Cu")
    crystal.calc = EMT()
    crystal.info["REF_energy"] = crystal.get_potential_energy()
    assert formation_energy(crystal, isolated_energies) == pytest.approx(-3.5, abs=0.1)


def test_dataset_hash_depends_on_content_not_on_order(labelled, isolated_energies):
    original = dataset_sha256(labelled, isolated_energies)
    assert dataset_sha256(labelled[::-1], isolated_energies) == original
    assert dataset_sha256(labelled[1:], isolated_energies) != original
    assert dataset_sha256(labelled, {"Cu": isolated_energies["Cu"] + 1e-6}) != original
    moved = [atoms.copy() for atoms in labelled]
    moved[0].positions[0, 0] += 1e-9
    assert dataset_sha256(moved, isolated_energies) != original


def test_frame_weight_reaches_trainer_and_changes_dataset_hash(
    labelled, isolated_energies, tmp_path
):
    from ase.io import read
    from mace.data.utils import config_from_atoms

    from mlip_assets.training.trainer.options import write_frames

    heavy = [atoms.copy() for atoms in labelled[:2]]
    heavy[1].info["config_weight"] = 12.0
    write_frames(tmp_path / "train.xyz", heavy)
    written = read(tmp_path / "train.xyz", ":")
    assert [config_from_atoms(atoms).weight for atoms in written] == [1.0, 12.0]
    hashes = {dataset_sha256(frames, isolated_energies) for frames in (labelled[:2], heavy)}
    assert len(hashes) == 2
