from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from ase.io import read

from mlip_assets.labelling import Failure, LabelledDatabase, MixedSettingsError, isolated_atom


def labelled(atoms: Atoms, energy_eV: float, seed: int, **info: object) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms.info |= {"REF_energy": energy_eV, "label_key": f"{seed:x}" * 64, "engine": "gpaw"}
    atoms.info |= {"settings_hash": "e" * 64, "config_type": "Default", **info}
    if atoms.pbc.all():
        atoms.info["REF_stress"] = rng.normal(size=(3, 3))
    atoms.set_array("REF_forces", rng.normal(size=(len(atoms), 3)))
    return atoms


@pytest.fixture
def database() -> LabelledDatabase:
    crystal = bulk("Si")
    crystal.rattle(0.1, seed=1)
    crystal.set_velocities(np.full((2, 3), 0.01))
    cluster = Atoms("Si2", [[4, 4, 4], [6.3, 4, 4]], cell=[12, 9, 9])
    return LabelledDatabase(
        labelled=[
            labelled(
                crystal,
                -10.8 / 3,
                1,
                frame_id=np.int64(2**40),
                walker="crystal-300K-0",
                seed_name="12",  # ASE refuses texts that look like numbers as key-value pairs
                cluster=3,
                reason="fills its cell",
                frames_near=[1, 2],
                novelty=np.float32(0.25),
            ),
            labelled(cluster, -4.0, 2, frame_id=11, walker="cluster-300K-0", cluster=0),
        ],
        isolated=[labelled(isolated_atom("Si"), -0.98, 3, config_type="IsolatedAtom")],
        failed=[Failure(12, "f" * 64, "charge sloshes", attempts=2)],
        deferred=[13, 14],
        n_calculated=5,
        n_reused=1,
        wall_s=12.5,
        settings_hash="e" * 64,
        n_duplicates=1,
        core_hours_spent=0.25,
        core_hours_reused=0.125,
    )


def assert_equal_atoms(first: Atoms, second: Atoms) -> None:
    assert first == second
    assert first.info.keys() == second.info.keys()
    for key, value in first.info.items():
        np.testing.assert_array_equal(value, second.info[key])
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])


def test_opened_database_equals_the_saved_one(database: LabelledDatabase, tmp_path: Path) -> None:
    database.save(tmp_path / "labels")
    opened = LabelledDatabase.open(tmp_path / "labels")
    for a, b in zip(database.labelled, opened.labelled, strict=True):
        assert_equal_atoms(a, b)
    for a, b in zip(database.isolated, opened.isolated, strict=True):
        assert_equal_atoms(a, b)
    assert opened.failed == database.failed
    assert opened.deferred == database.deferred
    assert opened == database
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == [
        "labels.db",
        "labels.extxyz",
    ]


def test_saving_again_replaces_the_files(database: LabelledDatabase, tmp_path: Path) -> None:
    database.save(tmp_path)
    database.save(tmp_path)
    assert LabelledDatabase.open(tmp_path) == database


def test_saved_rows_are_searchable_with_ase(database: LabelledDatabase, tmp_path: Path) -> None:
    database.save(tmp_path)
    rows = connect(tmp_path / "labels.db")
    (row,) = rows.select(walker="crystal-300K-0")
    assert row.REF_energy == pytest.approx(-3.6)
    assert row.frame_id == 2**40
    assert rows.count(config_type="IsolatedAtom") == 1


def test_saved_extxyz_has_the_keys_of_mace(database: LabelledDatabase, tmp_path: Path) -> None:
    database.save(tmp_path)
    atom, crystal, cluster = read(tmp_path / "labels.extxyz", ":")
    assert atom.info["config_type"] == "IsolatedAtom"
    assert atom.info["REF_energy"] == pytest.approx(-0.98)
    expected = database.labelled[0]
    assert crystal.info["REF_energy"] == expected.info["REF_energy"]
    np.testing.assert_allclose(crystal.info["REF_stress"], expected.info["REF_stress"])
    np.testing.assert_allclose(
        crystal.arrays["REF_forces"], expected.arrays["REF_forces"], atol=1e-8
    )
    assert "REF_stress" not in cluster.info
    assert crystal.calc is None


def test_binding_energies_are_relative_to_isolated_atoms(database: LabelledDatabase) -> None:
    assert database.isolated_energies == {"Si": -0.98}
    np.testing.assert_allclose(database.binding_energies(), [-1.8 + 0.98, -2.0 + 0.98])
    database.labelled[0].symbols[0] = "Ge"
    assert np.isnan(database.binding_energies()).tolist() == [True, False]


def test_missing_database_raises_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"labels\.db: no such label database"):
        LabelledDatabase.open(tmp_path)


def test_saving_labels_of_two_settings_raises_error(
    database: LabelledDatabase, tmp_path: Path
) -> None:
    database.labelled[1].info["settings_hash"] = "f" * 64
    with pytest.raises(MixedSettingsError, match="1 of gpaw, settings_hash ffffffffffff"):
        database.save(tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


def test_database_of_an_earlier_version_is_opened(
    database: LabelledDatabase, tmp_path: Path
) -> None:
    """Without duplicates, core-hours and kinds of failure."""
    database.save(tmp_path)
    stored = connect(tmp_path / "labels.db")
    facts = dict(stored.metadata)
    for name in ("n_duplicates", "core_hours_spent", "core_hours_reused", "expected_core_hours"):
        del facts[name]
    del facts["failed"][0]["kind"]
    stored.metadata = facts
    opened = LabelledDatabase.open(tmp_path)
    assert (opened.n_duplicates, opened.core_hours_spent) == (0, 0.0)
    assert opened.failed[0].reason == "charge sloshes"


def test_to_dataframe_has_the_values_of_each_frame(database: LabelledDatabase) -> None:
    table = database.to_dataframe()
    crystal, cluster = database.labelled
    assert table["frame_id"].tolist() == [2**40, 11]
    assert table["n_atoms"].tolist() == [2, 2]
    assert table["formula"].tolist() == ["Si2", "Si2"]
    assert table["label_key"].tolist() == [atoms.info["label_key"] for atoms in (crystal, cluster)]
    assert table["energy_eV"].tolist() == [atoms.info["REF_energy"] for atoms in (crystal, cluster)]
    assert table["binding_energy_eV_per_atom"].tolist() == database.binding_energies().tolist()
    norms = [np.linalg.norm(a.arrays["REF_forces"], axis=1).max() for a in (crystal, cluster)]
    assert table["max_force_eV_per_A"].tolist() == norms
    pressure = -np.trace(crystal.info["REF_stress"]) / 3 * 160.21766208
    assert table["pressure_GPa"][0] == pytest.approx(pressure, rel=1e-6)
    assert np.isnan(table["pressure_GPa"][1])


def test_to_dataframe_of_frames_without_identifiers_has_missing_ones(
    database: LabelledDatabase,
) -> None:
    for atoms in database.labelled:
        del atoms.info["frame_id"]
    assert database.to_dataframe()["frame_id"].isna().all()
    database.labelled.clear()
    assert database.to_dataframe().empty
