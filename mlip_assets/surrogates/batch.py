"""Evaluation of one or many frames: energy, forces and stress from any ASE calculator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """Energy, forces and stress of a frame; as ``atoms.calc`` it returns them to ASE."""

    energy_eV: float
    forces: NDArray[np.float64]
    """``(n_atoms, 3)``, eV/Å."""
    stress: NDArray[np.float64] | None = None
    """``(6,)`` in Voigt order, eV/Å³; None unless periodic in all three directions."""
    force_spread: NDArray[np.float64] | None = None
    """``(n_atoms,)``, eV/Å, as :func:`force_spread`; None without a committee."""

    def to_results(self) -> dict[str, Any]:
        """As ``results`` of an ASE calculator, with what is not None."""
        results = {
            "energy": self.energy_eV,
            "free_energy": self.energy_eV,
            "forces": self.forces,
            "stress": self.stress,
            "force_spread": self.force_spread,
        }
        return {name: value for name, value in results.items() if value is not None}

    def get_forces(self, _: Atoms) -> NDArray[np.float64]:
        """A copy, because ASE changes the array it gets."""
        return self.forces.copy()

    def get_stress(self, _: Atoms) -> NDArray[np.float64]:
        """A copy, as of the forces."""
        assert self.stress is not None, "not periodic in all directions"
        return self.stress.copy()


def force_spread(forces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of the forces of a committee's members, per atom.

    The root mean square distance of the members' force vectors from their mean.

    Parameters
    ----------
    forces
        ``(n_members, n_atoms, 3)``, eV/Å.

    Returns
    -------
    NDArray[np.float64]
        ``(n_atoms,)``, eV/Å; its maximum is the spread of a frame, ``force_spread_eV_per_A``.
    """
    distances = np.linalg.norm(forces - forces.mean(axis=0), axis=2)
    spread: NDArray[np.float64] = np.sqrt((distances**2).mean(axis=0))
    return spread


@runtime_checkable
class BatchCalculator(Protocol):
    """An ASE calculator that can also evaluate many frames in one call."""

    batch_atoms: int | None
    """Number of atoms per call up to which a batch is faster; None: no limit."""

    def calculate_batch(self, frames: Sequence[Atoms]) -> list[Evaluation]:
        """Evaluate frames; each result is independent of the other frames."""


def evaluate(calculator: Calculator, frames: Sequence[Atoms]) -> list[Evaluation]:
    """Evaluate frames, in one call if the calculator supports batches."""
    if isinstance(calculator, BatchCalculator):
        return calculator.calculate_batch(frames)
    return [_evaluate_one(calculator, atoms) for atoms in frames]


def _evaluate_one(calculator: Calculator, atoms: Atoms) -> Evaluation:
    # Not ``atoms.get_forces()``, which compares with the previous atoms: they always differ.
    properties = ["energy", "forces", "stress"] if atoms.pbc.all() else ["energy", "forces"]
    calculator.calculate(atoms, properties, all_changes)
    results = calculator.results
    spread = results.get("force_spread")
    return Evaluation(
        energy_eV=float(results["energy"]),
        forces=np.asarray(results["forces"], dtype=np.float64),
        stress=np.asarray(results["stress"], dtype=np.float64) if atoms.pbc.all() else None,
        force_spread=None if spread is None else np.asarray(spread, dtype=np.float64),
    )
