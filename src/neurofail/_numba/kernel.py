"""The kernel in Numba: the algorithm of csrc/kernel_body.inc, whose comments say why it is as it is.

A lane is one input; every array of reals here is (rows, lanes of a block). What is carried through the
network is the deviation from the golden run. The failures that strike the outputs of layer l act on layer l +
1 as a rank-f update; a chain of partial updates is kept, so that a configuration starts from what it shares
with the one before it. Each sum is made in one order that the configuration alone determines.
"""

from __future__ import annotations

from typing import Any

from neurofail._numba.bounds import TILE
from neurofail._numba.lanes import at, block, inner, larger, less, load, ones, plus, spread, store
from neurofail._numba.layers import advance, collect, enter, inject, product, update
from neurofail._numba.loops import apply
from neurofail._numba.outputs import count_lanes, take
from neurofail._numba.runs import run_alike
from neurofail._numba.spare import ALL, run_tile, stretch
from neurofail._numba.sweeps import RUN
from neurofail._numba.tables import turn_to
from neurofail._numba.work import (
    BLOCKS,
    ENTRIES,
    FEW,
    FIRST,
    ROW,
    golden_at,
    length_of,
    updated_at,
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
                work.each[c * work.inputs + work.order[i]] = run[i - begin]
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


@inner
def none_before_last(work: Any, c: int, count: int) -> Any:
    """Whether in configurations c .. count - 1 nothing fails before the outputs of the last hidden layer."""
    for row in range(c * work.slots, count * work.slots, max(work.slots, 1)):
        if work.rows[row] >= 0 and work.stage[work.rows[row]] < 2 * (work.layers - 1):
            return False
    return True


@inner
def run_each(work: Any, first: int, last: int, c: int, count: int) -> None:
    """Runs configurations c .. count - 1 one by one on blocks first .. last - 1."""
    begin = c
    tile = work.late_tile if none_before_last(work, c, count) else work.tile
    while first < last:
        work.now[FIRST] = first
        work.now[BLOCKS] = min(last - first, tile)
        for layer in range(1, work.layers + 1):
            work.stamp[layer] = work.dense_stamp[layer] = _NEVER
        if work.swept:
            turn_to(work)
        c = begin
        while c < count:
            work.now[ROW] = c * work.slots
            c += configuration(work, c, count - c)
        first += tile


def run(
    model: Any,
    slopes: Any,
    kinks: Any,
    sites: Any,
    desk: Any,
    sweeps: Any,
    bounds: Any,
    task: Any,
    golden: bool,
    first: int,
    last: int,
) -> None:
    """The golden run of blocks first .. last - 1, or the evaluation of the task's configurations on them."""
    work = work_of((model, slopes, kinks, sites, desk, sweeps, bounds, task))
    if golden:
        golden_run(work, first, last)
        return
    count = len(task.rows)
    if not work.bounded or work.wanted:
        run_each(work, first, last, 0, count)
        return
    while first < last:
        end = min(first + TILE, last)
        c = 0
        while c < count:
            then, way = stretch(work, c, count)
            if way == ALL:
                run_each(work, first, end, c, then)
                work.now_bounded[4] = max(work.now_bounded[4] - (then - c), 0)
            else:
                run_tile(work, first, end, c, then, way)
            c = then
        first = end
