"""Labels that are computed, reused, rejected or failed, with an engine that takes milliseconds."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.db import connect
from toy_engine import (
    CONVERGES_LATER,
    HANGS,
    IS_KILLED,
    NEVER_CONVERGES,
    PUSHED,
    RAISES,
    ToyEngine,
    toy_frame,
)

from mlip_assets.campaign import GateSettings
from mlip_assets.compute import InProcess
from mlip_assets.compute.local import LocalProcesses
from mlip_assets.labelling import EngineError, Label, LabelLedger, label_frames
from mlip_assets.labelling.budget import Budget
from mlip_assets.labelling.calculations import Calculations, Job
from mlip_assets.labelling.engines.engine import hash_of
from mlip_assets.labelling.structure import label_key

Calls = Callable[[], list[str]]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no result after waiting for {what}"
        time.sleep(0.02)


def test_label_equals_result_of_the_engine(toy: ToyEngine, ledger: LabelLedger) -> None:
    frame = toy_frame("Cu", 1)
    (labelled,) = label_frames([frame], toy, ledger).labelled
    frame.calc = EMT()
    assert labelled.info["REF_energy"] == frame.get_potential_energy()
    np.testing.assert_array_equal(labelled.arrays["REF_forces"], frame.get_forces())
    np.testing.assert_array_equal(labelled.info["REF_stress"], frame.get_stress(voigt=False))
    assert {key: labelled.info[key] for key in frame.info} == frame.info
    assert labelled.info["config_type"] == "Default"
    assert labelled.info["engine"] == "toy"
    assert labelled.info["settings_hash"] == hash_of(toy)
    assert labelled.calc is None


@pytest.mark.slow
def test_labels_in_the_ledger_are_not_computed_again(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    frames = [toy_frame("Cu", seed) for seed in range(3)]
    first = label_frames(frames, toy, ledger)
    assert (first.n_calculated, first.n_reused) == (4, 0)  # with the isolated atom
    second = label_frames(frames, toy, LabelLedger(ledger.path))
    assert (second.n_calculated, second.n_reused) == (0, 4)
    assert len(calls()) == 4
    for a, b in zip(first.labelled, second.labelled, strict=True):
        assert a.info["REF_energy"] == b.info["REF_energy"]
        np.testing.assert_array_equal(a.arrays["REF_forces"], b.arrays["REF_forces"])
    assert first.isolated_energies == second.isolated_energies


def test_equal_frames_are_computed_once(toy: ToyEngine, ledger: LabelLedger, calls: Calls) -> None:
    frames = [toy_frame("Cu", 1), toy_frame("Cu", 1)]
    frames[1].positions += frames[1].cell[0]
    frames[1].info["frame_id"] = 7
    database = label_frames(frames, toy, ledger, n_workers=2)
    assert (database.n_calculated, database.n_reused) == (2, 1)
    assert len(calls()) == 2
    assert [atoms.info["frame_id"] for atoms in database.labelled] == [101, 7]
    np.testing.assert_allclose(database.labelled[1].positions, frames[1].positions)


@pytest.mark.slow
def test_label_key_depends_on_physics_and_not_on_limits(
    toy: ToyEngine, ledger: LabelLedger
) -> None:
    frame = toy_frame("Cu", 1)
    label_frames([frame], toy, ledger)
    other_limits = replace(toy, retries=3, timeout_s=99.0, max_net_force_eV_per_A=0.5)
    assert label_frames([frame], other_limits, ledger).n_calculated == 0
    assert label_frames([frame], replace(toy, level=2), ledger).n_calculated == 2


@pytest.mark.slow
def test_failures_of_each_kind_are_recorded_and_others_continue(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    symbols = [NEVER_CONVERGES, CONVERGES_LATER, RAISES, IS_KILLED, HANGS, PUSHED, "Cu"]
    frames = [toy_frame(symbol, seed) for seed, symbol in enumerate(symbols)]
    frames.append(Atoms("Cu2", np.full((2, 3), np.nan), cell=[3] * 3, pbc=True))
    finished: list[Label] = []
    engine = replace(toy, timeout_s=15.0)
    database = label_frames(frames, engine, ledger, n_workers=2, on_finished=finished.append)

    assert [atoms.symbols[0] for atoms in database.labelled] == [CONVERGES_LATER, "Cu"]
    assert set(database.isolated_energies) == set(symbols)
    failed = {failure.frame_id: failure for failure in database.failed}
    assert list(failed) == [100, 102, 103, 104, 105, 7]
    assert "charge sloshes" in failed[100].reason
    assert failed[100].attempts == 2
    assert "step 1 | step 2 | energy goes up" in failed[100].reason
    assert "ZeroDivisionError: overlap is singular" in failed[102].reason
    assert "SIGKILL" in failed[103].reason
    assert "longer than timeout_s = 15 s" in failed[104].reason
    assert "sum to 1 eV/Å" in failed[105].reason
    assert "not finite" in failed[7].reason
    assert database.n_calculated == len(calls()) == 7 + 7 + 2
    assert len(finished) == 14

    database_again = label_frames(frames[:7], engine, ledger)
    assert [call.split(":")[0] for call in calls()[16:]] == [
        "CuNi"
    ]  # the only failure that a repetition may change
    assert [f.reason for f in database_again.failed] == [f.reason for f in database.failed[:5]]


@pytest.mark.slow
def test_raw_output_is_kept_for_failures_only(toy: ToyEngine, ledger: LabelLedger) -> None:
    label_frames([toy_frame(NEVER_CONVERGES, 1), toy_frame("Cu", 2)], toy, ledger)
    kept = sorted(p.relative_to(ledger.calculations) for p in ledger.calculations.rglob("toy.txt"))
    assert [path.parts[1] for path in kept] == ["0", "1"]  # two attempts
    (row,) = connect(ledger.path).select(status="failed")
    assert {path.parts[0] for path in kept} == {row.label_key}
    assert str(kept[1].parent) in row.reason


@pytest.mark.slow
def test_retry_failed_repeats_failures(toy: ToyEngine, ledger: LabelLedger, calls: Calls) -> None:
    frames = [toy_frame(RAISES, 1)]
    label_frames(frames, toy, ledger)
    assert label_frames(frames, toy, ledger).n_calculated == 0
    again = label_frames(frames, toy, ledger, retry_failed=True)
    assert again.n_calculated == 1
    assert again.failed[0].attempts == 1


@pytest.mark.slow
def test_more_retries_continue_with_the_next_attempt(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    frames = [toy_frame(CONVERGES_LATER, 1)]
    assert label_frames(frames, replace(toy, retries=0), ledger).failed[0].attempts == 1
    assert label_frames(frames, replace(toy, retries=0), ledger).n_calculated == 0
    database = label_frames(frames, replace(toy, retries=1), ledger)
    assert (len(database.labelled), database.n_calculated) == (1, 1)
    assert [call.split(":")[1] for call in calls() if call.startswith("AuCu:")] == ["0", "1"]


@pytest.mark.slow
def test_longer_timeout_repeats_timed_out_calculation(toy: ToyEngine, ledger: LabelLedger) -> None:
    slow = replace(toy, pause_s=4.0)
    frames = [toy_frame("Cu", 1)]
    timed_out = label_frames(frames, replace(slow, timeout_s=3.0), ledger)
    assert "longer than timeout_s" in timed_out.failed[0].reason
    assert label_frames(frames, replace(slow, timeout_s=3.0), ledger).n_calculated == 0
    assert len(label_frames(frames, replace(slow, timeout_s=60.0), ledger).labelled) == 1


@pytest.mark.slow
def test_rejected_calculation_is_checked_again_without_new_calculation(
    toy: ToyEngine, ledger: LabelLedger
) -> None:
    frames = [toy_frame(PUSHED, 1)]
    assert label_frames(frames, toy, ledger).failed
    accepted = label_frames(
        frames,
        replace(toy, max_net_force_eV_per_A=2.0),
        ledger,
        gates=GateSettings(max_net_force_ratio=2.0),
    )
    assert (len(accepted.labelled), accepted.n_calculated) == (1, 0)
    assert label_frames(frames, toy, ledger).failed
    assert [row.status for row in connect(ledger.path).select(outcome="refused")] == ["failed"]


@pytest.mark.slow
def test_budget_of_calls_defers_the_remaining_frames(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    frames = [toy_frame("Cu", seed) for seed in range(4)]
    first = label_frames(frames, toy, ledger, budget=3)
    assert first.n_calculated == len(calls()) == 3
    assert len(first.labelled) == 2  # the isolated atom comes first
    assert first.deferred == [102, 103]
    assert not first.failed
    assert label_frames(frames, toy, ledger, budget=0).deferred == [102, 103]
    last = label_frames(frames, toy, ledger, budget=3)
    assert (last.n_calculated, last.deferred) == (2, [])


@pytest.mark.slow
def test_attempt_before_end_of_budget_is_not_computed_twice(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    frames = [toy_frame(CONVERGES_LATER, 1)]
    first = label_frames(frames, toy, ledger, budget=3)  # two isolated atoms, one attempt
    assert (first.deferred, first.n_calculated) == ([101], 3)
    second = label_frames(frames, toy, ledger)
    assert (len(second.labelled), second.n_calculated) == (1, 1)
    assert calls()[-1].split(":")[1] == "1"


def test_missing_element_data_raises_before_any_calculation(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    with pytest.raises(EngineError, match="no data for U"):
        label_frames([toy_frame("Cu", 1), toy_frame("U", 2)], toy, ledger)
    assert not calls()


def test_no_frames_give_no_labels_and_no_workers_are_refused(
    toy: ToyEngine, ledger: LabelLedger
) -> None:
    assert label_frames([], toy, ledger).labelled == []
    with pytest.raises(ValueError, match="n_workers = 0"):
        label_frames([toy_frame("Cu", 1)], toy, ledger, n_workers=0)


def test_result_file_of_killed_process_is_used(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    frame = toy_frame("Cu", 1)
    structure = toy.prepare(frame)
    key = label_key(structure, toy.name, hash_of(toy))
    finished = Calculations(
        toy,
        ledger.calculations,
        compute=LocalProcesses(),
        budget=Budget(),
        on_started=lambda job: None,
    )
    with closing(finished.run([Job(key, structure)])) as labels:
        assert next(labels).key == key
    database = label_frames([frame], toy, ledger)
    assert (len(database.labelled), database.n_calculated, database.n_reused) == (1, 1, 1)
    assert [call.split(":")[0] for call in calls()] == ["Cu2", "Cu"]


def test_exception_in_callback_kills_children_and_keeps_labels(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    class StopError(Exception):
        pass

    def stop(label: Label) -> None:
        raise StopError

    frames = [toy_frame("Cu", 1), toy_frame(HANGS, 2)]
    with pytest.raises(StopError):
        label_frames(frames, toy, ledger, n_workers=4, on_finished=stop)
    wait_for(lambda: not any(alive(int(c.split(":")[2])) for c in calls()), "the children", 10)
    assert len(ledger) == 1


KILLED = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from toy_engine import ToyEngine, toy_frame
from mlip_assets.labelling import LabelLedger, label_frames
label_frames(
    [toy_frame("Cu", seed) for seed in range(4)],
    ToyEngine(calls_file={calls!r}, pause_s=1.0),
    LabelLedger({ledger!r}),
    n_workers=2,
    on_finished=lambda label: print(label.key, flush=True),
)
"""


@pytest.mark.slow
def test_sigkill_loses_no_label_and_leaves_no_child(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    script = KILLED.format(
        here=str(Path(__file__).parent), calls=toy.calls_file, ledger=str(ledger.path)
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    keys = {process.stdout.readline().strip() for _ in range(3)}  # the isolated atom and two frames
    wait_for(lambda: len(calls()) >= 4, "the next calculation")
    process.kill()
    process.wait()
    with sqlite3.connect(ledger.path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    wait_for(lambda: not any(alive(int(c.split(":")[2])) for c in calls()), "the children", 10)

    assert len(keys) == 3
    assert all((label := ledger.find(key)) and label.is_done for key in keys)
    already = len(ledger)
    finished = label_frames([toy_frame("Cu", seed) for seed in range(4)], toy, ledger, n_workers=2)
    assert len(finished.labelled) == 4
    assert finished.n_calculated + already <= 5
    assert finished.n_reused >= already
    (energy,) = finished.isolated_energies.values()
    assert np.isfinite(energy)


@pytest.mark.slow
def test_two_processes_compute_each_label_once(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    script = KILLED.format(
        here=str(Path(__file__).parent), calls=toy.calls_file, ledger=str(ledger.path)
    )
    pair = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in pair] == [0, 0]
    assert len(calls()) == len(ledger) == 5


@pytest.mark.slow
def test_isolated_atom_is_computed_without_spin_after_failure(
    toy: ToyEngine, ledger: LabelLedger
) -> None:
    """The toy engine cannot fail for an isolated atom, so a failure is committed to the ledger."""
    frame = toy_frame("Cu", 1)
    label_frames([frame], toy, ledger)
    (row,) = connect(ledger.path).select(config_type="IsolatedAtom")
    stored = ledger.find(row.label_key)
    assert stored is not None
    failed = replace(stored, outcome="error", reason="spin flips", calculation=None)
    with ledger.locked():
        ledger.commit(failed, row.toatoms())
    database = label_frames([frame], toy, ledger)
    assert database.n_calculated == 1
    assert not database.isolated[0].get_initial_magnetic_moments().any()
    assert set(database.isolated_energies) == {"Cu"}


@pytest.mark.slow
def test_forces_of_permuted_frame_are_in_its_atom_order(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    first = bulk("Cu", cubic=True, a=3.6)
    first.symbols[2] = "Au"
    first.rattle(0.1, seed=1)
    order = [3, 1, 0, 2]
    second = first[order]
    second.positions += [1.1, 2.2, 3.3]
    second.wrap()
    accepted = replace(toy, level=1, retries=1)
    database = label_frames([first, second], accepted, ledger)
    assert (database.n_duplicates, database.n_calculated) == (
        1,
        4,
    )  # two attempts, two isolated atoms
    one, two = database.labelled
    np.testing.assert_array_equal(two.arrays["REF_forces"], one.arrays["REF_forces"][order])
    second.calc = EMT()
    np.testing.assert_allclose(two.arrays["REF_forces"], second.get_forces(), atol=1e-10)
    np.testing.assert_allclose(two.info["REF_stress"], second.get_stress(voigt=False), atol=1e-10)
    np.testing.assert_array_equal(two.positions, second.positions)


def test_gates_reject_frames_before_calculation_with_reason(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    compressed = toy_frame("Cu", 1)
    compressed.positions[1] = compressed.positions[0] + [0.5, 0, 0]
    invalid = toy_frame("Cu", 2)
    invalid.info["surrogate_energy_eV"] = np.nan
    database = label_frames([compressed, invalid, toy_frame("Cu", 3)], toy, ledger)
    assert [(f.kind, f.attempts) for f in database.failed] == [
        ("close_contact", 0),
        ("surrogate_energy", 0),
    ]
    assert database.n_calculated == len(calls()) == 2
    assert len(ledger) == 2


def test_energy_outlier_is_a_failure(toy: ToyEngine, ledger: LabelLedger) -> None:
    frames = [toy_frame("Cu", seed) for seed in range(10)]
    made = label_frames(frames, toy, ledger, compute=InProcess())
    assert not made.failed
    key = made.labelled[4].info["label_key"]
    label = ledger.find(key)
    assert label is not None
    assert label.calculation is not None
    wrong = replace(label.calculation, energy_eV=label.calculation.energy_eV - 50.0)
    ledger.commit(replace(label, calculation=wrong), made.labelled[4])
    again = label_frames(frames, toy, ledger)
    assert len(again.labelled) == 9
    (failure,) = again.failed
    assert (failure.frame_id, failure.kind, failure.label_key) == (104, "energy_window", key)
    assert "25.0 below the median of 10 frames of equal composition" in failure.reason


@pytest.mark.slow
def test_core_hours_are_estimated_counted_and_limited(
    toy: ToyEngine, ledger: LabelLedger, calls: Calls
) -> None:
    frames = [toy_frame("Cu", seed) for seed in range(12)]
    slow = replace(toy, pause_s=0.2)
    first = label_frames(frames[:4], slow, ledger, compute=InProcess())
    assert first.expected_core_hours is None
    assert 0.8 / 3600 < first.core_hours_spent < 8 / 3600
    each = first.core_hours_spent / 4

    second = label_frames(frames, slow, ledger, compute=InProcess(), budget_core_hours=4.0 * each)
    assert second.expected_core_hours == pytest.approx(8 * each, rel=0.6)
    assert 0 < second.n_calculated < 8
    assert second.core_hours_spent < 4.5 * each
    assert len(second.labelled) + len(second.deferred) == 12
    assert second.core_hours_reused == pytest.approx(first.core_hours_spent, rel=1e-6)

    last = label_frames(frames, slow, ledger, compute=InProcess())
    assert (last.n_calculated, last.deferred) == (8 - second.n_calculated, [])
    assert len(calls()) == 13
    spent = ledger.spending().core_hours
    assert spent == pytest.approx(
        sum(made.core_hours_spent for made in (first, second, last)), rel=1e-6
    )
