"""Export of the model for LAMMPS: TorchScript by mace-torch's exporter."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip_assets.common.files import write_atomically
from mlip_assets.surrogates.mace_calculator import disable_jit_fusion, mace_calculator

#: Largest difference of the export from the model, relative to the largest force; both in float64.
TOLERANCE = 1e-6


class ExportError(RuntimeError):
    """The exporter failed, or the results of its file differ from those of the model."""


def export_lammps(model_file: Path, target: Path, probe: Atoms) -> None:
    """Write a checked file for LAMMPS' ``pair_style mace``, in float64.

    The exporter is a command, so it runs in a child process; it unpickles the model. Its other
    format, for ``pair_style mliap``, needs cuEquivariance and a GPU.

    Parameters
    ----------
    model_file
        A ``.model`` file; use files from trusted sources only.
    target
        Path of the TorchScript file.
    probe
        Structure on which energy and forces of the file and of the model are compared.

    Raises
    ------
    ExportError
        The exporter failed, or energy or forces differ.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "export.model"
        shutil.copyfile(model_file, copy)
        ended = subprocess.run(
            [sys.executable, "-m", "mace.cli.create_lammps_model", str(copy), "--dtype=float64"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        exported = copy.with_name(copy.name + "-lammps.pt")
        if ended.returncode != 0 or not exported.exists():
            raise ExportError(
                f"mace.cli.create_lammps_model ended with exit status {ended.returncode}; its last "
                "lines:\n" + "\n".join(ended.stderr.splitlines()[-10:])
            )
        _verify(exported, model_file, probe)
        with write_atomically(target) as aside:
            shutil.copyfile(exported, aside)


def evaluate_export(exported: Path, atoms: Atoms) -> tuple[float, Any]:
    """Energy in eV and forces (n_atoms, 3) in eV/Å of the exported file, called as in LAMMPS.

    As with ``no_domain_decomposition``: one process has all atoms, periodic images are edges.
    """
    import torch
    from mace import data
    from mace.tools import torch_geometric, utils

    disable_jit_fusion()
    module = torch.jit.load(str(exported), map_location="cpu")
    numbers, r_max = module.atomic_numbers.tolist(), float(module.r_max)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        graph = data.AtomicData.from_config(
            data.config_from_atoms(atoms), z_table=utils.AtomicNumberTable(numbers), cutoff=r_max
        )
        graphs: Any = [graph]
        loader = torch_geometric.dataloader.DataLoader(graphs, batch_size=1)
        batch = next(iter(loader)).to_dict()
        batch["positions"].requires_grad_(True)
        # the exported module accepts tensors only
        tensors = {key: value for key, value in batch.items() if torch.is_tensor(value)}
        result = module(tensors, torch.ones(len(atoms), dtype=torch.float64), False)
    finally:
        torch.set_default_dtype(default)
    return float(result["total_energy_local"].detach()), result["forces"].detach().numpy()


def _verify(exported: Path, model_file: Path, probe: Atoms) -> None:
    atoms = Atoms(probe.numbers, probe.positions, cell=probe.cell, pbc=probe.pbc)
    energy, forces = evaluate_export(exported, atoms)
    atoms.calc = mace_calculator(model_file, default_dtype="float64")
    expected = atoms.get_forces()
    scale = max(float(np.abs(expected).max()), 1.0)
    difference = max(
        abs(energy - atoms.get_potential_energy()), float(np.abs(forces - expected).max())
    )
    if not difference <= TOLERANCE * scale:
        raise ExportError(
            f"the file for LAMMPS differs from {model_file} by {difference:.2g} eV or eV/Å on "
            f"{atoms.get_chemical_formula()}; do not use it"
        )
