"""Walkers: number of steps, resumed runs, fingerprints and checkpoints."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.emt import EMT

from mlip_assets.dynamics import plan_walkers, run_walker, run_walkers, unphysical_frames
from mlip_assets.dynamics.checkpoint import Checkpoint
from mlip_assets.dynamics.exploration import steps_done
from mlip_assets.trajectory import Part
from tests.dynamics.oscillators import Harmonic, campaign, columns, copper, same, walkers

ROOT = Path(__file__).parents[2]


def test_run_walkers_makes_exactly_the_requested_steps(tmp_path):
    trajectory = run_walkers(walkers(n_steps=61), EMT, tmp_path)
    assert [walker.n_steps for walker in trajectory.walkers] == [61, 61]
    steps = trajectory.scalars()["step"].to_pylist()
    assert steps == [*range(3, 61, 3)] * 2
    assert trajectory.n_frames == 40
    assert unphysical_frames(trajectory, campaign().guards) == {}


def test_stored_energy_and_forces_match_stored_positions(tmp_path):
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


def test_run_walkers_is_independent_of_number_of_processes(tmp_path):
    one = columns(run_walkers(walkers(), EMT, tmp_path / "one"))
    two = columns(run_walkers(walkers(), [EMT, EMT], tmp_path / "two"))
    assert same(one, two)


def test_run_walkers_extends_and_cuts_existing_frames(tmp_path):
    direct = columns(run_walkers(walkers(n_steps=400), Harmonic, tmp_path / "direct"))
    run_walkers(walkers(n_steps=200), Harmonic, tmp_path / "extended")
    extended = run_walkers(walkers(n_steps=400), Harmonic, tmp_path / "extended")
    assert same(direct, columns(extended))
    cut = run_walkers(walkers(n_steps=200), Harmonic, tmp_path / "extended")
    assert cut.n_frames == 2 * (200 // 3)
    assert max(cut.scalars()["step"].to_pylist()) == 198


def test_replicas_differ_and_are_reproducible(tmp_path):
    first = columns(run_walkers(walkers(replicas=2), EMT, tmp_path / "a"))
    again = columns(run_walkers(walkers(replicas=2), EMT, tmp_path / "b"))
    assert same(first, again)
    quarter = len(first["energy_eV"]) // 4
    assert not np.allclose(
        first["energy_eV"][:quarter], first["energy_eV"][2 * quarter : 3 * quarter]
    )


def test_walker_of_other_surrogate_has_own_checkpoint(tmp_path):
    run_walkers(walkers(), EMT, tmp_path)
    other = plan_walkers(campaign(), [copper()], surrogate_sha256="1" * 64)
    run_walkers(other, EMT, tmp_path)
    assert len(list(tmp_path.glob("*/checkpoint.npz"))) == 4


def test_walker_fingerprint_is_unchanged():
    """Literal values of version 0.1: with others, no stored walker would be found again."""
    assert [walker.fingerprint for walker in walkers()] == [
        "9719faf59c1198f8de2ec799c945aba35efdfb25ac0aa795a219e2202c9a6159",
        "400dcfa9c86663d0a03f05ccc60e2b4283c83f65e5dee528cdfade754b3e739f",
    ]
    slab = fcc111("Cu", (1, 1, 2), vacuum=5.0)
    slab.info.update(seed_name="slab", seed_kind="surface")
    planned = walkers(
        [copper(), slab],
        guards={"framework": ["Cu"], "retries": 2},
        ensemble="npt_full",
        temperatures_K=[300],
        temperature_ramps_K=[[[50, 300.0], [150, 900.0]]],
        pressures_GPa=[0, 5],
        replicas=2,
        n_steps=90,
    )
    by_name = {walker.name: walker.fingerprint for walker in planned}
    assert len(by_name) == 12
    assert by_name["slab_300K_r0"].startswith("462f7268d9caa21c")
    assert by_name["crystal_300-900K-in-50-150_5GPa_r1"].startswith("9c4485ea726e9cb7")


def test_checkpoint_reads_stored_format(tmp_path):
    """A file with the keys of version 0.1, written here without the class."""
    cell = np.diag([4.0, 4.0, 4.0])
    plain = {
        "step": 9,
        "random_state": {"bit_generator": "PCG64"},
        "energy_eV": -1.5,
        "good": [6, 12.0],
        "parts": [{"path": "w/p", "n_frames": 2, "first_frame_id": 3, "last_frame_id": 6}],
        "events": [],
        "stopped_by": None,
        "wall_s": 0.5,
    }
    np.savez(
        tmp_path / "checkpoint.npz",
        plain=np.array(json.dumps(plain)),
        positions=np.ones((1, 3)),
        momenta=np.zeros((1, 3)),
        cell=cell,
        good_positions=np.full((1, 3), 2.0),
        good_cell=2 * cell,
    )
    checkpoint = Checkpoint.load(tmp_path)
    assert (checkpoint.step, checkpoint.energy_eV, checkpoint.barostat) == (9, -1.5, None)
    assert checkpoint.parts == (Part("w/p", 2, 3, 6),)
    assert (checkpoint.last_valid.step, checkpoint.last_valid.time_fs) == (6, 12.0)
    assert np.array_equal(checkpoint.last_valid.positions, np.full((1, 3), 2.0))
    assert np.array_equal(checkpoint.last_valid.cell, 2 * cell)
    checkpoint.save(tmp_path / "again")
    with (
        np.load(tmp_path / "checkpoint.npz") as stored,
        np.load(tmp_path / "again" / "checkpoint.npz") as again,
    ):
        assert set(stored.files) == set(again.files)
        assert json.loads(str(again["plain"])) == plain


HEATED = {
    "ensemble": "npt_full",
    "temperatures_K": [300],
    "temperature_ramps_K": [[[100, 300.0], [2000, 900.0]]],
    "n_steps": 1200,
    "checkpoint_every": 60,
}


@pytest.mark.slow
def test_killed_exploration_resumes_to_identical_frames(tmp_path):
    """SIGKILL during a temperature ramp with a flexible cell."""
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
        assert process.poll() is None, "it ended before the signal"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its workers end with it
    done = sum(steps_done(walker, tmp_path / "killed") for walker in walkers(**HEATED))
    time.sleep(0.5)
    again = sum(steps_done(walker, tmp_path / "killed") for walker in walkers(**HEATED))
    assert 0 < done == again < 2 * 1200
    uninterrupted = run_walkers(walkers(**HEATED), Harmonic, tmp_path / "uninterrupted")
    resumed = run_walkers(walkers(**HEATED), Harmonic, tmp_path / "killed")
    assert same(columns(uninterrupted), columns(resumed))


def test_run_walker_refuses_locked_walker(tmp_path):
    import fcntl

    (walker, *_) = walkers()
    (tmp_path / walker.folder).mkdir(parents=True)
    with (tmp_path / walker.folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another process"):
            run_walker(walker, EMT(), tmp_path)
