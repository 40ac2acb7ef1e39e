"""Molecules known by name: those of the G2 set (Curtiss et al., J. Chem. Phys. 106, 1063, 1997)."""

from __future__ import annotations

import difflib

from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.formula import Formula


def find_molecule(name: str) -> Atoms:
    """A molecule by its name in the G2 set, or by a formula that only one of them has.

    Parameters
    ----------
    name
        Such as ``H2O``, ``CH3CH2OH`` or ``C6H6``.

    Returns
    -------
    Atoms
        Not periodic, without a cell; the geometry is MP2/6-31G(d)'s, Å.

    Raises
    ------
    ValueError
        No molecule of that name, or several of that formula; the message names them.
    """
    if name in g2.names:
        return _built(name)
    try:
        counts = Formula(name).count()
    except ValueError:
        counts = {}
    isomers = [
        known for known in g2.names if counts and g2[known].symbols.formula.count() == counts
    ]
    if len(isomers) == 1:
        return _built(isomers[0])
    if isomers:
        raise ValueError(f"'{name}' could be {', '.join(isomers)}; write one in seeds.molecules")
    near = difflib.get_close_matches(name, g2.names, 3, cutoff=0.4)
    raise ValueError(
        f"no molecule is known as '{name}'{'; near it are ' + ', '.join(near) if near else ''}; "
        "name a structure file of it in seeds.files and use the kind 'crystal'"
    )


def _built(name: str) -> Atoms:
    built = molecule(name)
    return Atoms(built.numbers, built.positions)  # without magnetic moments
