from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_assets.labelling import Failure, LabelledDatabase, isolated_atom
from mlip_assets.labelling.accounting import binding_problem, labelling_cost


def labelled(energy_eV: float, atoms: Atoms) -> Atoms:
    atoms.info["REF_energy"] = energy_eV
    return atoms


@pytest.fixture
def database() -> LabelledDatabase:
    return LabelledDatabase(
        labelled=[labelled(-10.8 - 0.1 * i, bulk("Si")) for i in range(8)],
        isolated=[labelled(-0.8, isolated_atom("Si"))],
        failed=[
            Failure(1, "", "close_contact: …", 0, "close_contact"),
            Failure(2, "a", "no self-consistency", 2, "not_converged"),
            Failure(3, "b", "no self-consistency", 2, "not_converged"),
        ],
        deferred=[],
        n_calculated=8,
        n_reused=2,
        wall_s=900.0,
        settings_hash="e" * 64,
        n_duplicates=1,
        core_hours_spent=0.4,
        core_hours_reused=0.1,
    )


def test_labelling_cost_counts_calls_failures_and_core_hours(database: LabelledDatabase) -> None:
    cost = labelling_cost(database, n_frames_explored=4000)
    assert (cost.n_made, cost.n_reused, cost.n_duplicates) == (8, 2, 1)
    assert cost.failed == {"not_converged": 2, "close_contact": 1}
    assert cost.frames_explored_per_label == 500
    # every tenth of 4000 frames minus the eight labelled ones, 0.05 core-hours each
    assert cost.core_hours_saved == pytest.approx((400 - 8) * 0.05)


def test_labelling_cost_without_labels_has_no_saving(database: LabelledDatabase) -> None:
    cost = labelling_cost(replace(database, labelled=[]), n_frames_explored=4000)
    assert cost.frames_explored_per_label is None
    assert cost.core_hours_saved is None


def test_binding_problem_reports_sign_and_size(database: LabelledDatabase) -> None:
    assert binding_problem(database) is None
    assert "no labels" in (binding_problem(replace(database, labelled=[])) or "")
    assert "without an isolated-atom" in (binding_problem(replace(database, isolated=[])) or "")
    unbound = replace(database, isolated=[labelled(-7.0, isolated_atom("Si"))])
    assert "above their isolated" in (binding_problem(unbound) or "")
    other_program = replace(database, isolated=[labelled(-780.0, isolated_atom("Si"))])
    assert "8 frames have binding energies outside" in (binding_problem(other_program) or "")
    assert np.isfinite(database.binding_energies()).all()
