"""Dimers at given distances: training data for bond breaking and short-range repulsion."""

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
    """A dimer of every pair of elements at every distance.

    Parameters
    ----------
    elements
        Chemical symbols.
    ratios
        Distances divided by the sum of the covalent radii.

    Returns
    -------
    list of Atoms
        Without periodic directions, along x; ``info["seed_name"]`` gives pair and distance.
        ``frame_id`` is negative, because no trajectory contains them.
    """
    frames: list[Atoms] = []
    for pair in combinations_with_replacement(elements, 2):
        sum_of_radii_A = sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair)
        for ratio in ratios:
            distance_A = float(ratio * sum_of_radii_A)
            name = f"{'-'.join(pair)} at {distance_A:.2f} Å"
            info = {"frame_id": -len(frames) - 1, "seed_kind": DIMER, "seed_name": name}
            frames.append(Atoms(pair, [[0, 0, 0], [distance_A, 0, 0]], info=info))
    return frames
