"""Which structures are computed with spin, and the moments they start from."""

from __future__ import annotations

from typing import Literal

from ase import Atoms
from ase.data import ground_state_magnetic_moments

from mlip_assets.labelling.structure import is_isolated

Spin = Literal["auto", "on", "off"]

#: Elements whose solids and molecules are magnetic often enough to start from a moment.
MAGNETIC = frozenset(
    ("Cr", "Mn", "Fe", "Co", "Ni", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm")
)


def with_spin(structure: Atoms, spin: Spin) -> Atoms:
    """The structure with the initial magnetic moments it is computed from; zero ones mean no spin.

    Parameters
    ----------
    spin
        ``auto``: the moments that the frame brings, else those of the free atoms where one of
        :data:`MAGNETIC` is in it. ``on``: the same for every frame. ``off``: none. A free atom
        keeps its own always, because its energy depends on its state.
    """
    if is_isolated(structure):
        return structure
    structure = structure.copy()
    if spin == "off":
        structure.set_initial_magnetic_moments(None)
    elif not structure.get_initial_magnetic_moments().any() and (
        spin == "on" or MAGNETIC & set(structure.symbols)
    ):
        structure.set_initial_magnetic_moments(ground_state_magnetic_moments[structure.numbers])
    return structure
