"""Crystal structures by composition, or by prototype and lattice constant."""

from __future__ import annotations

from typing import TypeAlias

from ase import Atoms
from ase.build import bulk, make_supercell
from ase.data import atomic_numbers, covalent_radii, reference_states
from ase.formula import Formula
from ase.spacegroup import crystal

_Site: TypeAlias = tuple[str, tuple[float, float, float]]

#: Prototype and lattice constant (Å, room temperature). Wyckoff, *Crystal Structures*, 2nd ed.,
#: vol. 1 (Wiley, 1963), chapter III; GaAs and InP: Vurgaftman, Meyer and Ram-Mohan,
#: J. Appl. Phys. 89, 5815 (2001).
BINARIES: dict[str, tuple[str, float]] = {
    "LiF": ("rocksalt", 4.027),
    "NaF": ("rocksalt", 4.634),
    "NaCl": ("rocksalt", 5.640),
    "KCl": ("rocksalt", 6.293),
    "MgO": ("rocksalt", 4.211),
    "CaO": ("rocksalt", 4.811),
    "NiO": ("rocksalt", 4.177),
    "SiC": ("zincblende", 4.359),
    "ZnS": ("zincblende", 5.409),
    "GaAs": ("zincblende", 5.653),
    "InP": ("zincblende", 5.870),
    "CsCl": ("cesiumchloride", 4.123),
}
_CUBIC = ("sc", "fcc", "bcc", "diamond")
_OTHER_BRAVAIS = ("hcp", "bct", "rhombohedral")

#: Atoms of each element in one formula unit of a prototype, in ascending order.
_STOICHIOMETRY: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("sc", "fcc", "bcc", "hcp", "diamond"), (1,)),
    **dict.fromkeys(("rocksalt", "zincblende", "wurtzite", "cesiumchloride"), (1, 1)),
    **dict.fromkeys(("fluorite", "rutile"), (1, 2)),
    "perovskite": (1, 1, 3),
}
#: Mean over the rutiles of TiO2, SnO2, MgF2 and others (Wyckoff, chapter IV): c/a, and u of (u, u, 0).
_RUTILE_C_OVER_A, _RUTILE_U = 0.66, 0.305


class UnknownPrototypeError(ValueError):
    """A composition without a tabulated crystal structure."""


def find_prototype(
    composition: str, structure: str | None = None, lattice_constant_A: float | None = None
) -> Atoms:
    """Conventional cell of the tabulated crystal of a composition, or of a named prototype.

    Elements come from ``ase.data.reference_states`` (hcp and rhombohedral ones as their primitive
    cells), compounds from :data:`BINARIES`. The order of the elements does not matter.

    Parameters
    ----------
    composition
        A chemical formula such as ``Si`` or ``NaCl``.
    structure
        Name of the prototype, such as ``rocksalt``; None: the tabulated crystal.
    lattice_constant_A
        Lattice constant a of the prototype, Å; required with ``structure``.

    Returns
    -------
    Atoms
        Periodic along all three vectors; lengths in Å.

    Raises
    ------
    UnknownPrototypeError
        No crystal is tabulated for the composition, or its formula does not match the prototype;
        the message names alternatives.
    """
    if structure is not None and lattice_constant_A is not None:
        return _build_prototype(composition, structure, lattice_constant_A)
    formula = _hill(composition)
    for name, (prototype, a_A) in BINARIES.items():
        if formula == _hill(name):
            return bulk(name, prototype, a=a_A, cubic=True)
    element = _element_crystal(formula)
    if element is None:
        raise UnknownPrototypeError(
            f"no crystal structure is tabulated for '{composition}'; give a structure file in "
            f"seeds.files, or a prototype in seeds.prototype (tabulated: most solid elements, "
            f"{', '.join(BINARIES)})"
        )
    return element


def _build_prototype(composition: str, structure: str, a_A: float) -> Atoms:
    counts = Formula(composition).reduce()[0].count()
    symbols = sorted(counts, key=lambda s: (counts[s], -covalent_radii[atomic_numbers[s]]))
    required = _STOICHIOMETRY[structure]
    if tuple(sorted(counts.values())) != required:
        ratio = "one element"
        if len(required) > 1:
            ratio = f"elements in the ratio {' : '.join(map(str, required))}"
        raise UnknownPrototypeError(
            f"prototype {structure} needs {ratio}, unlike '{composition}'; choose another "
            "prototype in seeds.prototype, or give a structure file in seeds.files"
        )
    cell = _conventional_cell(symbols, structure, a_A)
    return Atoms(cell.numbers, cell.positions, cell=cell.cell, pbc=True)


def _conventional_cell(symbols: list[str], structure: str, a: float) -> Atoms:
    """``symbols`` by ascending count; of equal counts, the larger atom first."""
    match structure:
        case "perovskite":
            sites: list[_Site] = [
                (symbols[0], (0, 0, 0)),
                (symbols[1], (0.5, 0.5, 0.5)),
                (symbols[2], (0.5, 0.5, 0)),
            ]
            group, lengths = 221, (a, a, a)
        case "rutile":
            sites = [(symbols[0], (0, 0, 0)), (symbols[1], (_RUTILE_U, _RUTILE_U, 0))]
            group, lengths = 136, (a, a, a * _RUTILE_C_OVER_A)
        case "fluorite":
            name = f"{symbols[0]}{symbols[1]}2"
            return bulk(name, structure, a=a, cubic=True)
        case _:
            cubic = structure not in {"hcp", "wurtzite"}
            return bulk("".join(symbols), structure, a=a, cubic=cubic)
    return crystal(
        [symbol for symbol, _ in sites],
        basis=[position for _, position in sites],
        spacegroup=group,
        cellpar=[*lengths, 90, 90, 90],
    )


def _hill(composition: str) -> str:
    reduced, _ = Formula(composition).reduce()
    return str(reduced.format("hill"))


def _element_crystal(symbol: str) -> Atoms | None:
    number = atomic_numbers.get(symbol, 0)
    symmetry = (reference_states[number] or {}).get("symmetry")
    if symmetry not in _CUBIC + _OTHER_BRAVAIS:
        return None
    try:
        atoms: Atoms = bulk(symbol, cubic=symmetry in _CUBIC)
    except ValueError:  # ASE lists the lattice of Se and Te without their atomic basis
        return None
    if symmetry == "bct":  # ASE builds the primitive cell
        atoms = make_supercell(atoms, [[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return atoms
