"""Walkers: exact steps, resumption to the same frames, guards, storage."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from mlip_assets.campaign import Campaign
from mlip_assets.dynamics import plan_walkers, run_walker, run_walkers, unphysical_frames

ROOT = Path(__file__).parents[2]


def copper(kind="crystal", size=(2, 1, 1)):
    atoms = bulk("Cu", cubic=True) * size
    atoms.info.update(seed_name=kind, seed_kind=kind)
    return atoms


class Harmonic(Calculator):
    """Independent oscillators around the starting positions: the canonical averages are known.

    Unlike EMT, whose neighbour list remembers earlier positions, it has no memory: the same
    positions give the same bits.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, size=(2, 1, 1), k=5.0):
        super().__init__()
        self._centre, self._k = copper(size=size).positions, k

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        shift = atoms.positions - self._centre
        self.results = {
            "energy": 0.5 * self._k * (shift**2).sum(),
            "forces": -self._k * shift,
            "stress": np.zeros(6),
        }


def campaign(**exploration):
    given = {"n_steps": 60, "sample_every": 3, "temperatures_K": [300, 900], **exploration}
    return Campaign(
        name="copper", composition="Cu", exploration=given, sampling={"n_samples": 1}, seed=4
    )


def walkers(seeds=None, **exploration):
    return plan_walkers(campaign(**exploration), seeds or [copper()], surrogate_sha256="0" * 64)


def columns(trajectory):
    batches = list(trajectory.iter_batches())
    return {
        name: np.concatenate([np.asarray(batch[name].to_pylist()) for batch in batches])
        for name in ("frame_id", "positions", "energy_eV", "temperature_K", "forces")
    }


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in left)


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
    two = columns(run_walkers(walkers(), EMT, tmp_path / "two", n_workers=2))
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


def test_kill_minus_nine_and_resume(tmp_path):
    """A killed exploration ends with the very frames of an unbroken one."""
    script = tmp_path / "explore.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_walker import Harmonic, run_walkers, walkers\n"
        "if __name__ == '__main__':\n"
        f"    run_walkers(walkers(n_steps=3000), Harmonic, Path({str(tmp_path / 'killed')!r}), n_workers=2)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("*/part-00001.parquet")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its workers die with it
    parts = len(list((tmp_path / "killed").glob("*/part-*.parquet")))
    time.sleep(0.5)
    assert len(list((tmp_path / "killed").glob("*/part-*.parquet"))) == parts
    unbroken = run_walkers(walkers(n_steps=3000), Harmonic, tmp_path / "unbroken")
    assert 0 < parts < len(unbroken.parts)
    resumed = run_walkers(walkers(n_steps=3000), Harmonic, tmp_path / "killed")
    assert same(columns(unbroken), columns(resumed))


class Spoiled(EMT):
    """EMT that goes wrong after some calls."""

    def __init__(self, spoil, after=20):
        super().__init__()
        self._spoil, self._left = spoil, after

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self._left -= 1
        if self._left < 0:
            self._spoil(self.results)


def nan_forces(results):
    results["forces"] = np.full_like(results["forces"], np.nan)


def huge_forces(results):
    results["forces"] = results["forces"] + np.array([[90.0, 0, 0]] + [[0.0, 0, 0]] * 7)


def nan_energy(results):
    results["energy"] = np.nan


@pytest.mark.parametrize(
    ("spoil", "reason"), [(nan_forces, "nan"), (huge_forces, "max_force"), (nan_energy, "nan")]
)
def test_a_guard_stops_the_walker_and_keeps_the_good_part(tmp_path, spoil, reason):
    (walker, *_) = walkers()
    report, parts = run_walker(walker, Spoiled(spoil), tmp_path)
    assert report.stopped_by is not None
    assert report.stopped_by.startswith(reason)
    assert 0 < report.n_frames < 20
    assert sum(part.n_frames for part in parts) == report.n_frames
    again, _ = run_walker(walker, EMT(), tmp_path)
    assert again == report, "a stopped walker stays stopped"


def test_overlap_and_heat_stop_a_walker(tmp_path):
    overlapping = copper()
    overlapping.positions[1] = overlapping.positions[0] + [0.9, 0, 0]
    guards = {"max_force_eV_per_A": 1e9, "max_temperature_factor": 1e9}
    tight = campaign().model_copy(update={"guards": campaign().guards.model_copy(update=guards)})
    (walker, *_) = plan_walkers(tight, [overlapping], "0" * 64)
    still = walker.settings.model_copy(update={"timestep_fs": 0.05})
    from dataclasses import replace

    report, _ = run_walker(replace(walker, settings=still), EMT(), tmp_path / "overlap")
    assert report.stopped_by.startswith("close_contact: Cu-Cu at 0.9")

    (hot, *_) = walkers([overlapping], timestep_fs=10.0)
    loose = hot.guards.model_copy(update={"max_force_eV_per_A": 1e9, "min_distance_ratio": 1e-6})
    report, _ = run_walker(replace(hot, guards=loose), EMT(), tmp_path / "hot")
    assert report.stopped_by.split(":")[0] in {"temperature", "nan"}


def test_two_processes_never_run_one_walker(tmp_path):
    import fcntl

    (walker, *_) = walkers()
    (tmp_path / walker.folder).mkdir(parents=True)
    with (tmp_path / walker.folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another process"):
            run_walker(walker, EMT(), tmp_path)


def test_langevin_samples_the_canonical_ensemble(tmp_path):
    """Equipartition: <E_pot> = f/2 kT and <T> = T with f = 3N - 3 (the centre of mass is fixed)."""
    from ase.units import kB

    seed = copper(size=(2, 2, 2))
    (walker,) = walkers([seed], n_steps=6000, sample_every=4, temperatures_K=[600])
    run_walker(walker, Harmonic(size=(2, 2, 2)), tmp_path)
    trajectory = run_walkers([walker], EMT, tmp_path)
    scalars = trajectory.scalars().slice(250)
    freedom = 3 * len(seed) - 3
    temperature = np.mean(scalars["temperature_K"].to_numpy())
    potential = np.mean(scalars["energy_eV"].to_numpy())
    assert temperature == pytest.approx(600, rel=0.03)
    assert potential == pytest.approx(freedom / 2 * kB * 600, rel=0.05)
