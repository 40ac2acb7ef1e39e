"""mace-torch's messages that need no action from a user do not appear on the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUPPRESSED = (
    "cuequivariance",
    "No dtype selected",
    "does not match model dtype",
    "TorchScript type system",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
)

PROGRAM = """
from pathlib import Path

from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from mlip_assets import Campaign, TrainingSettings, evaluate, explore, find_surrogate, fit_mace


def explore_silicon():
    campaign = Campaign(
        name="tiny",
        composition="Si",
        seeds={"kinds": ["crystal"], "crystal_atoms": 2},
        exploration={"temperatures_K": [300, 600], "n_steps": 6, "sample_every": 3},
        sampling={"n_samples": 1},
    )
    print(explore(campaign, "frames", n_workers=2).n_frames, "frames")
    find_surrogate("bundled", device="cpu", dtype="float64").calculator()
    silicon = bulk("Si")
    silicon.calc = find_surrogate("bundled", device="cpu", dtype="float32").calculator()
    silicon.get_forces()


def train_copper():
    labelled = []
    for number in range(8):
        frame = bulk("Cu") * (2, 1, 1)
        frame.rattle(0.3, seed=number)
        frame.calc = EMT()
        frame.info["REF_energy"] = frame.get_potential_energy()
        frame.arrays["REF_forces"] = frame.get_forces()
        labelled.append(frame)
    model = fit_mace(
        labelled,
        {"Cu": Atoms("Cu", calculator=EMT()).get_potential_energy()},
        TrainingSettings(
            start_from="scratch", num_channels=4, r_max=3.0, max_epochs=4, committee=1
        ),
        work_dir=Path("training"),
        seed=0,
    )
    evaluate(model.model_file, {"train": labelled})
    model.calculator()
    print(model.metrics["training"]["epochs"], "epochs")


if __name__ == "__main__":
    explore_silicon()
    train_copper()
"""


@pytest.mark.slow
def test_exploration_and_training_print_no_suppressed_message(tmp_path: Path) -> None:
    """In the process itself, in two walker processes and in the process of the trainer."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    assert "4 frames" in done.stdout
    assert "4 epochs" in done.stdout
    for message in SUPPRESSED:
        assert message not in done.stdout + done.stderr
