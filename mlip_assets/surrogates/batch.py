"""An evaluation: what a potential says of a frame, and how it is asked about one or many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """Energy, forces and stress of a frame; as ``atoms.calc`` it hands them to ASE."""

    energy_eV: float
    forces: NDArray[np.float64]
    """``(n_atoms, 3)``, eV/Å."""
    stress: NDArray[np.float64] | None = None
    """``(6,)`` in Voigt's order, eV/Å³; None unless periodic in all three directions."""
    force_spread: NDArray[np.float64] | None = None
    """``(n_atoms,)``, eV/Å: how far the members of a committee disagree; None without one."""

    def get_forces(self, _: Atoms) -> NDArray[np.float64]:
        """For ASE, which changes what it gets."""
        return self.forces.copy()

    def get_stress(self, _: Atoms) -> NDArray[np.float64]:
        """For ASE."""
        assert self.stress is not None, "not periodic in all directions"
        return self.stress.copy()


def force_spread(forces: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the members of a committee disagree about each atom, eV/Å.

    The root mean square distance of the members' forces from their mean.

    Parameters
    ----------
    forces
        ``(n_members, n_atoms, 3)``, eV/Å.

    Returns
    -------
    NDArray[np.float64]
        ``(n_atoms,)``; its largest value is the spread of a frame, ``force_spread_eV_per_A``.
    """
    distances = np.linalg.norm(forces - forces.mean(axis=0), axis=2)
    spread: NDArray[np.float64] = np.sqrt((distances**2).mean(axis=0))
    return spread


@runtime_checkable
class BatchCalculator(Protocol):
    """An ASE calculator that can also take many frames at once."""

    batch_atoms: int | None
    """Atoms that are worth taking at once, or None: as many as there are."""

    def calculate_batch(self, frames: Sequence[Atoms]) -> list[Evaluation]:
        """Evaluate frames, each as if it were alone."""


def evaluate(calculator: Calculator, frames: Sequence[Atoms]) -> list[Evaluation]:
    """Ask a calculator about frames, all at once where it can."""
    if isinstance(calculator, BatchCalculator):
        return calculator.calculate_batch(frames)
    return [_evaluate_one(calculator, atoms) for atoms in frames]


def _evaluate_one(calculator: Calculator, atoms: Atoms) -> Evaluation:
    # Not through ``atoms.get_forces()``: it would look for changes, and there always are some.
    properties = ["energy", "forces", "stress"] if atoms.pbc.all() else ["energy", "forces"]
    calculator.calculate(atoms, properties, all_changes)
    found = calculator.results
    spread = found.get("force_spread")
    return Evaluation(
        energy_eV=float(found["energy"]),
        forces=np.asarray(found["forces"], dtype=np.float64),
        stress=np.asarray(found["stress"], dtype=np.float64) if atoms.pbc.all() else None,
        force_spread=None if spread is None else np.asarray(spread, dtype=np.float64),
    )
