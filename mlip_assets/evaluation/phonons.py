"""Phonons at the Γ point of a cell; in a supercell these include folded phonons."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

DISPLACEMENT_A = 0.01
#: Imaginary modes of smaller frequency, such as the three translations, are not counted.
MIN_IMAGINARY_PER_CM = 15.0
#: Limit of the cost: two evaluations per atom and direction.
MAX_ATOMS = 64


@dataclass(frozen=True)
class GammaPhonons:
    """Frequencies in ascending order; imaginary ones are negative."""

    frequencies_per_cm: tuple[float, ...]

    @property
    def n_imaginary(self) -> int:
        """Number of modes along which the crystal is not stable."""
        return sum(frequency < -MIN_IMAGINARY_PER_CM for frequency in self.frequencies_per_cm)


def gamma_phonons(crystal: Atoms, calculator: Calculator) -> GammaPhonons | None:
    """Frequencies of a relaxed crystal by central differences; None for more than 64 atoms."""
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
