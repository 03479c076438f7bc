"""What failures of the last hidden layer's neurons do one by one, in words of 16 bits, many to a vector: how
far each moves an output within a block of inputs at most, and by how much an output gains on the golden class
of each input: csrc/tables.inc. runs.py says what for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba import words
from neurofail._numba.lanes import (
    at,
    block,
    choose,
    equal,
    fma,
    higher,
    highest,
    inlined,
    inner,
    larger,
    largest,
    load,
    minus,
    spread,
    store,
)
from neurofail._numba.sweeps import LEAST
from neurofail._numba.work import BLOCKS, FIRST, ROW, departure, golden_at

# Of a bound as a word, so that sums of two are words or cut off.
MOST = 0x6000
# By neuron, in place of the row that is tabulated: none, one that has come once, or one that nothing bounds.
_NONE, _ONCE, _UNBOUNDED = -1, -2, -(1 << 40)


@inlined
def operation_at(work: Any, here: int) -> Any:
    """What the row `here`, counted from the configuration at hand, does to its neuron."""
    return work.first[work.rows[work.now[ROW] + here]]


@inlined
def deviations_at(work: Any, b: int) -> Any:
    """The tabulated deviations of the last hidden layer's neurons in block b of the tile."""
    return at(work.deviations, b * work.neurons[work.layers - 1] * block(work.room))


@inlined
def reaches_at(work: Any, b: int, group: int) -> Any:
    """The tabulated reaches (outputs, 2, words) of a group of neurons."""
    many = block(work.reaches)
    return at(work.reaches, (b * work.groups + group) * work.neurons[work.layers] * 2 * many)


@inlined
def gains_at(work: Any, b: int, group: int) -> Any:
    """The tabulated gains (outputs, lanes, words) of a group of neurons."""
    area = block(work.room) * block(work.gains)
    return at(work.gains, (b * work.groups + group) * work.neurons[work.layers] * area)


@inner
def forget(work: Any) -> None:
    """Leaves the tables without a row."""
    for j in range(work.neurons[work.layers - 1]):
        work.tabled_row[j] = _NONE


@inner
def turn_to(work: Any) -> None:
    """Starts on a tile; on another than before, no table means anything."""
    if work.now_swept[0] == work.now[FIRST] and work.now_swept[1] == work.now[BLOCKS]:
        return
    work.now_swept[0], work.now_swept[1] = work.now[FIRST], work.now[BLOCKS]
    forget(work)
    for b in range(work.now[BLOCKS]):
        work.stale[2 * b], work.stale[2 * b + 1] = work.neurons[work.layers - 1], 0
        work.scale[b] = 0.0


@inner
def deviate(work: Any, b: int, alike: int, slot: int) -> Any:
    """The deviations of a run's neurons in one block. Returns what no gain exceeds that they cause, nor any
    deviation of an output twice.
    """
    lanes, outputs = block(work.room), work.neurons[work.layers]
    golden = at(golden_at(work, b), work.y[work.layers - 1])
    most = none = load(work.weights, 0)
    for i in range(alike):
        o = operation_at(work, slot + i * work.slots)
        neuron = work.neuron[o]
        column = at(work.weights, work.columns[work.layers] + neuron * outputs)
        weight = 0.0
        for k in range(outputs):
            weight = max(weight, float(abs(column[k])))
        y = load(golden, neuron * lanes)
        d = departure(work.action[o], spread(work.room, work.value[o]), y, none)
        store(deviations_at(work, b), neuron * lanes, d)
        most = larger(most, fma(2 * weight, d, none))
    return float(largest(most))


@inner
def prepare(work: Any, b: int) -> None:
    """What a block's tables start with: no deviations, how far its outputs are from the golden class, and how
    safe its least safe input is.
    """
    lanes, outputs = block(work.room), work.neurons[work.layers]
    golden, none = golden_at(work, b), load(work.weights, 0)
    for j in range(work.neurons[work.layers - 1]):
        store(deviations_at(work, b), j * lanes, none)
    work.safest[b] = -highest(minus(none, load(golden, work.threshold)))
    category = load(golden, work.category)
    widest = none
    for k in range(outputs):
        gap = load(golden, work.gap + k * lanes)
        apart = choose(equal(category, float(k)), spread(work.room, -work.wild), gap)
        store(work.rivals, (b * outputs + k) * lanes, apart)
        widest = larger(widest, gap)
    work.widest[b] = largest(widest)


@inner
def tabulate(work: Any, b: int, first: int, alike: int) -> None:
    """Tabulates how far the deviations of so many neurons reach alone in one block. What they gain is
    tabulated when a class has to be judged, which may be never.
    """
    lanes, many, outputs = block(work.room), block(work.reaches), work.neurons[work.layers]
    none, scale = load(work.weights, 0), float(work.scale[b])
    work.stale[2 * b] = min(work.stale[2 * b], first)
    work.stale[2 * b + 1] = max(work.stale[2 * b + 1], first + alike)
    for neuron in range(first, first + alike):
        d = load(deviations_at(work, b), neuron * lanes)
        high, low = float(highest(d)), -float(highest(minus(none, d)))
        column = at(work.weights, work.columns[work.layers] + neuron * outputs)
        reaches = at(reaches_at(work, b, neuron // many), neuron % many)
        for k in range(outputs):
            one, other = column[k] * high, column[k] * low
            reaches[2 * k * many] = np.int16(max(one, other) * scale + 1)
            reaches[(2 * k + 1) * many] = np.int16(1 - min(one, other) * scale)


@inner
def catch_up(work: Any, b: int) -> None:
    """Tabulates by how much outputs gain on the golden classes of a block, where that is not done yet."""
    lanes, many, outputs = block(work.room), block(work.gains), work.neurons[work.layers]
    none, scale = load(work.weights, 0), work.scale[b]
    category = at(golden_at(work, b), work.category)
    for neuron in range(work.stale[2 * b], work.stale[2 * b + 1]):
        d = load(deviations_at(work, b), neuron * lanes)
        column = at(work.weights, work.columns[work.layers] + neuron * outputs)
        gains = at(gains_at(work, b, neuron // many), neuron % many)
        for lane in range(lanes):
            work.live[lane] = column[int(category[lane])]
        own = fma(load(work.live, 0), d, none)
        for k in range(outputs):
            # In this order no step overflows where `fit` found the products bounded.
            gain = fma(scale, minus(fma(column[k], d, none), own), none)
            peak = at(work.peak, (b * outputs + k) * lanes)
            store(peak, 0, higher(gain, load(peak, 0)))
            words.shorten(work.lead, 0, gain)
            for lane in range(lanes):
                gains[(k * lanes + lane) * many] = work.lead[lane]
    work.stale[2 * b], work.stale[2 * b + 1] = work.neurons[work.layers - 1], 0


@inner
def fit(work: Any, alike: int, slot: int) -> Any:
    """Fits what a run's failures do, which is about to be tabulated, into words; where that needs another
    scale, what was tabulated before is forgotten. False where something is not bounded.
    """
    lanes, outputs = block(work.room), work.neurons[work.layers]
    sums = max(work.slots / 2, 1.0)
    bounded, fresh = True, False
    for b in range(work.now[BLOCKS]):
        if not work.scale[b]:
            prepare(work, b)
        most = deviate(work, b, alike, slot)
        bounded = bounded and most * sums <= work.wild
        if bounded and (not work.scale[b] or most * work.scale[b] > words.MOST):
            # Room for the sums of a configuration, and for somewhat larger ones to come.
            work.scale[b] = MOST / (most * sums + work.least_normal * (1 << 24))
            fresh = True
    if fresh:
        forget(work)
        for i in range(work.now[BLOCKS] * outputs * lanes):
            work.peak[i] = -words.MOST
    return bounded


@inner
def tabled(work: Any, alike: int, slot: int) -> Any:
    """The first neuron of a run that is a sweep with its tables at hand, else -1. A row is tabulated when it
    comes in a run for the second time: most that come once come never again.
    """
    held = met = True
    first = work.neuron[operation_at(work, slot)]
    for i in range(alike):
        row = work.rows[work.now[ROW] + slot + i * work.slots]
        neuron = work.neuron[work.first[row]]
        if neuron != first + i:
            return -1
        if work.tabled_row[neuron] == row:
            continue
        held = False
        if work.tabled_row[neuron] != _ONCE - row:
            if work.tabled_row[neuron] != _UNBOUNDED:
                work.tabled_row[neuron] = _ONCE - row
            met = False
    if held:
        return first
    if not met or alike < LEAST:
        return -1
    bounded = fit(work, alike, slot)
    for i in range(alike):
        row = work.rows[work.now[ROW] + slot + i * work.slots]
        work.tabled_row[first + i] = row if bounded else _UNBOUNDED
    none = load(work.weights, 0)
    for b in range(work.now[BLOCKS]):
        if bounded:
            tabulate(work, b, first, alike)
            continue
        for neuron in range(first, first + alike):
            store(deviations_at(work, b), neuron * block(work.room), none)
    return first if bounded else -1
