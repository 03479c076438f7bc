"""Evaluating only what can matter: csrc/spare.inc, which says how. Lanes are evaluations here, of any
configuration and input, and come out as they would among their neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba.bounds import bound, gather_slopes
from neurofail._numba.lanes import (
    at,
    block,
    choose,
    equal,
    first_one,
    fma,
    fma_one,
    greater,
    higher,
    highest,
    inner,
    larger,
    less,
    load,
    spread,
    store,
)
from neurofail._numba.layers import product
from neurofail._numba.loops import apply
from neurofail._numba.sift import sift, sifted
from neurofail._numba.slopes import MOST
from neurofail._numba.work import ADD, BLOCKS, FIRST, ROW, SET, golden_at, length_of, value_of

# Configurations that are run without bounds after some where these did not pay.
_PAUSE = 15 * 32


@inner
def strike_lane(work: Any, i: int, b: int, within: int) -> None:
    """The deviations of the last hidden layer of the evaluation in lane i, whose configuration is at hand:
    made neuron beside neuron.
    """
    lanes, pitch = block(work.room), work.pitch
    hidden = work.layers - 1
    golden = golden_at(work, b)
    here, zero = ((work.now[FIRST] + b) * lanes + within) * pitch, work.weights
    count = 0
    for slot in range(work.slots):
        row = work.rows[work.now[ROW] + slot]
        if row < 0 or work.stage[row] == 2 * hidden:
            break
        o = work.first[row]
        neuron = work.neuron[o]
        work.exactly[slot] = value_of(work, slot, o)
        if work.action[o] == SET:
            work.exactly[slot] -= golden[work.y[hidden - 1] + neuron * lanes + within]
        work.failed[slot] = neuron
        count += 1
    for j in range(0, pitch, lanes):
        s = load(work.sums, here + j)
        for t in range(count):
            s = fma(load(work.wide, work.failed[t] * pitch + j), spread(work.room, work.exactly[t]), s)
        store(work.product_of, j, s)
    apply(
        work.activation[hidden],
        work.a[hidden],
        work.b[hidden],
        pitch // lanes,
        work.product_of,
        zero,
        0,
        zero,
        at(work.outs, here),
        lanes,
        work.product_of,
    )
    for j in range(work.neurons[hidden]):
        work.pair_y[j * lanes + i] = work.product_of[j]


@inner
def correct_lane(work: Any, i: int, b: int, within: int) -> None:
    """Adds to the outputs in lane i what the last hidden layer's own failures do."""
    lanes, hidden, outputs = block(work.room), work.layers - 1, work.neurons[work.layers]
    golden = golden_at(work, b)
    columns = at(work.weights, work.columns[work.layers])
    for slot in range(work.slots):
        row = work.rows[work.now[ROW] + slot]
        if row < 0:
            break
        if work.stage[row] != 2 * hidden:
            continue
        o = work.first[row]
        neuron = work.neuron[o]
        work.exactly[slot] = value_of(work, slot, o)
        if work.action[o] == SET:
            work.exactly[slot] -= golden[work.y[hidden] + neuron * lanes + within]
        if work.action[o] != ADD:
            work.exactly[slot] -= work.pair_y[neuron * lanes + i]
        for k in range(outputs):
            work.move[k * lanes + i] = fma_one(
                columns[neuron * outputs + k], work.exactly[slot], work.move[k * lanes + i]
            )


@inner
def record(work: Any, c: int, i: int, b: int, within: int, worst: float, judge: bool) -> None:
    """What came out of the evaluation in lane i."""
    lanes, outputs = block(work.room), work.neurons[work.layers]
    golden = golden_at(work, b)
    finite = worst <= work.most
    work.errors[c] = max(work.errors[c], worst if worst == worst else np.inf)
    if not judge:
        return
    own = work.move[int(golden[work.category + within]) * lanes + i]
    changed = False
    for k in range(outputs):
        changed |= golden[work.gap + k * lanes + within] + work.move[k * lanes + i] > own
    work.sdc[c] += finite and changed
    work.due[c] += not finite


@inner
def flush(work: Any) -> None:
    """Runs the evaluations that wait, each in a lane of its own."""
    lanes, count = block(work.room), work.now_bounded[2]
    if not count:
        return
    for i in range(count):
        work.now[ROW] = work.pair_of[i] * work.slots
        strike_lane(work, i, work.pair_lane[i] // lanes, work.pair_lane[i] % lanes)
    product(work, work.layers, 1, work.pair_y, 0, work.weights, 0, 0, work.move)
    for i in range(count):
        work.now[ROW] = work.pair_of[i] * work.slots
        correct_lane(work, i, work.pair_lane[i] // lanes, work.pair_lane[i] % lanes)
    error = load(work.weights, 0)
    for k in range(work.neurons[work.layers]):
        error = larger(error, load(work.move, k * lanes))
    store(work.e, 0, error)
    for i in range(count):
        lane = work.pair_lane[i]
        record(work, work.pair_of[i], i, lane // lanes, lane % lanes, float(work.e[i]), work.pair_judged[i])
    work.now_bounded[3] += count
    work.now_bounded[2] = 0


@inner
def wait(work: Any, c: int, lane: int, judged: bool) -> None:
    """Queues configuration c on a lane of the tile."""
    count = work.now_bounded[2]
    work.pair_of[count], work.pair_lane[count], work.pair_judged[count] = c, lane, judged
    work.now_bounded[2] = count + 1
    if count + 1 == block(work.room):
        flush(work)


@inner
def admit_foremost(work: Any, c: int, upper: Any) -> None:
    """Queues an input of configuration c whose error can be the largest bound there is, where that is more
    than its error so far.
    """
    lanes = block(work.room)
    tile = work.now[BLOCKS] * lanes
    most = load(work.weights, 0)
    for top in range(0, tile, lanes):
        here = load(upper, top)
        most = higher(most, choose(less(here, np.inf), here, most))
    highest_of = float(highest(most))
    if not highest_of > work.errors[c]:
        return
    top = 0
    while not equal(load(upper, top), highest_of):
        top += lanes
    lane = top + first_one(equal(load(upper, top), highest_of))
    upper[lane] = -1.0
    wait(work, c, lane, False)


@inner
def admit_unbounded(work: Any, c: int, upper: Any) -> None:
    """Queues those that nothing bounds."""
    lanes = block(work.room)
    for top in range(0, work.now[BLOCKS] * lanes, lanes):
        over = equal(load(upper, top), np.inf)
        while over:
            wait(work, c, top + first_one(over), True)
            over &= over - np.uint64(1)


@inner
def admit_rest(work: Any, c: int, upper: Any) -> None:
    """Queues the others whose error can exceed what it is so far."""
    lanes = block(work.room)
    for top in range(0, work.now[BLOCKS] * lanes, lanes):
        here = load(upper, top)
        over = greater(here, work.errors[c]) & less(here, np.inf)
        while over:
            wait(work, c, top + first_one(over), False)
            over &= over - np.uint64(1)


@inner
def run_bounded(work: Any, first: int, last: int) -> Any:
    """Runs configurations first .. last - 1, no more than a block's lanes, on the tile; returns how many
    evaluations that took.
    """
    tile = work.now[BLOCKS] * block(work.room)
    work.now_bounded[2] = work.now_bounded[3] = 0
    for c in range(first, last):
        work.now[ROW] = c * work.slots
        length = length_of(work, work.now[ROW])
        upper = at(work.upper, (c - first) * tile)
        if work.kinked:
            sift(work, c, length, upper)
        else:
            bound(work, c, length, upper)
    for c in range(first, last):
        admit_foremost(work, c, at(work.upper, (c - first) * tile))
    for c in range(first, last):
        admit_unbounded(work, c, at(work.upper, (c - first) * tile))
    flush(work)
    for c in range(first, last):
        admit_rest(work, c, at(work.upper, (c - first) * tile))
    flush(work)
    return work.now_bounded[3]


@inner
def boundable(work: Any, c: int) -> Any:
    """Whether bounds can spare a configuration something."""
    if work.kinked:
        return sifted(work, c)
    hidden = work.layers - 1
    before = 0
    for slot in range(work.slots):
        row = work.rows[c * work.slots + slot]
        if row < 0:
            break
        stage = work.stage[row]
        if stage < 2 * hidden - 2 or stage % 2 or (stage == 2 * hidden and (not before or work.share)):
            return False
        before += stage < 2 * hidden
    return 0 < before <= MOST


@inner
def stretch(work: Any, c: int, count: int) -> Any:
    """The end of the configurations from c on that are to be run together; and whether with bounds."""
    lanes, pause = block(work.room), work.now_bounded[4]
    if pause:
        return min(c + pause, count), False
    bounded = boundable(work, c)
    last = min(c + lanes, count) if bounded else count
    end = c + 1
    while end < last and boundable(work, end) == bounded:
        end += 1
    return end, bounded


@inner
def run_tile(work: Any, first: int, last: int, c: int, end: int) -> None:
    """Runs configurations c .. end - 1 with bounds on blocks first .. last - 1."""
    work.now[FIRST], work.now[BLOCKS] = first, last - first
    if work.now_bounded[5] != first or work.now_bounded[6] != last:
        work.now_bounded[5], work.now_bounded[6] = first, last
        if not work.kinked:
            gather_slopes(work)
    ran = run_bounded(work, c, end)
    # An evaluation in a lane of its own costs about twice what it costs among its neighbours.
    if ran * 3 > (end - c) * (last - first) * block(work.room):
        work.now_bounded[4] = _PAUSE
