"""Vibrations at the Γ point of a cell, which of a supercell are those of its folded zone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

DISPLACEMENT_A = 0.01
#: Softer modes, the three translations among them, are not counted as imaginary.
SOFT_PER_CM = 15.0
#: Larger cells would cost more than they tell: two evaluations an atom and direction.
MAX_ATOMS = 64


@dataclass(frozen=True)
class GammaPhonons:
    """Frequencies in ascending order; imaginary ones are negative."""

    frequencies_per_cm: tuple[float, ...]

    @property
    def n_imaginary(self) -> int:
        """Modes along which the crystal is not stable."""
        return sum(frequency < -SOFT_PER_CM for frequency in self.frequencies_per_cm)


def gamma_phonons(crystal: Atoms, calculator: Calculator) -> GammaPhonons | None:
    """Frequencies of a crystal at rest by central differences; None for more than 64 atoms."""
    from ase.vibrations import Vibrations

    if len(crystal) > MAX_ATOMS:
        return None
    atoms = Atoms(crystal.numbers, crystal.positions, cell=crystal.cell, pbc=crystal.pbc)
    atoms.calc = calculator
    with tempfile.TemporaryDirectory() as folder:
        vibrations = Vibrations(atoms, name=str(Path(folder) / "gamma"), delta=DISPLACEMENT_A)
        vibrations.run()
        frequencies = vibrations.get_frequencies()
    signed = np.where(np.abs(frequencies.imag) > 0, -np.abs(frequencies.imag), frequencies.real)
    return GammaPhonons(tuple(map(float, np.sort(signed))))
