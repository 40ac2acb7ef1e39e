"""Crystal structures known by composition alone."""

from __future__ import annotations

from ase import Atoms
from ase.build import bulk, make_supercell
from ase.data import atomic_numbers, reference_states
from ase.formula import Formula

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


class UnknownPrototypeError(ValueError):
    """A composition whose crystal is not known here."""


def find_prototype(composition: str) -> Atoms:
    """Conventional cell of the crystal that a composition is known to form.

    Elements come from ``ase.data.reference_states`` (hcp and rhombohedral ones as their primitive
    cells), compounds from :data:`BINARIES`. The order of the elements does not matter.

    Parameters
    ----------
    composition
        A chemical formula such as ``Si`` or ``NaCl``.

    Returns
    -------
    Atoms
        Periodic along all three vectors; lengths in Å.

    Raises
    ------
    UnknownPrototypeError
        No crystal is known for the composition; the message says what to give instead.
    """
    formula = _hill(composition)
    for name, (structure, lattice_constant) in BINARIES.items():
        if formula == _hill(name):
            return bulk(name, structure, a=lattice_constant, cubic=True)
    element = _element_crystal(formula)
    if element is None:
        raise UnknownPrototypeError(
            f"no crystal prototype is known for '{composition}'; name a structure file of it in "
            f"seeds.files (known: most solid elements, {', '.join(BINARIES)})"
        )
    return element


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
    if symmetry == "bct":  # ASE builds the skewed primitive cell
        atoms = make_supercell(atoms, [[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return atoms
