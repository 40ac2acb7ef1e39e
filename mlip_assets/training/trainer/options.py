"""Options of the trainer, and the files of structures that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_numbers
from ase.io import write

from mlip_assets.campaign import TrainingSettings
from mlip_assets.common.files import write_atomically
from mlip_assets.training.labels import WEIGHT_KEY
from mlip_assets.training.replay import Replay
from mlip_assets.training.splits import Split

#: Options of every fit. float32: its errors are measured equal to those of float64, it is 1.3 times
#: faster, and the molecular dynamics uses it. The energies converge in stage two, where their
#: weight is raised. The stress is small in eV/Å³ and needs its large weight: with 100 its error
#: equals that of the mean predictor; with 5000 it is a third of that, at equal force errors.
OPTIONS: dict[str, object] = {
    "model": "MACE",
    "default_dtype": "float32",
    "energy_key": "REF_energy",
    "forces_key": "REF_forces",
    "stress_key": "REF_stress",
    "energy_weight": 10,
    "forces_weight": 100,
    "stress_weight": 5000,
    "swa": True,
    "swa_energy_weight": 1000,
    "swa_forces_weight": 100,
    "swa_stress_weight": 5000,
    "ema": True,
    "ema_decay": 0.99,
    "amsgrad": True,
    "eval_interval": 1,
    "error_table": "PerAtomRMSE",
    "plot": False,
    "save_cpu": True,
    "restart_latest": True,
    # Without it the trainer deletes a checkpoint before it writes the next one.
    "keep_checkpoints": True,
}
#: Architecture of a model with random initial weights: small, with a Ziegler-Biersack-Littmark
#: core, so that atoms at short distance repel where there are no labels.
SCRATCH_OPTIONS: dict[str, object] = {
    "num_interactions": 2,
    "max_ell": 2,
    "num_radial_basis": 8,
    "radial_MLP": "[32, 32]",
    "MLP_irreps": "16x0e",
    "pair_repulsion": True,
    "distance_transform": "Agnesi",
}
#: Stage two: fraction of the epochs, and factor of the learning rate.
STAGE_TWO_FRACTION = 0.25
STAGE_TWO_LR_FACTOR = 0.2
#: Factor of the learning rate in fine-tuning. Measured on 30 silicon labels: a learning rate of 0.002
#: gives the lowest held-out errors, 0.01 slightly larger ones; from random weights 0.01 is better
#: than 0.005.
TUNING_LR_FACTOR = 0.2
NAME = "mace"


def training_options(
    split: Split, settings: TrainingSettings, seed: int, foundation_model: Path | None
) -> dict[str, Any]:
    """All options of a training without replay, apart from the isolated-atom energies (``E0s``)."""
    with_stress = any("REF_stress" in frame.info for frame in split.train)
    learning_rate = settings.learning_rate * (TUNING_LR_FACTOR if foundation_model else 1)
    # At least two epochs: a run that ends stage one early skips the first epoch of stage two.
    start_stage_two = min(
        round(settings.max_epochs * (1 - STAGE_TWO_FRACTION)), settings.max_epochs - 2
    )
    return {
        **OPTIONS,
        "name": NAME,
        "seed": seed,
        **{f"{kind}_dir": "." for kind in ("work", "model")},
        **{f"{kind}_dir": kind for kind in ("checkpoints", "results", "log")},
        "train_file": "train.xyz",
        "valid_file": "valid.xyz",
        "loss": "stress" if with_stress else "weighted",
        "batch_size": min(settings.batch_size, len(split.train)),
        "valid_batch_size": min(settings.batch_size, len(split.valid)),
        "max_num_epochs": settings.max_epochs,
        "start_swa": start_stage_two,
        "patience": settings.patience or settings.max_epochs,
        "lr": learning_rate,
        "swa_lr": learning_rate * STAGE_TWO_LR_FACTOR,
        "scheduler_patience": max(5, settings.max_epochs // 10),
        **_initial_model(settings, foundation_model),
    }


def _initial_model(settings: TrainingSettings, foundation_model: Path | None) -> dict[str, Any]:
    """The options of a foundation model, or of an architecture."""
    if foundation_model:
        return {"foundation_model": foundation_model.resolve(), "multiheads_finetuning": "False"}
    return SCRATCH_OPTIONS | {
        "num_channels": settings.num_channels,
        "max_L": settings.max_L,
        "correlation": settings.correlation,
        "r_max": settings.r_max,
    }


def replay_options(
    replay: Replay, energies: Mapping[int, float], batch_size: int, folder: Path
) -> dict[str, Any]:
    """The options that replay changes; the replay structures are written to ``folder``.

    ``energies`` are the isolated-atom energies of the labels, by atomic number, eV.
    """
    write_frames(folder / "replay_train.xyz", replay.train)
    write_frames(folder / "replay_valid.xyz", replay.valid)
    # Elements in no label keep the isolated-atom energies of the foundation model.
    foreign = {atomic_numbers[e]: energy for e, energy in replay.atomic_energies.items()}
    return {
        "multiheads_finetuning": "True",
        "E0s": str(foreign | dict(energies)),
        "pt_train_file": "replay_train.xyz",
        "pt_valid_file": "replay_valid.xyz",
        "force_mh_ft_lr": "True",  # needs a value
        # The trainer drops an incomplete batch, so a head needs at least one complete batch.
        "batch_size": min(batch_size, len(replay.train)),
    }


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write structures, labels and weights only; a frame without a stress has none in the loss."""
    bare = []
    for frame in frames:
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.arrays["REF_forces"] = frame.arrays["REF_forces"]
        for key in ("REF_energy", "REF_stress", WEIGHT_KEY):
            if key in frame.info:
                atoms.info[key] = frame.info[key]
        bare.append(atoms)
    with write_atomically(path) as aside:
        write(aside, bare, format="extxyz")
