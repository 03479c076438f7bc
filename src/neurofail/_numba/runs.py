"""Runs of configurations that differ in one neuron of the last hidden layer alone: no activation follows, so
each costs one multiply-add an output.

Where no class can change, most of that need not be done. How low and how high the failure of a neuron makes
its deviations in a block is remembered from run to run. With what the run's configurations share it bounds
every output, and one that cannot exceed its configuration's error so far is not computed. Rounding keeps
order, so a bound that is rounded as the outputs are is none the less a bound: no result changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba.lanes import (
    at,
    block,
    choose,
    first_one,
    fma,
    greater,
    higher,
    highest,
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
from neurofail._numba.outputs import count, of_class, take
from neurofail._numba.work import (
    BLOCKS,
    FIRST,
    ROW,
    departure,
    deviation_at,
    golden_at,
    updated_at,
    value_of,
)


@inner
def forget(work: Any) -> None:
    """Starts on a tile, of which nothing is remembered."""
    lanes = block(work.room)
    for j in range(work.neurons[work.layers - 1]):
        work.known[j] = -1
    for b in range(work.now[BLOCKS]):
        threshold = at(golden_at(work, b), work.threshold)
        work.reach[b] = 0.0
        work.safest[b] = threshold[0]
        for lane in range(1, lanes):
            work.safest[b] = min(work.safest[b], float(threshold[lane]))


@inner
def operation_at(work: Any, here: int) -> Any:
    """What the row `here`, counted from the configuration at hand, does to its neuron."""
    return work.first[work.rows[work.now[ROW] + here]]


@inner
def extremes_at(work: Any, b: int, neuron: int) -> Any:
    """How low and how high a neuron's deviations are in block b of the tile."""
    return at(work.room, work.extremes + 2 * (b * work.neurons[work.layers - 1] + neuron))


@inner
def learn(work: Any, kept: int, alike: int, slot: int) -> Any:
    """Finds out what each neuron does alone that fails in a run (the `kept` rows before `slot` are shared),
    where that is not known. False where one neuron fails in several ways: only the last is remembered.
    """
    outputs = work.neurons[work.layers]
    none = load(work.weights, 0)
    last = -1
    for i in range(-kept, alike):
        row = work.rows[work.now[ROW] + slot + (i if i < 0 else i * work.slots)]
        o = work.first[row]
        neuron = work.neuron[o]
        if i >= 0 and neuron <= last:
            return False
        last = neuron if i >= 0 else -1
        if work.known[neuron] == row:
            continue
        work.known[neuron] = row
        column = at(work.weights, work.columns[work.layers] + neuron * outputs)
        weight = 0.0
        for k in range(outputs):
            weight = max(weight, float(abs(column[k])))
        for b in range(work.now[BLOCKS]):
            y = load(golden_at(work, b), work.y[work.layers - 1] + neuron * block(work.room))
            d = departure(work.action[o], spread(work.room, work.value[o]), y, none)
            extremes = extremes_at(work, b, neuron)
            extremes[0], extremes[1] = -highest(minus(none, d)), highest(d)
            reach = weight * float(largest(larger(none, d)))
            # NaN is beyond all bounds.
            work.reach[b] = max(work.reach[b], reach if reach == reach else np.inf)
    return True


@inner
def further(work: Any, b: int, here: int, sign: float, start: Any) -> Any:
    """How far the outputs (in lanes here) can go in block b, up or down by sign, from where they start, by
    what the row `here` does.
    """
    neuron = work.neuron[operation_at(work, here)]
    extremes = extremes_at(work, b, neuron)
    weight = load(work.weights, work.columns[work.layers] + neuron * work.neurons[work.layers])
    low, high = sign * extremes[0], sign * extremes[1]
    return higher(fma(low, weight, start), fma(high, weight, start))


@inner
def raise_bounded(work: Any, c: int, b: int, kept: int, start: Any, alike: int, slot: int) -> None:
    """Raises the errors of a run's configurations by one block, in which no class can change.

    Those that are open are listed first, for a branch on each could not be foretold.
    """
    lanes = block(work.room)
    outputs = work.neurons[work.layers]
    golden = golden_at(work, b)
    columns = at(work.weights, work.columns[work.layers])
    none = load(work.weights, 0)
    rise = fall = none
    for here in range(slot - kept, slot):
        rise, fall = further(work, b, here, 1.0, rise), further(work, b, here, -1.0, fall)
    # There is no output beyond the last.
    inside = np.uint64((1 << outputs) - 1)
    nowhere = spread(work.room, -np.inf)
    rise, fall = choose(inside, rise, nowhere), choose(inside, fall, nowhere)
    listed = 0
    for i in range(alike):
        here = slot + i * work.slots
        most = higher(further(work, b, here, 1.0, rise), further(work, b, here, -1.0, fall))
        over = greater(most, work.errors[c + i])
        work.open[listed] = i
        work.over[listed] = over
        listed += over != 0
    for n in range(listed):
        i, over = work.open[n], work.over[n]
        o = operation_at(work, slot + i * work.slots)
        neuron = work.neuron[o]
        column = at(columns, neuron * outputs)
        y = load(golden, work.y[work.layers - 1] + neuron * lanes)
        d = departure(work.action[o], spread(work.room, work.value[o]), y, none)
        error = none
        while over:
            k = first_one(over)
            over &= over - np.uint64(1)
            error = larger(error, fma(column[k], d, load(start, k * lanes)))
        take(work, c + i, error)


@inner
def raise_all(work: Any, c: int, b: int, start: Any, dense: bool, alike: int, slot: int) -> None:
    """Computes every output of a run's configurations on one block, and counts what changes its class; the
    errors are raised lane by lane.
    """
    lanes = block(work.room)
    layer = work.layers
    outputs = work.neurons[layer]
    columns = at(work.weights, work.columns[layer])
    run = at(work.room, work.run)
    none = load(work.weights, 0)
    golden = golden_at(work, b)
    deviation = deviation_at(work, layer - 1, b)
    threshold, gap, weights = load(golden, work.threshold), at(golden, work.gap), at(golden, work.own)
    own = of_class(work, b, start)
    for i in range(alike):
        here = slot + i * work.slots
        o = operation_at(work, here)
        neuron = work.neuron[o]
        column = at(columns, neuron * outputs)
        y = load(golden, work.y[layer - 1] + neuron * lanes)
        before = load(deviation, neuron * lanes) if dense else none
        d = departure(work.action[o], spread(run, value_of(work, here, o)), y, before)
        error, rival = none, spread(run, -np.inf)
        for k in range(outputs):
            other = fma(column[k], d, load(start, k * lanes))
            error = larger(error, other)
            rival = higher(rival, plus(load(gap, k * lanes), other))
        store(run, i * lanes, larger(load(run, i * lanes), error))
        if ones(less(error, threshold)) != lanes:
            count(work, c + i, b, error, fma(load(weights, neuron * lanes), d, own), rival)


@inner
def settle(work: Any, c: int, alike: int) -> None:
    """Raises the errors of a run's configurations by those of their lanes."""
    for i in range(alike):
        take(work, c + i, load(work.room, work.run + i * block(work.room)))


@inner
def run_alike(work: Any, c: int, kept: int, dense: bool, alike: int, slot: int) -> None:
    """Runs `alike` configurations from c on, alike but for the last row; `kept` rows before it are shared."""
    # A row that comes in one run comes in others where a plan is enumerated.
    bounded = work.share and not work.drawn and not dense and work.neurons[work.layers] <= block(work.room)
    bounded = bounded and learn(work, kept, alike, slot)
    failures = kept + 1
    lanewise = False
    for b in range(work.now[BLOCKS]):
        start = updated_at(work, work.layers, kept, dense, b)
        reach = failures * work.reach[b] * (1 + 4 * failures * work.unit)
        # There is nothing to exceed before the first block is done.
        if bounded and reach < work.safest[b] and work.now[FIRST] + b > 0:
            if lanewise:
                settle(work, c, alike)
                lanewise = False
            raise_bounded(work, c, b, kept, start, alike, slot)
        else:
            if not lanewise:
                for i in range(alike):
                    store(work.room, work.run + i * block(work.room), 0.0)
                lanewise = True
            raise_all(work, c, b, start, dense, alike, slot)
    if lanewise:
        settle(work, c, alike)
