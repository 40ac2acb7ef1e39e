"""MACE calculators are deterministic, independent of earlier calls, and log no messages."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk

from mlip_assets.surrogates.mace_calculator import mace_calculator
from mlip_assets.surrogates.models.bundled import load_bundled

#: Forces of one structure after a given number of other structures.
AFTER = """
import sys
from ase.build import bulk
from mlip_assets.surrogates.mace_calculator import mace_calculator
from mlip_assets.surrogates.models.bundled import load_bundled

calculator = mace_calculator(load_bundled(), default_dtype="float32")
for seed in range(int(sys.argv[1]) + 1):
    atoms = bulk("Si", cubic=True).repeat((2, 1, 1))
    atoms.rattle(0.1, seed=5 if seed == int(sys.argv[1]) else seed)
    atoms.calc = calculator
    forces = atoms.get_forces()
print(forces.tobytes().hex())
"""


@pytest.mark.slow
def test_mace_calculator_forces_are_independent_of_number_of_calls() -> None:
    forces = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", AFTER, str(n)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout.split()[-1]
        for n in (0, 2)
    ]
    assert forces[0] == forces[1]


def test_mace_calculator_of_file_agrees_with_module(tmp_path) -> None:
    import torch

    module = load_bundled()
    torch.save(module, tmp_path / "m.model")
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=5)
    forces = []
    for model in (module, tmp_path / "m.model"):
        atoms.calc = mace_calculator(model, default_dtype="float64")
        forces.append(atoms.get_forces())
    np.testing.assert_allclose(*forces, atol=1e-10)
