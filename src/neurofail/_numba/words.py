"""Words: whole numbers of 16 bits, a vector of them as wide as a block of reals. They are lanes, too: `load`,
`store` and `spread` (lanes.py) take pointers to words as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from neurofail._numba.lanes import address, operation

MOST = 0x7FFF


def _on_words(emit_words: Callable[..., Any], doc: str) -> Any:
    """An operation on vectors of words."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_words(builder, *arguments)

    if emit_words.__code__.co_argcount == 3:

        def two(typing: Any, a: Any, b: Any) -> Any:
            return a(a, b), emit

        two.__doc__ = doc
        return operation(two)

    def one(typing: Any, a: Any) -> Any:
        return a(a), emit

    one.__doc__ = doc
    return operation(one)


def _call(builder: Any, name: str, a: Any, *others: Any) -> Any:
    """LLVM's function of that name."""
    signature = ir.FunctionType(a.type, [a.type, *(other.type for other in others)])
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.v{a.type.count}i{a.type.element.width}"
    )
    return builder.call(function, [a, *others])


def _above(builder: Any, a: Any, b: Any) -> Any:
    return builder.sext(builder.icmp_signed(">", a, b), a.type)


def _negative(builder: Any, where: Any) -> Any:
    return builder.icmp_signed("<", where, ir.Constant(where.type, [0] * where.type.count))


add = _on_words(lambda builder, a, b: _call(builder, "sadd.sat", a, b), "a + b, or the nearest word to it.")
minus = _on_words(lambda builder, a, b: builder.sub(a, b), "a - b; where that is no word, another.")
most = _on_words(lambda builder, a, b: _call(builder, "smax", a, b), "The larger of a and b.")
least = _on_words(lambda builder, a, b: _call(builder, "smin", a, b), "The smaller of a and b.")
size = _on_words(
    lambda builder, a: _call(builder, "abs", a, ir.Constant(ir.IntType(1), False)),
    "|a|; of the lowest word, that one itself.",
)
above = _on_words(_above, "-1 where a > b, else 0.")
both = _on_words(lambda builder, a, b: builder.and_(a, b), "The bits that a and b have.")


@operation
def select(typing: Any, where: Any, a: Any, b: Any) -> Any:
    """a where `where` is -1, b where it is 0."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        where, a, b = arguments
        return builder.select(_negative(builder, where), a, b)

    return a(where, a, b), emit


@operation
def bits_of(typing: Any, where: Any) -> Any:
    """The words that are -1, as bits."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (where,) = arguments
        bits = builder.bitcast(_negative(builder, where), ir.IntType(where.type.count))
        return builder.zext(bits, ir.IntType(64)) if where.type.count < 64 else bits

    return types.uint64(where), emit


@operation
def shorten(typing: Any, start: Any, offset: Any, reals: Any) -> Any:
    """Stores the whole parts of reals `offset` behind a pointer to words; all have to fit."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, offset, reals = arguments
        offset = context.cast(builder, offset, signature.args[1], types.intp)
        to = ir.VectorType(ir.IntType(16), reals.type.count)
        builder.store(builder.fptosi(reals, to), address(builder, start, offset, to), align=2)
        return context.get_dummy_value()

    return types.void(start, offset, reals), emit
