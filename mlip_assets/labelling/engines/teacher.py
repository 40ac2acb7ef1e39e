"""Teacher models that label the training data of the bundled surrogate, in place of a DFT program.

They label thousands of frames in minutes, with the same ledger and gates as density-functional
theory. No campaign file can name this engine, because its labels are not from first principles.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray

from mlip_assets.labelling.engines.engine import Calculation
from mlip_assets.labelling.structure import is_isolated_atom, with_vacuum
from mlip_assets.structures import find_molecule, find_prototype
from mlip_assets.surrogates import Surrogate, find_surrogate

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

CHGNET, LENNARD_JONES = "chgnet", "lennard-jones"
#: Experimental cohesive energies, eV/atom (C. Kittel, Introduction to Solid State Physics, 8th ed.,
#: table 3.1; those of Cl and O are relative to isolated atoms as well).
COHESIVE_EV = {
    "O": 2.60,
    "Na": 1.113,
    "Mg": 1.51,
    "Al": 3.39,
    "Si": 4.63,
    "Cl": 1.40,
    "Cu": 3.49,
}
#: Elements whose reference energy is that of a molecule.
MOLECULES = {"O": "O2", "Cl": "Cl2"}
#: Largest distance to the nearest neighbour, Å. CHGNet's cut-off is 6 Å, and its energies near it
#: are not reliable.
MAX_NEIGHBOUR_DISTANCE_A = 5.0
#: Isolated pairs nearer than this, as a multiple of the sum of their covalent radii, interact as
#: screened nuclei. CHGNet's training data has no such distances, and the repulsion of Lennard-Jones
#: is far too strong. For argon both repulsive forces are equal at this distance, 2.97 Å.
CORE, ARGON_CORE = 0.65, 1.4


@dataclass(frozen=True)
class TeacherEngine:
    """CHGNet, and Lennard-Jones for argon, because CHGNet's argon dimer is attractive near 3 Å only.

    An isolated pair at a short distance interacts as screened nuclei (:func:`screened_nuclei`), and
    so do argon and another element at any distance. The energy of an isolated atom is that of its
    element at equilibrium plus the measured cohesive energy, because those of CHGNet are not
    meaningful. That of argon is zero.
    """

    retries: int = 0
    timeout_s: float = 600.0
    memory_limit_GiB: float | None = None
    max_net_force_eV_per_A: float = 0.05

    name: ClassVar[str] = "teacher"
    output: ClassVar[str] = "teacher.txt"

    @property
    def physics(self) -> dict[str, Any]:
        """Hashes of the weights, parameters, and measured energies."""
        weights = {name: _surrogate(name).sha256 for name in (CHGNET, LENNARD_JONES)}
        return {
            "weights": weights,
            "cohesive_eV": COHESIVE_EV,
            "farthest_A": MAX_NEIGHBOUR_DISTANCE_A,
            "cores": [CORE, ARGON_CORE],
        }

    def check(self, symbols: Collection[str]) -> None:
        """Raise ``SurrogateError`` if CHGNet is not installed or lacks an element."""
        _surrogate(CHGNET).require_elements(sorted(symbols))

    def prepare(self, atoms: Atoms) -> Atoms:
        """Add vacuum along the directions that are not periodic."""
        return with_vacuum(atoms, MAX_NEIGHBOUR_DISTANCE_A)

    def numerics(self, attempt: int) -> dict[str, Any]:
        """The number of the attempt; there is no self-consistency."""
        return {"attempt": attempt}

    def program(self) -> str:
        """Names of the teacher models."""
        return f"{CHGNET}; {LENNARD_JONES} for argon"

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:  # noqa: ARG002
        """Energy, forces and, if fully periodic, stress.

        Raises
        ------
        ValueError
            An atom has no neighbour within ``MAX_NEIGHBOUR_DISTANCE_A``, or argon is in a periodic
            structure with other elements.
        """
        argon = structure.symbols == "Ar"
        if argon.all() or not argon.any():
            return _calculate_by_teacher(structure)
        if structure.pbc.any():
            raise ValueError("argon with other elements is supported in clusters only")
        parts = (np.flatnonzero(argon).tolist(), np.flatnonzero(~argon).tolist())
        energy, forces = _screened_repulsion(structure, *parts)
        for part in parts:
            calculation = _calculate_by_teacher(structure[part])
            energy += calculation.energy_eV
            forces[part] += calculation.forces
        return Calculation(energy, forces, None)


def screened_nuclei(first: int, second: int, distance_A: float) -> tuple[float, float]:
    """Energy (eV) and repulsive force (eV/Å) of two nuclei that are screened by their electrons.

    J. F. Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Matter (1985): the
    universal screening function.

    Parameters
    ----------
    first, second
        Atomic numbers.
    distance_A
        Distance of the nuclei, Å.
    """
    amplitudes = np.array([0.18175, 0.50986, 0.28022, 0.02817])
    rates = np.array([3.1998, 0.94229, 0.4029, 0.20162])
    rates = rates * (first**0.23 + second**0.23) / (0.8854 * units.Bohr)
    coulomb = first * second * units.Hartree * units.Bohr / distance_A
    screening = amplitudes * np.exp(-rates * distance_A)
    force = coulomb * (screening.sum() / distance_A + rates @ screening)
    return float(coulomb * screening.sum()), float(force)


def core_A(first: int, second: int) -> float:
    """Distance below which an isolated pair interacts as screened nuclei, Å."""
    radii_A = float(covalent_radii[first] + covalent_radii[second])
    return (ARGON_CORE if first == second == atomic_numbers["Ar"] else CORE) * radii_A


def _calculate_by_teacher(atoms: Atoms) -> Calculation:
    """Result for argon atoms only, or for the other elements only."""
    if is_isolated_atom(atoms):
        return Calculation(isolated_atom_energy_eV(*atoms.symbols), np.zeros((1, 3)), None)
    if atoms.pbc.any() or len(atoms) != 2 or atoms.get_distance(0, 1) >= core_A(*atoms.numbers):
        return _calculate_by_surrogate(atoms)
    edge = atoms.copy()
    edge.set_distance(0, 1, core_A(*atoms.numbers), fix=0)
    energy, forces = _screened_repulsion(atoms, [0], [1])
    energy += _calculate_by_surrogate(edge).energy_eV - _screened_repulsion(edge, [0], [1])[0]
    return Calculation(energy, forces, None)


def _calculate_by_surrogate(atoms: Atoms) -> Calculation:
    symbols = set(atoms.symbols)
    if symbols != {"Ar"} and _has_distant_atom(atoms):
        raise ValueError(f"an atom has no neighbour within {MAX_NEIGHBOUR_DISTANCE_A:g} Å")
    computed = atoms.copy()
    computed.calc = teacher_of(symbols)
    return Calculation(
        energy_eV=float(computed.get_potential_energy()),
        forces=np.asarray(computed.get_forces(), dtype=np.float64),
        stress=computed.get_stress(voigt=False) if computed.pbc.all() else None,
    )


def _screened_repulsion(
    atoms: Atoms, group: Sequence[int], others: Sequence[int]
) -> tuple[float, NDArray[np.float64]]:
    """Energy, eV, and forces, ``(n_atoms, 3)`` eV/Å, of screened nuclei between two groups."""
    energy, forces = 0.0, np.zeros((len(atoms), 3))
    for i, j in product(group, others):
        vector = atoms.positions[j] - atoms.positions[i]
        distance = float(np.linalg.norm(vector))
        pair_energy, repulsion = screened_nuclei(atoms.numbers[i], atoms.numbers[j], distance)
        energy += pair_energy
        forces[i] -= repulsion * vector / distance
        forces[j] += repulsion * vector / distance
    return energy, forces


def teacher_of(symbols: Collection[str]) -> Calculator:
    """The calculator for these elements."""
    return _calculator(LENNARD_JONES if set(symbols) == {"Ar"} else CHGNET)


@lru_cache
def isolated_atom_energy_eV(symbol: str) -> float:
    """Energy of an isolated atom, eV, with the same zero as the labels of the teacher."""
    if symbol == "Ar":
        return 0.0
    molecule = MOLECULES.get(symbol)
    equilibrium = find_molecule(molecule) if molecule else find_prototype(symbol)
    energies = []
    for scale in np.linspace(0.95, 1.05, 11):
        atoms = equilibrium.copy()
        atoms.set_cell(atoms.cell * scale)
        atoms.positions *= scale
        atoms.calc = teacher_of({symbol})
        energies.append(float(atoms.get_potential_energy()) / len(atoms))
    return round(min(energies) + COHESIVE_EV[symbol], 4)


def _has_distant_atom(atoms: Atoms) -> bool:
    with_neighbours = neighbour_list(
        "i",
        cutoff=MAX_NEIGHBOUR_DISTANCE_A,
        positions=atoms.positions,
        cell=complete_cell(atoms.cell),
        pbc=atoms.pbc,
    )
    return len(np.unique(with_neighbours)) < len(atoms)


@lru_cache
def _surrogate(name: str) -> Surrogate:
    return find_surrogate(name, device="cpu", dtype="float32")


@lru_cache
def _calculator(name: str) -> Calculator:
    return _surrogate(name).calculator()
