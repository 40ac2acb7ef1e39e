"""Neighbour lists that are kept while atoms move little: Verlet lists, built by way of cell lists.

L. Verlet, Phys. Rev. 159, 98 (1967); the images of atoms around the cell are sorted into bins,
so that building a list takes a time proportional to the number of atoms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.compilation import compiled

Array = NDArray[Any]

#: A list holds what is this much farther away than needed, and serves until an atom has moved
#: half of it; Å.
SKIN = 1.0

#: Bins along one radius. Finer bins fit the sphere of neighbours more closely.
_FINENESS = 2

_MOST_BINS = 1 << 18

#: More neighbours or images than any structure with r_cut up to 15 Å has.
MOST_NEIGHBOURS = 50_000
MOST_IMAGES = 5_000_000


class NeighbourList(NamedTuple):
    """All images of atoms around a cell, and which of them are close to which atom.

    Attributes
    ----------
    owner
        (n_images,) the atom that each image repeats.
    shift
        (n_images, 3) from the wrapped atom to its image, Å.
    first, close
        Images ``close[first[atom, s] : first[atom, s + 1]]`` of species ``s`` lie around an atom,
        itself left out.
    built_for, wraps
        (n_atoms, 3) wrapped positions the list was built for, Å, and lattice vectors that are
        subtracted from the atoms to be there.
    inside, images
        (n_atoms, 3) and (3, n_images) positions in the current frame, Å.
    most
        Largest number of images of one species around an atom.
    lasting
        Whether the list serves other frames as well.
    whole
        False where there were more neighbours or images than is allowed; the list is then empty.
    """

    owner: Array
    shift: Array
    first: Array
    close: Array
    built_for: Array
    wraps: Array
    inside: Array
    images: Array
    most: int
    lasting: bool
    whole: bool


@compiled
def same(one: Array, other: Array) -> bool:
    """Whether two (3, 3) or (3,) arrays are equal."""
    n_different = 0
    for place in range(one.size):
        n_different += one.flat[place] != other.flat[place]
    return n_different == 0


@compiled
def fraction_along(point: Array, inverse: Array, axis: int) -> float:
    """Coordinate of a point along one lattice vector, in units of it."""
    return float(
        point[0] * inverse[0, axis] + point[1] * inverse[1, axis] + point[2] * inverse[2, axis]
    )


@compiled
def wrapped(position: Array, wraps: Array, cell: Array, into: Array) -> None:
    """Subtract lattice vectors."""
    for k in range(3):
        into[k] = position[k] - (
            wraps[0] * cell[0, k] + wraps[1] * cell[1, k] + wraps[2] * cell[2, k]
        )


@compiled
def build(
    positions: Array,
    cell: Array,
    inverse: Array,
    periodic: Array,
    kind: Array,
    n_species: int,
    radius: float,
    lasting: bool,
) -> NeighbourList:
    """List of everything within a radius of every atom.

    Parameters
    ----------
    positions
        (n_atoms, 3), Å.
    cell, inverse, periodic
        (3, 3) lattice vectors as rows, Å, the inverse matrix, and (3,) where they repeat.
    kind, n_species
        (n_atoms,) index of the species of each atom, and how many there are.
    radius, lasting
        Å, and whether that is more than is needed.
    """
    n_atoms = len(positions)
    wraps = np.zeros((n_atoms, 3))
    inside = np.empty((n_atoms, 3))
    reach = np.zeros(3)
    for axis in range(3):
        if periodic[axis]:
            # one over the distance between lattice planes, times the radius
            a, b, c = inverse[0, axis], inverse[1, axis], inverse[2, axis]
            reach[axis] = radius * np.sqrt(a * a + b * b + c * c)
    low, high = np.empty((n_atoms, 3), np.int64), np.empty((n_atoms, 3), np.int64)
    n_images = 0.0
    for atom in range(n_atoms):
        count = 1.0
        for axis in range(3):
            low[atom, axis] = high[atom, axis] = 0
            if periodic[axis]:
                fraction = fraction_along(positions[atom], inverse, axis)
                wraps[atom, axis] = np.floor(fraction)
                fraction -= wraps[atom, axis]
                low[atom, axis] = np.int64(np.ceil(-reach[axis] - fraction))
                high[atom, axis] = np.int64(np.floor(1 + reach[axis] - fraction))
            count *= high[atom, axis] - low[atom, axis] + 1.0
        n_images += count
        wrapped(positions[atom], wraps[atom], cell, inside[atom])
    if not n_images <= MOST_IMAGES:  # which is so for NaN, too
        return no_neighbours(n_atoms)
    owner, shift, bins = _images(inside, cell, kind, n_species, low, high, int(n_images), radius)
    return _close_ones(inside, wraps, n_species, owner, shift, bins, radius, lasting)


@compiled
def no_neighbours(n_atoms: int) -> NeighbourList:
    """List of nothing, which is not whole."""
    none, nowhere = np.empty(0, np.uint32), np.empty((n_atoms, 3))
    return NeighbourList(
        owner=none,
        shift=np.empty((0, 3)),
        first=np.empty((0, 0), np.int64),
        close=none,
        built_for=nowhere,
        wraps=nowhere,
        inside=nowhere,
        images=np.empty((3, 0)),
        most=0,
        lasting=False,
        whole=False,
    )


class _Bins(NamedTuple):
    """A grid over the images: bin of a point, and where the images of a species in a bin start."""

    origin: Array
    per_length: float
    shape: Array
    start: Array


@compiled
def _bin_along(bins: _Bins, coordinate: float, axis: int) -> int:
    place = int((coordinate - bins.origin[axis]) * bins.per_length)
    return max(0, min(int(bins.shape[axis]) - 1, place))


@compiled
def _images(
    inside: Array,
    cell: Array,
    kind: Array,
    n_species: int,
    low: Array,
    high: Array,
    n_images: int,
    radius: float,
) -> tuple[Array, Array, _Bins]:
    """Images sorted by species, then by bin; along the last axis neighbouring bins follow."""
    owner, shift = np.empty(n_images, np.uint32), np.empty((n_images, 3))
    origin, end = np.full(3, np.inf), np.full(3, -np.inf)
    image = 0
    for atom in range(len(inside)):
        for a in range(low[atom, 0], high[atom, 0] + 1):
            for b in range(low[atom, 1], high[atom, 1] + 1):
                for c in range(low[atom, 2], high[atom, 2] + 1):
                    owner[image] = atom
                    for k in range(3):
                        shift[image, k] = a * cell[0, k] + b * cell[1, k] + c * cell[2, k]
                        place = inside[atom, k] + shift[image, k]
                        origin[k], end[k] = min(origin[k], place), max(end[k], place)
                    image += 1

    per_length = _FINENESS / radius
    shape, n_bins = np.empty(3, np.int64), np.inf
    while n_bins > max(1, min(_MOST_BINS, 8 * n_images) // n_species):
        n_bins = 1.0
        for k in range(3):
            shape[k] = np.int64((end[k] - origin[k]) * per_length) + 1
            n_bins *= shape[k]
        per_length /= 2
    per_length *= 2
    bins = _Bins(origin, per_length, shape, np.zeros(n_species * np.int64(n_bins) + 1, np.int64))
    keys = np.empty(n_images, np.int64)
    for image in range(n_images):
        atom = owner[image]
        key = kind[atom]
        for k in range(3):
            key = key * shape[k] + _bin_along(bins, inside[atom, k] + shift[image, k], k)
        keys[image] = key
        bins.start[key + 1] += 1
    for key in range(1, len(bins.start)):
        bins.start[key] += bins.start[key - 1]
    place_of = bins.start.copy()
    sorted_owner, sorted_shift = np.empty_like(owner), np.empty_like(shift)
    for image in range(n_images):
        place = place_of[keys[image]]
        place_of[keys[image]] += 1
        sorted_owner[place] = owner[image]
        for k in range(3):
            sorted_shift[place, k] = shift[image, k]
    return sorted_owner, sorted_shift, bins


@compiled
def _close_ones(
    inside: Array,
    wraps: Array,
    n_species: int,
    owner: Array,
    shift: Array,
    bins: _Bins,
    radius: float,
    lasting: bool,
) -> NeighbourList:
    n_atoms, n_images = len(inside), len(owner)
    images = np.empty((3, n_images))
    place_images(inside, owner, shift, images)
    own_image = np.empty(n_atoms, np.int64)
    for image in range(n_images):
        if shift[image, 0] == 0 and shift[image, 1] == 0 and shift[image, 2] == 0:
            own_image[owner[image]] = image
    n_around = int(np.ceil(radius * bins.per_length))
    first = np.empty((n_atoms, n_species + 1), np.int64)
    close = np.empty(256 * n_atoms, np.uint32)
    n_close, most = 0, 0
    box = np.empty((3, 2), np.int64)
    radius2 = radius * radius
    for atom in range(n_atoms):
        begin = n_close
        for k in range(3):
            here = _bin_along(bins, inside[atom, k], k)
            box[k, 0], box[k, 1] = max(0, here - n_around), min(bins.shape[k], here + n_around + 1)
        for species in range(n_species):
            first[atom, species] = n_close
            for a in range(box[0, 0], box[0, 1]):
                for b in range(box[1, 0], box[1, 1]):
                    column = ((species * bins.shape[0] + a) * bins.shape[1] + b) * bins.shape[2]
                    start, stop = bins.start[column + box[2, 0]], bins.start[column + box[2, 1]]
                    while n_close + stop - start > len(close):
                        close = _twice_as_long(close)
                    for image in range(start, stop):
                        dx = images[0, image] - inside[atom, 0]
                        dy = images[1, image] - inside[atom, 1]
                        dz = images[2, image] - inside[atom, 2]
                        # without a branch: one too far away is overwritten by the next
                        close[n_close] = image
                        n_close += (dx * dx + dy * dy + dz * dz <= radius2) & (
                            image != own_image[atom]
                        )
                    if n_close - begin > MOST_NEIGHBOURS:
                        return no_neighbours(n_atoms)
            most = max(most, n_close - first[atom, species])
        first[atom, n_species] = n_close
    return NeighbourList(
        owner=owner,
        shift=shift,
        first=first,
        close=close,
        built_for=inside.copy(),
        wraps=wraps,
        inside=inside,
        images=images,
        most=most,
        lasting=lasting,
        whole=True,
    )


@compiled
def _twice_as_long(array: Array) -> Array:
    longer = np.empty(2 * len(array), array.dtype)
    for place, value in enumerate(array):
        longer[place] = value
    return longer


@compiled
def place_images(inside: Array, owner: Array, shift: Array, images: Array) -> None:
    """Positions of images from those of the atoms."""
    for image in range(len(owner)):
        for k in range(3):
            images[k, image] = inside[owner[image], k] + shift[image, k]


@compiled
def updated(
    known: NeighbourList,
    positions: Array,
    cells: Array,
    inverses: Array,
    periodic: Array,
    frame: int,
    kind: Array,
    n_species: int,
    radius: float,
) -> NeighbourList:
    """The list for the next frame: the same one at new positions while it serves, or a new one.

    The arrays are those of all frames; the other arguments are those of :func:`build`.
    """
    cell, inverse, axes = cells[frame], inverses[frame], periodic[frame]
    same_cell = frame == 0 or (same(cell, cells[frame - 1]) and same(axes, periodic[frame - 1]))
    if known.lasting and same_cell and follows(known, positions[frame], cell, inverse, axes):
        place_images(known.inside, known.owner, known.shift, known.images)
        return known
    # a cell that has just changed will change again: the list then serves this frame only
    farther = radius + SKIN if same_cell else radius
    return build(positions[frame], cell, inverse, axes, kind, n_species, farther, same_cell)


@compiled
def follows(
    known: NeighbourList, positions: Array, cell: Array, inverse: Array, periodic: Array
) -> bool:
    """Wrap atoms to where the list knows them; False when one has moved too far.

    An atom that was put back into the cell on the other side has not moved.
    """
    moved = np.empty(3)
    for atom in range(len(positions)):
        for attempt in range(2):
            wrapped(positions[atom], known.wraps[atom], cell, known.inside[atom])
            moved2 = 0.0
            for k in range(3):
                moved[k] = known.inside[atom, k] - known.built_for[atom, k]
                moved2 += moved[k] * moved[k]
            if moved2 <= SKIN * SKIN / 4:
                break
            if attempt == 1:
                return False
            for axis in range(3):
                if periodic[axis]:
                    known.wraps[atom, axis] += np.round(fraction_along(moved, inverse, axis))
    return True


@compiled
def within(
    known: NeighbourList, atom: int, species: int, radius: float, near: Array
) -> tuple[int, float]:
    """Gather what is nearer than a radius of an atom.

    Parameters
    ----------
    atom, species
        Index of the atom, and of the species that is looked for.
    radius
        Å.
    near
        (4, n) filled with the vectors from the atom, Å, and their squares; n is more than
        ``known.most``.

    Returns
    -------
    tuple
        Number of neighbours, and the square of the smallest distance, Å².
    """
    n, nearest2, radius2 = np.uint64(0), np.inf, radius * radius
    images, centre = known.images, known.inside[atom]
    for entry in range(known.first[atom, species], known.first[atom, species + 1]):
        image = known.close[entry]
        dx = images[0, image] - centre[0]
        dy = images[1, image] - centre[1]
        dz = images[2, image] - centre[2]
        square = dx * dx + dy * dy + dz * dz
        near[0, n], near[1, n], near[2, n], near[3, n] = dx, dy, dz, square
        nearest2 = min(nearest2, square)
        # without a branch: one too far away is overwritten by the next
        n += np.uint64(square < radius2)
    return int(n), nearest2
