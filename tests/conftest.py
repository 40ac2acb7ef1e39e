"""What more than one folder of tests needs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from mlip_assets.campaign import TrainingSettings
from mlip_assets.training import TrainedModel, fit_mace
from mlip_assets.training.trainer import process

#: Two atoms, as crystal and as molecule, at a cut-off too low for physics: about a minute in all.
TINY_CAMPAIGN = """\
name: {name}
composition: Si
seeds:
  kinds: [crystal, cluster]
  crystal_atoms: 2
  cluster_atoms: 2
exploration:
  temperatures_K: [300, 1500]
  n_steps: 60
  sample_every: 2
descriptors:
  n_max: 4
  l_max: 3
sampling:
  n_samples: 8
labelling:
  cutoff_eV: 150
  k_spacing_per_A: 1.5
training:
  max_epochs: 8
  committee: 1
  stability_steps: 100
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the shared trained model are slow, because the first one trains it."""
    for item in items:
        if "trained" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny_campaign() -> Callable[..., Path]:
    """``tiny_campaign(folder, name)`` writes a campaign that a test can afford."""

    def write(folder: Path, name: str = "tiny") -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(TINY_CAMPAIGN.format(name=name), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session", autouse=True)
def preloaded_trainer() -> Iterator[None]:
    """Trainers of this process fork from one process, which imports mace-torch once (Linux)."""
    if not sys.platform.startswith("linux"):
        yield
        return
    program = Path(__file__).with_name("preloaded_trainer.py")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        command = (sys.executable, "-S", str(program), f"{folder}/socket", str(os.getpid()))
        patch.setattr(process, "COMMAND", command)
        yield


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Callable[..., BaseProcess]]:
    """``preloaded(module, arguments, folder, environment, log)`` starts ``python -m module``.

    The process is a fork of one that has imported mace-torch and Dagster. Elsewhere than on Linux
    it is a new one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        from preloaded import PRELOAD, run_module

        linux = sys.platform.startswith("linux")
        context = get_context("forkserver" if linux else "spawn")
        if linux:
            context.set_forkserver_preload(PRELOAD)

        def start(*arguments: Any) -> BaseProcess:
            process = context.Process(target=run_module, args=arguments)
            process.start()
            return process

        yield start


SEED = 3


def label(atoms: Atoms, **info) -> Atoms:
    """A copy with EMT's labels."""
    frame = atoms.copy()
    frame.calc = EMT()
    frame.info.update(info, REF_energy=float(frame.get_potential_energy()))
    frame.arrays["REF_forces"] = frame.get_forces()
    if frame.pbc.all():
        frame.info["REF_stress"] = frame.get_stress(voigt=False)
    frame.calc = None
    return frame


def copper_frames(n_frames: int, rng: np.random.Generator) -> list[Atoms]:
    """Strained and rattled crystals, and every fifth a free cluster."""
    frames = []
    for i in range(n_frames):
        atoms = bulk("Cu", cubic=True)
        strain = rng.normal(0, 0.03, (3, 3))
        atoms.set_cell(atoms.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        kind = "crystal"
        if i % 5 == 4:
            kind, atoms.pbc = "cluster", False
        atoms.positions += rng.normal(0, 0.12, atoms.positions.shape)
        frames.append(
            label(
                atoms,
                frame_id=1000 * i,
                walker=f"walker-{i}",
                seed_kind=kind,
                seed_name=f"{kind}-{i}",
                label_key=f"{i:064x}",
                settings_hash="emt",
            )
        )
    return frames


@pytest.fixture(scope="session")
def isolated_energies() -> dict[str, float]:
    atoms = Atoms("Cu")
    atoms.calc = EMT()
    return {"Cu": float(atoms.get_potential_energy())}


@pytest.fixture(scope="session")
def labelled() -> list[Atoms]:
    return copper_frames(40, np.random.default_rng(0))


@pytest.fixture(scope="session")
def settings() -> TrainingSettings:
    return TrainingSettings(
        start_from="scratch",
        num_channels=8,
        r_max=4.0,
        max_epochs=16,
        batch_size=5,
        learning_rate=0.02,
        committee=1,
    )


@pytest.fixture(scope="session")
def work_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="session")
def trained(labelled, isolated_energies, settings, work_dir) -> TrainedModel:
    """One real training that many tests look at."""
    return fit_mace(labelled, isolated_energies, settings, work_dir=work_dir, seed=SEED)


@pytest.fixture(scope="session")
def calculator(trained):
    """Loading and warming one up costs more than what most tests compute with it."""
    return trained.calculator()
