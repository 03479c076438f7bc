"""The kernel in Numba: the algorithm of csrc/kernel_body.inc, whose comments say why it is as it is.

A lane is one input; every array of reals here is (rows, lanes of a block). What is carried through the network
is the deviation from the golden run. The failures that strike the outputs of layer l act on layer l + 1 as a
rank-f update; a chain of partial updates is kept, so that a configuration starts from what it shares with the
one before it. Each sum is made in one order that the configuration alone determines.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np

from neurofail._numba_lanes import (
    at,
    at_most,
    block,
    choose,
    equal,
    fma,
    gather,
    greater,
    inner,
    larger,
    largest,
    less,
    load,
    minus,
    ones,
    plus,
    spread,
    store,
)
from neurofail._numba_loops import apply, panel

CHAIN = 4  # partial updates kept at each layer
RUN = 256  # configurations of a run taken together
FEW = 64  # operations on pre-activations that are still worth treating one by one

# What an operation does: sites.Action.
_SET, _ADD = 0, 2

# Where a thread stands: entries of Desk.now.
_FIRST, _BLOCKS, _ROW, _ENTRIES = range(4)
_NEVER = -2
_UNSHARED = 1 << 31


class Model(NamedTuple):
    """A network in reals of one type, and its golden run. Offsets count reals.

    By layer, from 0 for the inputs: neurons, activation and its parameters a and b, the height of the panels
    of weights; in `weights`, the columns (inputs, neurons), the panels (inputs, height) and the biases; in a
    block of `golden`, the pre-activations s and the outputs y. For the output layer `gap` holds F_k - F_class;
    then comes the class, and the error below which it cannot change. `weights` begins with zeros.
    """

    layers: int
    inputs: int
    tile: int
    stride: int
    gap: int
    category: int
    threshold: int
    most: float
    unit: float
    neurons: Any
    activation: Any
    a: Any
    b: Any
    height: Any
    columns: Any
    panels: Any
    biases: Any
    s: Any
    y: Any
    weights: Any
    golden: Any


class Sites(NamedTuple):
    """The columns of lowering.SiteTable."""

    first: Any
    stage: Any
    action: Any
    neuron: Any
    source: Any
    weight: Any
    value: Any
    span: Any


class Desk(NamedTuple):
    """One thread's working memory.

    now: the tile's first block and how many it has, the first row of the configuration at hand, its entries.
    An entry is a deviation that enters the next layer: of one neuron, caused by the rows up to `end`.
    By layer: the configuration that its chain is valid for (stamp), what it starts from (0 the golden run, else
    1 + the rows behind it), how many partial updates are valid and where each ends; the same for the dense
    deviations. In `room`, offsets of the partial updates, of the layer's deviations, of the next layer's
    pre-activations from those, and of a scratch area; of the entries' deviations, and of what the outputs are
    made in.
    """

    capacity: int
    vector: int
    delta: int
    run: int
    now: Any
    entry: Any
    end: Any
    stamp: Any
    base: Any
    length: Any
    ends: Any
    dense_stamp: Any
    dense_rows: Any
    partial: Any
    deviation: Any
    base_next: Any
    scratch: Any
    room: Any


class Task(NamedTuple):
    """What is to be evaluated, and the records to raise.

    share: whether neighbours tend to agree in their leading rows; drawn: whether there are levels; wanted:
    whether `each` is. rows, levels (n, slots); each (n, inputs).
    """

    slots: int
    share: bool
    drawn: bool
    wanted: bool
    rows: Any
    levels: Any
    errors: Any
    sdc: Any
    due: Any
    each: Any


# All of the above, with pointers for arrays.
Work = namedtuple("Work", (*Model._fields, *Sites._fields, *Desk._fields, *Task._fields))  # type: ignore[misc]  # mypy reads no computed names


_work = gather(Work)


# ---- Dense layers ----


@inner
def product(
    work: Any, l: int, count: int, d: Any, d_stride: int, add: Any, add_stride: int, add_step: int, out: Any
) -> None:
    """out = add + W d for `count` blocks; a panel stays in the first-level cache while the blocks pass."""
    lanes = block(d)
    depth, neurons, height = work.neurons[l - 1], work.neurons[l], work.height[l]
    for top in range(0, neurons, height):
        rows = min(neurons - top, height)
        w = at(work.weights, work.panels[l] + top * depth)
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
def update(work: Any, l: int, neurons: int, first: int, last: int, base: Any, vector: Any, out: Any) -> None:
    """out = base + the columns of entries first .. last - 1 of layer l times their deviations, in this order."""
    lanes = block(base)
    stride = work.tile * lanes
    weights = at(work.weights, work.columns[l])
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
def classify(work: Any, golden: Any) -> None:
    """The golden class of each lane, the gaps of the other outputs to it, and the error that cannot close the
    smallest gap, taken low enough for every rounding on the way.
    """
    lanes = block(golden)
    outputs = work.neurons[work.layers]
    gap = at(golden, work.gap)
    for lane in range(lanes):
        best = 0
        for k in range(1, outputs):
            if gap[k * lanes + lane] > gap[best * lanes + lane]:
                best = k
        top = gap[best * lanes + lane]
        margin, most = work.most, 0.0
        for k in range(outputs):
            most = max(most, float(abs(gap[k * lanes + lane])))
            gap[k * lanes + lane] -= top
            if k != best:
                margin = min(margin, -float(gap[k * lanes + lane]))
        safe = (margin / 2 - 8 * work.unit * most) * (1 - 8 * work.unit)
        golden[work.category + lane] = best
        golden[work.threshold + lane] = work.most if outputs == 1 else max(safe, 0.0)


# ---- One configuration, layer by layer ----


@inner
def golden_at(work: Any, b: int) -> Any:
    """The golden values of block b of the tile."""
    return at(work.golden, (work.now[_FIRST] + b) * work.stride)


@inner
def vector_at(work: Any, l: int, entry: int, b: int) -> Any:
    """A deviation that leaves layer l; it outlives the configuration, as the chain does."""
    lanes = block(work.room)
    return at(work.room, work.vector + ((l * work.capacity + entry) * work.tile + b) * lanes)


@inner
def deviation_at(work: Any, l: int, b: int) -> Any:
    """The deviations of all of layer l."""
    return at(work.room, work.deviation[l] + b * work.neurons[l] * block(work.room))


@inner
def value_of(work: Any, slot: int, operation: int) -> float:
    """The number that an operation uses."""
    level = work.levels[work.now[_ROW] + slot] if work.drawn else 0.0
    return work.value[operation] + level * work.span[operation]


@inner
def departure(action: int, value: Any, golden: Any, before: Any) -> Any:
    """What a neuron's own failure adds to its deviation `before`, which is on its way downstream already."""
    if action == _ADD:
        return value
    if action == _SET:
        value = minus(value, golden)
    return minus(value, before)


@inner
def inject(
    work: Any, l: int, first: int, last: int, entries: int, dense: bool, b: int, only: int, s: Any
) -> None:
    """Failing synapses: rows first .. last - 1 act on the pre-activations s (neurons, lanes) of layer l; with
    `only` not negative, on that neuron's alone, which is then all that s holds.
    """
    lanes = block(s)
    golden = golden_at(work, b)
    for slot in range(first, last):
        row = work.rows[work.now[_ROW] + slot]
        for o in range(work.first[row], work.first[row + 1]):
            neuron, source = work.neuron[o], work.source[o]
            if only >= 0 and neuron != only:
                continue
            y = load(golden, work.y[l - 1] + source * lanes)
            if dense:
                y = plus(y, load(deviation_at(work, l - 1, b), source * lanes))
            for t in range(entries):
                if work.entry[t] == source:
                    y = plus(y, load(vector_at(work, l - 1, t, b), 0))
            to = 0 if only >= 0 else neuron * lanes
            store(s, to, plus(value_of(work, slot, o), fma(work.weight[o], y, load(s, to))))


@inner
def enlist(work: Any, neuron: int) -> int:
    """The entry of a neuron, a new one if it has none."""
    entries = work.now[_ENTRIES]
    for t in range(entries):
        if work.entry[t] == neuron:
            return t
    work.entry[entries] = neuron
    work.now[_ENTRIES] = entries + 1
    return entries


@inner
def collect(work: Any, first: int, own: int, last: int, dense: bool) -> None:
    """Lists the neurons of a layer that deviate because of rows first .. last - 1 (those before `own` act on
    pre-activations, and are left out where the whole layer deviates anyway). An entry's `end` tells later
    configurations which rows made it; where rows do not come neuron by neuron, nothing is to be shared.
    """
    mixed = not dense and first < own < last
    work.now[_ENTRIES] = 0
    for slot in range(own if dense else first, last):
        row = work.rows[work.now[_ROW] + slot]
        mixed |= work.first[row + 1] - work.first[row] > 1
        for o in range(work.first[row], work.first[row + 1]):
            work.end[enlist(work, work.neuron[o])] = slot + 1
    if mixed:
        for t in range(work.now[_ENTRIES]):
            work.end[t] = _UNSHARED


@inner
def fill(work: Any, l: int, known: int, first: int, own: int, last: int, dense: bool) -> None:
    """The deviations of entries `known` and up of layer l, for the whole tile."""
    lanes = block(work.room)
    for t in range(known, work.now[_ENTRIES]):
        neuron = work.entry[t]
        for b in range(work.now[_BLOCKS]):
            golden = golden_at(work, b)
            vector = vector_at(work, l, t, b)
            y = at(golden, work.y[l] + neuron * lanes)
            before = vector
            if dense:
                before = at(deviation_at(work, l, b), neuron * lanes)
            store(vector, 0, 0.0)
            if not dense and own > first:
                s = at(work.room, work.scratch[l])
                store(s, 0, load(golden, work.s[l] + neuron * lanes))
                inject(work, l, first, own, 0, False, b, neuron, s)
                apply(
                    work.activation[l],
                    work.a[l],
                    work.b[l],
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
                o = work.first[work.rows[work.now[_ROW] + slot]]
                if work.neuron[o] == neuron:
                    value = spread(y, value_of(work, slot, o))
                    more = departure(work.action[o], value, load(y, 0), load(before, 0))
                    store(vector, 0, plus(load(vector, 0), more))


@inner
def start_at(work: Any, l: int, dense: bool, b: int) -> Any:
    """What the pre-activations of layer l start from: the golden run, or what came from upstream. Deviations of
    the outputs start from 0.
    """
    if dense:
        return at(work.room, work.base_next[l - 1] + b * work.neurons[l] * block(work.room))
    if l == work.layers:
        return work.weights
    return at(golden_at(work, b), work.s[l])


@inner
def updated_at(work: Any, l: int, kept: int, dense: bool, b: int) -> Any:
    """Where the update of layer l stands after `kept` columns."""
    if kept:
        area = work.neurons[l] * block(work.room)
        return at(work.room, work.partial[l * CHAIN + kept - 1] + b * area)
    return start_at(work, l, dense, b)


@inner
def advance(work: Any, l: int, c: int, common: int, dense: bool, first: int, own: int, last: int) -> int:
    """Takes layer l's chain of partial updates from where configuration c agrees with the one before it to all
    columns but the last; returns how many columns that covers. Rows first .. last - 1 fail in layer l - 1.
    """
    base = 1 + own if dense else 0
    kept = min(work.now[_ENTRIES] - 1, CHAIN, work.slots - 1) if work.share else 0
    kept = max(kept, 0)
    known = 0
    if work.stamp[l] == c - 1 and work.base[l] == base and (not dense or own <= common):
        while (
            known < min(kept, work.length[l])
            and work.ends[l * CHAIN + known] == work.end[known]
            and work.end[known] <= common
        ):
            known += 1
    fill(work, l - 1, known, first, own, last, dense)
    neurons = work.neurons[l]
    for t in range(known, kept):
        for b in range(work.now[_BLOCKS]):
            update(
                work,
                l,
                neurons,
                t,
                t + 1,
                updated_at(work, l, t, dense, b),
                vector_at(work, l - 1, t, b),
                updated_at(work, l, t + 1, dense, b),
            )
        work.ends[l * CHAIN + t] = work.end[t]
    work.stamp[l] = c
    work.base[l] = base
    work.length[l] = kept
    return kept


@inner
def enter(work: Any, l: int, kept: int, dense: bool, first: int, last: int) -> None:
    """The deviations of layer l for the whole tile, and from them the next layer's start. Rows first .. last - 1
    act on this layer's pre-activations.
    """
    lanes = block(work.room)
    neurons, entries = work.neurons[l], work.now[_ENTRIES]
    for b in range(work.now[_BLOCKS]):
        base = updated_at(work, l, kept, dense, b)
        vector = vector_at(work, l - 1, kept, b)
        column, step = work.weights, 0
        if entries - kept == 1 and last == first:
            column, step = at(work.weights, work.columns[l] + work.entry[kept] * neurons), 1
        elif entries > kept or last > first:
            scratch = at(work.room, work.scratch[l])
            update(work, l, neurons, kept, entries, base, vector, scratch)
            inject(work, l, first, last, entries, dense, b, -1, scratch)
            base = scratch
        if not step:
            vector = work.weights
        apply(
            work.activation[l],
            work.a[l],
            work.b[l],
            neurons,
            base,
            column,
            step,
            vector,
            at(golden_at(work, b), work.y[l]),
            lanes,
            deviation_at(work, l, b),
        )
    inside = l + 1 < work.layers
    product(
        work,
        l + 1,
        work.now[_BLOCKS],
        deviation_at(work, l, 0),
        neurons * lanes,
        at(golden_at(work, 0), work.s[l + 1]) if inside else work.weights,
        work.stride if inside else 0,
        lanes if inside else 0,
        at(work.room, work.base_next[l]),
    )


# ---- The outputs, reduced to one error on the spot ----


@inner
def count_lanes(work: Any, c: int, b: int, error: Any, delta: Any) -> None:
    """Counts the lanes whose class changed, or whose output is NaN or infinite; delta is (outputs, lanes)."""
    lanes = block(delta)
    golden = golden_at(work, b)
    outputs = work.neurons[work.layers]
    left = work.inputs - (work.now[_FIRST] + b) * lanes
    inside = np.uint64((1 << min(left, lanes)) - 1)
    finite = at_most(error, work.most)
    category = load(golden, work.category)
    own = load(delta, 0)
    for k in range(1, outputs):
        own = choose(equal(category, float(k)), load(delta, k * lanes), own)
    changed = np.uint64(0)
    for k in range(outputs):
        other = plus(load(golden, work.gap + k * lanes), load(delta, k * lanes))
        # The first of equal outputs is the class.
        changed |= greater(other, own) | (equal(other, own) & greater(category, float(k)))
    work.due[c] += ones(~finite & inside)
    work.sdc[c] += ones(changed & finite & inside)


@inner
def take(work: Any, c: int, most: Any) -> None:
    """Raises the error of configuration c to the largest of all lanes; NaN counts as infinite."""
    worst = float(largest(most))
    work.errors[c] = max(work.errors[c], worst if worst == worst else np.inf)


@inner
def run_alike(work: Any, c: int, kept: int, dense: bool, count: int, slot: int) -> None:
    """Runs `count` configurations from c on that differ in one neuron of the last hidden layer alone: no
    activation follows, so each costs one multiply-add an output.
    """
    lanes = block(work.room)
    l = work.layers
    outputs = work.neurons[l]
    columns = at(work.weights, work.columns[l])
    delta, run = at(work.room, work.delta), at(work.room, work.run)
    none = load(work.weights, 0)
    for i in range(count):
        store(run, i * lanes, none)
    for b in range(work.now[_BLOCKS]):
        start = updated_at(work, l, kept, dense, b)
        golden = golden_at(work, b)
        deviation = deviation_at(work, l - 1, b)
        threshold = load(golden, work.threshold)
        for i in range(count):
            here = slot + i * work.slots
            o = work.first[work.rows[work.now[_ROW] + here]]
            neuron = work.neuron[o]
            column = at(columns, neuron * outputs)
            y = load(golden, work.y[l - 1] + neuron * lanes)
            before = load(deviation, neuron * lanes) if dense else none
            d = departure(work.action[o], spread(run, value_of(work, here, o)), y, before)
            error = none
            for k in range(outputs):
                error = larger(error, fma(column[k], d, load(start, k * lanes)))
            store(run, i * lanes, larger(load(run, i * lanes), error))
            if ones(less(error, threshold)) != lanes:
                for k in range(outputs):
                    store(delta, k * lanes, fma(column[k], d, load(start, k * lanes)))
                count_lanes(work, c + i, b, error, delta)
    for i in range(count):
        take(work, c + i, load(run, i * lanes))


@inner
def finish(work: Any, c: int, kept: int, dense: bool, first: int, last: int) -> None:
    """The outputs' deviations of one configuration, and their error."""
    lanes = block(work.room)
    outputs, entries = work.neurons[work.layers], work.now[_ENTRIES]
    most = load(work.weights, 0)
    for b in range(work.now[_BLOCKS]):
        delta = updated_at(work, work.layers, kept, dense, b)
        if entries > kept or last > first:
            base, delta = delta, at(work.room, work.delta)
            vector = vector_at(work, work.layers - 1, kept, b)
            update(work, work.layers, outputs, kept, entries, base, vector, delta)
            inject(work, work.layers, first, last, entries, dense, b, -1, delta)
        error = load(work.weights, 0)
        for k in range(outputs):
            error = larger(error, load(delta, k * lanes))
        most = larger(most, error)
        if ones(less(error, load(golden_at(work, b), work.threshold))) != lanes:
            count_lanes(work, c, b, error, delta)
        if work.wanted:
            run = at(work.room, work.run)
            store(run, 0, error)
            begin = (work.now[_FIRST] + b) * lanes
            for i in range(begin, min(begin + lanes, work.inputs)):
                work.each[c * work.inputs + i] = run[i - begin]
    take(work, c, most)


@inner
def agree(work: Any, row: int, other: int, length: int) -> int:
    """In how many leading rows two configurations agree, of `length`."""
    common = 0
    while (
        common < length
        and work.rows[row + common] == work.rows[other + common]
        and (not work.drawn or work.levels[row + common] == work.levels[other + common])
    ):
        common += 1
    return common


@inner
def length_of(work: Any, row: int) -> int:
    """How many rows a configuration has."""
    length = 0
    while length < work.slots and work.rows[row + length] >= 0:
        length += 1
    return length


@inner
def alike(work: Any, length: int, left: int) -> int:
    """How many configurations, from the one at hand, differ in their last row alone, a neuron of the last
    hidden layer.
    """
    row = work.now[_ROW]
    for count in range(1, min(left, RUN)):
        row += work.slots
        if (
            length_of(work, row) != length
            or work.stage[work.rows[row + length - 1]] != 2 * (work.layers - 1)
            or agree(work, row, row - work.slots, length - 1) != length - 1
        ):
            return count
    return min(left, RUN)


@inner
def configuration(work: Any, c: int, left: int) -> int:
    """Runs configuration c, and those after it that it takes along; returns how many."""
    row = work.now[_ROW]
    length = length_of(work, row)
    common = agree(work, row, row - work.slots, length) if c else 0
    reached = False  # whether a deviation enters this layer
    dense = False  # whether all its neurons deviate
    was_first, was_own, was_last, was_dense = 0, 0, 0, False
    last = 0
    work.now[_ENTRIES] = 0
    for l in range(1, work.layers + 1):
        first = own = last
        operations = 0
        while own < length and work.stage[work.rows[row + own]] == 2 * l - 1:
            operations += work.first[work.rows[row + own] + 1] - work.first[work.rows[row + own]]
            own += 1
        last = own
        while last < length and work.stage[work.rows[row + last]] == 2 * l:
            last += 1
        if not reached and last == first:
            continue
        if not reached and l < work.layers and operations <= FEW:
            collect(work, first, own, last, False)
        elif l < work.layers:
            if work.dense_stamp[l] == c - 1 and work.dense_rows[l] == own and own <= common:
                if work.stamp[l] == c - 1:
                    work.stamp[l] = c
            else:
                kept = 0
                if reached:
                    kept = advance(work, l, c, common, was_dense, was_first, was_own, was_last)
                enter(work, l, kept, was_dense, first, own)
                work.dense_rows[l] = own
            work.dense_stamp[l] = c
            dense = True
            collect(work, first, own, last, True)
        else:
            kept = 0
            if reached:
                kept = advance(work, l, c, common, was_dense, was_first, was_own, was_last)
            own_only = was_last > was_own and (was_dense or was_own == was_first)
            if own_only and last == first and work.now[_ENTRIES] == kept + 1 and not work.wanted:
                count = alike(work, length, left)
                run_alike(work, c, kept, was_dense, count, was_last - 1)
                for i in range(1, work.layers + 1):
                    if work.stamp[i] == c:
                        work.stamp[i] += count - 1
                    if work.dense_stamp[i] == c:
                        work.dense_stamp[i] += count - 1
                return count
            finish(work, c, kept, was_dense, first, last)
        reached = True
        was_first, was_own, was_last, was_dense = first, own, last, dense
    return 1


@inner
def golden_run(work: Any, first: int, last: int) -> None:
    """The golden run of blocks first .. last - 1, whose inputs are in place."""
    lanes = block(work.room)
    zero = work.weights
    for b in range(first, last):
        here = at(work.golden, b * work.stride)
        for l in range(1, work.layers + 1):
            s = at(here, work.s[l])
            product(work, l, 1, at(here, work.y[l - 1]), 0, zero, 0, 0, s)
            bias = at(work.weights, work.biases[l])
            for j in range(work.neurons[l]):
                store(s, j * lanes, plus(load(s, j * lanes), spread(s, bias[j])))
            if l < work.layers:
                y = at(here, work.y[l])
                apply(work.activation[l], work.a[l], work.b[l], work.neurons[l], s, zero, 0, zero, zero, 0, y)
        classify(work, here)


def run(model: Any, sites: Any, desk: Any, task: Any, golden: bool, first: int, last: int) -> None:
    """The golden run of blocks first .. last - 1, or the evaluation of the task's configurations on them."""
    work = _work((model, sites, desk, task))
    if golden:
        golden_run(work, first, last)
        return
    count = len(task.rows)
    while first < last:
        work.now[_FIRST] = first
        work.now[_BLOCKS] = min(last - first, work.tile)
        for l in range(1, work.layers + 1):
            work.stamp[l] = work.dense_stamp[l] = _NEVER
        c = 0
        while c < count:
            work.now[_ROW] = c * work.slots
            c += configuration(work, c, count - c)
        first += work.tile
