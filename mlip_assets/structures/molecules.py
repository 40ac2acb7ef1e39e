"""Molecules by name: those of the G2 set (Curtiss et al., J. Chem. Phys. 106, 1063, 1997)."""

from __future__ import annotations

import difflib

from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.formula import Formula


def find_molecule(name: str) -> Atoms:
    """A molecule by its name in the G2 set, or by a formula that only one of its molecules has.

    Parameters
    ----------
    name
        Such as ``H2O``, ``CH3CH2OH`` or ``C6H6``.

    Returns
    -------
    Atoms
        Not periodic, without a cell; geometry of MP2/6-31G(d), Å.

    Raises
    ------
    ValueError
        No molecule has that name, or several have that formula; the message lists candidates.
    """
    if name in g2.names:
        return _molecule(name)
    try:
        counts = Formula(name).count()
    except ValueError:
        counts = {}
    isomers = [
        known for known in g2.names if counts and g2[known].symbols.formula.count() == counts
    ]
    if len(isomers) == 1:
        return _molecule(isomers[0])
    if isomers:
        raise ValueError(f"'{name}' could be {', '.join(isomers)}; write one in seeds.molecules")
    near = difflib.get_close_matches(name, g2.names, 3, cutoff=0.4)
    raise ValueError(
        f"no molecule of the G2 set has the name '{name}'"
        f"{'; similar names: ' + ', '.join(near) if near else ''}; "
        "give a structure file of it in seeds.files and use the kind 'crystal'"
    )


def _molecule(name: str) -> Atoms:
    atoms = molecule(name)
    return Atoms(atoms.numbers, atoms.positions)  # without magnetic moments
