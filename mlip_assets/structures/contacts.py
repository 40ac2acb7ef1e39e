"""Contacts: how near atoms are to each other, in units of their covalent radii."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list

#: The search sorts atoms into boxes of its cut-off: a tiny one would make millions of them.
_SHORTEST_SEARCH_A = 1.0


@dataclass(frozen=True)
class Contact:
    """Two atoms, or an atom and an image of another."""

    first: int
    second: int
    distance_A: float
    ratio: float
    """Distance over the sum of the covalent radii (Cordero et al., Dalton Trans. 2008, 2832)."""


def contacts(atoms: Atoms, within: float) -> tuple[Any, Any, Any, Any]:
    """All pairs nearer than ``within`` times the sum of their covalent radii.

    Returns
    -------
    first, second, distances, ratios
        One entry an ordered pair: indices, distance in Å, and that over the sum of the radii.
    """
    radii = covalent_radii[atoms.numbers]
    # matscipy's list takes microseconds where ASE's takes milliseconds
    first, second, distances = neighbour_list(
        "ijd",
        cutoff=max(2 * within * radii.max(), _SHORTEST_SEARCH_A),
        positions=atoms.positions,
        cell=complete_cell(atoms.cell),  # a molecule may have none
        pbc=atoms.pbc,
    )
    ratios = distances / (radii[first] + radii[second])
    near = ratios < within
    return first[near], second[near], distances[near], ratios[near]


def closest_contact(atoms: Atoms, within: float = 1.0) -> Contact | None:
    """The pair with the smallest ratio, if any is below ``within``."""
    first, second, distances, ratios = contacts(atoms, within)
    if len(ratios) == 0:
        return None
    worst = int(np.argmin(ratios))
    return Contact(
        int(first[worst]), int(second[worst]), float(distances[worst]), float(ratios[worst])
    )


def distance_ratio(atoms: Atoms) -> float:
    """Smallest distance between two atoms over the sum of their covalent radii; inf if all ≥ 1."""
    closest = closest_contact(atoms)
    return closest.ratio if closest else np.inf
