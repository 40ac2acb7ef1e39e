"""The three inner loops of SOAP with explicit vector registers, emitted as LLVM code for Numba.

LLVM does not keep the accumulators of the same loops in registers when they are written in plain
Python. Here each accumulator is a vector of radial channels n. Each function below is a Numba
intrinsic: compiled code calls it like any other function. When that code is built, the function
emits its loop, unrolled over l and m, which are therefore constants.

Nothing is checked here, neither bounds nor values. The kernel in :mod:`.power_spectra` ensures that
the neighbours fit into their buffers and that none is at r = 0. :mod:`.scalar` contains the same
three functions as plain loops.
"""

# ruff: noqa: E741 - l is the angular momentum

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numpy.typing import NDArray

from mlip_assets.common.compilation import emitted
from mlip_assets.descriptors.kernels.llvm_vectors import (
    INDEX,
    Accumulators,
    Vector,
    array_arguments,
    counted_loop,
    index_constant,
    register_budget,
    splat,
)
from mlip_assets.descriptors.kernels.memory_layout import (
    BLOCK,
    monic_recursion,
    padded_channels,
    row,
)

#: Neighbours whose harmonics are computed together; divides ``BLOCK``.
_LANES = 8


@emitted
def harmonics(
    _typing: Any,
    l_max: Any,
    x: Any,
    y: Any,
    z: Any,
    r2: Any,
    n_neighbours: Any,
    inverse_spacing: Any,
    values: Any,
    intervals: Any,
    fractions: Any,
) -> Any:
    """Unscaled harmonics of neighbours, and the position of each in the radial table.

    See :func:`.scalar.harmonics`. Neighbours are computed in groups of eight, so the buffers are
    read and written up to the next multiple of eight.
    """
    signature = types.void(
        l_max, x, y, z, r2, n_neighbours, inverse_spacing, values, intervals, fractions
    )

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        highest = l_max.literal_value
        memory = array_arguments(context, builder, signature, arguments)
        with counted_loop(builder, arguments[5], _LANES) as first:
            square = memory[4].load(first, _LANES)
            distance = square.sqrt()
            inverse = square.of_constant(1.0) / distance
            ux, uy, uz = (memory[k].load(first, _LANES) * inverse for k in (1, 2, 3))
            spacing = Vector(builder, splat(builder, arguments[6], square.value.type))
            place = distance * spacing
            interval = place.truncated()
            memory[8].store(first, interval)
            memory[9].store(first, (place - place.of_integers(interval)).value)

            def put(l: int, m: int, value: Vector) -> None:
                memory[7].store(builder.add(first, index_constant(row(l, m) * BLOCK)), value.value)

            cosine, sine = square.of_constant(1.0), square.of_constant(0.0)
            for m in range(highest + 1):
                if m:
                    cosine, sine = (
                        ux * cosine - uy * sine,
                        uy * cosine + ux * sine,
                    )
                below, legendre = square.of_constant(0.0), square.of_constant(1.0)
                for l in range(m, highest + 1):
                    if l > m:
                        above = uz * legendre
                        if l > m + 1:
                            above = above - square.of_constant(monic_recursion(l, m)) * below
                        below, legendre = legendre, above
                    if m == 0:
                        put(l, 0, legendre)
                    else:
                        put(l, 2 * m - 1, legendre * cosine if l > m else cosine)
                        put(l, 2 * m, legendre * sine if l > m else sine)
        return context.get_dummy_value()

    return signature, emit


@emitted
def expand(
    _typing: Any,
    n_max: Any,
    l_max: Any,
    degree: Any,
    values: Any,
    intervals: Any,
    fractions: Any,
    n_neighbours: Any,
    table: Any,
    coefficients: Any,
    start: Any,
) -> Any:
    """Add neighbours to the expansion coefficients of one centre and one species.

    See :func:`.scalar.expand`. The table is in the order of :func:`arranged`.
    """
    signature = types.void(
        n_max, l_max, degree, values, intervals, fractions, n_neighbours, table, coefficients, start
    )

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        powers = degree.literal_value + 1
        channels = padded_channels(n_max.literal_value)
        memory = array_arguments(context, builder, signature, arguments)
        values, intervals, fractions, radial, sums = (memory[k] for k in (3, 4, 5, 7, 8))
        stride = index_constant((l_max.literal_value + 1) * powers * channels)
        for first, width in _chunks(channels):
            for group in _row_groups(l_max.literal_value, sums.element, width):
                totals = Accumulators(
                    sums,
                    [
                        (
                            builder.add(arguments[9], index_constant(row(l, m) * channels + first)),
                            width,
                        )
                        for l, ms in group
                        for m in ms
                    ],
                )
                with counted_loop(builder, arguments[6], 1) as neighbour:
                    interval = builder.zext(intervals.load_one(neighbour), INDEX)
                    chunk = index_constant(first * (l_max.literal_value + 1) * powers)
                    place = builder.add(builder.mul(interval, stride), chunk)
                    t = fractions.broadcast(neighbour, width)
                    which = 0
                    for l, ms in group:
                        terms = [
                            radial.load(
                                builder.add(place, index_constant((l * powers + power) * width)),
                                width,
                            )
                            for power in range(powers)
                        ]
                        value = terms.pop()
                        while terms:
                            value = value.times_plus(t, terms.pop())
                        for m in ms:
                            i = builder.add(neighbour, index_constant(row(l, m) * BLOCK))
                            totals.add_product(which, values.broadcast(i, width), value)
                            which += 1
                totals.write_back()
        return context.get_dummy_value()

    return signature, emit


@emitted
def add_products(
    _typing: Any,
    n_max: Any,
    l_max: Any,
    coefficients: Any,
    left: Any,
    right: Any,
    n_atoms: Any,
    stride: Any,
    products: Any,
    start: Any,
) -> Any:
    """Add the products of two densities' coefficients, summed over m and over several centres.

    See :func:`.scalar.add_products`.
    """
    signature = types.void(
        n_max, l_max, coefficients, left, right, n_atoms, stride, products, start
    )

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        n_channels = n_max.literal_value
        channels = padded_channels(n_channels)
        memory = array_arguments(context, builder, signature, arguments)
        source, sums = memory[2], memory[7]
        for l in range(l_max.literal_value + 1):
            for first, width in _chunks(channels):
                for ns in _tiles(n_channels, sums.element, width):
                    totals = Accumulators(
                        sums,
                        [
                            (
                                builder.add(
                                    arguments[8],
                                    index_constant((l * n_channels + n) * channels + first),
                                ),
                                width,
                            )
                            for n in ns
                        ],
                    )
                    with counted_loop(builder, arguments[5], 1) as atom:
                        offset = builder.mul(atom, arguments[6])
                        one = builder.add(arguments[3], offset)
                        other = builder.add(arguments[4], offset)
                        for m in range(2 * l + 1):
                            i = row(l, m) * channels
                            vector = source.load(
                                builder.add(other, index_constant(i + first)), width
                            )
                            for which, n in enumerate(ns):
                                factor = source.broadcast(
                                    builder.add(one, index_constant(i + n)), width
                                )
                                totals.add_product(which, factor, vector)
                    totals.write_back()
        return context.get_dummy_value()

    return signature, emit


def arranged(table: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Flat copy of a radial table in the order in which :func:`expand` reads it.

    In each interval, all polynomials of the first vector of channels come first, then those of the
    next vector. The copy starts at a cache line.
    """
    n_intervals, *_, channels = table.shape
    parts = [
        table[..., first : first + width].reshape(n_intervals, -1)
        for first, width in _chunks(channels)
    ]
    line = 64 // table.itemsize
    buffer = np.empty(table.size + line, table.dtype)
    start = -buffer.ctypes.data // table.itemsize % line
    aligned = buffer[start : start + table.size]
    aligned[:] = np.concatenate(parts, axis=1).ravel()
    return aligned


def _chunks(channels: int) -> list[tuple[int, int]]:
    """Start and width of each vector of radial channels."""
    whole = channels // 8 * 8
    return [(first, 8) for first in range(0, whole, 8)] + ([(whole, 4)] if channels > whole else [])


def _max_accumulators(element: ir.Type, width: int) -> int:
    """Number of accumulators of a width that occupy two thirds of the registers."""
    n_registers, size = register_budget()
    n_bytes = {"double": 8, "float": 4}[str(element)] * width
    return max(1, n_registers * 2 // 3 // max(1, n_bytes // size))


def _row_groups(l_max: int, element: ir.Type, width: int) -> list[list[tuple[int, range]]]:
    """Groups of rows, each as l and a range of m, whose accumulators fit into the registers."""
    n_accumulators = _max_accumulators(element, width)
    groups: list[list[tuple[int, range]]] = []
    n_free = 0
    for l in range(l_max + 1):
        for first in range(0, 2 * l + 1, n_accumulators):
            ms = range(first, min(first + n_accumulators, 2 * l + 1))
            if len(ms) > n_free:
                groups.append([])
                n_free = n_accumulators
            groups[-1].append((l, ms))
            n_free -= len(ms)
    return groups


def _tiles(n_max: int, element: ir.Type, width: int) -> list[range]:
    """Ranges of n whose accumulators fit into the registers."""
    n_accumulators = _max_accumulators(element, width)
    return [
        range(first, min(first + n_accumulators, n_max))
        for first in range(0, n_max, n_accumulators)
    ]
