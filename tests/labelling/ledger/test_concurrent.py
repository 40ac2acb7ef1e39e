"""Several processes with one ledger: no label is lost, damaged or computed twice."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.db import connect
from toy_engine import NEVER_CONVERGES, ToyEngine, toy_frame

from mlip_assets.compute import InProcess
from mlip_assets.labelling import LabelLedger, label_frames

HERE = Path(__file__).parents[1]
N_WRITERS, N_EACH, N_FRAMES = 8, 200, 400

WRITER = """
import sys
sys.path.insert(0, {here!r})
import numpy as np
from toy_engine import ToyEngine, toy_frame
from mlip_assets.compute import InProcess
from mlip_assets.labelling import LabelLedger, label_frames
rng = np.random.default_rng({seed})
frames = [toy_frame("Cu", int(i)) for i in rng.permutation({wanted})]
frames = [atoms[rng.permutation(len(atoms))] for atoms in frames]  # a different atom order in each process
made = label_frames(frames, ToyEngine(calls_file={calls!r}), LabelLedger({ledger!r}), compute=InProcess())
print(made.n_calculated, len(made.labelled), len(made.isolated), made.n_reused)
"""


@pytest.mark.slow
def test_eight_processes_share_a_ledger(toy: ToyEngine, ledger: LabelLedger) -> None:
    """Each frame is requested by four processes, in random order."""
    rng = np.random.default_rng(0)
    shuffled = np.concatenate([rng.permutation(N_FRAMES) for _ in range(4)])
    parts = shuffled.reshape(N_WRITERS, N_EACH)
    writers = []
    for seed, wanted in enumerate(parts):
        script = WRITER.format(
            here=str(HERE),
            seed=seed,
            wanted=wanted.tolist(),
            calls=toy.calls_file,
            ledger=str(ledger.path),
        )
        command = [sys.executable, "-c", script]
        writers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    outputs = [writer.communicate(timeout=500)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * N_WRITERS
    n_calculated, n_labelled, n_isolated, n_reused = np.array(outputs, dtype=int).sum(axis=0)
    assert n_labelled == N_WRITERS * N_EACH
    assert n_isolated == N_WRITERS
    assert n_calculated == N_FRAMES + 1
    assert n_calculated + n_reused == n_labelled + n_isolated

    calls = Path(toy.calls_file).read_text().splitlines()
    assert len(calls) == N_FRAMES + 1
    assert all(len(call.split(":")) == 3 for call in calls)
    with sqlite3.connect(ledger.path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM structures").fetchone() == (N_FRAMES + 1,)
    assert len(ledger) == N_FRAMES + 1
    rows = list(connect(ledger.path).select())
    assert set(Counter(row.label_key for row in rows).values()) == {1}
    for row in rows[:: len(rows) // 20]:
        atoms = row.toatoms()
        atoms.calc = EMT()
        assert row.data["REF_energy"] == atoms.get_potential_energy()
        np.testing.assert_array_equal(row.data["REF_forces"], atoms.get_forces())
    spending = ledger.spending()
    assert (spending.n_started, spending.n_running, spending.n_lost) == (N_FRAMES + 1, 0, 0)
    assert not list(ledger.path.parent.glob("*-claims/*"))
    assert not list(ledger.calculations.iterdir())


def test_label_claimed_elsewhere_is_waited_for(
    toy: ToyEngine,
    ledger: LabelLedger,
    calls: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    frame = toy_frame("Cu", 1)
    label_frames([], toy, ledger)
    (entry,) = ledger.register([toy.prepare(frame)], toy.name, _hash(toy))
    claim = ledger.claim(entry.key)
    assert claim is not None
    from threading import Timer

    def other_finishes() -> None:
        elsewhere = LabelLedger(ledger.path.parent / "other" / "labels.db")
        label_frames([frame], toy, elsewhere, compute=InProcess())
        label = elsewhere.find(entry.key)
        assert label is not None
        ledger.commit(label, entry.structure)
        claim.release()

    timer = Timer(1.0, other_finishes)
    timer.start()
    with caplog.at_level("INFO"):
        database = label_frames([frame], toy, ledger, compute=InProcess())
    timer.join()
    assert (len(database.labelled), database.n_calculated, database.n_reused) == (1, 1, 1)
    assert f"waiting for 1 labels that are being computed by process {os.getpid()}" in caplog.text


@pytest.mark.slow
def test_claim_of_a_process_that_dies_is_taken_over(toy: ToyEngine, ledger: LabelLedger) -> None:
    """The holder of the claim dies while this process waits."""
    frame = toy_frame("Cu", 1)
    (entry,) = ledger.register([toy.prepare(frame)], toy.name, _hash(toy))
    holder = (
        "import sys, time\n"
        "from mlip_assets.labelling import LabelLedger\n"
        "claim = LabelLedger(sys.argv[1]).claim(sys.argv[2])\n"
        "print('claimed', flush=True)\n"
        "time.sleep(2)\n"
        "import os; os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", holder, str(ledger.path), entry.key]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        started = time.monotonic()
        database = label_frames([frame], toy, ledger, compute=InProcess())
    assert time.monotonic() - started > 1.0
    assert (len(database.labelled), database.n_calculated) == (1, 2)


@pytest.mark.slow
def test_failure_committed_elsewhere_is_not_repeated_after_waiting(
    toy: ToyEngine, ledger: LabelLedger, calls: Callable[[], list[str]]
) -> None:
    """Two threads repeat a failure at the same time: one computes, both use the result."""
    from threading import Thread

    frames = [toy_frame(NEVER_CONVERGES, seed) for seed in range(3)]
    without_retries = replace(toy, retries=0)
    label_frames(frames, without_retries, ledger, compute=InProcess())
    before = len(calls())

    def again() -> None:
        label_frames(frames, replace(without_retries, pause_s=0.5), ledger, retry_failed=True)

    pair = [Thread(target=again) for _ in range(2)]
    for thread in pair:
        thread.start()
    for thread in pair:
        thread.join()
    assert len(calls()) - before == len(frames)


def _hash(engine: ToyEngine) -> str:
    from mlip_assets.labelling.engines.engine import hash_of

    return hash_of(engine)
