"""Teacher models of the bundled surrogate, and the campaigns that provide its training data."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii

from mlip_assets.campaign import CampaignError
from mlip_assets.compute import InProcess
from mlip_assets.labelling import LabelLedger, isolated_atom, label_frames
from mlip_assets.labelling.engines.teacher import (
    COHESIVE_EV,
    TeacherEngine,
    core_A,
    screened_nuclei,
    teacher_of,
)
from mlip_assets.surrogates import find_surrogate, load_campaign
from mlip_assets.surrogates.models.bundled import BUNDLED_FOLDER, BUNDLED_NAME, read_description
from tests.surrogates import surrogate_checks as checks

pytest.importorskip("chgnet", reason="the extra 'chgnet' is not installed")

ROOT = Path(__file__).parents[3]
CAMPAIGNS = sorted((ROOT / "scripts" / "bundled_campaigns").glob("*.yaml"))

SMALL = """\
name: argon
composition: Ar
seeds: {kinds: [crystal, strained], crystal_atoms: 4}
exploration: {surrogate: lennard-jones, temperatures_K: [60], n_steps: 60, sample_every: 5}
descriptors: {n_max: 3, l_max: 2}
sampling: {n_samples: 8}
labelling: {dimers: [1.8]}
training: {start_from: scratch}
"""


@pytest.fixture(scope="module")
def engine() -> TeacherEngine:
    return TeacherEngine()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``scripts/bundled_model.py``, which is in no package."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("bundled_model")


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.1, seed=2)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "name"),
    [
        (rattled(bulk("Si", cubic=True)), "chgnet"),
        (rattled(bulk("NaCl", "rocksalt", 5.64)), "chgnet"),
        (rattled(bulk("Ar", "fcc", 5.26, cubic=True)), "lennard-jones"),
    ],
    ids=["Si", "NaCl", "Ar"],
)
def test_teacher_labels_equal_results_of_the_surrogate(
    engine: TeacherEngine, atoms: Atoms, name: str
) -> None:
    label = engine.calculate(engine.prepare(atoms), attempt=0)
    known = atoms.copy()
    known.calc = find_surrogate(name, device="cpu", dtype="float32").calculator()
    assert label.energy_eV == pytest.approx(known.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(label.forces, known.get_forces(), atol=1e-5)
    np.testing.assert_allclose(label.stress, known.get_stress(voigt=False), atol=1e-6)


@pytest.mark.parametrize("symbol", ["Si", "Cu", "O"])
def test_isolated_atom_energy_is_element_plus_cohesive_energy(
    engine: TeacherEngine, symbol: str
) -> None:
    free = engine.calculate(engine.prepare(isolated_atom(symbol)), attempt=0)
    assert free.stress is None
    if symbol == "O":
        element = molecule("O2")
        element.calc = teacher_of({symbol})
        at_rest = element.get_potential_energy() / 2
        tolerance = 0.1  # the equilibrium bond length of CHGNet differs
    else:
        element = bulk(symbol, cubic=True)
        a0 = checks.lattice_constant(teacher_of({symbol}), element)
        element.set_cell([a0] * 3, scale_atoms=True)
        element.calc = teacher_of({symbol})
        at_rest = element.get_potential_energy() / len(element)
        tolerance = 0.005
    assert free.energy_eV - at_rest == pytest.approx(COHESIVE_EV[symbol], abs=tolerance)


def two_atoms(symbols: str, distance_A: float) -> Atoms:
    return Atoms(symbols, [[0, 0, 0], [distance_A, 0, 0]])


@pytest.mark.parametrize("symbols", ["Si2", "OCu", "Ar2", "NaAr"])
def test_dimer_repulsion_grows_monotonically_in_the_core(
    engine: TeacherEngine, symbols: str
) -> None:
    core = core_A(*Atoms(symbols).numbers)
    distances = np.linspace(0.3 * core, 0.99 * core, 40)
    labels = [engine.calculate(engine.prepare(two_atoms(symbols, d)), 0) for d in distances]
    energies = np.array([label.energy_eV for label in labels])
    repulsions = np.array([label.forces[1, 0] for label in labels])
    assert (np.diff(energies) < 0).all()
    assert (np.diff(repulsions) < 0).all()
    assert repulsions[-1] > 0
    for d in distances[::13]:  # forces are minus the gradient
        low, high = (
            engine.calculate(engine.prepare(two_atoms(symbols, d + step)), 0).energy_eV
            for step in (-1e-3, 1e-3)
        )
        force = engine.calculate(engine.prepare(two_atoms(symbols, d)), 0).forces
        assert force[1, 0] == pytest.approx((low - high) / 2e-3, rel=1e-3)
        np.testing.assert_allclose(force[0], -force[1])


@pytest.mark.parametrize("symbols", ["Si2", "Ar2"])
def test_dimer_energy_is_continuous_at_the_core(engine: TeacherEngine, symbols: str) -> None:
    core = core_A(*Atoms(symbols).numbers)
    inside, outside = (
        engine.calculate(engine.prepare(two_atoms(symbols, core + step)), 0).energy_eV
        for step in (-1e-4, 1e-4)
    )
    assert inside == pytest.approx(outside, abs=0.02)


def test_screened_nuclei_agree_with_zbl_of_mace() -> None:
    import torch
    from mace.modules.radial import ZBLBasis

    zbl = ZBLBasis(p=6)
    zbl.a_exp.fill_(0.23)  # the published screening length; the default of MACE is shorter
    zbl.a_prefactor.fill_(0.8854)
    numbers = torch.tensor([14, 29])
    for distance in (0.3, 0.6, 1.0):
        theirs = zbl(
            torch.tensor([[distance]] * 2, dtype=torch.float64),
            node_attrs=torch.eye(2, dtype=torch.float64),
            edge_index=torch.tensor([[0, 1], [1, 0]]),
            atomic_numbers=numbers,
        )
        reach = float(covalent_radii[[14, 29]].sum())
        cut = 1 - 28 * (x := distance / reach) ** 6 + 48 * x**7 - 21 * x**8
        energy, _ = screened_nuclei(14, 29, distance)
        assert float(theirs.sum()) == pytest.approx(energy * cut, rel=0.01)


def test_argon_and_other_elements_interact_as_screened_nuclei(engine: TeacherEngine) -> None:
    mixed = Atoms("ArSi2Ar", [[0, 0, 0], [3, 0, 0], [5.3, 0, 0], [0, 3.8, 0]])
    label = engine.calculate(engine.prepare(mixed), 0)
    argon, silicon = (engine.calculate(engine.prepare(mixed[i]), 0) for i in ([0, 3], [1, 2]))
    between = sum(
        screened_nuclei(18, 14, mixed.get_distance(i, j))[0] for i in (0, 3) for j in (1, 2)
    )
    assert label.energy_eV == pytest.approx(argon.energy_eV + silicon.energy_eV + between, abs=1e-5)
    np.testing.assert_allclose(label.forces.sum(axis=0), 0, atol=1e-4)
    with pytest.raises(ValueError, match="in clusters only"):
        engine.calculate(Atoms("ArSi", [[0, 0, 0], [3, 0, 0]], cell=[6, 6, 6], pbc=True), 0)


def test_frame_with_distant_atom_is_not_labelled(engine: TeacherEngine, tmp_path: Path) -> None:
    distant = Atoms("Si3", [[0, 0, 0], [2.2, 0, 0], [9, 0, 0]])
    made = label_frames(
        [distant, bulk("Si")], engine, LabelLedger(tmp_path / "labels.db"), compute=InProcess()
    )
    assert "no neighbour within 5 Å" in made.failed[0].reason
    assert len(made.labelled) == 1
    assert made.labelled[0].info["engine"] == "teacher"
    assert made.isolated_energies["Si"] - made.labelled[0].info["REF_energy"] / 2 > 4


def test_campaign_with_teacher_engine_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "copper.yaml"
    file.write_text("name: copper\ncomposition: Cu\nlabelling: {engine: teacher}\n")
    with pytest.raises(CampaignError, match="'teacher' is not possible"):
        load_campaign(file)


@pytest.mark.parametrize("file", CAMPAIGNS, ids=lambda file: file.stem)
def test_campaign_of_the_bundled_model_is_valid(file: Path) -> None:
    campaign = load_campaign(file)
    assert campaign.exploration.surrogate == (
        "lennard-jones" if campaign.composition == "Ar" else "chgnet"
    )
    elements = read_description(BUNDLED_FOLDER, BUNDLED_NAME)["elements"]
    assert set(campaign.elements) <= set(elements)


def test_campaigns_contain_every_element_of_the_bundled_model() -> None:
    held = {symbol for file in CAMPAIGNS for symbol in load_campaign(file).elements}
    assert held == set(read_description(BUNDLED_FOLDER, BUNDLED_NAME)["elements"])


@pytest.mark.slow
def test_pipeline_labels_with_the_teacher_and_resumes(program: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "argon.yaml").write_text(SMALL)
    campaign = load_campaign(tmp_path / "argon.yaml")
    pipeline = program.Pipeline(tmp_path / "work", n_workers=1)
    made = pipeline.labels(campaign)
    assert len(made.frames) == 8 + 1  # one dimer
    assert made.isolated_energies == {"Ar": 0.0}
    assert {frame.info["walker"].split("/")[0] for frame in made.frames} == {"argon"}
    for frame in made.frames:
        known: Any = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        known.calc = teacher_of({"Ar"})
        np.testing.assert_allclose(frame.arrays["REF_forces"], known.get_forces(), atol=1e-6)
    labels = tmp_path / "work/data/argon/labelled_db/labels.db"
    before = labels.stat().st_mtime_ns
    again = pipeline.labels(campaign)
    assert labels.stat().st_mtime_ns == before
    assert [f.info["label_key"] for f in again.frames] == [f.info["label_key"] for f in made.frames]


def test_weight_decreases_with_force_and_increases_near_equilibrium(program: ModuleType) -> None:
    def frame(symbols: str, force: float, kind: str = "liquid") -> Atoms:
        atoms = Atoms(symbols, [[0, 0, 0], [2, 0, 0]], info={"seed_kind": kind})
        atoms.arrays["REF_forces"] = np.array([[-force, 0, 0], [force, 0, 0]])
        return atoms

    kind = program.Pass(1, 1.0, argon_weight=100.0, quiet_weight=8.0)
    assert kind.weight(frame("Si2", 0.0)) == kind.weight(frame("Si2", 0.1)) == 8
    assert kind.weight(frame("Si2", 4.0)) == 1
    assert kind.weight(frame("Si2", 20.0)) == pytest.approx((5 / 20) ** 2)
    assert kind.weight(frame("Si2", 20.0, "dimer")) == pytest.approx((10 / 20) ** 2)
    assert kind.weight(frame("Ar2", 0.0)) == 100
    assert kind.weight(frame("Ar2", 1.0)) == pytest.approx(100 * 0.5**2)


def test_each_pass_excludes_the_labels_of_earlier_passes(program: ModuleType) -> None:
    class Student:
        model_file = Path("student.model")

    base = load_campaign(ROOT / "scripts/bundled_campaigns/silicon.yaml")
    first, second, third = (
        program.campaign_of_pass(base, n, Student() if n else None) for n in range(3)
    )
    assert first == base
    assert [c.name for c in (second, third)] == ["silicon-2", "silicon-3"]
    assert third.sampling.exclude_labelled_in == ("silicon", "silicon-2")
    assert len({c.random_seed for c in (first, second, third)}) == 3
    assert second.exploration.n_steps > base.exploration.n_steps
