"""Evaluating only what can matter: csrc/spare.inc, which says how. Lanes are evaluations here, of any
configuration and input, and come out as they would among their neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba.abreast import correct_lane, strike_lane
from neurofail._numba.bounds import bound, gather_slopes
from neurofail._numba.lanes import (
    at,
    block,
    choose,
    equal,
    first_one,
    greater,
    higher,
    highest,
    inlined,
    inner,
    larger,
    less,
    load,
    ones,
    spread,
    store,
)
from neurofail._numba.layers import product
from neurofail._numba.look import look
from neurofail._numba.sift import sift
from neurofail._numba.slopes import MOST
from neurofail._numba.work import BLOCKS, FIRST, ROW, golden_at, inside_of, length_of

# Configurations that are bounded together by slopes, and by kinks.
TOGETHER, BATCH = 256, 1024
# Configurations that are run without bounds after some where these did not pay.
_PAUSE = 15 * 32
# How a configuration is evaluated: all of it is run; or what bounds leave; or what sifting leaves.
ALL, SOME, SIFTED = range(3)


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
def survey(work: Any, first: int, last: int, b: int) -> None:
    """Looks at every input of block b of the tile: what the errors of configurations first .. last - 1 do not
    exceed, infinite where their class is in doubt. Counts the classes that certainly change.
    """
    lanes = block(work.room)
    tile = work.now[BLOCKS] * lanes
    inside, infinite, past = inside_of(work, b), spread(work.room, np.inf), spread(work.room, -1.0)
    for c in range(first, last):
        changed, doubtful = look(work, c, b, inside)
        work.sdc[c] += ones(changed)
        here = at(work.upper, (c - first) * tile + b * lanes)
        store(here, 0, choose(inside, choose(doubtful, infinite, load(work.seen, 0)), past))


@inner
def admit_suspects(work: Any, c: int, b: int, upper: Any) -> None:
    """Looks at the inputs of block b whose error can exceed configuration c's so far, and at those that
    nothing bounds, and queues those that are to be run.
    """
    lanes = block(work.room)
    unknown = equal(load(upper, 0), np.inf)
    over = greater(load(upper, 0), work.errors[c]) | unknown
    if not over:
        return
    changed, doubtful = look(work, c, b, over)
    work.sdc[c] += ones(changed & unknown)
    doubtful &= unknown
    while over:
        lane = first_one(over)
        over &= over - np.uint64(1)
        judged = (doubtful >> np.uint64(lane)) & np.uint64(1) != 0
        if work.seen[lane] > work.errors[c] or judged:
            wait(work, c, b * lanes + lane, judged)


@inner
def bound_some(work: Any, first: int, last: int, way: int) -> None:
    """What the errors of configurations first .. last - 1 do not exceed on each input of the tile."""
    if work.kinked:
        # Block by block, so that a block's tables stay near.
        for b in range(work.now[BLOCKS]):
            if way == SIFTED:
                sift(work, first, last, b)
            else:
                survey(work, first, last, b)
        return
    for c in range(first, last):
        work.now[ROW] = c * work.slots
        upper = at(work.upper, (c - first) * work.now[BLOCKS] * block(work.room))
        bound(work, c, length_of(work, work.now[ROW]), upper)


@inner
def run_bounded(work: Any, first: int, last: int, way: int) -> Any:
    """Runs configurations first .. last - 1, of which there is a batch, on the tile; returns how many
    evaluations that took.
    """
    lanes = block(work.room)
    tile = work.now[BLOCKS] * lanes
    work.now_bounded[2] = work.now_bounded[3] = 0
    bound_some(work, first, last, way)
    for c in range(first, last):
        admit_foremost(work, c, at(work.upper, (c - first) * tile))
    if way == SIFTED:
        flush(work)
        for b in range(work.now[BLOCKS]):
            for c in range(first, last):
                admit_suspects(work, c, b, at(work.upper, (c - first) * tile + b * lanes))
    else:
        for c in range(first, last):
            admit_unbounded(work, c, at(work.upper, (c - first) * tile))
        flush(work)
        for c in range(first, last):
            admit_rest(work, c, at(work.upper, (c - first) * tile))
    flush(work)
    return work.now_bounded[3]


@inlined
def told(work: Any, row: int) -> Any:
    """Whether kinks tell what a row's failure does."""
    if work.record_of[row] >= 0:
        return True
    o = work.first[row]
    late = work.stage[row] == 2 * work.layers - 2 and work.span[o] == 0
    return late and abs(work.value[o]) <= work.tame


@inner
def way_of(work: Any, c: int) -> Any:
    """How to evaluate a configuration: csrc/bounded.inc."""
    hidden, most = work.layers - 1, work.most_failures if work.kinked else MOST
    length = before = 0
    for slot in range(work.slots):
        row = work.rows[c * work.slots + slot]
        if row < 0:
            break
        stage = work.stage[row]
        if stage < 2 * hidden - 2 or stage % 2 or (stage == 2 * hidden and (not before or work.share)):
            return ALL
        if work.kinked and not told(work, row):
            return ALL
        before += stage < 2 * hidden
        length += 1
    # Roundings are counted of no more failures in the last hidden layer (kinks.py).
    if not 0 < before <= most or (work.kinked and length - before > 2 * MOST):
        return ALL
    return SIFTED if work.kinked and work.sifts and before == length else SOME


@inner
def stretch(work: Any, c: int, count: int) -> Any:
    """The end of the configurations from c on that are to be run together; and how."""
    pause = work.now_bounded[4]
    if pause:
        return min(c + pause, count), ALL
    way = way_of(work, c)
    last = count if way == ALL else min(c + (BATCH if work.kinked else TOGETHER), count)
    end = c + 1
    while end < last and way_of(work, end) == way:
        end += 1
    return end, way


@inner
def run_tile(work: Any, first: int, last: int, c: int, end: int, way: int) -> None:
    """Runs configurations c .. end - 1 with bounds on blocks first .. last - 1."""
    work.now[FIRST], work.now[BLOCKS] = first, last - first
    if work.now_bounded[5] != first or work.now_bounded[6] != last:
        work.now_bounded[5], work.now_bounded[6] = first, last
        if not work.kinked:
            gather_slopes(work)
    ran = run_bounded(work, c, end, way)
    # An evaluation in a lane of its own costs about twice what it costs among its neighbours.
    if ran * 3 > (end - c) * (last - first) * block(work.room):
        work.now_bounded[4] = _PAUSE
