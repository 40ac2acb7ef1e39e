"""What the bundled surrogate learns from, and the campaigns in which it does."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from mlip_assets.campaign import CampaignError
from mlip_assets.labelling import InProcess, LabelLedger, free_atom, label_frames
from resources.bundled_model import BUNDLED_FOLDER, BUNDLED_NAME, read_description
from resources.surrogate import find_surrogate, load_campaign
from resources.teacher import COHESIVE_EV, TeacherEngine, teacher_of
from tests.resources import surrogate_checks as checks

pytest.importorskip("chgnet", reason="the extra 'chgnet' is not installed")

ROOT = Path(__file__).parents[2]
CAMPAIGNS = sorted((ROOT / "campaigns" / "bundled").glob("*.yaml"))

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
def test_labels_are_what_the_surrogate_says(engine: TeacherEngine, atoms: Atoms, name: str) -> None:
    label = engine.calculate(engine.prepare(atoms), attempt=0)
    known = atoms.copy()
    known.calc = find_surrogate(name, device="cpu", dtype="float32").calculator()
    assert label.energy_eV == pytest.approx(known.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(label.forces, known.get_forces(), atol=1e-5)
    np.testing.assert_allclose(label.stress, known.get_stress(voigt=False), atol=1e-6)


@pytest.mark.parametrize("symbol", ["Si", "Cu", "O"])
def test_free_atoms_are_the_measured_cohesion_above_the_element(
    engine: TeacherEngine, symbol: str
) -> None:
    free = engine.calculate(engine.prepare(free_atom(symbol)), attempt=0)
    assert free.stress is None
    if symbol == "O":
        element = molecule("O2")
        element.calc = teacher_of({symbol})
        at_rest = element.get_potential_energy() / 2
        tolerance = 0.1  # the bond that CHGNet likes best is another
    else:
        element = bulk(symbol, cubic=True)
        a0 = checks.lattice_constant(teacher_of({symbol}), element)
        element.set_cell([a0] * 3, scale_atoms=True)
        element.calc = teacher_of({symbol})
        at_rest = element.get_potential_energy() / len(element)
        tolerance = 0.005
    assert free.energy_eV - at_rest == pytest.approx(COHESIVE_EV[symbol], abs=tolerance)


def test_what_chgnet_does_not_know_is_not_labelled(engine: TeacherEngine, tmp_path: Path) -> None:
    apart = Atoms("Si3", [[0, 0, 0], [2.2, 0, 0], [9, 0, 0]])
    made = label_frames(
        [apart, bulk("Si")], engine, LabelLedger(tmp_path / "labels.db"), compute=InProcess()
    )
    assert "no other within 5 Å" in made.failed[0].reason
    assert len(made.labelled) == 1
    assert made.labelled[0].info["engine"] == "teacher"
    assert made.isolated_energies["Si"] - made.labelled[0].info["REF_energy"] / 2 > 4


def test_no_campaign_takes_it_for_dft(tmp_path: Path) -> None:
    file = tmp_path / "copper.yaml"
    file.write_text("name: copper\ncomposition: Cu\nlabelling: {engine: teacher}\n")
    with pytest.raises(CampaignError, match="'teacher' is not possible"):
        load_campaign(file)


@pytest.mark.parametrize("file", CAMPAIGNS, ids=lambda file: file.stem)
def test_a_campaign_of_the_bundled_model_is_valid(file: Path) -> None:
    campaign = load_campaign(file)
    assert campaign.exploration.surrogate == (
        "lennard-jones" if campaign.composition == "Ar" else "chgnet"
    )
    elements = read_description(BUNDLED_FOLDER, BUNDLED_NAME)["elements"]
    assert set(campaign.elements) <= set(elements)


def test_the_campaigns_hold_every_element_it_claims_to_know() -> None:
    held = {symbol for file in CAMPAIGNS for symbol in load_campaign(file).elements}
    assert held == set(read_description(BUNDLED_FOLDER, BUNDLED_NAME)["elements"])


def test_the_pipeline_labels_with_the_teacher_and_goes_on(
    program: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "argon.yaml").write_text(SMALL)
    campaign = load_campaign(tmp_path / "argon.yaml")
    pipeline = program.Pipeline(tmp_path / "work", n_workers=1)
    made = pipeline.labels(campaign)
    assert len(made.frames) == 8 + 1  # and a dimer
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


def test_each_pass_goes_beyond_the_ones_before(program: ModuleType) -> None:
    class Student:
        model_file = Path("student.model")

    base = load_campaign(ROOT / "campaigns/bundled/silicon.yaml")
    first, second, third = (
        program.campaign_of_pass(base, n, Student() if n else None) for n in range(3)
    )
    assert first == base
    assert [c.name for c in (second, third)] == ["silicon-2", "silicon-3"]
    assert third.sampling.beyond == ("silicon", "silicon-2")
    assert len({c.seed for c in (first, second, third)}) == 3
    assert second.exploration.n_steps > base.exploration.n_steps
