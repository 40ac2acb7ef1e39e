"""A potential says the same of the same atoms, whatever it was asked before."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk

from mlip_assets.surrogates.mace_calculator import mace_calculator
from mlip_assets.surrogates.models.bundled import load_bundled

#: Forces on one structure after so many others.
AFTER = """
import sys
from ase.build import bulk
from mlip_assets.potential import mace_calculator
from resources.bundled_model import load_bundled

calculator = mace_calculator(load_bundled(), default_dtype="float32")
for seed in range(int(sys.argv[1]) + 1):
    atoms = bulk("Si", cubic=True).repeat((2, 1, 1))
    atoms.rattle(0.1, seed=5 if seed == int(sys.argv[1]) else seed)
    atoms.calc = calculator
    forces = atoms.get_forces()
print(forces.tobytes().hex())
"""


@pytest.mark.slow
def test_no_kernel_changes_after_a_warm_up() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", AFTER, str(n)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout.split()[-1]
        for n in (0, 2)
    ]
    assert told[0] == told[1]


def test_a_file_is_the_module_that_was_saved(tmp_path) -> None:
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
