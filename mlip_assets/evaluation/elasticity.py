"""Response of a crystal to strain: equation of state and elastic constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

#: Largest relative change of the volume, in both directions.
VOLUME_RANGE = 0.06
N_VOLUMES = 7
#: Strain of the finite differences: large enough for float32, small enough for a linear response.
STRAIN = 0.005
MAX_FORCE_EV_PER_A = 0.01
MAX_STEPS = 300
#: Largest difference of an entry from the cubic form, relative to C11, of a cubic stiffness.
CUBIC_TOLERANCE = 0.05

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class CrystalError(ValueError):
    """A property is not defined: the relaxation does not converge, or the energy has no minimum."""


@dataclass(frozen=True)
class EquationOfState:
    """Energy against volume, and the Birch-Murnaghan curve through it."""

    volumes_A3_per_atom: tuple[float, ...]
    energies_eV_per_atom: tuple[float, ...]
    volume_A3_per_atom: float
    """At the minimum of the energy."""
    energy_eV_per_atom: float
    bulk_modulus_GPa: float


@dataclass(frozen=True)
class Stiffness:
    """Relaxed-ion elastic constants, GPa."""

    voigt_GPa: tuple[tuple[float, ...], ...]
    """The symmetric (6, 6) matrix in the order xx, yy, zz, yz, xz, xy."""
    bulk_modulus_GPa: float
    """Voigt average; so is the shear modulus."""
    shear_modulus_GPa: float
    cubic_GPa: dict[str, float] | None
    """C11, C12 and C44 if the matrix has the cubic form in the axes of the cell."""
    is_stable: bool
    """Born criterion: all eigenvalues of the matrix are positive."""


def relax(atoms: Atoms, calculator: Calculator) -> Atoms:
    """The crystal with relaxed atoms and cell.

    Raises
    ------
    CrystalError
        The relaxation does not converge within ``MAX_STEPS``.
    """
    from ase.filters import FrechetCellFilter

    return _optimize(_bare(atoms), calculator, FrechetCellFilter, "atoms and cell")


def equation_of_state(crystal: Atoms, calculator: Calculator) -> EquationOfState:
    """Scan the volume of a relaxed crystal by ±6 % and fit the Birch-Murnaghan equation of state.

    Third order: Birch, Phys. Rev. 71, 809 (1947), equation 4. Scaled positions are constant.

    Raises
    ------
    CrystalError
        The energy has no minimum within the scan.
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
            f"the energy has no minimum within {VOLUME_RANGE:.0%} of the relaxed volume"
        )
    volume, energy, modulus = Fit(volumes, energies, eos="birchmurnaghan").fit()
    return EquationOfState(
        tuple(volumes), tuple(energies), float(volume), float(energy), float(modulus / units.GPa)
    )


def stiffness(crystal: Atoms, calculator: Calculator) -> Stiffness:
    """Elastic constants of a relaxed crystal from the stress at small strains, with relaxed atoms.

    Raises
    ------
    CrystalError
        The relaxation of a strained crystal does not converge.
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
            strained = _optimize(strained, calculator, lambda atoms: atoms, "the strained atoms")
            stresses.append(strained.get_stress())
        columns.append((stresses[0] - stresses[1]) / (2 * STRAIN) / units.GPa)
    matrix = np.array(columns)
    matrix = (matrix + matrix.T) / 2
    normal, shear = matrix[:3, :3], matrix[3:, 3:]
    trace, off_diagonal = np.trace(normal), normal[np.triu_indices(3, 1)].sum()
    return Stiffness(
        voigt_GPa=tuple(tuple(map(float, row)) for row in matrix),
        bulk_modulus_GPa=float((trace + 2 * off_diagonal) / 9),
        shear_modulus_GPa=float((trace - off_diagonal + 3 * np.trace(shear)) / 15),
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


def _optimize(
    atoms: Atoms, calculator: Calculator, moving: Callable[[Atoms], Any], what: str
) -> Atoms:
    from ase.optimize import BFGS

    atoms.calc = calculator
    optimizer = BFGS(moving(atoms), logfile=None)
    if not optimizer.run(fmax=MAX_FORCE_EV_PER_A, steps=MAX_STEPS):
        raise CrystalError(f"the relaxation of {what} does not converge within {MAX_STEPS} steps")
    return atoms


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
