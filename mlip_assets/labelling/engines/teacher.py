"""What the bundled surrogate learns from: other surrogates in the place of a DFT program.

They label thousands of frames in minutes, through the same ledger and gates as density-functional
theory. No campaign file can name this engine: what it says is no first-principles label.
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
from mlip_assets.labelling.structure import boxed, is_isolated
from mlip_assets.structures import find_molecule, find_prototype
from mlip_assets.surrogates.finding import Surrogate, find_surrogate

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

CHGNET, LENNARD_JONES = "chgnet", "lennard-jones"
#: Experimental cohesive energies, eV/atom (C. Kittel, Introduction to Solid State Physics, 8th ed.,
#: table 3.1; of Cl and O relative to free atoms too).
COHESIVE_EV = {
    "O": 2.60,
    "Na": 1.113,
    "Mg": 1.51,
    "Al": 3.39,
    "Si": 4.63,
    "Cl": 1.40,
    "Cu": 3.49,
}
#: Gases, whose element CHGNet knows best as this molecule.
MOLECULES = {"O": "O2", "Cl": "Cl2"}
#: CHGNet sees atoms up to 6 Å apart; near that its energies come from nowhere.
FARTHEST_A = 5.0
#: Two atoms alone and nearer than this, over the sum of their covalent radii, repel as screened
#: nuclei do: nothing CHGNet has learnt from is that near, and Lennard-Jones pushes far too hard.
#: Argon changes over where both push equally hard, at 2.97 Å.
CORE, ARGON_CORE = 0.65, 1.4


@dataclass(frozen=True)
class TeacherEngine:
    """CHGNet, and for argon Lennard-Jones, because CHGNet's dimer attracts at 3 Å only.

    Two atoms alone and pushed together go on as screened nuclei (:func:`screened_nuclei`), and so
    do argon and another element at any distance. A free atom has the energy of its element at rest
    less the measured cohesive energy: the ones that CHGNet gives mean nothing. Argon's is zero.
    """

    retries: int = 0
    timeout_s: float = 600.0
    memory_limit_GiB: float | None = None
    max_net_force_eV_per_A: float = 0.05

    name: ClassVar[str] = "teacher"
    output: ClassVar[str] = "teacher.txt"

    @property
    def physics(self) -> dict[str, Any]:
        """The weights, the parameters and the measured energies."""
        weights = {name: _surrogate(name).sha256 for name in (CHGNET, LENNARD_JONES)}
        return {
            "weights": weights,
            "cohesive_eV": COHESIVE_EV,
            "farthest_A": FARTHEST_A,
            "cores": [CORE, ARGON_CORE],
        }

    def check(self, symbols: Collection[str]) -> None:
        """Raise ``SurrogateError`` where CHGNet is not installed or lacks an element."""
        _surrogate(CHGNET).require_elements(sorted(symbols))

    def prepare(self, atoms: Atoms) -> Atoms:
        """Empty space along the directions that are not periodic."""
        return boxed(atoms, FARTHEST_A)

    def numerics(self, attempt: int) -> dict[str, Any]:
        """Nothing has to converge."""
        return {"attempt": attempt}

    def program(self) -> str:
        """What computes."""
        return f"{CHGNET}; {LENNARD_JONES} for argon"

    def calculate(self, structure: Atoms, attempt: int) -> Calculation:  # noqa: ARG002
        """Energy, forces and, when fully periodic, stress.

        Raises
        ------
        ValueError
            An atom is out of reach of all others, as CHGNet knows no free atom; or there is argon
            in a periodic structure with other elements.
        """
        argon = structure.symbols == "Ar"
        if argon.all() or not argon.any():
            return _of_its_teacher(structure)
        if structure.pbc.any():
            raise ValueError("argon among other elements is known in clusters only")
        parts = (np.flatnonzero(argon).tolist(), np.flatnonzero(~argon).tolist())
        energy, forces = _between(structure, *parts)
        for part in parts:
            own = _of_its_teacher(structure[part])
            energy += own.energy_eV
            forces[part] += own.forces
        return Calculation(energy, forces, None)


def screened_nuclei(first: int, second: int, distance_A: float) -> tuple[float, float]:
    """Energy (eV) and repulsive force (eV/Å) of two nuclei behind their electrons.

    J. F. Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Matter (1985): the
    universal screening function.

    Parameters
    ----------
    first, second
        Atomic numbers.
    distance_A
        Between them, Å.
    """
    amplitudes = np.array([0.18175, 0.50986, 0.28022, 0.02817])
    rates = np.array([3.1998, 0.94229, 0.4029, 0.20162])
    rates = rates * (first**0.23 + second**0.23) / (0.8854 * units.Bohr)
    coulomb = first * second * units.Hartree * units.Bohr / distance_A
    screening = amplitudes * np.exp(-rates * distance_A)
    force = coulomb * (screening.sum() / distance_A + rates @ screening)
    return float(coulomb * screening.sum()), float(force)


def core_A(first: int, second: int) -> float:
    """Distance within which two atoms alone are screened nuclei, Å."""
    reach = float(covalent_radii[first] + covalent_radii[second])
    return (ARGON_CORE if first == second == atomic_numbers["Ar"] else CORE) * reach


def _of_its_teacher(atoms: Atoms) -> Calculation:
    """Argon alone, or all other elements."""
    if is_isolated(atoms):
        return Calculation(free_atom_energy_eV(*atoms.symbols), np.zeros((1, 3)), None)
    if atoms.pbc.any() or len(atoms) != 2 or atoms.get_distance(0, 1) >= core_A(*atoms.numbers):
        return _asked(atoms)
    edge = atoms.copy()
    edge.set_distance(0, 1, core_A(*atoms.numbers), fix=0)
    energy, forces = _between(atoms, [0], [1])
    energy += _asked(edge).energy_eV - _between(edge, [0], [1])[0]
    return Calculation(energy, forces, None)


def _asked(atoms: Atoms) -> Calculation:
    symbols = set(atoms.symbols)
    if symbols != {"Ar"} and _has_a_lone_atom(atoms):
        raise ValueError(f"an atom has no other within {FARTHEST_A:g} Å")
    asked = atoms.copy()
    asked.calc = teacher_of(symbols)
    return Calculation(
        energy_eV=float(asked.get_potential_energy()),
        forces=np.asarray(asked.get_forces(), dtype=np.float64),
        stress=asked.get_stress(voigt=False) if asked.pbc.all() else None,
    )


def _between(
    atoms: Atoms, some: Sequence[int], others: Sequence[int]
) -> tuple[float, NDArray[np.float64]]:
    """Energy and forces of screened nuclei on either side."""
    energy, forces = 0.0, np.zeros((len(atoms), 3))
    for i, j in product(some, others):
        apart = atoms.positions[j] - atoms.positions[i]
        distance = float(np.linalg.norm(apart))
        pair_energy, push = screened_nuclei(atoms.numbers[i], atoms.numbers[j], distance)
        energy += pair_energy
        forces[i] -= push * apart / distance
        forces[j] += push * apart / distance
    return energy, forces


def teacher_of(symbols: Collection[str]) -> Calculator:
    """Which calculator knows these elements."""
    return _calculator(LENNARD_JONES if set(symbols) == {"Ar"} else CHGNET)


@lru_cache
def free_atom_energy_eV(symbol: str) -> float:
    """Energy of a free atom, eV, on the scale of the teacher's labels."""
    if symbol == "Ar":
        return 0.0
    molecule = MOLECULES.get(symbol)
    at_rest = find_molecule(molecule) if molecule else find_prototype(symbol)
    energies = []
    for stretch in np.linspace(0.95, 1.05, 11):
        atoms = at_rest.copy()
        atoms.set_cell(atoms.cell * stretch)
        atoms.positions *= stretch
        atoms.calc = teacher_of({symbol})
        energies.append(float(atoms.get_potential_energy()) / len(atoms))
    return round(min(energies) + COHESIVE_EV[symbol], 4)


def _has_a_lone_atom(atoms: Atoms) -> bool:
    with_neighbours = neighbour_list(
        "i",
        cutoff=FARTHEST_A,
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
