"""The bundled surrogate: safe to load, complete, and physically correct."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.units import GPa

from mlip_assets.surrogates.mace_calculator import mace_calculator, state_dict_sha256
from mlip_assets.surrogates.models.bundled import (
    BUNDLED_FOLDER,
    BUNDLED_NAME,
    export_model,
    load_bundled,
    load_model,
    read_description,
)

ELEMENTS = ["O", "Na", "Mg", "Al", "Si", "Cl", "Ar", "Cu"]


@pytest.fixture(scope="module")
def module() -> Any:
    return load_bundled()


@pytest.fixture(scope="module")
def calculator() -> Any:
    import torch

    return mace_calculator(load_bundled(torch.float64), default_dtype="float64")


@pytest.fixture
def silicon() -> Atoms:
    atoms = bulk("Si", "diamond", 5.46, cubic=True)
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for suffix in ("json", "npz"):
        shutil.copy(BUNDLED_FOLDER / f"{BUNDLED_NAME}.{suffix}", tmp_path)
    return tmp_path


def test_load_bundled_unpickles_nothing_and_keeps_default_dtype(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    import torch

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the bundled model was unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    before = torch.get_default_dtype()
    assert state_dict_sha256(load_bundled()) == state_dict_sha256(module)
    assert torch.get_default_dtype() == before


def test_bundled_files_are_small() -> None:
    assert sum(path.stat().st_size for path in BUNDLED_FOLDER.iterdir()) < 1_000_000


def test_bundled_hash_matches_weights(module: Any) -> None:
    description = read_description(BUNDLED_FOLDER, BUNDLED_NAME)
    assert state_dict_sha256(module) == description["state_dict_sha256"]
    assert description["state_dict_sha256"] in (BUNDLED_FOLDER / "MODEL_CARD.md").read_text()


def test_state_dict_sha256_depends_on_weights_and_types() -> None:
    import torch

    layer = torch.nn.Linear(3, 2)
    original = state_dict_sha256(layer)
    assert state_dict_sha256(copy.deepcopy(layer)) == original
    changed = copy.deepcopy(layer)
    with torch.no_grad():
        changed.weight[0, 0] += 1e-3
    assert len({original, state_dict_sha256(changed), state_dict_sha256(layer.double())}) == 3


def test_load_model_refuses_other_weights(copied: Path) -> None:
    weights = copied / f"{BUNDLED_NAME}.npz"
    with np.load(weights, allow_pickle=False) as arrays:
        state = {key: arrays[key] for key in arrays.files}
    key = next(k for k in state if k.endswith("weight"))
    state[key] = state[key] + np.float32(0.01)
    np.savez(weights, **state)
    with pytest.raises(ValueError, match="of different exports"):
        load_model(copied, BUNDLED_NAME)


def test_load_model_refuses_other_format_version(copied: Path) -> None:
    path = copied / f"{BUNDLED_NAME}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(ValueError, match="format_version is 99"):
        load_model(copied, BUNDLED_NAME)


def test_export_model_round_trip_keeps_energies_and_forces(
    module: Any, calculator: Any, silicon: Atoms, tmp_path: Path
) -> None:
    export_model(module, tmp_path, "again", {"teacher": "a test"})
    again = load_model(tmp_path, "again")
    assert state_dict_sha256(again) == state_dict_sha256(module)
    exported = mace_calculator(again.double(), default_dtype="float64")
    results = []
    for potential in (calculator, exported):  # float64: round-off hides nothing
        silicon.calc = potential
        results.append((silicon.get_potential_energy(), silicon.get_forces()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-10)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-10)


def test_export_model_refuses_other_class(tmp_path: Path) -> None:
    import torch

    with pytest.raises(ValueError, match="cannot export Linear"):
        export_model(torch.nn.Linear(2, 2), tmp_path, "linear")


def test_bundled_elements(calculator: Any) -> None:
    from ase.data import atomic_numbers

    assert read_description(BUNDLED_FOLDER, BUNDLED_NAME)["elements"] == ELEMENTS
    assert list(calculator.z_table.zs) == [atomic_numbers[symbol] for symbol in ELEMENTS]
    assert atomic_numbers["Fe"] not in calculator.z_table.zs


@pytest.mark.parametrize("formula", ["Si8", "NaCl", "Ar3"])
def test_bundled_forces_are_energy_gradient(calculator: Any, silicon: Atoms, formula: str) -> None:
    atoms = {
        "Si8": silicon,
        "NaCl": bulk("NaCl", "rocksalt", 5.7, cubic=True),
        "Ar3": Atoms("Ar3", [[0, 0, 0], [0, 0, 3.6], [0, 3.3, 1.5]]),
    }[formula].copy()
    atoms.rattle(0.05, seed=1)
    atoms.calc = calculator
    forces = atoms.get_forces()
    step = 1e-4
    for index, axis in ((0, 0), (1, 2), (2, 1)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[index, axis] += sign * step
            moved.calc = calculator
            energies.append(moved.get_potential_energy())
        gradient = (energies[0] - energies[1]) / (2 * step)
        assert forces[index, axis] == pytest.approx(-gradient, abs=2e-5)


def test_bundled_energy_is_invariant_and_forces_are_equivariant(
    calculator: Any, silicon: Atoms
) -> None:
    silicon.calc = calculator
    turned = silicon.copy()
    turned.rotate(37.0, (1, 2, 3), rotate_cell=True)
    turned.calc = calculator
    assert turned.get_potential_energy() == pytest.approx(silicon.get_potential_energy(), abs=1e-6)
    rotation = np.linalg.solve(silicon.cell.array, turned.cell.array)
    np.testing.assert_allclose(turned.get_forces(), silicon.get_forces() @ rotation, atol=1e-5)


def _equilibrium(calculator: Any, atoms: Atoms, lengths: np.ndarray) -> tuple[float, float, float]:
    """Lattice constant (Å), energy per atom (eV) and bulk modulus (GPa) of a cubic crystal."""
    from ase.eos import EquationOfState

    energies = []
    for a in lengths:
        trial = atoms.copy()
        trial.set_cell([a] * 3, scale_atoms=True)
        trial.calc = calculator
        energies.append(trial.get_potential_energy())
    volume, energy, modulus = EquationOfState(lengths**3, energies, "birchmurnaghan").fit()
    return volume ** (1 / 3), energy / len(atoms), modulus / GPa


@pytest.mark.parametrize(
    ("atoms", "measured_a0", "tolerance"),
    [
        (bulk("Si", "diamond", 5.43, cubic=True), 5.45, 0.02),
        (bulk("Cu", cubic=True), 3.61, 0.03),
        (bulk("Ar", "fcc", 5.26, cubic=True), 5.26, 0.03),
    ],
    ids=["Si", "Cu", "Ar"],
)
def test_bundled_lattice_constants(
    calculator: Any, atoms: Atoms, measured_a0: float, tolerance: float
) -> None:
    lengths = measured_a0 * np.linspace(0.97, 1.03, 9)
    a0, _, bulk_modulus = _equilibrium(calculator, atoms, lengths)
    assert a0 == pytest.approx(measured_a0, rel=tolerance)
    assert bulk_modulus > 0


def test_bundled_argon_is_weakly_bound(calculator: Any) -> None:
    crystal = bulk("Ar", "fcc", 5.26, cubic=True)
    crystal.calc = calculator
    free = Atoms("Ar", [[0, 0, 0]])
    free.calc = calculator
    cohesion = free.get_potential_energy() - crystal.get_potential_energy() / len(crystal)
    assert 0.04 < cohesion < 0.14
