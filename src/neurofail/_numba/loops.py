"""The two loops that take nearly all the time, written out in LLVM's terms: activations, matrix products."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from neurofail._numba.activations import ACTIVATIONS
from neurofail._numba.lanes import HEIGHT, Lanes, Value, everywhere, fetch, inner, operation, put, vector


def _integers(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """The arguments, with integers as wide as an index."""
    return [
        context.cast(builder, value, kind, types.intp) if isinstance(kind, types.Integer) else value
        for value, kind in zip(arguments, signature.args, strict=True)
    ]


@operation
def _apply(
    typing: Any,
    code: Any,
    a: Any,
    b: Any,
    neurons: Any,
    base: Any,
    column: Any,
    column_step: Any,
    deviation: Any,
    golden: Any,
    golden_step: Any,
    out: Any,
) -> Any:
    """See `apply`: one loop for each activation, one branch to choose it."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arguments = _integers(context, builder, signature, arguments)
        code, a, b, neurons, base, column, column_step, deviation, golden, golden_step, out = arguments
        kind = signature.args[4]
        lanes = Lanes(kind.dtype)
        parameters = [Value(builder, everywhere(context, builder, p, types.float64, lanes)) for p in (a, b)]
        zero = context.get_constant(types.intp, 0)
        rows = context.get_constant(types.intp, vector(kind.dtype).count)
        vector_in = fetch(builder, deviation, zero, kind)
        done = builder.append_basic_block("done")
        switch = builder.switch(code, done)
        for number, phi in enumerate(ACTIVATIONS):
            block = builder.append_basic_block(f"phi{number}")
            switch.add_case(ir.Constant(code.type, number), block)
            builder.position_at_end(block)
            with cgutils.for_range(builder, neurons) as loop:
                j = loop.index
                at = builder.mul(j, rows)
                weight = builder.load(builder.gep(column, [builder.mul(j, column_step)]))
                w = Value(builder, everywhere(context, builder, weight, kind.dtype, lanes))
                x = vector_in.fma(w, fetch(builder, base, at, kind))
                y = phi(x, *parameters) - fetch(builder, golden, builder.mul(j, golden_step), kind)
                put(builder, y, out, at, kind)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    given = (code, a, b, neurons, base, column, column_step, deviation, golden, golden_step, out)
    return types.void(*given), emit


@inner
def apply(
    code: Any,
    a: Any,
    b: Any,
    neurons: Any,
    base: Any,
    column: Any,
    column_step: Any,
    deviation: Any,
    golden: Any,
    golden_step: Any,
    out: Any,
) -> Any:
    """out = phi(base + column deviation) - golden, for one block; a step of 0 stays on the first entry."""
    _apply(code, a, b, neurons, base, column, column_step, deviation, golden, golden_step, out)


@operation
def _panel(typing: Any, rows: Any, depth: Any, w: Any, d: Any, add: Any, add_step: Any, out: Any) -> Any:
    """See `panel`: one loop for each number of rows, whose sums are kept in registers."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, depth, w, d, add, add_step, out = _integers(context, builder, signature, arguments)
        kind = signature.args[2]
        lanes = Lanes(kind.dtype)
        to = vector(kind.dtype)
        width = context.get_constant(types.intp, to.count)
        done = builder.append_basic_block("done")
        switch = builder.switch(rows, done)
        for count in range(1, HEIGHT + 1):
            block = builder.append_basic_block(f"rows{count}")
            switch.add_case(ir.Constant(rows.type, count), block)
            builder.position_at_end(block)
            sums = [
                cgutils.alloca_once_value(builder, ir.Constant(to, [0.0] * to.count)) for _ in range(count)
            ]
            for total in sums:
                builder.store(ir.Constant(to, [0.0] * to.count), total)
            with cgutils.for_range(builder, depth) as loop:
                k = loop.index
                source = fetch(builder, d, builder.mul(k, width), kind)
                first = builder.mul(k, context.get_constant(types.intp, count))
                for i, total in enumerate(sums):
                    at = builder.add(first, context.get_constant(types.intp, i))
                    weight = everywhere(
                        context, builder, builder.load(builder.gep(w, [at])), kind.dtype, lanes
                    )
                    builder.store(
                        Value(builder, weight).fma(source, Value(builder, builder.load(total))).value, total
                    )
            for i, total in enumerate(sums):
                i_ = context.get_constant(types.intp, i)
                plus = fetch(builder, add, builder.mul(i_, add_step), kind)
                put(builder, Value(builder, builder.load(total)) + plus, out, builder.mul(i_, width), kind)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(rows, depth, w, d, add, add_step, out), emit


@inner
def panel(rows: Any, depth: Any, w: Any, d: Any, add: Any, add_step: Any, out: Any) -> Any:
    """out = add + w d: w (depth, rows), d (depth, block), out (rows, block); up to HEIGHT rows."""
    _panel(rows, depth, w, d, add, add_step, out)
