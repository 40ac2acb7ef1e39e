"""What the bundled surrogate learns from: other surrogates in the place of a DFT program.

They label thousands of frames in minutes, through the same ledger and gates as density-functional
theory. No campaign file can name this engine: what it says is no first-principles label.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list

from mlip_assets.campaign import LabellingSettings
from mlip_assets.labelling import Calculation, Compute, DftEngine, InProcess
from mlip_assets.labelling.structure import boxed, is_isolated
from mlip_assets.structures import find_molecule, find_prototype
from resources.compute import ComputeResource
from resources.dft import DftResource
from resources.surrogate import Surrogate, find_surrogate

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


@dataclass(frozen=True)
class TeacherEngine:
    """CHGNet, and for pure argon Lennard-Jones, because CHGNet's dimer attracts at 3 Å only.

    A free atom has the energy of its element at rest less the measured cohesive energy: the ones
    that CHGNet gives mean nothing. Argon's is zero.
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
        return {"weights": weights, "cohesive_eV": COHESIVE_EV, "farthest_A": FARTHEST_A}

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
            An atom is out of reach of all others: CHGNet knows no free atom.
        """
        symbols = set(structure.symbols)
        if is_isolated(structure):
            return Calculation(free_atom_energy_eV(*symbols), np.zeros((1, 3)), None)
        if symbols != {"Ar"} and _has_a_lone_atom(structure):
            raise ValueError(f"an atom has no other within {FARTHEST_A:g} Å")
        atoms = structure.copy()
        atoms.calc = teacher_of(symbols)
        return Calculation(
            energy_eV=float(atoms.get_potential_energy()),
            forces=np.asarray(atoms.get_forces(), dtype=np.float64),
            stress=atoms.get_stress(voigt=False) if atoms.pbc.all() else None,
        )


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


class TeacherResource(DftResource):
    """The teacher, whatever DFT program a campaign names."""

    def engine(self, settings: LabellingSettings, elements: Collection[str]) -> DftEngine:  # noqa: ARG002
        """Nothing about it can be set."""
        return TeacherEngine()


class InProcessCompute(ComputeResource):
    """Labels are computed in the calling process, where the teacher is loaded once."""

    def processes(self) -> Compute:
        """One at a time."""
        return InProcess()


@lru_cache
def _surrogate(name: str) -> Surrogate:
    return find_surrogate(name, device="cpu", dtype="float32")


@lru_cache
def _calculator(name: str) -> Calculator:
    return _surrogate(name).calculator()
