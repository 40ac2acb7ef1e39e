"""The compiled kernel of SOAP: from positions to averaged power spectra, frame by frame.

It is compiled once for each (n_max, l_max, degree of the radial table, arithmetic) and cached on
disk. Several processes may compile at the same time, since each kernel is kept by a name of its own
and Numba replaces files in one step. A kernel never comes from older code: what is cached is found
again by a hash of every module that is compiled into it, where Numba alone would only ask when this
file was last changed.

The kernel holds no lock of the interpreter. Frames are shared among Python's own threads, which
survive what Numba's threading layers do not: a fork after use, and calls from two threads.
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
from mlip_assets.descriptors import lanes, layout, loops, neighbours
from mlip_assets.descriptors.layout import BLOCK, padded_channels, row_scales
from mlip_assets.descriptors.neighbours import SKIN, no_neighbours, updated, within
from mlip_assets.descriptors.radial import RadialTable

Array = NDArray[Any]

#: Frames that share a neighbour list at most. A piece is computed by one thread from its first
#: frame on, so that the results do not depend on the number of threads.
PIECE = 128

#: Centres whose power spectra are summed in one go.
_CENTRES = 8

#: Two atoms this close are at one point, and the direction between them is not defined; Å.
CLOSEST = 1e-6

_DONE, _AT_ONE_POINT, _TOO_DENSE = 0, 1, 2

#: Of the code as it was imported, which is what is compiled, even if the files change later.
_CODE_HASH = compilation.hash_of(
    sys.modules[__name__], compilation, lanes, layout, loops, neighbours
)


class Plan(NamedTuple):
    """What is the same for all frames.

    Attributes
    ----------
    kind
        (n_atoms,) index of the species of each atom.
    n_species
        How many species the features tell apart.
    order, group, group_size
        (n_atoms,) centres in the order they are taken, and the group that each is averaged in;
        (n_groups,) how many centres a group has.
    pairs
        (n_pairs, 2) densities that are multiplied; ``n_species`` is the sum of all species.
    summed
        Whether any of the pairs needs that sum.
    inner
        Whether coefficients are averaged, and not power spectra.
    """

    kind: Array
    n_species: int
    order: Array
    group: Array
    group_size: Array
    pairs: Array
    summed: bool
    inner: bool


class _Radial(NamedTuple):
    """:class:`RadialTable` as compiled code takes it, in the type of the arithmetic."""

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
    vectors: bool,
) -> NDArray[np.floating[Any]]:
    """Power spectra of checked frames.

    Parameters
    ----------
    positions, cells, periodic
        (n_frames, n_atoms, 3), (n_frames, 3, 3) and (n_frames, 3) as
        :func:`~mlip_assets.descriptors.frames.checked_frames` returns them; Å.
    plan
        Centres, their averages and the pairs of densities.
    table, n_max, l_max
        Radial functions, and how many of them.
    dtype
        Of the arithmetic and the result: float32 or float64.
    n_threads
        That share the frames.
    vectors
        Whether to use :mod:`lanes` or :mod:`loops`.

    Returns
    -------
    NDArray
        (n_frames, n_groups, n_features)

    Raises
    ------
    ValueError
        Two atoms at one point, or more neighbours than any real structure has.
    """
    kernel = _compiled(n_max, l_max, table.degree, dtype.name, vectors)
    values = table.values.astype(dtype)
    radial_part = _Radial(
        lanes.arranged(values) if vectors else values.ravel(),
        dtype.type(table.inverse_spacing),
        table.radius,
        table.at_centre.astype(dtype),
        row_scales(l_max).astype(dtype),
    )
    each = sum(n_max * (n_max + 1) // 2 if a == b else n_max**2 for a, b in plan.pairs)
    features = np.zeros((len(positions), len(plan.group_size), each * (l_max + 1)), dtype)
    inverses = np.linalg.inv(cells)

    def compute(first: int) -> tuple[int, int, int]:
        piece = slice(first, first + PIECE)
        # arrays of another layout, or that are read-only, are other types: to be compiled again
        frames = (
            np.require(array[piece], requirements=("C", "W"))
            for array in (positions, cells, inverses, periodic)
        )
        frame, trouble, atom = kernel(
            *frames,
            plan,
            radial_part,
            features[piece],
        )
        return first + frame, trouble, atom

    starts = range(0, len(positions), PIECE)
    if min(n_threads, len(starts)) > 1:
        with ThreadPoolExecutor(n_threads) as threads:
            outcomes = list(threads.map(compute, starts))
    else:
        outcomes = [compute(first) for first in starts]
    for frame, trouble, atom in outcomes:
        if trouble == _AT_ONE_POINT:
            raise ValueError(
                f"positions: frame {frame} has another atom at the place of atom {atom}"
            )
        if trouble == _TOO_DENSE:
            raise ValueError(
                f"positions: frame {frame} has more than {neighbours.MOST_NEIGHBOURS} atoms within "
                f"{table.radius + SKIN:.1f} Å of one of them, or more than "
                f"{neighbours.MOST_IMAGES} images of atoms around the cell; are cell and positions "
                "in Å?"
            )
    return features


@lru_cache(maxsize=32)
def _compiled(  # noqa: PLR0915
    n_max: int, l_max: int, degree: int, arithmetic: str, vectors: bool
) -> Callable[..., Any]:
    """The kernel; what it takes from here are constants to the compiler, and key the cache."""
    code_hash = _CODE_HASH
    steps = lanes if vectors else loops
    channels = padded_channels(n_max)
    n_rows = (l_max + 1) ** 2
    of_density = n_rows * channels
    of_pair = (l_max + 1) * n_max * channels

    def kernel(  # noqa: PLR0912, PLR0915 - constants do not survive a call of another function
        positions: Array,
        cells: Array,
        inverses: Array,
        periodic: Array,
        plan: Plan,
        radial_part: _Radial,
        features: Array,
    ) -> tuple[int, int, int]:
        code_hash  # noqa: B018 - to be part of the key
        table, scales = radial_part.table, radial_part.scales
        per_length, radius = radial_part.inverse_spacing, radial_part.radius
        n_atoms, n_species = len(plan.kind), plan.n_species
        of_all = n_species * of_density
        of_centre = of_all + of_density
        coefficients = np.zeros(_CENTRES * of_centre, table.dtype)
        products = np.zeros(len(plan.pairs) * of_pair, table.dtype)
        average = np.zeros(of_centre, table.dtype)
        values = np.zeros(n_rows * BLOCK, table.dtype)
        intervals, fractions = np.zeros(BLOCK, np.int32), np.zeros(BLOCK, table.dtype)
        near = np.ones((4, 0), table.dtype)
        known = no_neighbours(n_atoms)
        for frame in range(len(positions)):
            known = updated(
                known, positions, cells, inverses, periodic, frame, plan.kind, n_species, radius
            )
            if not known.whole:
                return frame, _TOO_DENSE, 0
            if near.shape[1] < known.most + BLOCK:
                near = np.ones((4, known.most + BLOCK), table.dtype)
            gathered = 0
            for place in range(n_atoms):
                atom = plan.order[place]
                centre = gathered * of_centre
                for at in range(centre, centre + (of_centre if plan.summed else of_all)):
                    coefficients[at] = 0
                own = centre + plan.kind[atom] * of_density
                for n in range(channels):
                    coefficients[own + n] = radial_part.at_centre[n]
                for species in range(n_species):
                    n, nearest2 = within(known, atom, species, radius, near)
                    if nearest2 < CLOSEST**2:
                        return frame, _AT_ONE_POINT, atom
                    start = centre + species * of_density
                    for first in range(0, n, BLOCK):
                        x, y, z, r2 = (
                            near[0, first:],
                            near[1, first:],
                            near[2, first:],
                            near[3, first:],
                        )
                        some = min(BLOCK, n - first)
                        steps.harmonics(
                            l_max, x, y, z, r2, some, per_length, values, intervals, fractions
                        )
                        steps.expand(
                            n_max,
                            l_max,
                            degree,
                            values,
                            intervals,
                            fractions,
                            some,
                            table,
                            coefficients,
                            start,
                        )
                    for at in range(n_rows):
                        for n in range(channels):
                            coefficients[start + at * channels + n] *= scales[at]
                    if plan.summed:
                        for at in range(of_density):
                            coefficients[centre + of_all + at] += coefficients[start + at]
                gathered += 1

                group = plan.group[atom]
                last = place == n_atoms - 1 or plan.group[plan.order[place + 1]] != group
                weight = 1.0 / plan.group_size[group]
                if plan.inner:
                    # one centre stands for the average of all
                    gathered = 0
                    for at in range(of_centre):
                        average[at] += coefficients[at] * weight
                        if last:
                            coefficients[at], average[at] = average[at], 0
                    if last:
                        weight, gathered = 1.0, 1
                if gathered == _CENTRES or (last and gathered > 0):
                    for pair in range(len(plan.pairs)):
                        left = plan.pairs[pair, 0] * of_density
                        right = plan.pairs[pair, 1] * of_density
                        steps.add_products(
                            n_max,
                            l_max,
                            coefficients,
                            left,
                            right,
                            gathered,
                            of_centre,
                            products,
                            pair * of_pair,
                        )
                    gathered = 0
                if last:
                    write_features(
                        products, n_max, l_max, channels, plan.pairs, weight, features[frame, group]
                    )
        return 0, _DONE, 0

    return cached_entry(kernel, n_max, l_max, degree, arithmetic, "vectors" if vectors else "loops")


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
    """Move sums of products to the features, in the order of the pair of densities, l, n and n'.

    Of a density with itself only n' ≥ n is kept.
    """
    feature, first = 0, 0
    for pair in range(len(pairs)):
        alike = pairs[pair, 0] == pairs[pair, 1]
        for _ in range(l_max + 1):
            for n in range(n_max):
                for k in range(n if alike else 0, n_max):
                    features[feature] = products[first + k] * weight
                    feature += 1
                for k in range(channels):
                    products[first + k] = 0
                first += channels
