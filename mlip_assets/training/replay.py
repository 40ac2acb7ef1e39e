"""Replay: structures of the foundation model's world that a fine-tuned model must not forget."""

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

#: mace-torch's names of the two heads: the labels', and the foundation model's.
LABEL_HEAD, REPLAY_HEAD = "Default", "pt_head"
VALID_FRACTION = 0.1
#: The kept head may differ from the same head of the whole by the rounding of float32 alone.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Replay:
    """Structures with what the foundation model says of them, as labels of a second head."""

    train: list[Atoms]
    valid: list[Atoms]
    atomic_energies: Mapping[str, float]
    """The foundation model's own, of the elements replayed, eV."""


def read_structures(path: Path) -> list[Atoms]:
    """The structures of a replay file, without the labels it may hold."""
    return [
        Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        for atoms in read(path, index=":")
    ]


def replayed(structures: Sequence[Atoms], foundation: torch.nn.Module, seed: int) -> Replay:
    """Label structures by the foundation model and set a tenth of them aside for validation.

    Labels of their own would have to be of the foundation model's level of theory and zero of
    energy; its predictions always are (multi-head replay with pseudo-labels, as mace-torch has it).

    Parameters
    ----------
    structures
        Two or more, of elements the model knows.
    foundation
        A MACE model of one head.
    seed
        Of the random choice of the validation structures.
    """
    calculator = mace_calculator(foundation)
    labelled = []
    for atoms in structures:
        known = predict_with(calculator, [atoms])
        frame = atoms.copy()
        frame.info["REF_energy"] = float(known.energies[0] * len(atoms))
        frame.arrays["REF_forces"] = known.forces
        if np.isfinite(known.stresses).all():
            frame.info["REF_stress"] = known.stresses[0]
        labelled.append(frame)
    order = np.random.default_rng(seed).permutation(len(labelled))
    n_valid = max(1, round(VALID_FRACTION * len(labelled)))
    valid, train = ([labelled[i] for i in part] for part in (order[:n_valid], order[n_valid:]))
    return Replay(train, valid, _atomic_energies(foundation, structures))


def keep_label_head(model_file: Path, target: Path, probe: Atoms) -> Path:
    """Write the head of the labels alone to ``target``, by mace-torch's own utility.

    Parameters
    ----------
    model_file
        A ``.model`` file of two heads.
    target
        The ``.model`` file of one head.
    probe
        A structure on which both must agree.

    Raises
    ------
    RuntimeError
        They do not agree.
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
    whole, alone = (
        predict_with(mace_calculator(module, head=LABEL_HEAD), [probe]) for module in (both, single)
    )
    difference = max(
        float(np.abs(whole.energies - alone.energies).max()),
        float(np.abs(whole.forces - alone.forces).max()),
    )
    if not difference <= TOLERANCE * max(1.0, float(np.abs(whole.forces).max())):
        raise RuntimeError(
            f"the head of the labels, taken out of {model_file}, differs from it by "
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
