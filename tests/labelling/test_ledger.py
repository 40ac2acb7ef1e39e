from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.db import connect

from mlip_assets.labelling import Calculation, Label, LabelLedger, free_atom

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


def test_what_is_committed_is_found_to_the_last_bit(ledger: LabelLedger) -> None:
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


def test_a_free_atom_has_no_stress(ledger: LabelLedger) -> None:
    calculation = Calculation(-1.0, np.zeros((1, 3)), None)
    with ledger.locked():
        ledger.commit(replace(LABEL, calculation=calculation), free_atom("Si"))
    found = ledger.find(LABEL.key)
    assert found is not None
    assert found.calculation is not None
    assert found.calculation.stress is None
    assert [row.config_type for row in connect(ledger.path).select()] == ["IsolatedAtom"]


def test_any_ase_tool_can_search_it(ledger: LabelLedger) -> None:
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


def test_a_later_label_replaces_the_failure(ledger: LabelLedger) -> None:
    with ledger.locked():
        ledger.commit(FAILURE, STRUCTURE)
        ledger.commit(LABEL, STRUCTURE)
    assert len(ledger) == 1
    found = ledger.find(LABEL.key)
    assert found is not None
    assert found.is_done


def test_an_unknown_key_and_an_empty_ledger(ledger: LabelLedger) -> None:
    assert ledger.find("0" * 64) is None
    assert len(ledger) == 0
    assert not ledger.path.exists()
    with ledger.locked():
        assert ledger.find("0" * 64) is None


def test_another_file_is_not_taken_for_a_ledger(tmp_path: Path) -> None:
    file = tmp_path / "labels.db"
    file.write_text("frame,energy\n" * 100)
    with pytest.raises(ValueError, match=r"labels\.db: not a label ledger"):
        LabelLedger(file)
    assert file.read_text().startswith("frame")


def test_a_lock_dies_with_its_process(ledger: LabelLedger) -> None:
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
