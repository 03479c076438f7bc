"""The kernel in Numba: the algorithm of csrc/kernel_body.inc, whose comments say why it is as it is.

A lane is one input; every array of reals here is (rows, lanes of a block). What is carried through the
network is the deviation from the golden run. The failures that strike the outputs of layer l act on layer l +
1 as a rank-f update; a chain of partial updates is kept, so that a configuration starts from what it shares
with the one before it. Each sum is made in one order that the configuration alone determines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba.lanes import (
    at,
    at_most,
    block,
    choose,
    equal,
    fma,
    greater,
    higher,
    inner,
    larger,
    largest,
    less,
    load,
    ones,
    plus,
    spread,
    store,
)
from neurofail._numba.layers import advance, collect, enter, inject, product, update
from neurofail._numba.loops import apply
from neurofail._numba.work import (
    BLOCKS,
    ENTRIES,
    FEW,
    FIRST,
    ROW,
    RUN,
    departure,
    deviation_at,
    golden_at,
    updated_at,
    value_of,
    vector_at,
    work_of,
)

# A configuration that no chain is valid for.
_NEVER = -2


@inner
def classify(work: Any, golden: Any) -> None:
    """The golden class of each lane, its weights, the gaps of the other outputs to it, and the error that
    cannot close the smallest gap, taken low enough for every rounding on the way.
    """
    lanes = block(golden)
    outputs = work.neurons[work.layers]
    gap, own = at(golden, work.gap), at(golden, work.own)
    columns = at(work.weights, work.columns[work.layers])
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
        for j in range(work.neurons[work.layers - 1]):
            own[j * lanes + lane] = columns[j * outputs + best]
        golden[work.threshold + lane] = work.most if outputs == 1 else max(safe, 0.0)


@inner
def golden_run(work: Any, first: int, last: int) -> None:
    """The golden run of blocks first .. last - 1, whose inputs are in place."""
    lanes = block(work.room)
    zero = work.weights
    for b in range(first, last):
        here = at(work.golden, b * work.stride)
        for layer in range(1, work.layers + 1):
            s = at(here, work.s[layer])
            product(work, layer, 1, at(here, work.y[layer - 1]), 0, zero, 0, 0, s)
            bias = at(work.weights, work.biases[layer])
            for j in range(work.neurons[layer]):
                store(s, j * lanes, plus(load(s, j * lanes), spread(s, bias[j])))
            if layer < work.layers:
                y = at(here, work.y[layer])
                apply(
                    work.activation[layer],
                    work.a[layer],
                    work.b[layer],
                    work.neurons[layer],
                    s,
                    zero,
                    0,
                    zero,
                    zero,
                    0,
                    y,
                )
        classify(work, here)


# ---- The outputs, reduced to one error on the spot ----


@inner
def count_lanes(work: Any, c: int, b: int, error: Any, delta: Any) -> None:
    """Counts the lanes whose class changed, or whose output is NaN or infinite; delta is (outputs, lanes)."""
    lanes = block(delta)
    gap = at(golden_at(work, b), work.gap)
    rival = plus(load(gap, 0), load(delta, 0))
    for k in range(1, work.neurons[work.layers]):
        rival = higher(rival, plus(load(gap, k * lanes), load(delta, k * lanes)))
    count(work, c, b, error, of_class(work, b, delta), rival)


@inner
def of_class(work: Any, b: int, delta: Any) -> Any:
    """The one of the outputs delta (outputs, lanes) that is each lane's golden class."""
    lanes = block(delta)
    category = load(golden_at(work, b), work.category)
    own = load(delta, 0)
    for k in range(1, work.neurons[work.layers]):
        own = choose(equal(category, float(k)), load(delta, k * lanes), own)
    return own


@inner
def count(work: Any, c: int, b: int, error: Any, own: Any, rival: Any) -> None:
    """Counts the lanes whose highest output, counted from the golden class, is above their class's own."""
    lanes = block(work.room)
    left = work.inputs - (work.now[FIRST] + b) * lanes
    inside = np.uint64((1 << min(left, lanes)) - 1)
    finite = at_most(error, work.most)
    work.due[c] += ones(~finite & inside)
    # A tie changes nothing.
    work.sdc[c] += ones(greater(rival, own) & finite & inside)


@inner
def take(work: Any, c: int, most: Any) -> None:
    """Raises the error of configuration c to the largest of all lanes; NaN counts as infinite."""
    worst = float(largest(most))
    work.errors[c] = max(work.errors[c], worst if worst == worst else np.inf)


@inner
def run_alike(work: Any, c: int, kept: int, dense: bool, alike: int, slot: int) -> None:
    """Runs `alike` configurations from c on that differ in one neuron of the last hidden layer alone: no
    activation follows, so each costs one multiply-add an output.
    """
    lanes = block(work.room)
    layer = work.layers
    outputs = work.neurons[layer]
    columns = at(work.weights, work.columns[layer])
    run = at(work.room, work.run)
    none = load(work.weights, 0)
    for i in range(alike):
        store(run, i * lanes, none)
    for b in range(work.now[BLOCKS]):
        start = updated_at(work, layer, kept, dense, b)
        golden = golden_at(work, b)
        deviation = deviation_at(work, layer - 1, b)
        threshold, gap, weights = load(golden, work.threshold), at(golden, work.gap), at(golden, work.own)
        own = of_class(work, b, start)
        for i in range(alike):
            here = slot + i * work.slots
            o = work.first[work.rows[work.now[ROW] + here]]
            neuron = work.neuron[o]
            column = at(columns, neuron * outputs)
            y = load(golden, work.y[layer - 1] + neuron * lanes)
            before = load(deviation, neuron * lanes) if dense else none
            d = departure(work.action[o], spread(run, value_of(work, here, o)), y, before)
            error = none
            for k in range(outputs):
                error = larger(error, fma(column[k], d, load(start, k * lanes)))
            store(run, i * lanes, larger(load(run, i * lanes), error))
            if ones(less(error, threshold)) != lanes:
                rival = plus(load(gap, 0), fma(column[0], d, load(start, 0)))
                for k in range(1, outputs):
                    other = fma(column[k], d, load(start, k * lanes))
                    rival = higher(rival, plus(load(gap, k * lanes), other))
                count(work, c + i, b, error, fma(load(weights, neuron * lanes), d, own), rival)
    for i in range(alike):
        take(work, c + i, load(run, i * lanes))


@inner
def finish(work: Any, c: int, kept: int, dense: bool, first: int, last: int) -> None:
    """The outputs' deviations of one configuration, and their error."""
    lanes = block(work.room)
    outputs, entries = work.neurons[work.layers], work.now[ENTRIES]
    most = load(work.weights, 0)
    for b in range(work.now[BLOCKS]):
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
            begin = (work.now[FIRST] + b) * lanes
            for i in range(begin, min(begin + lanes, work.inputs)):
                work.each[c * work.inputs + i] = run[i - begin]
    take(work, c, most)


@inner
def agree(work: Any, row: int, other: int, length: int) -> Any:
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
def length_of(work: Any, row: int) -> Any:
    """How many rows a configuration has."""
    length = 0
    while length < work.slots and work.rows[row + length] >= 0:
        length += 1
    return length


@inner
def how_many_alike(work: Any, length: int, left: int) -> Any:
    """How many configurations, from the one at hand, differ in their last row alone, a neuron of the last
    hidden layer.
    """
    row = work.now[ROW]
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
def configuration(work: Any, c: int, left: int) -> Any:
    """Runs configuration c, and those after it that it takes along; returns how many."""
    row = work.now[ROW]
    length = length_of(work, row)
    common = agree(work, row, row - work.slots, length) if c else 0
    reached = False  # whether a deviation enters this layer
    dense = False  # whether all its neurons deviate
    was_first, was_own, was_last, was_dense = 0, 0, 0, False
    last = 0
    work.now[ENTRIES] = 0
    for layer in range(1, work.layers + 1):
        first = own = last
        operations = 0
        while own < length and work.stage[work.rows[row + own]] == 2 * layer - 1:
            operations += work.first[work.rows[row + own] + 1] - work.first[work.rows[row + own]]
            own += 1
        last = own
        while last < length and work.stage[work.rows[row + last]] == 2 * layer:
            last += 1
        if not reached and last == first:
            continue
        if not reached and layer < work.layers and operations <= FEW:
            collect(work, first, own, last, False)
        elif layer < work.layers:
            if work.dense_stamp[layer] == c - 1 and work.dense_rows[layer] == own and own <= common:
                if work.stamp[layer] == c - 1:
                    work.stamp[layer] = c
            else:
                kept = 0
                if reached:
                    kept = advance(work, layer, c, common, was_dense, was_first, was_own, was_last)
                enter(work, layer, kept, was_dense, first, own)
                work.dense_rows[layer] = own
            work.dense_stamp[layer] = c
            dense = True
            collect(work, first, own, last, True)
        else:
            kept = 0
            if reached:
                kept = advance(work, layer, c, common, was_dense, was_first, was_own, was_last)
            own_only = was_last > was_own and (was_dense or was_own == was_first)
            if own_only and last == first and work.now[ENTRIES] == kept + 1 and not work.wanted:
                alike = how_many_alike(work, length, left)
                run_alike(work, c, kept, was_dense, alike, was_last - 1)
                for i in range(1, work.layers + 1):
                    if work.stamp[i] == c:
                        work.stamp[i] += alike - 1
                    if work.dense_stamp[i] == c:
                        work.dense_stamp[i] += alike - 1
                return alike
            finish(work, c, kept, was_dense, first, last)
        reached = True
        was_first, was_own, was_last, was_dense = first, own, last, dense
    return 1


def run(model: Any, sites: Any, desk: Any, task: Any, golden: bool, first: int, last: int) -> None:
    """The golden run of blocks first .. last - 1, or the evaluation of the task's configurations on them."""
    work = work_of((model, sites, desk, task))
    if golden:
        golden_run(work, first, last)
        return
    count = len(task.rows)
    while first < last:
        work.now[FIRST] = first
        work.now[BLOCKS] = min(last - first, work.tile)
        for layer in range(1, work.layers + 1):
            work.stamp[layer] = work.dense_stamp[layer] = _NEVER
        c = 0
        while c < count:
            work.now[ROW] = c * work.slots
            c += configuration(work, c, count - c)
        first += work.tile
