"""The three inner loops of SOAP as plain Numba.

They document :mod:`.simd`, which contains the same three functions with explicit vector registers,
and validate it. They run on processors without fused vector instructions.
"""

# ruff: noqa: E741 - l is the angular momentum

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlip_assets.common.compilation import compiled
from mlip_assets.descriptors.kernels import memory_layout

Array = NDArray[Any]
BLOCK = memory_layout.BLOCK
padded_channels = compiled(memory_layout.padded_channels)
row = compiled(memory_layout.row)
monic_recursion = compiled(memory_layout.monic_recursion)


@compiled
def harmonics(
    l_max: int,
    x: Array,
    y: Array,
    z: Array,
    r2: Array,
    n_neighbours: int,
    inverse_spacing: float,
    values: Array,
    intervals: Array,
    fractions: Array,
) -> None:
    """Unscaled harmonics of neighbours, and the position of each in the radial table.

    Parameters
    ----------
    l_max
        Largest angular momentum.
    x, y, z, r2
        Vectors from the centre, Å, and their squares, Å²; none is zero.
    n_neighbours
        At most ``BLOCK``.
    inverse_spacing
        Intervals of the radial table in 1 Å.
    values
        Output, at ``row(l, m) * BLOCK + neighbour``: Q_lm(z/r) times the real or the imaginary part
        of ((x + iy)/r)^|m|. Q_lm is the associated Legendre polynomial with leading term z^(l-m).
    intervals, fractions
        Output: integer and fractional part of r times ``inverse_spacing``.
    """
    for neighbour in range(n_neighbours):
        distance = np.sqrt(r2[neighbour])
        ux, uy = x[neighbour] / distance, y[neighbour] / distance
        uz = z[neighbour] / distance
        place = distance * inverse_spacing
        intervals[neighbour] = np.int32(place)
        fractions[neighbour] = place - intervals[neighbour]
        cosine, sine = np.float64(1.0), np.float64(0.0)
        for m in range(l_max + 1):
            if m > 0:
                cosine, sine = ux * cosine - uy * sine, uy * cosine + ux * sine
            below, legendre = np.float64(0.0), np.float64(1.0)
            for l in range(m, l_max + 1):
                if l > m:
                    b = monic_recursion(l, m)
                    below, legendre = legendre, uz * legendre - b * below
                if m == 0:
                    values[row(l, 0) * BLOCK + neighbour] = legendre
                else:
                    values[row(l, 2 * m - 1) * BLOCK + neighbour] = legendre * cosine
                    values[row(l, 2 * m) * BLOCK + neighbour] = legendre * sine


@compiled
def expand(
    n_max: int,
    l_max: int,
    degree: int,
    values: Array,
    intervals: Array,
    fractions: Array,
    n_neighbours: int,
    table: Array,
    coefficients: Array,
    start: int,
) -> None:
    """Add neighbours to the expansion coefficients of one centre and one species.

    Parameters
    ----------
    n_max, l_max, degree
        Radial channels, largest angular momentum, degree of the piecewise polynomials.
    values, intervals, fractions, n_neighbours
        Results of :func:`harmonics`.
    table
        Flat ``values`` of a :class:`~mlip_assets.descriptors.radial.RadialTable`.
    coefficients, start
        The coefficient of (l, m) and channel n is at ``start + row(l, m) * channels + n``.
    """
    channels = padded_channels(n_max)
    powers = degree + 1
    radial = np.empty(channels, table.dtype)
    for neighbour in range(n_neighbours):
        t = fractions[neighbour]
        interval_start = intervals[neighbour] * (l_max + 1) * powers * channels
        for l in range(l_max + 1):
            first = interval_start + l * powers * channels
            for n in range(channels):
                value = table[first + degree * channels + n]
                for power in range(degree - 1, -1, -1):
                    value = value * t + table[first + power * channels + n]
                radial[n] = value
            for m in range(2 * l + 1):
                harmonic = values[row(l, m) * BLOCK + neighbour]
                i = start + row(l, m) * channels
                for n in range(channels):
                    coefficients[i + n] += harmonic * radial[n]


@compiled
def add_products(
    n_max: int,
    l_max: int,
    coefficients: Array,
    left: int,
    right: int,
    n_atoms: int,
    stride: int,
    products: Array,
    start: int,
) -> None:
    """Add the products of two densities' coefficients, summed over m and over several centres.

    Parameters
    ----------
    n_max, l_max
        Radial channels, largest angular momentum.
    coefficients, left, right
        Start of the coefficients of the two densities for the first centre.
    n_atoms, stride
        Number of centres, and the distance in memory between two of them.
    products, start
        Output: Σ_m c_nlm c'_n'lm is added at ``start + (l * n_max + n) * channels + n'``.
    """
    channels = padded_channels(n_max)
    for atom in range(n_atoms):
        one, other = left + atom * stride, right + atom * stride
        for l in range(l_max + 1):
            for m in range(2 * l + 1):
                i = row(l, m) * channels
                for n in range(n_max):
                    factor = coefficients[one + i + n]
                    target = start + (l * n_max + n) * channels
                    for k in range(channels):
                        products[target + k] += factor * coefficients[other + i + k]
