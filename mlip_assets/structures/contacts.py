"""Contacts: pairs of close atoms, by their distance over the sum of their covalent radii."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list

#: The search bins atoms into boxes of its cut-off: a tiny one would need millions of boxes.
_MIN_SEARCH_A = 1.0


@dataclass(frozen=True)
class Contact:
    """Two atoms, or an atom and an image of another."""

    first: int
    second: int
    distance_A: float
    ratio: float
    """Distance over the sum of the covalent radii (Cordero et al., Dalton Trans. 2008, 2832)."""


def contacts(atoms: Atoms, within: float) -> tuple[Any, Any, Any, Any]:
    """All pairs closer than ``within`` times the sum of their covalent radii.

    Returns
    -------
    first, second, distances, ratios
        Arrays of shape (n_pairs,), one entry per ordered pair: indices of the two atoms, distance
        in Å, and distance over the sum of the radii.
    """
    radii = covalent_radii[atoms.numbers]
    # matscipy's neighbour list takes microseconds, ASE's milliseconds
    first, second, distances = neighbour_list(
        "ijd",
        cutoff=max(2 * within * radii.max(), _MIN_SEARCH_A),
        positions=atoms.positions,
        cell=complete_cell(atoms.cell),  # a molecule may have none
        pbc=atoms.pbc,
    )
    ratios = distances / (radii[first] + radii[second])
    close = ratios < within
    return first[close], second[close], distances[close], ratios[close]


def closest_contact(atoms: Atoms, within: float = 1.0) -> Contact | None:
    """The pair with the smallest ratio, if any is below ``within``."""
    first, second, distances, ratios = contacts(atoms, within)
    if len(ratios) == 0:
        return None
    smallest = int(np.argmin(ratios))
    return Contact(
        int(first[smallest]),
        int(second[smallest]),
        float(distances[smallest]),
        float(ratios[smallest]),
    )


def distance_ratio(atoms: Atoms) -> float:
    """Smallest distance between two atoms over the sum of their covalent radii; inf if none is < 1."""
    closest = closest_contact(atoms)
    return closest.ratio if closest else np.inf
