"""Initial magnetic moments of structures that are computed with spin."""

from __future__ import annotations

from typing import Literal

from ase import Atoms
from ase.data import ground_state_magnetic_moments

from mlip_assets.labelling.structure import is_isolated_atom

Spin = Literal["auto", "on", "off"]

#: Elements whose solids and molecules are often magnetic.
MAGNETIC = frozenset(
    ("Cr", "Mn", "Fe", "Co", "Ni", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm")
)


def with_spin(structure: Atoms, spin: Spin) -> Atoms:
    """A copy with initial magnetic moments; without moments it is computed without spin.

    Parameters
    ----------
    structure
        Of an isolated atom the moment is not changed, because its energy depends on its state.
    spin
        ``auto``: the moments of the structure, or, if it has none and contains one of
        :data:`MAGNETIC`, those of the isolated atoms. ``on``: the same for every structure.
        ``off``: none.
    """
    if is_isolated_atom(structure):
        return structure
    structure = structure.copy()
    if spin == "off":
        structure.set_initial_magnetic_moments(None)
    elif not structure.get_initial_magnetic_moments().any() and (
        spin == "on" or MAGNETIC & set(structure.symbols)
    ):
        structure.set_initial_magnetic_moments(ground_state_magnetic_moments[structure.numbers])
    return structure
