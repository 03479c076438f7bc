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
    inner,
    larger,
    less,
    load,
    store,
)
from neurofail._numba.layers import product
from neurofail._numba.look import CHANGED, DOUBTFUL, EXCEEDS, LOOK, cross, judge
from neurofail._numba.sift import sift, sifted
from neurofail._numba.slopes import MOST
from neurofail._numba.work import BLOCKS, FIRST, ROW, golden_at, length_of

# Configurations that are bounded together.
TOGETHER = 256
# Configurations that are run without bounds after some where these did not pay.
_PAUSE = 15 * 32


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
def look(work: Any, c: int, count: int, upper: Any) -> None:
    """Looks at the suspects, `count` of them, all of configuration c, and queues those that are to be run."""
    lanes, batteries = block(work.room), (work.pitch + 63) // 64
    work.now[ROW] = c * work.slots
    for i in range(count):
        lane = work.suspect[i]
        past, crossed = at(work.past, i * (work.pitch + lanes)), at(work.crossed, i * batteries)
        cross(work, lane // lanes, lane % lanes, past, crossed)
    for i in range(count):
        lane = work.suspect[i]
        past, crossed = at(work.past, i * (work.pitch + lanes)), at(work.crossed, i * batteries)
        # Others may have been run in the meantime.
        work.now[ROW] = c * work.slots
        found = judge(work, lane // lanes, lane % lanes, past, crossed, work.errors[c])
        unknown = upper[lane] == np.inf
        doubtful = unknown and found & DOUBTFUL != 0
        work.sdc[c] += unknown and found & CHANGED != 0
        if found & EXCEEDS or doubtful:
            wait(work, c, lane, doubtful)


@inner
def admit_suspects(work: Any, c: int, upper: Any) -> None:
    """Looks at the inputs of configuration c whose error can exceed what it is so far, and at those that
    nothing bounds, and queues those that are to be run.
    """
    lanes, count = block(work.room), 0
    for top in range(0, work.now[BLOCKS] * lanes, lanes):
        here = load(upper, top)
        over = greater(here, work.errors[c]) | equal(here, np.inf)
        while over:
            work.suspect[count] = top + first_one(over)
            count += 1
            over &= over - np.uint64(1)
        if count > LOOK - lanes:
            look(work, c, count, upper)
            count = 0
    look(work, c, count, upper)


@inner
def run_bounded(work: Any, first: int, last: int) -> Any:
    """Runs configurations first .. last - 1, no more than TOGETHER, on the tile; returns how many evaluations
    that took.
    """
    tile = work.now[BLOCKS] * block(work.room)
    work.now_bounded[2] = work.now_bounded[3] = 0
    if work.kinked:
        # Block by block, so that a block's tables stay near.
        for b in range(work.now[BLOCKS]):
            sift(work, first, last, b)
    else:
        for c in range(first, last):
            work.now[ROW] = c * work.slots
            bound(work, c, length_of(work, work.now[ROW]), at(work.upper, (c - first) * tile))
    for c in range(first, last):
        admit_foremost(work, c, at(work.upper, (c - first) * tile))
    if work.kinked:
        flush(work)
        for c in range(first, last):
            admit_suspects(work, c, at(work.upper, (c - first) * tile))
    else:
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
    pause = work.now_bounded[4]
    if pause:
        return min(c + pause, count), False
    bounded = boundable(work, c)
    last = min(c + TOGETHER, count) if bounded else count
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
