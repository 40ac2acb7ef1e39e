"""Replay data against catastrophic forgetting in the fine-tuning of a foundation model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import read

from mlip_assets.common.files import write_atomically
from mlip_assets.surrogates.mace_calculator import mace_calculator
from mlip_assets.training.errors import predict_with

if TYPE_CHECKING:
    import torch

#: mace-torch's names of the two heads: of the labels, and of the replay data.
LABEL_HEAD, REPLAY_HEAD = "Default", "pt_head"
VALID_FRACTION = 0.1
#: Largest relative difference of the extracted head from the same head in the full model: the
#: rounding of float32.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Replay:
    """Structures with the predictions of the foundation model, as labels of a second head."""

    train: list[Atoms]
    valid: list[Atoms]
    atomic_energies: Mapping[str, float]
    """Isolated-atom energies of the foundation model, of the elements in the structures, eV."""


def read_structures(path: Path) -> list[Atoms]:
    """The structures of a replay file, without the labels that it may contain."""
    return [
        Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        for atoms in read(path, index=":")
    ]


def label_replay(structures: Sequence[Atoms], foundation: torch.nn.Module, seed: int) -> Replay:
    """Label structures with the foundation model, and take a tenth of them for validation.

    This is multi-head replay with pseudo-labels, as in mace-torch. DFT labels would need the level
    of theory and the zero of energy of the foundation model; its predictions always have them.

    Parameters
    ----------
    structures
        Two or more structures, of elements that the model supports.
    foundation
        A MACE model with one head.
    seed
        Random seed of the choice of the validation structures.
    """
    calculator = mace_calculator(foundation)
    labelled = []
    for atoms in structures:
        predicted = predict_with(calculator, [atoms])
        frame = atoms.copy()
        frame.info["REF_energy"] = float(predicted.energies[0] * len(atoms))
        frame.arrays["REF_forces"] = predicted.forces
        if np.isfinite(predicted.stresses).all():
            frame.info["REF_stress"] = predicted.stresses[0]
        labelled.append(frame)
    order = np.random.default_rng(seed).permutation(len(labelled))
    n_valid = max(1, round(VALID_FRACTION * len(labelled)))
    valid, train = ([labelled[i] for i in part] for part in (order[:n_valid], order[n_valid:]))
    return Replay(train, valid, _atomic_energies(foundation, structures))


def extract_label_head(model_file: Path, target: Path, probe: Atoms) -> Path:
    """Write a model with only the head of the labels to ``target``, by mace-torch's utility.

    Parameters
    ----------
    model_file
        A ``.model`` file with two heads. It is unpickled: use files from trusted sources only.
    target
        The ``.model`` file with one head.
    probe
        Structure on which the predictions of both are compared.

    Raises
    ------
    RuntimeError
        The predictions differ by more than ``TOLERANCE``, relative to the largest force.
    """
    import torch
    from mace.tools.scripts_utils import remove_pt_head

    both = torch.load(model_file, map_location="cpu", weights_only=False)
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(next(both.parameters()).dtype)
    try:
        single = remove_pt_head(both, LABEL_HEAD)
    finally:
        torch.set_default_dtype(dtype)
    full, extracted = (
        predict_with(mace_calculator(module, head=LABEL_HEAD), [probe]) for module in (both, single)
    )
    difference = max(
        float(np.abs(full.energies - extracted.energies).max()),
        float(np.abs(full.forces - extracted.forces).max()),
    )
    if not difference <= TOLERANCE * max(1.0, float(np.abs(full.forces).max())):
        raise RuntimeError(
            f"the head of the labels, extracted from {model_file}, differs from it by "
            f"{difference:.2g} eV/atom or eV/Å on {probe.get_chemical_formula()}; do not use it"
        )
    with write_atomically(target) as aside:
        torch.save(single, aside)
    return target


def _atomic_energies(foundation: torch.nn.Module, structures: Sequence[Atoms]) -> dict[str, float]:
    used = {int(z) for atoms in structures for z in atoms.numbers}
    module: Any = foundation
    energies = module.atomic_energies_fn.atomic_energies.reshape(-1)
    return {
        chemical_symbols[int(z)]: float(energy)
        for z, energy in zip(module.atomic_numbers, energies, strict=True)
        if int(z) in used
    }
