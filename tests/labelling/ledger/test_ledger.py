from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.db import connect
from ase.io import read

from mlip_assets.labelling import (
    Attempt,
    Calculation,
    Label,
    LabelLedger,
    MixedSettingsError,
    isolated_atom,
)

STRUCTURE = bulk("Si")
LABEL = Label(
    key="a" * 64,
    engine="gpaw",
    settings_hash="b" * 64,
    outcome="done",
    reason="",
    attempts=1,
    wall_s=2.5,
    timeout_s=60.0,
    program="gpaw 26.7.0",
    calculation=Calculation(-10.1 / 3, np.full((2, 3), 1 / 7), np.eye(3) / 11),
)
FAILURE = replace(LABEL, outcome="not_converged", reason="charge sloshes", calculation=None)


def test_find_returns_the_exact_committed_label(ledger: LabelLedger) -> None:
    with ledger.locked():
        ledger.commit(LABEL, STRUCTURE, settings={"cutoff_eV": 250.0})
    found = LabelLedger(ledger.path).find(LABEL.key)
    assert found is not None
    assert found.calculation is not None
    assert LABEL.calculation is not None
    assert found.calculation.energy_eV == LABEL.calculation.energy_eV
    np.testing.assert_array_equal(found.calculation.forces, LABEL.calculation.forces)
    np.testing.assert_array_equal(found.calculation.stress, LABEL.calculation.stress)
    assert replace(found, calculation=None) == replace(LABEL, calculation=None)


def test_label_of_isolated_atom_has_no_stress(ledger: LabelLedger) -> None:
    calculation = Calculation(-1.0, np.zeros((1, 3)), None)
    with ledger.locked():
        ledger.commit(replace(LABEL, calculation=calculation), isolated_atom("Si"))
    found = ledger.find(LABEL.key)
    assert found is not None
    assert found.calculation is not None
    assert found.calculation.stress is None
    assert [row.config_type for row in connect(ledger.path).select()] == ["IsolatedAtom"]


def test_ledger_rows_are_searchable_with_ase(ledger: LabelLedger) -> None:
    with ledger.locked():
        ledger.commit(LABEL, STRUCTURE, settings={"cutoff_eV": 250.0})
        ledger.commit(replace(FAILURE, key="c" * 64), STRUCTURE)
    database = connect(ledger.path)
    (done,) = database.select(status="done", engine="gpaw", Si=2)
    assert done.REF_energy == pytest.approx(-10.1 / 3)
    assert done.data["settings"] == {"cutoff_eV": 250.0}
    (failed,) = database.select("status=failed,attempts=1")
    assert failed.reason == "charge sloshes"
    assert "REF_energy" not in failed


def test_label_after_a_failure_is_the_valid_one(ledger: LabelLedger) -> None:
    ledger.commit(FAILURE, STRUCTURE)
    ledger.commit(LABEL, STRUCTURE)
    assert len(ledger) == 1
    found = ledger.find(LABEL.key)
    assert found is not None
    assert found.is_done
    assert [label.outcome for label in ledger.history(LABEL.key)] == ["not_converged", "done"]
    assert len(list(connect(ledger.path).select(label_key=LABEL.key))) == 2


def test_ledger_of_version_1_is_migrated(tmp_path: Path) -> None:
    """A table of rows only, with two rows of one structure in different atom orders."""
    path = tmp_path / "labels.db"
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    crystal.rattle(0.1, seed=1)
    forces = np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])
    with connect(path, use_lock_file=False) as database:
        for key, status, atoms in (("c", "failed", crystal[[1, 0]]), ("d", "done", crystal)):
            columns = {
                "label_key": key * 64,
                "status": status,
                "outcome": "done" if status == "done" else "error",
                "reason": "",
                "engine": "gpaw",
                "settings_hash": "b" * 64,
                "attempts": 1,
                "wall_s": 2.0,
                "timeout_s": 9.0,
                "program": "gpaw 26.7.0",
                "config_type": "Default",
            }
            data = {"REF_energy": -7.0, "REF_forces": forces, "REF_stress": None}
            database.write(atoms, columns, data if status == "done" else {})
    for _ in range(2):  # the second time nothing is migrated
        ledger = LabelLedger(path)
        assert len(ledger) == 2
        found = ledger.look_up(crystal[[1, 0]], "gpaw", "b" * 64)
        assert found is not None
        assert (found.key, found.is_done) == ("d" * 64, True)
        assert found.calculation is not None
        np.testing.assert_array_equal(found.calculation.forces, forces[::-1])
    spending = ledger.spending()
    assert (spending.n_started, spending.n_lost, spending.core_hours) == (2, 0, 4.0 / 3600)
    failed = ledger.find("c" * 64)
    assert failed is not None
    assert failed.outcome == "error"


def test_ledger_of_a_later_version_raises_value_error(ledger: LabelLedger) -> None:
    ledger.commit(LABEL, STRUCTURE)
    with sqlite3.connect(ledger.path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="written by a later version"):
        LabelLedger(ledger.path)


def test_claim_is_exclusive_within_one_process(ledger: LabelLedger) -> None:
    claim = ledger.claim("a" * 64)
    assert claim is not None
    assert ledger.claim("a" * 64) is None
    assert f"process {os.getpid()} on " in ledger.claim_holder("a" * 64)
    assert ledger.claim("b" * 64) is not None
    claim.release()
    again = ledger.claim("a" * 64)
    assert again is not None
    again.release()


def test_claims_of_a_dead_process_are_free(ledger: LabelLedger) -> None:
    holder = (
        "import os, signal, sys\n"
        "from mlip_assets.labelling import LabelLedger\n"
        "assert LabelLedger(sys.argv[1]).claim('a' * 64)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", holder, str(ledger.path)], check=False)
    assert process.returncode == -9
    assert ledger.claim("a" * 64) is not None


def test_spending_counts_started_running_and_lost_calculations(ledger: LabelLedger) -> None:
    attempt = Attempt(0, {}, "done", "", 1800.0, 9000.0, None)
    ledger.record_start(LABEL.key, 0)  # killed
    ledger.record_start(LABEL.key, 0)
    ledger.record_start("d" * 64, 0)
    ledger.commit(replace(LABEL, attempts_log=(attempt,)), STRUCTURE)
    claim = ledger.claim("d" * 64)
    assert claim is not None
    spending = ledger.spending()
    assert (spending.n_started, spending.n_running, spending.n_lost) == (3, 1, 1)
    assert spending.core_hours == 0.5
    claim.release()
    assert ledger.spending().n_lost == 2


def test_export_writes_the_last_label_of_each_key(ledger: LabelLedger, tmp_path: Path) -> None:
    other = replace(LABEL, key="c" * 64, calculation=Calculation(-3.0, np.ones((1, 3)), None))
    ledger.commit(FAILURE, STRUCTURE)
    ledger.commit(LABEL, STRUCTURE)
    ledger.commit(other, isolated_atom("Si"))
    ledger.commit(replace(FAILURE, key="d" * 64), STRUCTURE)
    files = ledger.export(tmp_path / "out")
    assert [file.name for file in files] == ["labels.extxyz", "labels.db"]
    crystal, atom = read(files[0], ":")
    assert crystal.info["REF_energy"] == pytest.approx(-10.1 / 3)
    np.testing.assert_allclose(crystal.arrays["REF_forces"], 1 / 7, atol=1e-7)
    assert atom.info["config_type"] == "IsolatedAtom"
    assert connect(files[1]).count() == 2
    assert ledger.export(tmp_path / "x.extxyz", settings_hash="bbb") == [tmp_path / "x.extxyz"]
    with pytest.raises(ValueError, match="no label of settings 'f"):
        ledger.export(tmp_path / "x.extxyz", settings_hash="f")


def test_export_of_mixed_settings_raises_error(ledger: LabelLedger, tmp_path: Path) -> None:
    finer = replace(LABEL, key="c" * 64, settings_hash="e" * 64)
    ledger.commit(LABEL, STRUCTURE, settings={"xc": "PBE", "cutoff_eV": 250.0})
    ledger.commit(finer, STRUCTURE, settings={"xc": "PBE", "cutoff_eV": 400.0})
    with pytest.raises(MixedSettingsError) as raised:
        ledger.export(tmp_path / "labels.extxyz")
    assert "give settings_hash" in str(raised.value)
    assert "1 of gpaw, settings_hash bbbbbbbbbbbb: cutoff_eV = 250.0" in str(raised.value)
    assert "1 of gpaw, settings_hash eeeeeeeeeeee: cutoff_eV = 400.0" in str(raised.value)
    assert "xc" not in str(raised.value)
    assert not (tmp_path / "labels.extxyz").exists()
    ledger.export(tmp_path / "labels.extxyz", settings_hash="e" * 64)
    assert len(read(tmp_path / "labels.extxyz", ":")) == 1


def test_empty_ledger_has_no_labels_and_no_file(ledger: LabelLedger) -> None:
    assert ledger.find("0" * 64) is None
    assert len(ledger) == 0
    assert not ledger.path.exists()
    with ledger.locked():
        assert ledger.find("0" * 64) is None


def test_file_that_is_not_a_ledger_raises_value_error(tmp_path: Path) -> None:
    file = tmp_path / "labels.db"
    file.write_text("frame,energy\n" * 100)
    with pytest.raises(ValueError, match=r"labels\.db: not a label ledger"):
        LabelLedger(file)
    assert file.read_text().startswith("frame")


def test_lock_of_a_dead_process_is_free(ledger: LabelLedger) -> None:
    holder = (
        "import os, signal, sys\n"
        "from mlip_assets.labelling import LabelLedger\n"
        "with LabelLedger(sys.argv[1]).locked():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", holder, str(ledger.path)], check=False)
    assert process.returncode == -9
    with ledger.locked():
        ledger.commit(LABEL, STRUCTURE)
    with sqlite3.connect(ledger.path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_to_dataframe_has_the_last_row_of_each_key(ledger: LabelLedger) -> None:
    assert ledger.to_dataframe().empty
    atom = replace(LABEL, key="c" * 64, calculation=Calculation(-1.0, np.zeros((1, 3)), None))
    with ledger.locked():
        ledger.commit(FAILURE, STRUCTURE)
        ledger.commit(atom, isolated_atom("Si"))
        assert ledger.to_dataframe()["energy_eV"].isna().tolist() == [True, False]
        ledger.commit(LABEL, STRUCTURE)
    table = ledger.to_dataframe()
    assert len(table) == len(ledger) == 2
    assert table["label_key"].tolist() == [atom.key, LABEL.key]
    assert LABEL.calculation is not None
    assert table["energy_eV"].tolist() == [-1.0, LABEL.calculation.energy_eV]
    assert table["config_type"].tolist() == ["IsolatedAtom", "Default"]
    assert table["formula"].tolist() == ["Si", "Si2"]
    assert table["n_atoms"].tolist() == [1, 2]
    assert table["outcome"].tolist() == ["done", "done"]
    for name in ("engine", "settings_hash", "program", "attempts", "wall_s", "timeout_s", "reason"):
        assert set(table[name]) == {getattr(LABEL, name)}
