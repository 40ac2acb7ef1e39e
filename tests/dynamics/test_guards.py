"""Guards: close contacts against a brute-force search, violations, retries."""

import itertools
import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_assets.campaign import GuardSettings
from mlip_assets.dynamics import Guards, close_contact, counts_by_reason, run_walker
from mlip_assets.structures.contacts import distance_ratio
from mlip_assets.trajectory import Trajectory, WalkerReport
from tests.dynamics.oscillators import Harmonic, columns, copper, same, walkers


def worst_margin(atoms, ratio):
    """Smallest difference of distance and allowed distance, over all pairs and near images."""
    images = [range(-2, 3) if periodic else (0,) for periodic in atoms.pbc]
    radii = ratio * covalent_radii[atoms.numbers]
    worst = np.inf
    for shift in itertools.product(*images):
        vectors = (
            atoms.positions[:, None] - atoms.positions[None] + np.array(shift) @ atoms.cell.array
        )
        margin = np.linalg.norm(vectors, axis=-1) - radii[:, None] - radii
        if not any(shift):
            np.fill_diagonal(margin, np.inf)
        worst = min(worst, margin.min())
    return worst


@given(
    seed=st.integers(0, 10_000),
    n_atoms=st.integers(1, 6),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    ratio=st.floats(0.3, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_close_contact_agrees_with_brute_force(seed, n_atoms, pbc, ratio):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(4, 6, 3)) + np.triu(rng.uniform(-1, 1, (3, 3)), 1)
    numbers = rng.choice([8, 14, 29], n_atoms)
    atoms = Atoms(numbers, rng.uniform(0, 1, (n_atoms, 3)) @ cell, cell=cell, pbc=pbc)
    worst = worst_margin(atoms, ratio)
    if abs(worst) > 1e-9:
        assert (close_contact(atoms, ratio) is not None) == (worst < 0)


def test_close_contact_message_names_pair_and_distances():
    atoms = Atoms("SiO", [[0, 0, 0], [0.7, 0, 0]])
    message = close_contact(atoms, 0.55)
    assert message == "close_contact: Si-O at 0.70 Å, below 0.97" or message.startswith(
        "close_contact: O-Si"
    )


def test_close_contact_of_one_atom_is_with_its_image():
    assert close_contact(Atoms("Si"), 0.55) is None
    assert close_contact(Atoms("Si", cell=np.eye(3), pbc=True), 0.55) is not None


@pytest.mark.parametrize("ratio", [0.55, 0.95])
def test_close_contact_accepts_crystal(ratio):
    assert close_contact(bulk("Si", cubic=True), ratio) is None


def test_close_contact_agrees_with_distance_ratio_of_seeds():
    atoms = Atoms("SiO", [[0, 0, 0], [0.7, 0, 0]])
    ratio = distance_ratio(atoms)
    assert close_contact(atoms, ratio * 1.001)
    assert close_contact(atoms, ratio * 0.999) is None


PHYSICAL = {"energy_eV": -1.0, "forces": np.zeros((8, 3)), "target_K": 300.0}


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({}, {}, None),
        ({}, {"energy_eV": np.nan}, "nan: "),
        ({}, {"forces": np.full((8, 3), np.inf)}, "nan: "),
        ({}, {"forces": np.eye(8, 3) * 51}, "max_force: 51.0 eV/Å exceeds 50"),
        ({"max_force_eV_per_A": 60}, {"forces": np.eye(8, 3) * 51}, None),
        ({}, {"speed": 0.5}, "temperature: "),
        ({}, {"stretch": 1.3}, "volume: 2.20 of the seed's, outside 0.6 to 1.6"),
        ({}, {"stretch": 0.8}, "volume: 0.51 of the seed's"),
    ],
)
def test_check_step_names_violated_guard(settings, changes, message):
    seed = copper()
    given = dict(PHYSICAL) | {k: v for k, v in changes.items() if k in PHYSICAL}
    atoms = seed.copy()
    atoms.set_velocities(np.full((8, 3), changes.get("speed", 0.0)))
    atoms.set_cell(atoms.cell * changes.get("stretch", 1.0), scale_atoms=True)
    violation = Guards(seed, GuardSettings(**settings)).check_step(atoms, **given)
    assert violation is None if message is None else violation.startswith(message)


def test_check_structure_finds_energy_jump_of_either_sign():
    guards = Guards(copper(), GuardSettings())
    assert guards.check_structure(copper(), 0.0, 7.9) is None
    assert guards.check_structure(copper(), 0.0, 8.1).startswith(
        "energy_jump: 1.01 eV/atom since the previous check exceeds 1"
    )
    assert guards.check_structure(copper(), 8.1, 0.0).startswith("energy_jump")


@pytest.mark.parametrize("element", ["Cu", "Ar", "Si"])
def test_check_structure_finds_dissociated_atom(element):
    cluster = bulk(element, cubic=True)
    cluster.pbc = False
    cluster.info.update(seed_name="cluster", seed_kind="cluster")
    away = cluster.copy()
    away.positions[0] -= 2 * away.cell.lengths()[0]
    guards = Guards(cluster, GuardSettings())
    assert guards.check_structure(cluster, 0, 0) is None
    message = "dissociated: into 2 parts, the smallest of 1 atoms"
    assert guards.check_structure(away, 0, 0) == message
    assert Guards(cluster, GuardSettings(max_gap_ratio=None)).check_structure(away, 0, 0) is None
    assert Guards(Atoms(element), GuardSettings()).check_structure(Atoms(element), 0, 0) is None


def test_check_structure_finds_melted_framework():
    seed = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    seed.info.update(seed_name="crystal", seed_kind="crystal")
    guards = Guards(seed, GuardSettings(framework=("Cl",)))
    moved = seed.copy()
    moved.set_cell(moved.cell * 1.1, scale_atoms=True)
    moved.positions[seed.numbers == 11] += 0.6  # sodium may diffuse
    assert guards.check_structure(moved, 0, 0) is None
    moved.positions[seed.numbers == 17] += 0.6
    assert guards.check_structure(moved, 0, 0).startswith("melted_framework: displaced by 0.37")
    seed.info["seed_kind"] = "liquid"
    liquid = Guards(seed, GuardSettings(framework=("Cl",)))
    assert liquid.check_structure(moved, 0, 0) is None


def nan_forces(results):
    results["forces"] = np.full_like(results["forces"], np.nan)


def huge_forces(results):
    results["forces"] = results["forces"] + np.eye(8, 3) * 90


def nan_energy(results):
    results["energy"] = np.nan


def nan_stress(results):
    results["stress"] = np.full(6, np.nan)


class Faulty(Harmonic):
    """Oscillators with wrong results in one call, or in all calls from it."""

    def __init__(self, corrupt, at, *, permanent=True):
        super().__init__()
        self._corrupt, self._at, self._permanent = corrupt, at, permanent

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.calls == self._at or (self._permanent and self.calls > self._at):
            self._corrupt(self.results)


NPT = {"ensemble": "npt_full", "barostat_period_fs": 200}


@pytest.mark.parametrize(
    ("corrupt", "reason", "exploration"),
    [
        (nan_forces, "nan", {}),
        (nan_energy, "nan", {}),
        (huge_forces, "max_force", {}),
        (nan_forces, "nan", NPT),
        (nan_stress, "nan", NPT),
    ],
)
def test_guard_stops_walker_and_keeps_valid_frames(tmp_path, corrupt, reason, exploration):
    """Wrong results from step 20: frames 3 to 18 are kept, and the retry fails immediately."""
    (walker, *_) = walkers(**exploration)
    report, parts = run_walker(walker, Faulty(corrupt, at=21), tmp_path)
    assert report.stopped_by.startswith(reason)
    assert [event.reason for event in report.events] == [reason, reason]
    assert [event.step for event in report.events] == [20, 18]
    assert [event.resumed_from_step for event in report.events] == [18, None]
    assert report.n_frames == sum(part.n_frames for part in parts) == 6
    trajectory = Trajectory.from_parts(tmp_path, parts, [report])
    assert all(np.isfinite(atoms.positions).all() for atoms in trajectory.iter_frames())
    again, _ = run_walker(walker, Harmonic(), tmp_path)
    assert again == report, "a stopped walker is not run again"
    assert WalkerReport.from_plain(json.loads(json.dumps(report, default=vars))) == report


def test_retry_has_shorter_timestep_and_lower_temperature(tmp_path):
    """One wrong result at step 20: the retry starts at step 18 with 1 fs and 240 K."""
    (walker, *_) = walkers(guards={"retries": 2}, temperatures_K=[300])
    faulty = Faulty(nan_forces, at=21, permanent=False)
    report, parts = run_walker(walker, faulty, tmp_path / "uninterrupted")
    assert report.stopped_by is None
    assert report.n_frames == 20
    scalars = (
        Trajectory.from_parts(tmp_path / "uninterrupted", parts, [report]).scalars().to_pylist()
    )
    assert [row["step"] for row in scalars] == [*range(3, 61, 3)]
    assert [row["time_fs"] for row in scalars] == [
        2.0 * min(s, 18) + max(s - 18, 0) for s in range(3, 61, 3)
    ]
    assert {row["target_temperature_K"] for row in scalars[6:]} == {240}
    assert counts_by_reason(report.events) == {"nan": 1}


def test_retried_walker_resumes_to_identical_frames(tmp_path):
    def run(folder, ends):
        calls = 0
        for n_steps in ends:
            (walker,) = walkers(temperatures_K=[300], n_steps=n_steps, checkpoint_every=7)
            # a new process evaluates the frame of the checkpoint again
            calculator = Faulty(nan_forces, at=33 - calls, permanent=False)
            report, parts = run_walker(walker, calculator, tmp_path / folder)
            calls = report.n_steps
        assert [event.step for event in report.events] == [32]
        return columns(Trajectory.from_parts(tmp_path / folder, parts, [report]))

    assert same(run("uninterrupted", [100]), run("interrupted", [10, 25, 100]))


def test_unphysical_initial_structure_is_evaluated_once(tmp_path):
    overlapping = copper()
    overlapping.positions[1] = overlapping.positions[0] + [0.9, 0, 0]
    (walker, *_) = walkers([overlapping], guards={"max_force_eV_per_A": 1e9})
    calculator = Harmonic()
    report, _ = run_walker(walker, calculator, tmp_path)
    assert report.stopped_by.startswith("close_contact: Cu-Cu at 0.90")
    assert (calculator.calls, report.n_frames) == (1, 0)


def test_temperature_guard_stops_unstable_walker(tmp_path):
    """A time step above the stability limit of the oscillators: the energy diverges."""
    loose = {
        "max_force_eV_per_A": 1e9,
        "min_distance_ratio": 0.01,
        "max_energy_jump_eV_per_atom": 1e9,
    }
    (walker, *_) = walkers(guards=loose, timestep_fs=10.0, n_steps=600)
    report, _ = run_walker(walker, StiffHarmonic(), tmp_path)
    assert report.events[0].reason == "temperature"


class StiffHarmonic(Harmonic):
    """Bonds of 800 eV/Å²."""

    def __init__(self):
        super().__init__(k=800.0)
