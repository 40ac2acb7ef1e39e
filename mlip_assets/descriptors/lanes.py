"""The three hot loops of SOAP with explicit vector registers, emitted as LLVM code for Numba.

LLVM vectorises the same loops written in plain Python badly: it does not keep the accumulators in
registers. Here every accumulator is a vector of radial channels n by construction. Each function
below is a Numba intrinsic: it is called from compiled code like any other function, and while
that code is built it emits its loop, unrolled over l and m, which must therefore be constants.

Nothing is checked here, neither bounds nor values: :mod:`mlip_assets.descriptors.kernel` makes
sure that neighbours fit their buffers and that none of them is at r = 0.
:mod:`mlip_assets.descriptors.loops` holds the same three functions as plain loops.
"""

# ruff: noqa: E741 - l is the angular momentum

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numpy.typing import NDArray

from mlip_assets.common.compilation import emitted
from mlip_assets.descriptors.layout import (
    BLOCK,
    monic_recursion,
    padded_channels,
    row,
)

_INDEX = ir.IntType(64)
_INTERVAL = ir.IntType(32)

#: Neighbours whose harmonics are computed at a time; divides ``BLOCK``.
_LANES = 8


@dataclass(frozen=True)
class Vector:
    """Numbers side by side in a register of the code being built; arithmetic emits instructions."""

    builder: ir.IRBuilder
    value: ir.Value

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fmul(self.value, other.value))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fdiv(self.value, other.value))

    def times_plus(self, factor: Vector, summand: Vector) -> Vector:
        """``self * factor + summand`` in one instruction with one rounding."""
        return self._call("fma", factor, summand)

    def sqrt(self) -> Vector:
        """Square roots."""
        return self._call("sqrt")

    def truncated(self) -> ir.Value:
        """Whole parts, as 32-bit integers."""
        return self.builder.fptosi(self.value, ir.VectorType(_INTERVAL, self.value.type.count))

    def of_integers(self, integers: ir.Value) -> Vector:
        """Numbers of this vector's type from integers."""
        return Vector(self.builder, self.builder.sitofp(integers, self.value.type))

    def of_constant(self, number: float) -> Vector:
        """A vector of this type that repeats one number."""
        kind = self.value.type
        return Vector(
            self.builder, ir.Constant(kind, [ir.Constant(kind.element, number)] * kind.count)
        )

    def _call(self, name: str, *others: Vector) -> Vector:
        kind = self.value.type
        suffix = "f64" if isinstance(kind.element, ir.DoubleType) else "f32"
        arguments = [self.value, *(other.value for other in others)]
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(kind, [kind] * len(arguments)),
            f"llvm.{name}.v{kind.count}{suffix}",
        )
        return Vector(self.builder, self.builder.call(function, arguments))


@dataclass(frozen=True)
class Memory:
    """The data of a one-dimensional NumPy array in the code being built."""

    builder: ir.IRBuilder
    pointer: ir.Value
    element: ir.Type

    def load(self, index: ir.Value, width: int) -> Vector:
        """``width`` consecutive elements."""
        loaded = self.builder.load(self._at(index, width), align=self._alignment)
        return Vector(self.builder, loaded)

    def load_one(self, index: ir.Value) -> ir.Value:
        """One element."""
        return self.builder.load(self.builder.gep(self.pointer, [index]))

    def broadcast(self, index: ir.Value, width: int) -> Vector:
        """One element, ``width`` times."""
        kind = ir.VectorType(self.element, width)
        return Vector(self.builder, _splat(self.builder, self.load_one(index), kind))

    def store(self, index: ir.Value, value: ir.Value) -> None:
        """Consecutive elements."""
        self.builder.store(value, self._at(index, value.type.count), align=self._alignment)

    @property
    def _alignment(self) -> int:
        return {"double": 8, "float": 4, "i32": 4}[str(self.element)]

    def _at(self, index: ir.Value, width: int) -> ir.Value:
        place = self.builder.gep(self.pointer, [index])
        return self.builder.bitcast(place, ir.VectorType(self.element, width).as_pointer())


class Accumulators:
    """Vectors that are kept in registers across a loop."""

    def __init__(self, memory: Memory, places: Sequence[tuple[ir.Value, int]]) -> None:
        self._memory, self._places, self._slots = memory, places, []
        for place, width in places:
            start = memory.load(place, width).value
            with memory.builder.goto_entry_block():
                slot = memory.builder.alloca(start.type)
            memory.builder.store(start, slot)
            self._slots.append(slot)

    def add_product(self, which: int, left: Vector, right: Vector) -> None:
        """``accumulator += left * right``."""
        builder, slot = self._memory.builder, self._slots[which]
        summed = left.times_plus(right, Vector(builder, builder.load(slot)))
        builder.store(summed.value, slot)

    def write_back(self) -> None:
        """Put the sums where the accumulators started from."""
        for (place, _), slot in zip(self._places, self._slots, strict=True):
            self._memory.store(place, self._memory.builder.load(slot))


def register_budget() -> tuple[int, int]:
    """How many vector registers this processor has, and their size in bytes."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 32, 64
    if features.get("avx2"):
        return 16, 32
    return (32 if features.get("neon") else 16), 16


@lru_cache(maxsize=1)
def vectors_are_supported() -> bool:
    """Whether this processor multiplies and adds vectors in one instruction."""
    features = binding.get_host_cpu_features()
    return bool((features.get("avx2") and features.get("fma")) or features.get("neon"))


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
    """Unscaled harmonics of neighbours, and where each lies in the radial table.

    See :func:`mlip_assets.descriptors.loops.harmonics`. Neighbours are taken eight at a time, so
    the buffers are read and written up to the next multiple of eight.
    """
    signature = types.void(
        l_max, x, y, z, r2, n_neighbours, inverse_spacing, values, intervals, fractions
    )

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        highest = l_max.literal_value
        memory = _memories(context, builder, signature, arguments)
        with _counted(builder, arguments[5], _LANES) as first:
            square = memory[4].load(first, _LANES)
            distance = square.sqrt()
            inverse = square.of_constant(1.0) / distance
            east, north, up = (memory[k].load(first, _LANES) * inverse for k in (1, 2, 3))
            spacing = Vector(builder, _splat(builder, arguments[6], square.value.type))
            place = distance * spacing
            interval = place.truncated()
            memory[8].store(first, interval)
            memory[9].store(first, (place - place.of_integers(interval)).value)

            def put(l: int, m: int, value: Vector) -> None:
                memory[7].store(builder.add(first, _index(row(l, m) * BLOCK)), value.value)

            cosine, sine = square.of_constant(1.0), square.of_constant(0.0)
            for m in range(highest + 1):
                if m:
                    cosine, sine = (
                        east * cosine - north * sine,
                        north * cosine + east * sine,
                    )
                below, legendre = square.of_constant(0.0), square.of_constant(1.0)
                for l in range(m, highest + 1):
                    if l > m:
                        above = up * legendre
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

    See :func:`mlip_assets.descriptors.loops.expand`; but the table is :func:`arranged`.
    """
    signature = types.void(
        n_max, l_max, degree, values, intervals, fractions, n_neighbours, table, coefficients, start
    )

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        powers = degree.literal_value + 1
        channels = padded_channels(n_max.literal_value)
        memory = _memories(context, builder, signature, arguments)
        values, intervals, fractions, radial, sums = (memory[k] for k in (3, 4, 5, 7, 8))
        stride = _index((l_max.literal_value + 1) * powers * channels)
        for first, width in _chunks(channels):
            for group in _groups_in_registers(l_max.literal_value, sums.element, width):
                totals = Accumulators(
                    sums,
                    [
                        (builder.add(arguments[9], _index(row(l, m) * channels + first)), width)
                        for l, some in group
                        for m in some
                    ],
                )
                with _counted(builder, arguments[6], 1) as neighbour:
                    interval = builder.zext(intervals.load_one(neighbour), _INDEX)
                    chunk = _index(first * (l_max.literal_value + 1) * powers)
                    place = builder.add(builder.mul(interval, stride), chunk)
                    t = fractions.broadcast(neighbour, width)
                    which = 0
                    for l, some in group:
                        terms = [
                            radial.load(
                                builder.add(place, _index((l * powers + power) * width)), width
                            )
                            for power in range(powers)
                        ]
                        value = terms.pop()
                        while terms:
                            value = value.times_plus(t, terms.pop())
                        for m in some:
                            at = builder.add(neighbour, _index(row(l, m) * BLOCK))
                            totals.add_product(which, values.broadcast(at, width), value)
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
    """Add the products over m of two species' coefficients, summed over several centres.

    See :func:`mlip_assets.descriptors.loops.add_products`.
    """
    signature = types.void(
        n_max, l_max, coefficients, left, right, n_atoms, stride, products, start
    )

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        n_channels = n_max.literal_value
        channels = padded_channels(n_channels)
        memory = _memories(context, builder, signature, arguments)
        source, sums = memory[2], memory[7]
        for l in range(l_max.literal_value + 1):
            for first, width in _chunks(channels):
                for some in _tiles(n_channels, sums.element, width):
                    totals = Accumulators(
                        sums,
                        [
                            (
                                builder.add(
                                    arguments[8],
                                    _index((l * n_channels + n) * channels + first),
                                ),
                                width,
                            )
                            for n in some
                        ],
                    )
                    with _counted(builder, arguments[5], 1) as atom:
                        offset = builder.mul(atom, arguments[6])
                        one = builder.add(arguments[3], offset)
                        other = builder.add(arguments[4], offset)
                        for m in range(2 * l + 1):
                            at = row(l, m) * channels
                            vector = source.load(builder.add(other, _index(at + first)), width)
                            for which, n in enumerate(some):
                                factor = source.broadcast(builder.add(one, _index(at + n)), width)
                                totals.add_product(which, factor, vector)
                    totals.write_back()
        return context.get_dummy_value()

    return signature, emit


def arranged(table: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Flat copy of a radial table that lies as :func:`expand` reads it, at the start of cache lines.

    In each interval come first all polynomials of the first vector of channels, then of the next.
    """
    n_intervals, *_, channels = table.shape
    parts = [
        table[..., first : first + width].reshape(n_intervals, -1)
        for first, width in _chunks(channels)
    ]
    line = 64 // table.itemsize
    room = np.empty(table.size + line, table.dtype)
    start = -room.ctypes.data // table.itemsize % line
    aligned = room[start : start + table.size]
    aligned[:] = np.concatenate(parts, axis=1).ravel()
    return aligned


def _chunks(channels: int) -> list[tuple[int, int]]:
    """Start and width of the vectors that hold so many radial channels."""
    whole = channels // 8 * 8
    return [(first, 8) for first in range(0, whole, 8)] + ([(whole, 4)] if channels > whole else [])


def _vectors_at_once(element: ir.Type, width: int) -> int:
    """Accumulators of a width that leave a third of the registers to everything else."""
    registers, size = register_budget()
    bits = {"double": 8, "float": 4}[str(element)] * width
    return max(1, registers * 2 // 3 // max(1, bits // size))


def _groups_in_registers(l_max: int, element: ir.Type, width: int) -> list[list[tuple[int, range]]]:
    """Rows, as l and some m, whose accumulators fit the registers together."""
    room = _vectors_at_once(element, width)
    groups: list[list[tuple[int, range]]] = []
    left = 0
    for l in range(l_max + 1):
        for first in range(0, 2 * l + 1, room):
            some = range(first, min(first + room, 2 * l + 1))
            if len(some) > left:
                groups.append([])
                left = room
            groups[-1].append((l, some))
            left -= len(some)
    return groups


def _tiles(n_max: int, element: ir.Type, width: int) -> list[range]:
    room = _vectors_at_once(element, width)
    return [range(first, min(first + room, n_max)) for first in range(0, n_max, room)]


def _index(number: int) -> ir.Constant:
    return ir.Constant(_INDEX, number)


def _splat(builder: ir.IRBuilder, number: ir.Value, kind: ir.VectorType) -> ir.Value:
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _index(0))
    zeros = ir.Constant(ir.VectorType(_INTERVAL, kind.count), [0] * kind.count)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)


def _memories(
    context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any
) -> dict[int, Memory]:
    """The array arguments by their position."""
    return {
        position: Memory(
            builder,
            context.make_array(kind)(context, builder, argument).data,
            context.get_data_type(kind.dtype),
        )
        for position, (kind, argument) in enumerate(zip(signature.args, arguments, strict=True))
        if isinstance(kind, types.Array)
    }


@contextmanager
def _counted(builder: ir.IRBuilder, count: ir.Value, step: int) -> Iterator[ir.Value]:
    """A loop from 0 to below ``count``."""
    with cgutils.for_range_slice(builder, _index(0), count, _index(step), inc=True) as (index, _):
        yield index
