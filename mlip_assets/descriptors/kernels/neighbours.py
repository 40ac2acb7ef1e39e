"""Neighbour lists that several frames share: Verlet lists, built from cell lists.

A list contains all atoms within a radius plus a skin, and is valid until an atom has moved by half
the skin (L. Verlet, Phys. Rev. 159, 98 (1967)). To build it, the periodic images of the atoms are
sorted into bins, so that the time is proportional to the number of atoms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.compilation import compiled
from mlip_assets.descriptors.kernels.image_bins import Bins, bin_index, sorted_images

Array = NDArray[Any]

#: Distance beyond the radius that a list contains. It is valid until an atom has moved by half of
#: it; Å.
SKIN = 1.0

#: More neighbours or images than any structure with r_cut up to 15 Å has.
MAX_NEIGHBOURS = 50_000
MAX_IMAGES = 5_000_000


class NeighbourList(NamedTuple):
    """All images of atoms in and around a cell, and the neighbours of each atom among them.

    Attributes
    ----------
    owner
        (n_images,) the atom of which each is an image.
    shift
        (n_images, 3) vector from the wrapped atom to its image, Å.
    first, entries
        Images ``entries[first[atom, s] : first[atom, s + 1]]`` of species ``s`` are neighbours of
        an atom, without the atom itself.
    reference, wraps
        (n_atoms, 3) wrapped positions for which the list was built, Å, and the number of lattice
        vectors subtracted from each atom.
    wrapped, images
        (n_atoms, 3) and (3, n_images) positions in the current frame, Å.
    max_entries
        Largest number of neighbours of one species of an atom.
    reusable
        Whether the list contains a skin, so that it can be valid for other frames.
    complete
        False if there were more neighbours or images than is allowed; the list is then empty.
    """

    owner: Array
    shift: Array
    first: Array
    entries: Array
    reference: Array
    wraps: Array
    wrapped: Array
    images: Array
    max_entries: int
    reusable: bool
    complete: bool


@compiled
def arrays_equal(one: Array, other: Array) -> bool:
    """Whether two (3, 3) or (3,) arrays are equal."""
    n_different = 0
    for place in range(one.size):
        n_different += one.flat[place] != other.flat[place]
    return n_different == 0


@compiled
def fractional_coordinate(point: Array, inverse: Array, axis: int) -> float:
    """Fractional coordinate of a point along one lattice vector."""
    return float(
        point[0] * inverse[0, axis] + point[1] * inverse[1, axis] + point[2] * inverse[2, axis]
    )


@compiled
def subtract_lattice_vectors(position: Array, wraps: Array, cell: Array, into: Array) -> None:
    """Write ``position`` minus ``wraps`` lattice vectors to ``into``."""
    for k in range(3):
        into[k] = position[k] - (
            wraps[0] * cell[0, k] + wraps[1] * cell[1, k] + wraps[2] * cell[2, k]
        )


@compiled
def build_list(
    positions: Array,
    cell: Array,
    inverse: Array,
    periodic: Array,
    species_of_atom: Array,
    n_species: int,
    radius: float,
    reusable: bool,
) -> NeighbourList:
    """List of all neighbours within a radius of each atom.

    Parameters
    ----------
    positions
        (n_atoms, 3), Å.
    cell, inverse, periodic
        (3, 3) lattice vectors as rows, Å; the inverse of that matrix, Å⁻¹; (3,) periodicity.
    species_of_atom, n_species
        (n_atoms,) index of the species of each atom; number of species.
    radius, reusable
        Radius of the list, Å; whether it contains a skin.
    """
    n_atoms = len(positions)
    wraps = np.zeros((n_atoms, 3))
    wrapped = np.empty((n_atoms, 3))
    reach = np.zeros(3)
    for axis in range(3):
        if periodic[axis]:
            # the radius in units of the distance between lattice planes
            a, b, c = inverse[0, axis], inverse[1, axis], inverse[2, axis]
            reach[axis] = radius * np.sqrt(a * a + b * b + c * c)
    low, high = np.empty((n_atoms, 3), np.int64), np.empty((n_atoms, 3), np.int64)
    n_images = 0.0
    for atom in range(n_atoms):
        count = 1.0
        for axis in range(3):
            low[atom, axis] = high[atom, axis] = 0
            if periodic[axis]:
                fraction = fractional_coordinate(positions[atom], inverse, axis)
                wraps[atom, axis] = np.floor(fraction)
                fraction -= wraps[atom, axis]
                low[atom, axis] = np.int64(np.ceil(-reach[axis] - fraction))
                high[atom, axis] = np.int64(np.floor(1 + reach[axis] - fraction))
            count *= high[atom, axis] - low[atom, axis] + 1.0
        n_images += count
        subtract_lattice_vectors(positions[atom], wraps[atom], cell, wrapped[atom])
    if not n_images <= MAX_IMAGES:  # also true for NaN
        return empty_list(n_atoms)
    owner, shift, bins = sorted_images(
        wrapped, cell, species_of_atom, n_species, low, high, int(n_images), radius
    )
    return _list_entries(wrapped, wraps, n_species, owner, shift, bins, radius, reusable)


@compiled
def empty_list(n_atoms: int) -> NeighbourList:
    """List without neighbours, marked as incomplete."""
    none, no_positions = np.empty(0, np.uint32), np.empty((n_atoms, 3))
    return NeighbourList(
        owner=none,
        shift=np.empty((0, 3)),
        first=np.empty((0, 0), np.int64),
        entries=none,
        reference=no_positions,
        wraps=no_positions,
        wrapped=no_positions,
        images=np.empty((3, 0)),
        max_entries=0,
        reusable=False,
        complete=False,
    )


@compiled
def _list_entries(
    wrapped: Array,
    wraps: Array,
    n_species: int,
    owner: Array,
    shift: Array,
    bins: Bins,
    radius: float,
    reusable: bool,
) -> NeighbourList:
    n_atoms, n_images = len(wrapped), len(owner)
    images = np.empty((3, n_images))
    update_images(wrapped, owner, shift, images)
    own_image = np.empty(n_atoms, np.int64)
    for image in range(n_images):
        if shift[image, 0] == 0 and shift[image, 1] == 0 and shift[image, 2] == 0:
            own_image[owner[image]] = image
    n_around = int(np.ceil(radius * bins.per_length))
    first = np.empty((n_atoms, n_species + 1), np.int64)
    entries = np.empty(256 * n_atoms, np.uint32)
    n_entries, max_entries = 0, 0
    box = np.empty((3, 2), np.int64)
    radius2 = radius * radius
    for atom in range(n_atoms):
        begin = n_entries
        for k in range(3):
            here = bin_index(bins, wrapped[atom, k], k)
            box[k, 0], box[k, 1] = max(0, here - n_around), min(bins.shape[k], here + n_around + 1)
        for species in range(n_species):
            first[atom, species] = n_entries
            for a in range(box[0, 0], box[0, 1]):
                for b in range(box[1, 0], box[1, 1]):
                    column = ((species * bins.shape[0] + a) * bins.shape[1] + b) * bins.shape[2]
                    start, stop = bins.start[column + box[2, 0]], bins.start[column + box[2, 1]]
                    while n_entries + stop - start > len(entries):
                        entries = _doubled(entries)
                    for image in range(start, stop):
                        dx = images[0, image] - wrapped[atom, 0]
                        dy = images[1, image] - wrapped[atom, 1]
                        dz = images[2, image] - wrapped[atom, 2]
                        # no branch: the next entry overwrites one beyond the radius
                        entries[n_entries] = image
                        n_entries += (dx * dx + dy * dy + dz * dz <= radius2) & (
                            image != own_image[atom]
                        )
                    if n_entries - begin > MAX_NEIGHBOURS:
                        return empty_list(n_atoms)
            max_entries = max(max_entries, n_entries - first[atom, species])
        first[atom, n_species] = n_entries
    return NeighbourList(
        owner=owner,
        shift=shift,
        first=first,
        entries=entries,
        reference=wrapped.copy(),
        wraps=wraps,
        wrapped=wrapped,
        images=images,
        max_entries=max_entries,
        reusable=reusable,
        complete=True,
    )


@compiled
def _doubled(array: Array) -> Array:
    longer = np.empty(2 * len(array), array.dtype)
    for place, value in enumerate(array):
        longer[place] = value
    return longer


@compiled
def update_images(wrapped: Array, owner: Array, shift: Array, images: Array) -> None:
    """Compute the positions of the images from those of the atoms."""
    for image in range(len(owner)):
        for k in range(3):
            images[k, image] = wrapped[owner[image], k] + shift[image, k]


@compiled
def updated_list(
    neighbour_list: NeighbourList,
    positions: Array,
    cells: Array,
    inverses: Array,
    periodic: Array,
    frame: int,
    species_of_atom: Array,
    n_species: int,
    radius: float,
) -> NeighbourList:
    """List for the next frame: the given one with new positions if it is valid, else a new one.

    The arrays contain all frames. The other arguments are those of :func:`build_list`.
    """
    cell, inverse, axes = cells[frame], inverses[frame], periodic[frame]
    same_cell = frame == 0 or (
        arrays_equal(cell, cells[frame - 1]) and arrays_equal(axes, periodic[frame - 1])
    )
    if (
        neighbour_list.reusable
        and same_cell
        and still_valid(neighbour_list, positions[frame], cell, inverse, axes)
    ):
        update_images(
            neighbour_list.wrapped,
            neighbour_list.owner,
            neighbour_list.shift,
            neighbour_list.images,
        )
        return neighbour_list
    # a cell that has just changed probably changes again: no skin, for this frame only
    list_radius = radius + SKIN if same_cell else radius
    return build_list(
        positions[frame], cell, inverse, axes, species_of_atom, n_species, list_radius, same_cell
    )


@compiled
def still_valid(
    neighbour_list: NeighbourList, positions: Array, cell: Array, inverse: Array, periodic: Array
) -> bool:
    """Wrap the atoms next to their reference positions; False if one has moved too far.

    An atom that a program has wrapped to the other side of the cell has not moved.
    """
    displacement = np.empty(3)
    for atom in range(len(positions)):
        for attempt in range(2):
            subtract_lattice_vectors(
                positions[atom], neighbour_list.wraps[atom], cell, neighbour_list.wrapped[atom]
            )
            displacement2 = 0.0
            for k in range(3):
                displacement[k] = (
                    neighbour_list.wrapped[atom, k] - neighbour_list.reference[atom, k]
                )
                displacement2 += displacement[k] * displacement[k]
            if displacement2 <= SKIN * SKIN / 4:
                break
            if attempt == 1:
                return False
            for axis in range(3):
                if periodic[axis]:
                    neighbour_list.wraps[atom, axis] += np.round(
                        fractional_coordinate(displacement, inverse, axis)
                    )
    return True


@compiled
def gather_neighbours(
    neighbour_list: NeighbourList, atom: int, species: int, radius: float, vectors: Array
) -> tuple[int, float]:
    """Gather the neighbours within a radius of an atom.

    Parameters
    ----------
    atom, species
        Index of the atom, and of the species of the neighbours.
    radius
        Å; at most that of the list.
    vectors
        Output, (4, n): the vectors from the atom, Å, and their squares, Å². n is larger than
        ``neighbour_list.max_entries``.

    Returns
    -------
    tuple
        Number of neighbours, and the square of the smallest distance, Å².
    """
    n, min_r2, radius2 = np.uint64(0), np.inf, radius * radius
    images, centre = neighbour_list.images, neighbour_list.wrapped[atom]
    for entry in range(
        neighbour_list.first[atom, species], neighbour_list.first[atom, species + 1]
    ):
        image = neighbour_list.entries[entry]
        dx = images[0, image] - centre[0]
        dy = images[1, image] - centre[1]
        dz = images[2, image] - centre[2]
        square = dx * dx + dy * dy + dz * dz
        vectors[0, n], vectors[1, n], vectors[2, n], vectors[3, n] = dx, dy, dz, square
        min_r2 = min(min_r2, square)
        # no branch: the next entry overwrites one beyond the radius
        n += np.uint64(square < radius2)
    return int(n), min_r2
