"""Two atoms alone: the curve that shows what a potential says where there are no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers, covalent_radii

#: Distances over the sum of the covalent radii (Cordero et al., Dalton Trans. 2008, 2832).
SHORTEST, CORE, LONGEST = 0.3, 0.55, 2.6
"""Below ``CORE`` nothing is bound, the quintuple bonds of V₂ (0.58) and Cr₂ (0.60) included, and
exploration stops every walker."""
N_DISTANCES = 111
#: What the energy may change from one point to the next but one beyond the work of the forces, and
#: beyond a share of that work: beside the core it is several eV, and Simpson's rule errs in
#: proportion.
MAX_JUMP_EV, WORK_SHARE = 0.01, 0.01


@dataclass(frozen=True)
class PairCurve:
    """Energy of two atoms against their distance."""

    pair: str
    distances_A: tuple[float, ...]
    energies_eV: tuple[float, ...]
    """Above the two atoms far apart, by the same potential."""
    core_A: float
    is_repulsive: bool
    """The energy rises all the way as the atoms come closer than ``core_A``."""
    largest_jump_eV: float
    """Outside the core, over two intervals, beyond the work of the forces and ``WORK_SHARE`` of it."""
    bond_length_A: float
    binding_energy_eV: float

    @property
    def is_smooth(self) -> bool:
        """Whether energy and forces belong together, without a step or a kink."""
        return self.largest_jump_eV < MAX_JUMP_EV


def pair_curves(calculator: Calculator, elements: Sequence[str]) -> list[PairCurve]:
    """The curve of every pair of elements; the calculator had better be in float64."""
    free = {symbol: free_energy(calculator, symbol) for symbol in elements}
    return [
        _curve(calculator, first, second, free[first] + free[second])
        for first, second in combinations_with_replacement(elements, 2)
    ]


def free_energy(calculator: Calculator, symbol: str) -> float:
    """Energy of an atom alone, eV."""
    atom = Atoms(symbol)
    atom.calc = calculator
    return float(atom.get_potential_energy())


def _curve(calculator: Calculator, first: str, second: str, free_eV: float) -> PairCurve:
    reach = sum(covalent_radii[atomic_numbers[symbol]] for symbol in (first, second))
    distances = reach * np.linspace(SHORTEST, LONGEST, N_DISTANCES)
    energies, pulls = np.empty_like(distances), np.empty_like(distances)
    for i, distance in enumerate(distances):
        atoms = Atoms([first, second], [[0, 0, 0], [0, 0, distance]])
        atoms.calc = calculator
        energies[i] = atoms.get_potential_energy() - free_eV
        pulls[i] = atoms.get_forces()[1, 2]
    core = distances <= CORE * reach
    outer, pull = energies[~core], pulls[~core]
    # Simpson's rule over two intervals each: the trapezoidal one errs by 10 meV beside the core
    work = -(distances[1] - distances[0]) / 3 * (pull[:-2] + 4 * pull[1:-1] + pull[2:])
    jumps = np.abs(outer[2:] - outer[:-2] - work) - WORK_SHARE * np.abs(work)
    lowest = int(np.argmin(energies))
    return PairCurve(
        pair=f"{first}-{second}",
        distances_A=tuple(map(float, distances)),
        energies_eV=tuple(map(float, energies)),
        core_A=float(CORE * reach),
        is_repulsive=bool(np.isfinite(energies).all() and (np.diff(energies[core]) < 0).all()),
        largest_jump_eV=float(max(0.0, jumps.max())),
        bond_length_A=float(distances[lowest]),
        binding_energy_eV=float(energies[lowest]),
    )
