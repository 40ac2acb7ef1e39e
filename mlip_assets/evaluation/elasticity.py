"""How a crystal answers to strain: its equation of state and its elastic constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

#: Of the volume, up and down; seven points.
VOLUME_RANGE = 0.06
N_VOLUMES = 7
#: Strain of the finite differences: large enough for float32, small enough to be linear.
STRAIN = 0.005
MAX_FORCE_EV_PER_A = 0.01
MAX_STEPS = 300
#: A stiffness is called cubic when no entry is farther than this share of C11 from the cubic form.
CUBIC_TOLERANCE = 0.05

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class CrystalError(ValueError):
    """The crystal has no property to measure: it does not relax, or the volume scan no minimum."""


@dataclass(frozen=True)
class EquationOfState:
    """Energy against volume, and the Birch-Murnaghan curve through it."""

    volumes_A3_per_atom: tuple[float, ...]
    energies_eV_per_atom: tuple[float, ...]
    volume_A3_per_atom: float
    """At the minimum."""
    energy_eV_per_atom: float
    bulk_modulus_GPa: float


@dataclass(frozen=True)
class Stiffness:
    """Elastic constants with relaxed atoms, GPa."""

    voigt_GPa: tuple[tuple[float, ...], ...]
    """The symmetric (6, 6) matrix in the order xx, yy, zz, yz, xz, xy."""
    bulk_modulus_GPa: float
    """Voigt's average, as the shear modulus."""
    shear_modulus_GPa: float
    cubic_GPa: dict[str, float] | None
    """C11, C12 and C44 where the matrix has the cubic form along the axes."""
    is_stable: bool
    """Born's criterion: every strain costs energy."""


def relaxed(atoms: Atoms, calculator: Calculator) -> Atoms:
    """The crystal with atoms and cell at rest.

    Raises
    ------
    CrystalError
        It does not come to rest within ``MAX_STEPS``.
    """
    from ase.filters import FrechetCellFilter

    return _at_rest(_bare(atoms), calculator, FrechetCellFilter, "atoms and cell")


def equation_of_state(crystal: Atoms, calculator: Calculator) -> EquationOfState:
    """Scan the volume of a relaxed crystal by ±6 % and fit Birch and Murnaghan's curve.

    Birch, Phys. Rev. 71, 809 (1947), equation 4 of the third order. The atoms are scaled along.

    Raises
    ------
    CrystalError
        The energies have no minimum within the scan.
    """
    from ase.eos import EquationOfState as Fit

    volumes, energies = [], []
    for ratio in np.linspace(1 - VOLUME_RANGE, 1 + VOLUME_RANGE, N_VOLUMES):
        atoms = _bare(crystal)
        atoms.set_cell(atoms.cell * ratio ** (1 / 3), scale_atoms=True)
        atoms.calc = calculator
        volumes.append(atoms.get_volume() / len(atoms))
        energies.append(float(atoms.get_potential_energy()) / len(atoms))
    if not np.isfinite(energies).all() or not 0 < int(np.argmin(energies)) < N_VOLUMES - 1:
        raise CrystalError(
            f"the energy has no minimum within {VOLUME_RANGE:.0%} of the volume at rest"
        )
    volume, energy, modulus = Fit(volumes, energies, eos="birchmurnaghan").fit()
    return EquationOfState(
        tuple(volumes), tuple(energies), float(volume), float(energy), float(modulus / units.GPa)
    )


def stiffness(crystal: Atoms, calculator: Calculator) -> Stiffness:
    """Elastic constants of a relaxed crystal from the stress at small strains, atoms at rest.

    Raises
    ------
    CrystalError
        The atoms of a strained crystal do not come to rest.
    """
    columns = []
    for i, j in _VOIGT:
        stresses = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * STRAIN / 2
            strain[j, i] += sign * STRAIN / 2
            strained = _bare(crystal)
            strained.set_cell(strained.cell @ (np.eye(3) + strain), scale_atoms=True)
            strained = _at_rest(strained, calculator, lambda atoms: atoms, "the strained atoms")
            stresses.append(strained.get_stress())
        columns.append((stresses[0] - stresses[1]) / (2 * STRAIN) / units.GPa)
    matrix = np.array(columns)
    matrix = (matrix + matrix.T) / 2
    normal, shear = matrix[:3, :3], matrix[3:, 3:]
    trace, across = np.trace(normal), normal[np.triu_indices(3, 1)].sum()
    return Stiffness(
        voigt_GPa=tuple(tuple(map(float, row)) for row in matrix),
        bulk_modulus_GPa=float((trace + 2 * across) / 9),
        shear_modulus_GPa=float((trace - across + 3 * np.trace(shear)) / 15),
        cubic_GPa=_cubic(matrix),
        is_stable=bool(np.linalg.eigvalsh(matrix).min() > 0),
    )


def _cubic(matrix: NDArray[np.float64]) -> dict[str, float] | None:
    c11, c44 = (np.diag(matrix)[part].mean() for part in (slice(3), slice(3, 6)))
    c12 = matrix[:3, :3][np.triu_indices(3, 1)].mean()
    ideal = np.diag([c11 - c12] * 3 + [c44] * 3)
    ideal[:3, :3] += c12
    if np.abs(matrix - ideal).max() > CUBIC_TOLERANCE * c11:
        return None
    return {"C11": float(c11), "C12": float(c12), "C44": float(c44)}


def _at_rest(
    atoms: Atoms, calculator: Calculator, moving: Callable[[Atoms], Any], what: str
) -> Atoms:
    from ase.optimize import BFGS

    atoms.calc = calculator
    optimizer = BFGS(moving(atoms), logfile=None)
    if not optimizer.run(fmax=MAX_FORCE_EV_PER_A, steps=MAX_STEPS):
        raise CrystalError(f"{what} do not come to rest within {MAX_STEPS} steps")
    return atoms


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
