"""Rattled frames, and comparison of forces and stress with central differences of the energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.units import GPa

from mlip_assets.labelling import Calculation, DftEngine


def rattled(name: str, seed: int = 1) -> Atoms:
    """Two displaced atoms of Si, NaCl or Cu, with forces of about 1 eV/Å."""
    atoms = {
        "Si": bulk("Si", "diamond", a=5.43),
        "NaCl": bulk("NaCl", "rocksalt", a=5.64),
        "Cu": bulk("Cu", "fcc", a=3.61).repeat((2, 1, 1)),
    }[name]
    atoms.rattle(0.08, seed=seed)
    return atoms


@dataclass(frozen=True)
class Agreement:
    """A label, and the errors of its forces and stress against differences of its energy.

    Both are taken along one random direction in which all atoms, or all strains, take part.
    """

    label: Calculation
    force_error_meV_per_A: float
    stress_error_GPa: float


def against_differences(
    engine: DftEngine, atoms: Atoms, *, step_A: float = 0.01, strain: float = 0.004, seed: int = 0
) -> Agreement:
    """Five calculations in the working folder."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal((len(atoms), 3))
    direction -= direction.mean(axis=0)
    direction /= np.linalg.norm(direction)
    shape = rng.standard_normal((3, 3))
    shape = (shape + shape.T) / np.linalg.norm(shape + shape.T)

    def energy_eV(moved_A: float, strained: float) -> float:
        changed = atoms.copy()
        changed.positions += moved_A * direction
        changed.set_cell(atoms.cell.array @ (np.eye(3) + strained * shape), scale_atoms=True)
        return engine.calculate(engine.prepare(changed), attempt=0).energy_eV

    label = engine.calculate(engine.prepare(atoms), attempt=0)
    assert label.stress is not None
    slope = (energy_eV(step_A, 0) - energy_eV(-step_A, 0)) / (2 * step_A)
    strain_slope = (energy_eV(0, strain) - energy_eV(0, -strain)) / (2 * strain)
    stress_error = np.sum(label.stress * shape) - strain_slope / atoms.get_volume()
    return Agreement(
        label,
        force_error_meV_per_A=1e3 * float(np.sum(label.forces * direction) + slope),
        stress_error_GPa=float(stress_error) / GPa,
    )
