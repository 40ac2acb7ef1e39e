"""Cell lists: the periodic images of atoms, sorted into the bins of a grid.

The atoms near a point are then those of few bins, so that finding all neighbours takes a time
proportional to the number of atoms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.compilation import compiled

Array = NDArray[Any]

#: Bins per radius. Finer bins enclose the sphere of neighbours more closely.
_BINS_PER_RADIUS = 2

_MAX_BINS = 1 << 18


class Bins(NamedTuple):
    """Grid over the images, and the start of the images of each species in each bin."""

    origin: Array
    per_length: float
    shape: Array
    start: Array


@compiled
def bin_index(bins: Bins, coordinate: float, axis: int) -> int:
    """Index along one axis of the bin that contains a coordinate."""
    place = int((coordinate - bins.origin[axis]) * bins.per_length)
    return max(0, min(int(bins.shape[axis]) - 1, place))


@compiled
def sorted_images(
    wrapped: Array,
    cell: Array,
    species_of_atom: Array,
    n_species: int,
    low: Array,
    high: Array,
    n_images: int,
    radius: float,
) -> tuple[Array, Array, Bins]:
    """Images sorted by species, then by bin; the last axis varies fastest."""
    owner, shift = np.empty(n_images, np.uint32), np.empty((n_images, 3))
    origin, end = np.full(3, np.inf), np.full(3, -np.inf)
    image = 0
    for atom in range(len(wrapped)):
        for a in range(low[atom, 0], high[atom, 0] + 1):
            for b in range(low[atom, 1], high[atom, 1] + 1):
                for c in range(low[atom, 2], high[atom, 2] + 1):
                    owner[image] = atom
                    for k in range(3):
                        shift[image, k] = a * cell[0, k] + b * cell[1, k] + c * cell[2, k]
                        place = wrapped[atom, k] + shift[image, k]
                        origin[k], end[k] = min(origin[k], place), max(end[k], place)
                    image += 1

    per_length = _BINS_PER_RADIUS / radius
    shape, n_bins = np.empty(3, np.int64), np.inf
    while n_bins > max(1, min(_MAX_BINS, 8 * n_images) // n_species):
        n_bins = 1.0
        for k in range(3):
            shape[k] = np.int64((end[k] - origin[k]) * per_length) + 1
            n_bins *= shape[k]
        per_length /= 2
    per_length *= 2
    bins = Bins(origin, per_length, shape, np.zeros(n_species * np.int64(n_bins) + 1, np.int64))
    keys = np.empty(n_images, np.int64)
    for image in range(n_images):
        atom = owner[image]
        key = species_of_atom[atom]
        for k in range(3):
            key = key * shape[k] + bin_index(bins, wrapped[atom, k] + shift[image, k], k)
        keys[image] = key
        bins.start[key + 1] += 1
    for key in range(1, len(bins.start)):
        bins.start[key] += bins.start[key - 1]
    next_place = bins.start.copy()
    sorted_owner, sorted_shift = np.empty_like(owner), np.empty_like(shift)
    for image in range(n_images):
        place = next_place[keys[image]]
        next_place[keys[image]] += 1
        sorted_owner[place] = owner[image]
        for k in range(3):
            sorted_shift[place, k] = shift[image, k]
    return sorted_owner, sorted_shift, bins
