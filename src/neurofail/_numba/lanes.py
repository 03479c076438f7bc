"""Lanes: one real for each input of a block, as a Numba type, and what can be done with it.

A value of this type is an LLVM vector, so every operation below is vector code by construction, and what is
kept in a variable is kept in registers. LLVM splits it into as many registers as this machine needs. Memory
is reached through pointers, which cost nothing to pass on and are not reference-counted.

A lane never meets another lane but in `largest`, so the width changes no result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_jitable, register_model

# AVX-512 has twice the registers, each twice as wide, and its cache of two threads' blocks is the same.
WIDE = "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2]
_BYTES = 128 if WIDE else 64
# Rows of a matrix product that are held in registers.
HEIGHT = 14 if WIDE else 6
_LINE = 64
# What LLVM calls reals in the names of its functions.
_NAMES = {ir.FloatType: "f32", ir.DoubleType: "f64"}


def aligned(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros that start on a cache line."""
    size = math.prod(shape) if isinstance(shape, tuple) else shape
    raw = np.zeros(size * np.dtype(dtype).itemsize + _LINE, np.uint8)
    shift = -raw.ctypes.data % _LINE
    return raw[shift : len(raw) - _LINE + shift].view(dtype).reshape(shape)


def block_size(itemsize: int) -> int:
    """The lanes of a block of reals of so many bytes."""
    return _BYTES // itemsize


class Lanes(types.Type):  # type: ignore[misc]  # Numba is Any to mypy
    """One real of type `dtype` for each lane of a block."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


def vector(dtype: Any) -> ir.VectorType:
    """The LLVM type of lanes of a Numba type: of reals, or of words (words.py)."""
    if isinstance(dtype, types.Integer):
        element = ir.IntType(dtype.bitwidth)
    else:
        element = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(element, block_size(dtype.bitwidth // 8))


@register_model(Lanes)
class _Model(models.PrimitiveModel):  # type: ignore[misc]  # Numba is Any to mypy
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, vector(kind.dtype))


class Value:
    """A vector while code for it is being written: ordinary arithmetic, with numbers taken for all lanes."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.value = value
        self.type = value.type
        self.single = isinstance(value.type.element, ir.FloatType)
        self._integers = ir.VectorType(ir.IntType(32 if self.single else 64), value.type.count)

    def of(self, number: Value | float) -> Any:
        """The vector of a number, or of another value."""
        if isinstance(number, Value):
            return number.value
        return ir.Constant(self.type, [number] * self.type.count)

    def _new(self, value: Any) -> Value:
        return Value(self.builder, value)

    def _call(self, name: str, *arguments: Any) -> Any:
        kind = arguments[0].type
        letter = "i" if isinstance(kind.element, ir.IntType) else "f"
        bits = 32 if self.single else 64
        signature = ir.FunctionType(kind, [kind] * len(arguments))
        function = cgutils.get_or_insert_function(
            self.builder.module, signature, f"llvm.{name}.v{kind.count}{letter}{bits}"
        )
        return self.builder.call(function, arguments)

    def __add__(self, other: Value | float) -> Value:
        return self._new(self.builder.fadd(self.value, self.of(other)))

    def __sub__(self, other: Value | float) -> Value:
        return self._new(self.builder.fsub(self.value, self.of(other)))

    def __mul__(self, other: Value | float) -> Value:
        return self._new(self.builder.fmul(self.value, self.of(other)))

    def __truediv__(self, other: Value | float) -> Value:
        return self._new(self.builder.fdiv(self.value, self.of(other)))

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Value:
        return self._new(self.builder.fneg(self.value))

    def __abs__(self) -> Value:
        return self._new(self._call("fabs", self.value))

    def fma(self, by: Value | float, plus: Value | float) -> Value:
        """self * by + plus; fused where the machine does so in one step, and only there."""
        return self._new(self._call("fmuladd", self.value, self.of(by), self.of(plus)))

    def compare(self, how: str, other: Value | float) -> Any:
        """Where `self how other`; nowhere for NaN."""
        return self.builder.fcmp_ordered(how, self.value, self.of(other))

    def choose(self, where: Any, other: Value) -> Value:
        """self there, the other elsewhere."""
        return self._new(self.builder.select(where, self.value, other.value))

    def at_least(self, low: float) -> Value:
        """The larger of the two; NaN stays NaN."""
        return self._new(self.of(low)).choose(self.compare("<", low), self)

    def at_most(self, high: float) -> Value:
        """The smaller of the two; NaN stays NaN."""
        return self._new(self.of(high)).choose(self.compare(">", high), self)

    def integers(self) -> Any:
        """The bit patterns."""
        return self.builder.bitcast(self.value, self._integers)

    def reals(self, patterns: Any) -> Value:
        """The reals that have these bit patterns."""
        return self._new(self.builder.bitcast(patterns, self.type))

    def shifted(self, bits: int) -> Value:
        """The bit patterns, moved up."""
        by = ir.Constant(self._integers, [bits] * self.type.count)
        return self.reals(self.builder.shl(self.integers(), by))

    def larger(self, other: Value) -> Value:
        """The larger of self (not negative) and |other|.

        Read as integers, sign-free bit patterns order as finite < infinity < NaN, so a NaN stays: a floating
        maximum would lose it.
        """
        return self.reals(self._call("smax", self.integers(), abs(other).integers()))


def everywhere(context: Any, builder: Any, value: Any, kind: Any, lanes: Lanes) -> Any:
    """A number in every lane, or lanes as they are."""
    if isinstance(kind, Lanes):
        return value
    real = context.cast(builder, value, kind, lanes.dtype)
    to = vector(lanes.dtype)
    one = builder.insert_element(ir.Constant(to, ir.Undefined), real, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), to.count), [0] * to.count)
    return builder.shuffle_vector(one, one, mask)


def address(builder: Any, pointer: Any, at: Any, to: Any) -> Any:
    """Where the lanes are that start `at` reals behind the pointer."""
    return builder.bitcast(builder.gep(pointer, [at]), to.as_pointer())


def fetch(builder: Any, pointer: Any, at: Any, kind: Any) -> Value:
    """The lanes there. Memory is aligned, but only to one real is it relied upon."""
    to = vector(kind.dtype)
    return Value(builder, builder.load(address(builder, pointer, at, to), align=kind.dtype.bitwidth // 8))


def put(builder: Any, value: Value, pointer: Any, at: Any, kind: Any) -> None:
    """Stores lanes."""
    builder.store(value.value, address(builder, pointer, at, value.type), align=kind.dtype.bitwidth // 8)


def operation(function: Any) -> Any:
    """Makes an operation of a function that gives its signature and what emits its code."""
    return intrinsic(function)


@operation
def at(typing: Any, start: Any, offset: Any) -> Any:
    """The element `offset` behind a pointer."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, offset = arguments
        return builder.gep(start, [context.cast(builder, offset, signature.args[1], types.intp)])

    return start(start, offset), emit


@operation
def block(typing: Any, start: Any) -> Any:
    """The lanes of a block of such reals, a constant."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, block_size(start.dtype.bitwidth // 8))

    return types.intp(start), emit


@operation
def load(typing: Any, start: Any, offset: Any) -> Any:
    """The lanes that start `offset` reals behind a pointer."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, offset = arguments
        offset = context.cast(builder, offset, signature.args[1], types.intp)
        return fetch(builder, start, offset, signature.args[0]).value

    return Lanes(start.dtype)(start, offset), emit


@operation
def store(typing: Any, start: Any, offset: Any, value: Any) -> Any:
    """Stores lanes, or a number in every lane."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, offset, value = arguments
        kind = signature.args[0]
        lanes = everywhere(context, builder, value, signature.args[2], Lanes(kind.dtype))
        offset = context.cast(builder, offset, signature.args[1], types.intp)
        put(builder, Value(builder, lanes), start, offset, kind)
        return context.get_dummy_value()

    return types.void(start, offset, value), emit


@operation
def spread(typing: Any, like: Any, number: Any) -> Any:
    """A number in every lane, in the reals of a pointer."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return everywhere(context, builder, arguments[1], signature.args[1], signature.return_type)

    return Lanes(like.dtype)(like, number), emit


def _operation(emit_values: Callable[..., Value], doc: str) -> Any:
    """An operation on lanes; numbers among its arguments, but not the last, are taken for all lanes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.return_type
        values = [
            Value(builder, everywhere(context, builder, value, given, kind))
            for value, given in zip(arguments, signature.args, strict=True)
        ]
        return emit_values(*values).value

    if emit_values.__code__.co_argcount == 2:

        def two(typing: Any, a: Any, b: Any) -> Any:
            return b(a, b), emit

        two.__doc__ = doc
        return operation(two)

    def three(typing: Any, a: Any, b: Any, c: Any) -> Any:
        return c(a, b, c), emit

    three.__doc__ = doc
    return operation(three)


minus = _operation(lambda a, b: a - b, "a - b")
plus = _operation(lambda a, b: a + b, "a + b")
fma = _operation(lambda a, b, c: a.fma(b, c), "a b + c")
higher = _operation(lambda a, b: a.choose(a.compare(">", b), b), "The larger of a and b; b if one is NaN.")
lower = _operation(lambda a, b: a.choose(a.compare("<", b), b), "The smaller of a and b; b if one is NaN.")
larger = _operation(lambda a, b: a.larger(b), "The larger of a (not negative) and |b|; NaN stays.")


def _comparison(how: str) -> Any:
    def compare(typing: Any, a: Any, b: Any) -> Any:
        """The lanes where `a how b`, as bits; nowhere for NaN."""

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = signature.args[0]
            other = everywhere(context, builder, arguments[1], signature.args[1], kind)
            where = Value(builder, arguments[0]).compare(how, Value(builder, other))
            bits = builder.bitcast(where, ir.IntType(where.type.count))
            return builder.zext(bits, ir.IntType(64))

        return types.uint64(a, b), emit

    return operation(compare)


less = _comparison("<")
at_most = _comparison("<=")
greater = _comparison(">")
equal = _comparison("==")


@operation
def parted(typing: Any, a: Any, b: Any) -> Any:
    """The lanes where a and b have different signs, as bits; -0 has one."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = (Value(builder, value).integers() for value in arguments)
        where = builder.icmp_signed("<", builder.xor(a, b), ir.Constant(a.type, [0] * a.type.count))
        return builder.zext(builder.bitcast(where, ir.IntType(a.type.count)), ir.IntType(64))

    return types.uint64(a, b), emit


@operation
def choose(typing: Any, bits: Any, a: Any, b: Any) -> Any:
    """a in the lanes whose bit is set, else b."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, a, b = arguments
        count = a.type.count
        where = builder.bitcast(builder.trunc(bits, ir.IntType(count)), ir.VectorType(ir.IntType(1), count))
        return builder.select(where, a, b)

    return a(bits, a, b), emit


@operation
def ones(typing: Any, bits: Any) -> Any:
    """How many bits are set."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(bits), emit


@operation
def first_one(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), True))

    return types.int64(bits), emit


@operation
def largest(typing: Any, lanes: Any) -> Any:
    """The largest of all lanes, none of them negative; NaN if one is."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = Value(builder, arguments[0])
        return builder.bitcast(_reduced("smax", builder, value.integers()), value.type.element)

    return lanes.dtype(lanes), emit


@operation
def highest(typing: Any, lanes: Any) -> Any:
    """The highest of all lanes; what NaN counts as is left open."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _reduced("fmax", builder, arguments[0], "nnan")

    return lanes.dtype(lanes), emit


def _reduced(how: str, builder: Any, lanes: Any, *flags: str) -> Any:
    """All lanes reduced to one."""
    element = lanes.type.element
    name = f"i{element.width}" if isinstance(element, ir.IntType) else _NAMES[type(element)]
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(element, [lanes.type]),
        f"llvm.vector.reduce.{how}.v{lanes.type.count}{name}",
    )
    return builder.call(function, [lanes], fastmath=flags)


@operation
def total(typing: Any, lanes: Any) -> Any:
    """The sum of all lanes, in an order that is left open."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = Value(builder, arguments[0])
        element = value.type.element
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(element, [element, value.type]),
            f"llvm.vector.reduce.fadd.v{value.type.count}{_NAMES[type(element)]}",
        )
        return builder.call(function, [ir.Constant(element, 0.0), value.value], fastmath=("reassoc",))

    return lanes.dtype(lanes), emit


@operation
def fma_one(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c of single numbers of one type, fused where `fma` is."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fmuladd.{_NAMES[type(kind)]}"
        )
        return builder.call(function, arguments)

    return c(a, b, c), emit


def gather(to: Any) -> Any:
    """A function that makes one named tuple `to` of the fields of several, with pointers for arrays."""

    def gathered(typing: Any, parts: Any) -> Any:
        fields = [field for part in parts for field in part]
        kinds = [types.CPointer(k.dtype) if isinstance(k, types.Array) else k for k in fields]

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = [
                value
                for part, kind in zip(cgutils.unpack_tuple(builder, arguments[0]), parts, strict=True)
                for value in cgutils.unpack_tuple(builder, part, len(kind))
            ]
            for i, (value, kind) in enumerate(zip(values, fields, strict=True)):
                if isinstance(kind, types.Array):
                    values[i] = context.make_array(kind)(context, builder, value).data
            return context.make_tuple(builder, signature.return_type, values)

        return types.NamedTuple(kinds, to)(parts), emit

    return operation(gathered)


def inner(function: Any) -> Any:
    """Makes a function one that compiled functions can call; only they do.

    It is compiled once for each set of argument types, where `njit` would tell constants apart too.
    """
    return register_jitable(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def inlined(function: Any) -> Any:
    """As `inner`, and made part of what calls it: a call hands over a namedtuple's fields one by one."""
    return register_jitable(no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)(function)
