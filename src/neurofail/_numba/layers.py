"""From layer to layer in the Numba kernel: rank-f updates, failing synapses, dense layers.

The functions are those of csrc/kernel_body.inc, whose comments say why they are as they are.
"""

from __future__ import annotations

from typing import Any

from neurofail._numba.lanes import at, block, fma, inner, load, plus, spread, store
from neurofail._numba.loops import apply, panel
from neurofail._numba.work import (
    BLOCKS,
    CHAIN,
    ENTRIES,
    ROW,
    departure,
    deviation_at,
    golden_at,
    updated_at,
    value_of,
    vector_at,
)

# The end of an entry that later configurations cannot share.
_UNSHARED = 1 << 31


@inner
def product(
    work: Any,
    layer: int,
    count: int,
    d: Any,
    d_stride: int,
    add: Any,
    add_stride: int,
    add_step: int,
    out: Any,
) -> None:
    """out = add + W d for `count` blocks; a panel stays in the first-level cache while the blocks pass."""
    lanes = block(d)
    depth, neurons, height = work.neurons[layer - 1], work.neurons[layer], work.height[layer]
    for top in range(0, neurons, height):
        rows = min(neurons - top, height)
        w = at(work.weights, work.panels[layer] + top * depth)
        for b in range(count):
            panel(
                rows,
                depth,
                w,
                at(d, b * d_stride),
                at(add, b * add_stride + top * add_step),
                add_step,
                at(out, (b * neurons + top) * lanes),
            )


@inner
def update(
    work: Any, layer: int, neurons: int, first: int, last: int, base: Any, vector: Any, out: Any
) -> None:
    """out = base + the columns of entries first .. last - 1 times their deviations, in this order."""
    lanes = block(base)
    stride = work.late_tile * lanes
    weights = at(work.weights, work.columns[layer])
    while True:
        count = last - first
        if count >= 4:
            count = 4
            c0 = at(weights, work.entry[first] * neurons)
            c1 = at(weights, work.entry[first + 1] * neurons)
            c2 = at(weights, work.entry[first + 2] * neurons)
            c3 = at(weights, work.entry[first + 3] * neurons)
            d0, d1 = load(vector, 0), load(vector, stride)
            d2, d3 = load(vector, 2 * stride), load(vector, 3 * stride)
            for j in range(neurons):
                s = fma(c1[j], d1, fma(c0[j], d0, load(base, j * lanes)))
                store(out, j * lanes, fma(c3[j], d3, fma(c2[j], d2, s)))
        elif count > 0:
            count = 1
            c0 = at(weights, work.entry[first] * neurons)
            d0 = load(vector, 0)
            for j in range(neurons):
                store(out, j * lanes, fma(c0[j], d0, load(base, j * lanes)))
        else:
            for j in range(neurons):
                store(out, j * lanes, load(base, j * lanes))
        first += count
        base = out
        vector = at(vector, count * stride)
        if first >= last:
            break


@inner
def inject(
    work: Any, layer: int, first: int, last: int, entries: int, dense: bool, b: int, only: int, s: Any
) -> None:
    """Failing synapses: rows first .. last - 1 act on the pre-activations s (neurons, lanes) of the layer;
    with `only` not negative, on that neuron's alone, which is then all that s holds.
    """
    lanes = block(s)
    golden = golden_at(work, b)
    for slot in range(first, last):
        row = work.rows[work.now[ROW] + slot]
        for o in range(work.first[row], work.first[row + 1]):
            neuron, source = work.neuron[o], work.source[o]
            if only >= 0 and neuron != only:
                continue
            y = load(golden, work.y[layer - 1] + source * lanes)
            if dense:
                y = plus(y, load(deviation_at(work, layer - 1, b), source * lanes))
            for t in range(entries):
                if work.entry[t] == source:
                    y = plus(y, load(vector_at(work, layer - 1, t, b), 0))
            to = 0 if only >= 0 else neuron * lanes
            store(s, to, plus(value_of(work, slot, o), fma(work.weight[o], y, load(s, to))))


@inner
def enlist(work: Any, neuron: int) -> Any:
    """The entry of a neuron, a new one if it has none."""
    entries = work.now[ENTRIES]
    for t in range(entries):
        if work.entry[t] == neuron:
            return t
    work.entry[entries] = neuron
    work.now[ENTRIES] = entries + 1
    return entries


@inner
def collect(work: Any, first: int, own: int, last: int, dense: bool) -> None:
    """Lists the neurons of a layer that deviate because of rows first .. last - 1 (those before `own` act on
    pre-activations, and are left out where the whole layer deviates anyway). An entry's `end` tells later
    configurations which rows made it; where rows do not come neuron by neuron, nothing is to be shared.
    """
    mixed = not dense and first < own < last
    work.now[ENTRIES] = 0
    for slot in range(own if dense else first, last):
        row = work.rows[work.now[ROW] + slot]
        mixed |= work.first[row + 1] - work.first[row] > 1
        for o in range(work.first[row], work.first[row + 1]):
            work.end[enlist(work, work.neuron[o])] = slot + 1
    if mixed:
        for t in range(work.now[ENTRIES]):
            work.end[t] = _UNSHARED


@inner
def fill(work: Any, layer: int, known: int, first: int, own: int, last: int, dense: bool) -> None:
    """The deviations of entries `known` and up of the layer, for the whole tile."""
    lanes = block(work.room)
    for t in range(known, work.now[ENTRIES]):
        neuron = work.entry[t]
        for b in range(work.now[BLOCKS]):
            golden = golden_at(work, b)
            vector = vector_at(work, layer, t, b)
            y = at(golden, work.y[layer] + neuron * lanes)
            before = vector
            if dense:
                before = at(deviation_at(work, layer, b), neuron * lanes)
            store(vector, 0, 0.0)
            if not dense and own > first:
                s = at(work.room, work.scratch[layer])
                store(s, 0, load(golden, work.s[layer] + neuron * lanes))
                inject(work, layer, first, own, 0, False, b, neuron, s)
                apply(
                    work.activation[layer],
                    work.a[layer],
                    work.b[layer],
                    1,
                    s,
                    work.weights,
                    0,
                    work.weights,
                    y,
                    0,
                    vector,
                )
            for slot in range(own, last):
                o = work.first[work.rows[work.now[ROW] + slot]]
                if work.neuron[o] == neuron:
                    value = spread(y, value_of(work, slot, o))
                    more = departure(work.action[o], value, load(y, 0), load(before, 0))
                    store(vector, 0, plus(load(vector, 0), more))


@inner
def advance(work: Any, layer: int, c: int, common: int, dense: bool, first: int, own: int, last: int) -> Any:
    """Takes the layer's chain of partial updates from where configuration c agrees with the one before it to
    all columns but the last; returns how many columns that covers. Rows first .. last - 1 fail in the layer
    before.
    """
    base = 1 + own if dense else 0
    kept = min(work.now[ENTRIES] - 1, CHAIN, work.slots - 1) if work.share else 0
    kept = max(kept, 0)
    known = 0
    if work.stamp[layer] == c - 1 and work.base[layer] == base and (not dense or own <= common):
        while (
            known < min(kept, work.length[layer])
            and work.ends[layer * CHAIN + known] == work.end[known]
            and work.end[known] <= common
        ):
            known += 1
    fill(work, layer - 1, known, first, own, last, dense)
    neurons = work.neurons[layer]
    for t in range(known, kept):
        for b in range(work.now[BLOCKS]):
            update(
                work,
                layer,
                neurons,
                t,
                t + 1,
                updated_at(work, layer, t, dense, b),
                vector_at(work, layer - 1, t, b),
                updated_at(work, layer, t + 1, dense, b),
            )
        work.ends[layer * CHAIN + t] = work.end[t]
    work.stamp[layer] = c
    work.base[layer] = base
    work.length[layer] = kept
    return kept


@inner
def enter(work: Any, layer: int, kept: int, dense: bool, first: int, last: int) -> None:
    """The deviations of the layer for the whole tile, and from them the next layer's start. Rows first ..
    last - 1 act on this layer's pre-activations.
    """
    lanes = block(work.room)
    neurons, entries = work.neurons[layer], work.now[ENTRIES]
    for b in range(work.now[BLOCKS]):
        base = updated_at(work, layer, kept, dense, b)
        vector = vector_at(work, layer - 1, kept, b)
        column, step = work.weights, 0
        if entries - kept == 1 and last == first:
            column, step = at(work.weights, work.columns[layer] + work.entry[kept] * neurons), 1
        elif entries > kept or last > first:
            scratch = at(work.room, work.scratch[layer])
            update(work, layer, neurons, kept, entries, base, vector, scratch)
            inject(work, layer, first, last, entries, dense, b, -1, scratch)
            base = scratch
        if not step:
            vector = work.weights
        apply(
            work.activation[layer],
            work.a[layer],
            work.b[layer],
            neurons,
            base,
            column,
            step,
            vector,
            at(golden_at(work, b), work.y[layer]),
            lanes,
            deviation_at(work, layer, b),
        )
    inside = layer + 1 < work.layers
    product(
        work,
        layer + 1,
        work.now[BLOCKS],
        deviation_at(work, layer, 0),
        neurons * lanes,
        at(golden_at(work, 0), work.s[layer + 1]) if inside else work.weights,
        work.stride if inside else 0,
        lanes if inside else 0,
        at(work.room, work.base_next[layer]),
    )
