"""MACE calculators are deterministic, independent of earlier calls, and log no messages."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk

from mlip_assets.surrogates.mace_calculator import mace_calculator
from mlip_assets.surrogates.models.bundled import load_bundled

#: Forces of one structure after 0 and after 2 others, each in a fork that has evaluated nothing.
AFTER = """
import os
from ase.build import bulk
from mlip_assets.surrogates.mace_calculator import import_mace, mace_calculator
from mlip_assets.surrogates.models.bundled import load_bundled

import_mace()  # takes 8 s of CPU time, once
for n_others in (0, 2):
    if os.fork() == 0:
        calculator = mace_calculator(load_bundled(), default_dtype="float32")
        for seed in range(n_others + 1):
            atoms = bulk("Si", cubic=True).repeat((2, 1, 1))
            atoms.rattle(0.1, seed=5 if seed == n_others else seed)
            atoms.calc = calculator
            forces = atoms.get_forces()
        print(forces.tobytes().hex(), flush=True)
        os._exit(0)
    _, status = os.wait()
    assert status == 0
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_mace_calculator_forces_are_independent_of_number_of_calls() -> None:
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AFTER],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    first, later = output.split()[-2:]
    assert len(bytes.fromhex(first)) == 16 * 3 * 4, "forces of 16 atoms in float32"
    assert first == later


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
