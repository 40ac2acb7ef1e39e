"""Walkers: exact steps, resumption to the same frames, guards, storage."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT

from mlip_assets.dynamics import plan_walkers, run_walker, run_walkers, unphysical_frames
from mlip_assets.dynamics.exploration import steps_done
from tests.dynamics.oscillators import Harmonic, campaign, columns, copper, same, walkers

ROOT = Path(__file__).parents[2]


def test_exactly_the_steps_asked_for(tmp_path):
    trajectory = run_walkers(walkers(n_steps=61), EMT, tmp_path)
    assert [walker.n_steps for walker in trajectory.walkers] == [61, 61]
    steps = trajectory.scalars()["step"].to_pylist()
    assert steps == [*range(3, 61, 3)] * 2
    assert trajectory.n_frames == 40
    assert unphysical_frames(trajectory, campaign().guards) == {}


def test_stored_energy_and_forces_are_those_of_the_positions(tmp_path):
    trajectory = run_walkers(walkers(), EMT, tmp_path)
    (atoms,) = trajectory.frames([1_000_000_030])
    atoms.calc = EMT()
    assert atoms.get_potential_energy() == pytest.approx(
        atoms.info["surrogate_energy_eV"], abs=1e-5
    )
    row = next(
        row
        for batch in trajectory.iter_batches()
        for row in batch.to_pylist()
        if row["frame_id"] == 1_000_000_030
    )
    assert np.allclose(np.reshape(row["forces"], (-1, 3)), atoms.get_forces(), atol=2e-5)


def test_processes_change_nothing(tmp_path):
    one = columns(run_walkers(walkers(), EMT, tmp_path / "one"))
    two = columns(run_walkers(walkers(), [EMT, EMT], tmp_path / "two"))
    assert same(one, two)


def test_more_steps_continue_and_fewer_cut(tmp_path):
    direct = columns(run_walkers(walkers(n_steps=400), Harmonic, tmp_path / "direct"))
    run_walkers(walkers(n_steps=200), Harmonic, tmp_path / "extended")
    extended = run_walkers(walkers(n_steps=400), Harmonic, tmp_path / "extended")
    assert same(direct, columns(extended))
    cut = run_walkers(walkers(n_steps=200), Harmonic, tmp_path / "extended")
    assert cut.n_frames == 2 * (200 // 3)
    assert max(cut.scalars()["step"].to_pylist()) == 198


def test_replicas_and_seeds_differ_but_are_reproducible(tmp_path):
    first = columns(run_walkers(walkers(replicas=2), EMT, tmp_path / "a"))
    again = columns(run_walkers(walkers(replicas=2), EMT, tmp_path / "b"))
    assert same(first, again)
    quarter = len(first["energy_eV"]) // 4
    assert not np.allclose(
        first["energy_eV"][:quarter], first["energy_eV"][2 * quarter : 3 * quarter]
    )


def test_another_surrogate_starts_afresh(tmp_path):
    run_walkers(walkers(), EMT, tmp_path)
    other = plan_walkers(campaign(), [copper()], surrogate_sha256="1" * 64)
    run_walkers(other, EMT, tmp_path)
    assert len(list(tmp_path.glob("*/checkpoint.npz"))) == 4


HEATED = {
    "ensemble": "npt_full",
    "temperatures_K": [300],
    "temperature_ramps_K": [[[100, 300.0], [2000, 900.0]]],
    "n_steps": 1200,
    "checkpoint_every": 60,
}


def test_kill_minus_nine_and_resume(tmp_path):
    """A killed exploration, heated in a moving cell, ends with the frames of an unbroken one."""
    script = tmp_path / "explore.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from oscillators import Harmonic, walkers; from mlip_assets.dynamics import run_walkers\n"
        "if __name__ == '__main__':\n"
        f"    run_walkers(walkers(**{HEATED!r}), [Harmonic, Harmonic], Path({str(tmp_path / 'killed')!r}))\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("*/checkpoint.npz")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its workers die with it
    done = sum(steps_done(walker, tmp_path / "killed") for walker in walkers(**HEATED))
    time.sleep(0.5)
    again = sum(steps_done(walker, tmp_path / "killed") for walker in walkers(**HEATED))
    assert 0 < done == again < 2 * 1200
    unbroken = run_walkers(walkers(**HEATED), Harmonic, tmp_path / "unbroken")
    resumed = run_walkers(walkers(**HEATED), Harmonic, tmp_path / "killed")
    assert same(columns(unbroken), columns(resumed))


def test_two_processes_never_run_one_walker(tmp_path):
    import fcntl

    (walker, *_) = walkers()
    (tmp_path / walker.folder).mkdir(parents=True)
    with (tmp_path / walker.folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another process"):
            run_walker(walker, EMT(), tmp_path)
