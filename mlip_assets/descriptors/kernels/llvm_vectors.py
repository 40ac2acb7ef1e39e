"""Vector registers, memory and loops of the LLVM code that :mod:`.simd` emits.

A :class:`Vector` is a register of the code that is being built: its arithmetic emits instructions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types

INDEX = ir.IntType(64)
_INTERVAL = ir.IntType(32)


@dataclass(frozen=True)
class Vector:
    """Consecutive numbers in a vector register; arithmetic emits instructions."""

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
        """``self * factor + summand`` as one fused instruction, with one rounding."""
        return self._call("fma", factor, summand)

    def sqrt(self) -> Vector:
        """Square roots."""
        return self._call("sqrt")

    def truncated(self) -> ir.Value:
        """Integer parts, as 32-bit integers."""
        return self.builder.fptosi(self.value, ir.VectorType(_INTERVAL, self.value.type.count))

    def of_integers(self, integers: ir.Value) -> Vector:
        """Integers, converted to the type of this vector."""
        return Vector(self.builder, self.builder.sitofp(integers, self.value.type))

    def of_constant(self, number: float) -> Vector:
        """Vector of this type in which all elements are one number."""
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
    """Data of a one-dimensional NumPy array in the code that is built."""

    builder: ir.IRBuilder
    pointer: ir.Value
    element: ir.Type

    def load(self, index: ir.Value, width: int) -> Vector:
        """``width`` consecutive elements."""
        loaded = self.builder.load(self._pointer_to(index, width), align=self._alignment)
        return Vector(self.builder, loaded)

    def load_one(self, index: ir.Value) -> ir.Value:
        """One element."""
        return self.builder.load(self.builder.gep(self.pointer, [index]))

    def broadcast(self, index: ir.Value, width: int) -> Vector:
        """Vector of ``width`` copies of one element."""
        kind = ir.VectorType(self.element, width)
        return Vector(self.builder, splat(self.builder, self.load_one(index), kind))

    def store(self, index: ir.Value, value: ir.Value) -> None:
        """Write consecutive elements."""
        self.builder.store(value, self._pointer_to(index, value.type.count), align=self._alignment)

    @property
    def _alignment(self) -> int:
        return {"double": 8, "float": 4, "i32": 4}[str(self.element)]

    def _pointer_to(self, index: ir.Value, width: int) -> ir.Value:
        place = self.builder.gep(self.pointer, [index])
        return self.builder.bitcast(place, ir.VectorType(self.element, width).as_pointer())


class Accumulators:
    """Vectors that remain in registers during a loop."""

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
        """Write the sums to the places from which the accumulators were loaded."""
        for (place, _), slot in zip(self._places, self._slots, strict=True):
            self._memory.store(place, self._memory.builder.load(slot))


def register_budget() -> tuple[int, int]:
    """Number of vector registers of this processor, and their size in bytes."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 32, 64
    if features.get("avx2"):
        return 16, 32
    return (32 if features.get("neon") else 16), 16


@lru_cache(maxsize=1)
def vectors_are_supported() -> bool:
    """Whether this processor has fused multiply-add instructions for vectors."""
    features = binding.get_host_cpu_features()
    return bool((features.get("avx2") and features.get("fma")) or features.get("neon"))


def index_constant(number: int) -> ir.Constant:
    """Constant of the type of an index."""
    return ir.Constant(INDEX, number)


def splat(builder: ir.IRBuilder, number: ir.Value, kind: ir.VectorType) -> ir.Value:
    """Vector in which all elements are one number."""
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), number, index_constant(0))
    zeros = ir.Constant(ir.VectorType(_INTERVAL, kind.count), [0] * kind.count)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)


def array_arguments(
    context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any
) -> dict[int, Memory]:
    """The array arguments of a function, by their position."""
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
def counted_loop(builder: ir.IRBuilder, count: ir.Value, step: int) -> Iterator[ir.Value]:
    """Loop over ``range(0, count, step)``."""
    with cgutils.for_range_slice(
        builder, index_constant(0), count, index_constant(step), inc=True
    ) as (index, _):
        yield index
