"""Energy of two atoms against their distance: the potential where there are no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers, covalent_radii

#: Distances relative to the sum of the covalent radii (Cordero et al., Dalton Trans. 2008, 2832).
MIN_DISTANCE, CORE, MAX_DISTANCE = 0.3, 0.55, 2.6
"""Bonds are longer than ``CORE``, including the quintuple bonds of V₂ (0.58) and Cr₂ (0.60); the
exploration stops a walker at a shorter distance."""
N_DISTANCES = 111
#: Largest difference of the energy change over two intervals from the work of the forces: an absolute
#: value, and a fraction of the work. Near the core the work is several eV, and the error of Simpson's
#: rule is proportional to it.
MAX_JUMP_EV, WORK_FRACTION = 0.01, 0.01


@dataclass(frozen=True)
class PairCurve:
    """Energy of two atoms against their distance."""

    pair: str
    distances_A: tuple[float, ...]
    energies_eV: tuple[float, ...]
    """Relative to the two isolated atoms, with the same potential."""
    core_A: float
    is_repulsive: bool
    """Below ``core_A`` the energy increases monotonically with decreasing distance."""
    largest_jump_eV: float
    """Outside the core: largest difference of the energy change from the work of the forces over two
    intervals, minus ``WORK_FRACTION`` of the work."""
    bond_length_A: float
    binding_energy_eV: float

    @property
    def is_smooth(self) -> bool:
        """Whether the forces are the derivative of the energy, without a step or a kink."""
        return self.largest_jump_eV < MAX_JUMP_EV


def pair_curves(calculator: Calculator, elements: Sequence[str]) -> list[PairCurve]:
    """The curve of every pair of elements with any ASE calculator; use one in float64."""
    isolated = {symbol: isolated_atom_energy(calculator, symbol) for symbol in elements}
    return [
        _curve(calculator, first, second, isolated[first] + isolated[second])
        for first, second in combinations_with_replacement(elements, 2)
    ]


def isolated_atom_energy(calculator: Calculator, symbol: str) -> float:
    """Energy of an isolated atom (MACE's E0), eV."""
    atom = Atoms(symbol)
    atom.calc = calculator
    return float(atom.get_potential_energy())


def _curve(calculator: Calculator, first: str, second: str, isolated_eV: float) -> PairCurve:
    radii = sum(covalent_radii[atomic_numbers[symbol]] for symbol in (first, second))
    distances = radii * np.linspace(MIN_DISTANCE, MAX_DISTANCE, N_DISTANCES)
    energies, forces = np.empty_like(distances), np.empty_like(distances)
    for i, distance in enumerate(distances):
        atoms = Atoms([first, second], [[0, 0, 0], [0, 0, distance]])
        atoms.calc = calculator
        energies[i] = atoms.get_potential_energy() - isolated_eV
        forces[i] = atoms.get_forces()[1, 2]
    core = distances <= CORE * radii
    outer, force = energies[~core], forces[~core]
    # Simpson's rule: the error of the trapezoidal rule is 10 meV near the core
    work = -(distances[1] - distances[0]) / 3 * (force[:-2] + 4 * force[1:-1] + force[2:])
    jumps = np.abs(outer[2:] - outer[:-2] - work) - WORK_FRACTION * np.abs(work)
    lowest = int(np.argmin(energies))
    return PairCurve(
        pair=f"{first}-{second}",
        distances_A=tuple(map(float, distances)),
        energies_eV=tuple(map(float, energies)),
        core_A=float(CORE * radii),
        is_repulsive=bool(np.isfinite(energies).all() and (np.diff(energies[core]) < 0).all()),
        largest_jump_eV=float(max(0.0, jumps.max())),
        bond_length_A=float(distances[lowest]),
        binding_energy_eV=float(energies[lowest]),
    )
