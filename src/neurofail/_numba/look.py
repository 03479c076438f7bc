"""A closer look at evaluations: how far a configuration moves the outputs on the inputs of a block, its kinks
crossed, but without its run: csrc/look.inc, in words where here are reals. Lanes are neurons where kinks are
crossed, then outputs, then inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba.abreast import input_of
from neurofail._numba.lanes import (
    at,
    at_most,
    block,
    choose,
    equal,
    first_one,
    fma,
    greater,
    higher,
    inlined,
    inner,
    larger,
    less,
    load,
    minus,
    parted,
    plus,
    spread,
    store,
)
from neurofail._numba.work import ADD, FIRST, ROW, SET, golden_at

# Inputs of a block that are looked at together.
GLANCE = 4


@inlined
def past_size(work: Any) -> Any:
    """Of one input's pre-activations, and of one neuron more, that is none."""
    return work.pitch + block(work.room)


@inlined
def batteries_of(work: Any) -> Any:
    """How many times 64 neurons there are."""
    return (work.pitch + 63) // 64


@inlined
def straight(work: Any, b: int) -> None:
    """How far the outputs of a block move where no kink is crossed, then roundings, to `moved`."""
    lanes, rows = block(work.room), work.neurons[work.layers] + 1
    number = work.now[FIRST] + b
    for k in range(rows):
        move = load(work.weights, 0)
        for slot in range(work.slots):
            row = work.rows[work.now[ROW] + slot]
            # Those of the last hidden layer come last.
            if row < 0 or work.record_of[row] < 0:
                break
            record = number * work.records + work.record_of[row]
            move = plus(move, load(work.linear, (record * rows + k) * lanes))
        store(work.moved, k * lanes, move)


@inlined
def list_for_block(work: Any, b: int) -> Any:
    """Lists the neurons that fail before the last hidden layer, `failed`, with their deviations on a block,
    `d` (slots, lanes), and the operations on those of that layer, `late`. Returns how many they are.
    """
    lanes = block(work.room)
    golden = at(golden_at(work, b), work.y[work.layers - 2])
    early = late = 0
    for slot in range(work.slots):
        row = work.rows[work.now[ROW] + slot]
        if row < 0:
            break
        o = work.first[row]
        if work.record_of[row] < 0:
            work.late[late] = o
            late += 1
            continue
        d = spread(work.room, work.value[o])
        if work.action[o] == SET:
            d = minus(d, load(golden, work.neuron[o] * lanes))
        store(work.d, early * lanes, d)
        work.failed[early] = work.neuron[o]
        early += 1
    return early, late


@inlined
def cross(work: Any, b: int, count: int) -> None:
    """Makes the pre-activations on the inputs at hand, `glance`, after so many failures, which are listed,
    and marks in `crossed`, 64 neurons to a number, those whose sign is not what it was. Of the weights, once
    they are at hand, all the inputs make use.
    """
    lanes, pitch, row, batteries = block(work.room), work.pitch, past_size(work), batteries_of(work)
    w, x, y, z = work.glance[0], work.glance[1], work.glance[2], work.glance[3]
    first = input_of(work, b, 0) * pitch
    for j in range(0, pitch, lanes):
        was = at(work.sums, first + j)
        p, q = load(was, w * pitch), load(was, x * pitch)
        r, s = load(was, y * pitch), load(was, z * pitch)
        for t in range(count):
            column, d = load(work.wide, work.failed[t] * pitch + j), at(work.d, t * lanes)
            p, q = fma(column, spread(work.room, d[w]), p), fma(column, spread(work.room, d[x]), q)
            r, s = fma(column, spread(work.room, d[y]), r), fma(column, spread(work.room, d[z]), s)
        store(work.past, j, p)
        store(work.past, row + j, q)
        store(work.past, 2 * row + j, r)
        store(work.past, 3 * row + j, s)
        for i in range(GLANCE):
            here = i * batteries + j // 64
            signs = parted(load(was, work.glance[i] * pitch), load(work.past, i * row + j))
            signs = signs << np.uint64(j % 64)
            work.crossed[here] = signs if j % 64 == 0 else work.crossed[here] | signs


@inlined
def bend_one(work: Any, past: Any, top: int, bits: Any, i: int, move: Any) -> Any:
    """Adds what the first marked neuron does past its kink; where none is marked, nothing."""
    j = top + first_one(bits) if bits else work.pitch
    return fma(abs(past[j]), load(work.by_neuron, j * work.across + i), move)


@inlined
def bend(work: Any, within: int, past: Any, crossed: Any) -> None:
    """How much further the kinks that are crossed move the outputs, to `bent` (outputs, lanes)."""
    lanes, outputs, one = block(work.room), work.neurons[work.layers], np.uint64(1)
    for i in range(0, work.across, lanes):
        even = odd = load(work.weights, 0)
        for top in range(0, work.pitch, 64):
            bits = crossed[top // 64]
            # Mostly a round suffices, and nobody has to foresee how many there are.
            while bits:
                even = bend_one(work, past, top, bits, i, even)
                bits &= bits - one
                odd = bend_one(work, past, top, bits, i, odd)
                bits &= bits - one
                even = bend_one(work, past, top, bits, i, even)
                bits &= bits - one
                odd = bend_one(work, past, top, bits, i, odd)
                bits &= bits - one
        store(work.e, 0, plus(even, odd))
        for k in range(i, min(i + lanes, outputs)):
            work.bent[k * lanes + within] = work.e[k - i]


@inlined
def fail_late(work: Any, b: int, within: int, past: Any, count: int) -> None:
    """How the last hidden layer's own failures make its neurons deviate from what they would have sent,
    `late_d` (count, lanes), and how far the roundings of that can move an output, `late_radius` (lanes).
    """
    lanes, which = block(work.room), input_of(work, b, within)
    size = 0.0
    for t in range(count):
        o = work.late[t]
        neuron, action, value = work.neuron[o], work.action[o], work.value[o]
        s, y = float(past[neuron]), float(work.outs[which * work.pitch + neuron])
        sent = s if s > 0 else work.below * s
        base = 0.0 if action == SET else sent if action == ADD else y
        work.late_d[t * lanes + within] = base + value - sent
        size += work.heaviest[neuron] * (abs(value) + abs(sent) + abs(y))
    work.late_radius[within] = work.unit * (2 * count + 16) * size


@inlined
def judge(work: Any, b: int, bits: Any, count: int) -> Any:
    """Adds up what is seen of a block's marked inputs: what their errors do not exceed goes to `seen`
    (lanes). Returns those whose class certainly changes, and those whose class may, or an output be NaN or
    infinite.
    """
    lanes, outputs = block(work.room), work.neurons[work.layers]
    number = work.now[FIRST] + b
    gaps = at(work.gaps, number * outputs * lanes)
    category = load(golden_at(work, b), work.category)
    error = own = none = load(work.weights, 0)
    infinite = spread(work.room, np.inf)
    rival = minus(none, infinite)
    for k in range(outputs):
        move = fma(1 - work.below, load(work.bent, k * lanes), load(work.moved, k * lanes))
        for t in range(count):
            weight = work.by_neuron[work.neuron[work.late[t]] * work.across + k]
            move = fma(load(work.late_d, t * lanes), weight, move)
        error = larger(error, move)
        own = choose(equal(category, float(k)), move, own)
        rival = higher(rival, plus(load(gaps, k * lanes), move))
    radius = plus(load(work.slack, number * lanes), load(work.moved, outputs * lanes))
    if count:
        radius = plus(radius, load(work.late_radius, 0))
    most, lead, sure = plus(error, radius), minus(rival, own), plus(radius, radius)
    known = less(most, np.inf)
    store(work.seen, 0, choose(known, most, infinite))
    changed = greater(lead, sure) & known & bits
    same = at_most(lead, minus(none, sure)) & known
    return changed, bits & ~(changed | same)


@inner
def look(work: Any, c: int, b: int, bits: Any) -> Any:
    """Looks at configuration c on the marked inputs of a block: see `judge`."""
    work.now[ROW] = c * work.slots
    straight(work, b)
    early, late = list_for_block(work, b)
    left = bits
    while left:
        n = 0
        for i in range(GLANCE):
            # Where there are no more, the last is looked at again.
            if left:
                work.glance[i] = first_one(left)
                left &= left - np.uint64(1)
                n += 1
            else:
                work.glance[i] = work.glance[i - 1]
        cross(work, b, early)
        for i in range(n):
            past, within = at(work.past, i * past_size(work)), work.glance[i]
            bend(work, within, past, at(work.crossed, i * batteries_of(work)))
            if late:
                fail_late(work, b, within, past, late)
    return judge(work, b, bits, late)
