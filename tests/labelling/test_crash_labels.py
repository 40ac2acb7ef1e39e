"""SIGKILL three times in a campaign of forty labels: finished labels are kept and not recomputed."""

from __future__ import annotations

import errno
import logging
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.db import connect
from toy_engine import ToyEngine, toy_frame

from mlip_assets.labelling import LabelLedger, label_frames

_log = logging.getLogger(__name__)

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]
N_FRAMES, N_KILLS = 40, 3

TOY = """
from toy_engine import ToyEngine, toy_frame
frames = [toy_frame("Cu", seed) for seed in range({n_frames})]
engine = ToyEngine(calls_file="/dev/null", pause_s=0.02)
compute = InProcess()
"""
GPAW = """
from ase.build import bulk
from mlip_assets.labelling import GpawEngine
from mlip_assets.compute import LocalProcesses
frames = []
for seed in range({n_frames}):
    atoms = bulk("Si")
    atoms.rattle(0.1, seed=seed)
    frames.append(atoms)
engine = GpawEngine("PBE", 150.0, 1.5, 0.1, 1e-4)
compute = LocalProcesses(1)
"""
CAMPAIGN = """
import sys
sys.path[:0] = [{here!r}, {root!r}]
from pathlib import Path
from mlip_assets.compute import InProcess
from mlip_assets.labelling import LabelLedger, label_frames
{setting}
made = label_frames(frames, engine, LabelLedger({ledger!r}), compute=compute)
made.save({made!r})
print(len(made.labelled), made.n_calculated, made.n_reused, round(made.wall_s, 1))
"""


class CampaignRun:
    """A campaign that is run in a separate process, once or repeatedly."""

    def __init__(self, folder: Path, setting: str) -> None:
        self.folder = folder
        self.ledger = folder / "labels.db"
        self.script = CAMPAIGN.format(
            here=str(HERE),
            root=str(ROOT),
            setting=setting.format(n_frames=N_FRAMES),
            ledger=str(self.ledger),
            made=str(folder / "made"),
        )

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", self.script]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def run_to_the_end(self) -> list[float]:
        process = self.start()
        output, _ = process.communicate(timeout=3000)
        assert process.returncode == 0
        return [float(word) for word in output.split()]

    def starts(self) -> list[tuple[str, float, int | None]]:
        if not self.ledger.exists():
            return []
        with sqlite3.connect(self.ledger, timeout=60) as database:
            statement = "SELECT label_key, started_at, row_id FROM starts ORDER BY id"
            return database.execute(statement).fetchall()

    def rows(self) -> dict[str, tuple[int, float, np.ndarray, float]]:
        """By key: number of rows, and energy, forces and seconds since 1970 of the last."""
        found: dict[str, tuple[int, float, np.ndarray, float]] = {}
        for row in connect(self.ledger, use_lock_file=False).select():
            n = found.get(row.label_key, (0,))[0] + 1
            data = row.data
            written = row.ctime * 3.15576e7 + 946684800  # ASE counts years since 2000
            found[row.label_key] = (n, data["REF_energy"], data["REF_forces"], written)
        return found


def kill_three_times(run: CampaignRun, seed: int) -> int:
    """SIGKILL at random moments; returns the number of calculations started until then."""
    rng = np.random.default_rng(seed)
    # numbers of started calculations; the kill follows within half a second
    moments = np.sort(rng.choice(np.arange(3, N_FRAMES - 2), N_KILLS, replace=False))
    for moment in moments:
        process = run.start()
        deadline = time.monotonic() + 1500
        while len(run.starts()) < moment:
            assert process.poll() is None, "the process ended before the kill"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.communicate()
        assert not (run.folder / "made").exists()
        with sqlite3.connect(run.ledger, timeout=60) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return len(run.starts())


def check_kills(tmp_path: Path, setting: str, seed: int) -> None:
    broken, unbroken = (
        CampaignRun(tmp_path / "broken", setting),
        CampaignRun(tmp_path / "unbroken", setting),
    )
    kill_three_times(broken, seed)
    n_labelled, n_last, n_reused, last_s = broken.run_to_the_end()
    _, n_unbroken, _, unbroken_s = unbroken.run_to_the_end()
    assert (n_labelled, n_unbroken) == (N_FRAMES, N_FRAMES + 1)

    rows, expected = broken.rows(), unbroken.rows()
    assert rows.keys() == expected.keys()
    for key, (n, energy_eV, forces, _) in rows.items():
        assert (n, energy_eV) == (1, expected[key][1])
        np.testing.assert_array_equal(forces, expected[key][2])
    made = [(r.folder / "made" / "labels.extxyz").read_bytes() for r in (broken, unbroken)]
    assert made[0] == made[1]

    starts, spending = broken.starts(), LabelLedger(broken.ledger).spending()
    n_ended = sum(row is not None for _, _, row in starts)
    n_lost = sum(row is None for _, _, row in starts)
    assert (spending.n_started, spending.n_lost, spending.n_running) == (len(starts), n_lost, 0)
    assert n_ended == len(rows) == N_FRAMES + 1
    assert n_lost <= N_KILLS
    assert all(at < rows[key][3] + 1e-3 for key, at, _ in starts), "started after it was finished"
    _log.info(
        "%d calculations started = %d labels + %d killed in flight; the last run computed %d and "
        "reused %d in %.1f s; an unbroken run takes %.1f s",
        *(len(starts), n_ended, n_lost, n_last, n_reused, last_s, unbroken_s),
    )


@pytest.mark.slow
def test_killed_run_resumes_with_equal_labels_toy_engine(tmp_path: Path) -> None:
    check_kills(tmp_path, TOY, seed=1)


@pytest.mark.slow
@pytest.mark.dft
@pytest.mark.timeout(3000)
@pytest.mark.skipif(
    not os.environ.get("MLIP_LONG_TESTS"), reason="set MLIP_LONG_TESTS=1; takes five minutes"
)
def test_killed_run_resumes_with_equal_labels_gpaw(tmp_path: Path) -> None:
    check_kills(tmp_path, GPAW, seed=2)


@pytest.mark.slow
def test_killed_calculation_is_repeated_in_next_call(
    toy: ToyEngine, ledger: LabelLedger, calls: Callable[[], list[str]]
) -> None:
    from dataclasses import replace
    from threading import Thread

    slow = replace(toy, pause_s=3.0)
    made = []
    thread = Thread(target=lambda: made.append(label_frames([toy_frame("Cu", 1)], slow, ledger)))
    thread.start()
    while len(calls()) < 2:  # the isolated atom, then the frame
        time.sleep(0.05)
    os.kill(int(calls()[1].split(":")[2]), 9)
    thread.join()
    (failure,) = made[0].failed
    assert (failure.kind, failure.attempts) == ("died", 1)
    assert "SIGKILL" in failure.reason
    again = label_frames([toy_frame("Cu", 1)], toy, ledger)
    assert (len(again.labelled), again.n_calculated) == (1, 1)
    key = again.labelled[0].info["label_key"]
    assert [label.outcome for label in ledger.history(key)] == ["died", "done"]


FULL = """
import resource, sys
sys.path[:0] = [{here!r}, {root!r}]
from toy_engine import ToyEngine, toy_frame
from mlip_assets.compute import InProcess
from mlip_assets.labelling import LabelLedger, label_frames
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))  # like a full disk
frames = [toy_frame("Cu", seed) for seed in range(60)]
try:
    label_frames(frames, ToyEngine(calls_file="/dev/null"), LabelLedger({ledger!r}), compute=InProcess())
except OSError as error:
    print(type(error).__name__, error.errno, error.filename, error.strerror, sep="|")
"""


@pytest.mark.slow
def test_full_disk_raises_oserror_and_leaves_valid_ledger(
    toy: ToyEngine, ledger: LabelLedger
) -> None:
    label_frames([toy_frame("Cu", 1000)], toy, ledger)
    size = ledger.path.stat().st_size + 120_000
    script = FULL.format(here=str(HERE), root=str(ROOT), size=size, ledger=str(ledger.path))
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    name, number, file, what = process.stdout.strip().split("|")
    assert (name, int(number), file) == ("OSError", errno.ENOSPC, str(ledger.path))
    assert "cannot be written" in what
    with sqlite3.connect(ledger.path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    n_kept = len(ledger)
    assert n_kept >= 2
    frames = [toy_frame("Cu", seed) for seed in range(60)]
    with_space = label_frames(frames[:3], toy, ledger)
    assert len(with_space.labelled) == 3
    for row in connect(ledger.path).select():
        assert np.isfinite(row.data["REF_forces"]).all()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != size
