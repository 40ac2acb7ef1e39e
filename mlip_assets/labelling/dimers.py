"""Dimers: two atoms at given distances, so that a potential learns how bonds break and cores repel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

#: ``seed_kind`` of dimers.
DIMER = "dimer"


def is_dimer(atoms: Atoms) -> bool:
    """Whether this is one of :func:`dimers`."""
    return bool(atoms.info.get("seed_kind") == DIMER)


def dimers(elements: Sequence[str], ratios: Sequence[float]) -> list[Atoms]:
    """Every pair of elements at every distance.

    Parameters
    ----------
    elements
        Chemical symbols.
    ratios
        Distances over the sum of the covalent radii.

    Returns
    -------
    list of Atoms
        In empty space, along x; ``info`` names pair and distance. ``frame_id`` is negative, because
        no walker has met them.
    """
    made: list[Atoms] = []
    for pair in combinations_with_replacement(elements, 2):
        sum_of_radii_A = sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair)
        for ratio in ratios:
            distance_A = float(ratio * sum_of_radii_A)
            name = f"{'-'.join(pair)} at {distance_A:.2f} Å"
            info = {"frame_id": -len(made) - 1, "seed_kind": DIMER, "seed_name": name}
            made.append(Atoms(pair, [[0, 0, 0], [distance_A, 0, 0]], info=info))
    return made
