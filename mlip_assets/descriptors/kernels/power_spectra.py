"""The compiled SOAP kernel: from positions to averaged power spectra, frame by frame.

Around each centre, the density of the neighbours i of one species has the expansion coefficients

    c_nlm = Σ_i R_nl(r_i) Y_lm(r̂_i),

and two densities c and c' (of two species, or of one species twice) have the power spectrum

    p(n n' l) = π √(8/(2l + 1)) Σ_m c_nlm c'_n'lm.

Indices: radial channels n and n' from 0 to n_max - 1, padded to ``channels``; angular momentum l
from 0 to l_max; m from -l to l. The code stores (l, m) as the row :func:`~.memory_layout.row`. The
prefactor is part of :func:`~.memory_layout.row_scales`. All arrays are flat, with these strides:

    coefficients    centre_stride, density_stride, channels, 1     of centre, species, row, n
    products        pair_stride, n_max * channels, channels, 1     of pair, l, n, n'

The last density of each centre, at ``all_species_offset``, is the sum over all species.

A kernel is compiled once for each (n_max, l_max, degree of the radial table, arithmetic) and cached
on disk. Several processes may compile at the same time: each kernel has its own name in the cache,
and Numba replaces files atomically. The key contains a hash of all source that is compiled, so a
cached kernel is never older than its source. Numba alone compares the time stamp of one file only.

The kernel releases the interpreter's lock. Frames are distributed over Python threads. Numba's own
threading layers fail after a fork, or when they are called from two threads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common import compilation
from mlip_assets.common.compilation import cached_entry, compiled
from mlip_assets.descriptors.kernels import (
    image_bins,
    llvm_vectors,
    memory_layout,
    neighbours,
    scalar,
    simd,
)
from mlip_assets.descriptors.kernels.memory_layout import BLOCK, padded_channels, row_scales
from mlip_assets.descriptors.kernels.neighbours import (
    MAX_IMAGES,
    MAX_NEIGHBOURS,
    SKIN,
    empty_list,
    gather_neighbours,
    updated_list,
)
from mlip_assets.descriptors.radial import RadialTable

Array = NDArray[Any]

#: Largest number of frames that share a neighbour list. One thread computes a chunk from its first
#: frame to its last, so that the results do not depend on the number of threads.
CHUNK_FRAMES = 128

#: Centres whose power spectra are summed in one pass.
_CENTRES_PER_PASS = 8

#: Below this distance two atoms are at one point, and the direction between them is undefined; Å.
MIN_DISTANCE = 1e-6

_OK, _COINCIDENT_ATOMS, _TOO_MANY_NEIGHBOURS = 0, 1, 2

#: Hash of the imported code, which is what is compiled, even if the files change later.
_CODE_HASH = compilation.hash_of(
    sys.modules[__name__],
    compilation,
    image_bins,
    llvm_vectors,
    memory_layout,
    neighbours,
    scalar,
    simd,
)


class Plan(NamedTuple):
    """The data that all frames share.

    Attributes
    ----------
    species
        (n_atoms,) index of the species of each atom.
    n_species
        Number of species that the features distinguish.
    order, group, group_size
        (n_atoms,) the centres in order of computation, and the group in which each is averaged;
        (n_groups,) number of centres in each group.
    pairs
        (n_pairs, 2) densities that are multiplied; ``n_species`` is the sum of all species.
    needs_sum
        Whether a pair contains that sum.
    averages_coefficients
        Whether the coefficients are averaged (inner average), and not the power spectra.
    """

    species: Array
    n_species: int
    order: Array
    group: Array
    group_size: Array
    pairs: Array
    needs_sum: bool
    averages_coefficients: bool


class _Radial(NamedTuple):
    """:class:`RadialTable` in the form and the floating-point type of the compiled code."""

    table: Array
    inverse_spacing: float
    radius: float
    at_centre: Array
    scales: Array


def power_spectra(
    positions: NDArray[np.float64],
    cells: NDArray[np.float64],
    periodic: NDArray[np.bool_],
    plan: Plan,
    table: RadialTable,
    n_max: int,
    l_max: int,
    *,
    dtype: np.dtype[Any],
    n_threads: int,
    use_simd: bool,
) -> NDArray[np.floating[Any]]:
    """Power spectra of frames that have been checked.

    Parameters
    ----------
    positions, cells, periodic
        (n_frames, n_atoms, 3), (n_frames, 3, 3) and (n_frames, 3) as returned by
        :func:`~mlip_assets.descriptors.frames.checked_frames`; Å.
    plan
        Centres, their groups and the pairs of densities.
    table, n_max, l_max
        Radial functions, their number, and the largest angular momentum.
    dtype
        float32 or float64, of the arithmetic and of the result.
    n_threads
        Number of threads.
    use_simd
        Whether the inner loops are those of :mod:`.simd` or those of :mod:`.scalar`.

    Returns
    -------
    NDArray
        (n_frames, n_groups, n_features), of ``dtype``.

    Raises
    ------
    ValueError
        Two atoms are at one point, or an atom has more neighbours than any real structure.
    """
    kernel = _compiled(n_max, l_max, table.degree, dtype.name, use_simd)
    values = table.values.astype(dtype)
    radial_part = _Radial(
        simd.arranged(values) if use_simd else values.ravel(),
        dtype.type(table.inverse_spacing),
        table.radius,
        table.at_centre.astype(dtype),
        row_scales(l_max).astype(dtype),
    )
    n_pairs_nn = sum(n_max * (n_max + 1) // 2 if a == b else n_max**2 for a, b in plan.pairs)
    features = np.zeros((len(positions), len(plan.group_size), n_pairs_nn * (l_max + 1)), dtype)
    inverses = np.linalg.inv(cells)

    def compute(first: int) -> tuple[int, int, int]:
        chunk = slice(first, first + CHUNK_FRAMES)
        # arrays with another memory order, or read-only ones, would be compiled as other types
        frames = (
            np.require(array[chunk], requirements=("C", "W"))
            for array in (positions, cells, inverses, periodic)
        )
        frame, status, atom = kernel(*frames, plan, radial_part, features[chunk])
        return first + frame, status, atom

    starts = range(0, len(positions), CHUNK_FRAMES)
    if min(n_threads, len(starts)) > 1:
        with ThreadPoolExecutor(n_threads) as threads:
            outcomes = list(threads.map(compute, starts))
    else:
        outcomes = [compute(first) for first in starts]
    for frame, status, atom in outcomes:
        if status == _COINCIDENT_ATOMS:
            raise ValueError(
                f"positions: frame {frame} has another atom at the position of atom {atom}"
            )
        if status == _TOO_MANY_NEIGHBOURS:
            raise ValueError(
                f"positions: frame {frame} has more than {MAX_NEIGHBOURS} atoms within "
                f"{table.radius + SKIN:.1f} Å of one atom, or more than {MAX_IMAGES} images of "
                "atoms around the cell; check that cell and positions are in Å"
            )
    return features


@lru_cache(maxsize=32)
def _compiled(  # noqa: PLR0915
    n_max: int, l_max: int, degree: int, arithmetic: str, use_simd: bool
) -> Callable[..., Any]:
    """Kernel for these sizes. The variables of this function are constants of the compiled code.

    They are part of the key of the cache.
    """
    code_hash = _CODE_HASH
    loops = simd if use_simd else scalar
    channels = padded_channels(n_max)
    n_rows = (l_max + 1) ** 2
    density_stride = n_rows * channels
    pair_stride = (l_max + 1) * n_max * channels

    def kernel(  # noqa: PLR0912, PLR0915 - another function would lose the constants
        positions: Array,
        cells: Array,
        inverses: Array,
        periodic: Array,
        plan: Plan,
        radial_part: _Radial,
        features: Array,
    ) -> tuple[int, int, int]:
        code_hash  # noqa: B018 - makes the hash a part of the key
        table, scales = radial_part.table, radial_part.scales
        inverse_spacing, radius = radial_part.inverse_spacing, radial_part.radius
        n_atoms, n_species = len(plan.species), plan.n_species
        all_species_offset = n_species * density_stride
        centre_stride = all_species_offset + density_stride
        coefficients = np.zeros(_CENTRES_PER_PASS * centre_stride, table.dtype)
        products = np.zeros(len(plan.pairs) * pair_stride, table.dtype)
        average = np.zeros(centre_stride, table.dtype)
        values = np.zeros(n_rows * BLOCK, table.dtype)
        intervals, fractions = np.zeros(BLOCK, np.int32), np.zeros(BLOCK, table.dtype)
        neighbour_vectors = np.ones((4, 0), table.dtype)
        neighbour_list = empty_list(n_atoms)
        for frame in range(len(positions)):
            neighbour_list = updated_list(
                neighbour_list,
                positions,
                cells,
                inverses,
                periodic,
                frame,
                plan.species,
                n_species,
                radius,
            )
            if not neighbour_list.complete:
                return frame, _TOO_MANY_NEIGHBOURS, 0
            if neighbour_vectors.shape[1] < neighbour_list.max_entries + BLOCK:
                neighbour_vectors = np.ones((4, neighbour_list.max_entries + BLOCK), table.dtype)
            n_centres = 0
            for position in range(n_atoms):
                atom = plan.order[position]
                centre = n_centres * centre_stride
                for i in range(
                    centre, centre + (centre_stride if plan.needs_sum else all_species_offset)
                ):
                    coefficients[i] = 0
                self_start = centre + plan.species[atom] * density_stride
                for n in range(channels):
                    coefficients[self_start + n] = radial_part.at_centre[n]
                for species in range(n_species):
                    n, min_r2 = gather_neighbours(
                        neighbour_list, atom, species, radius, neighbour_vectors
                    )
                    if min_r2 < MIN_DISTANCE**2:
                        return frame, _COINCIDENT_ATOMS, atom
                    start = centre + species * density_stride
                    for first in range(0, n, BLOCK):
                        x, y, z, r2 = (
                            neighbour_vectors[0, first:],
                            neighbour_vectors[1, first:],
                            neighbour_vectors[2, first:],
                            neighbour_vectors[3, first:],
                        )
                        n_block = min(BLOCK, n - first)
                        loops.harmonics(
                            l_max,
                            x,
                            y,
                            z,
                            r2,
                            n_block,
                            inverse_spacing,
                            values,
                            intervals,
                            fractions,
                        )
                        loops.expand(
                            n_max,
                            l_max,
                            degree,
                            values,
                            intervals,
                            fractions,
                            n_block,
                            table,
                            coefficients,
                            start,
                        )
                    for i in range(n_rows):
                        for n in range(channels):
                            coefficients[start + i * channels + n] *= scales[i]
                    if plan.needs_sum:
                        for i in range(density_stride):
                            coefficients[centre + all_species_offset + i] += coefficients[start + i]
                n_centres += 1

                group = plan.group[atom]
                last = position == n_atoms - 1 or plan.group[plan.order[position + 1]] != group
                weight = 1.0 / plan.group_size[group]
                if plan.averages_coefficients:
                    # the average over the group replaces the coefficients of one centre
                    n_centres = 0
                    for i in range(centre_stride):
                        average[i] += coefficients[i] * weight
                        if last:
                            coefficients[i], average[i] = average[i], 0
                    if last:
                        weight, n_centres = 1.0, 1
                if n_centres == _CENTRES_PER_PASS or (last and n_centres > 0):
                    for pair in range(len(plan.pairs)):
                        left = plan.pairs[pair, 0] * density_stride
                        right = plan.pairs[pair, 1] * density_stride
                        loops.add_products(
                            n_max,
                            l_max,
                            coefficients,
                            left,
                            right,
                            n_centres,
                            centre_stride,
                            products,
                            pair * pair_stride,
                        )
                    n_centres = 0
                if last:
                    write_features(
                        products, n_max, l_max, channels, plan.pairs, weight, features[frame, group]
                    )
        return 0, _OK, 0

    return cached_entry(kernel, n_max, l_max, degree, arithmetic, "simd" if use_simd else "scalar")


@compiled
def write_features(
    products: Array,
    n_max: int,
    l_max: int,
    channels: int,
    pairs: Array,
    weight: float,
    features: Array,
) -> None:
    """Write the summed products to the features and clear them.

    The order is: pair of densities, l, n, n'. For a density with itself only n' ≥ n is written.
    """
    feature, first = 0, 0
    for pair in range(len(pairs)):
        is_same = pairs[pair, 0] == pairs[pair, 1]
        for _ in range(l_max + 1):
            for n in range(n_max):
                for k in range(n if is_same else 0, n_max):
                    features[feature] = products[first + k] * weight
                    feature += 1
                for k in range(channels):
                    products[first + k] = 0
                first += channels
