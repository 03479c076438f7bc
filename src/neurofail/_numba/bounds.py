"""How far a configuration can move the outputs on each input, without running it: csrc/bound.inc, which
derives it.

What fails are neurons of the layer before the last hidden one, and perhaps of that one too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba.lanes import (
    at,
    block,
    choose,
    equal,
    fma,
    greater,
    higher,
    inner,
    larger,
    less,
    load,
    minus,
    ones,
    plus,
    spread,
    store,
    total,
)
from neurofail._numba.work import ADD, BLOCKS, FIRST, ROW, SET, departure, golden_at, inside_of, value_of

TILE = 16  # blocks bounded together


@inner
def gather_slopes(work: Any) -> None:
    """Starts on a tile: the slopes of its blocks, together."""
    width, pitch, outputs = work.neurons[work.layers - 2], work.pitch, work.neurons[work.layers]
    first, last = work.now[FIRST], work.now[FIRST] + work.now[BLOCKS]
    for j in range(pitch):
        least, most, size = (
            work.least[first * pitch + j],
            work.most_bent[first * pitch + j],
            work.sizes[first * pitch + j],
        )
        for b in range(first + 1, last):
            least = np.minimum(least, work.least[b * pitch + j])
            most = np.maximum(most, work.most_bent[b * pitch + j])
            size = np.maximum(size, work.sizes[b * pitch + j])
        work.middle[j] = (least + most) / 2
        work.spread_of[j] = (most - least) / 2 + 16 * work.unit
        work.size[j] = size
    for i in range(width):
        low, high = work.lowest[first * width + i], work.highest[first * width + i]
        for b in range(first + 1, last):
            low = np.minimum(low, work.lowest[b * width + i])
            high = np.maximum(high, work.highest[b * width + i])
        mean = low / 2 + high / 2
        work.mean_of[i] = mean
        work.reach_of[i] = (high / 2 - low / 2) * (1 + 8 * work.unit) + 8 * work.unit * abs(mean)
    work.scalars[3] = 0.0
    for b in range(first, last):
        work.scalars[3] = max(work.scalars[3], float(work.walks[b]))
    work.scalars[0] = 0.0
    for k in range(outputs):
        size = 0.0
        for j in range(pitch):
            size += float(work.outgoing[(outputs + k) * pitch + j]) * work.size[j]
        work.scalars[0] = np.maximum(work.scalars[0], size)


@inner
def list_failures(work: Any, length: int) -> None:
    """Lists the failures of the configuration at hand, `length` rows: values, means, and how far from
    these.
    """
    work.now_bounded[0], work.now_bounded[1] = 0, length
    for slot in range(length):
        row = work.rows[work.now[ROW] + slot]
        o = work.first[row]
        neuron = work.neuron[o]
        work.failed[slot], work.how[slot] = neuron, work.action[o]
        work.exactly[slot] = value_of(work, slot, o)
        work.mean[slot], work.apart[slot] = work.exactly[slot], 0.0
        if work.stage[row] == 2 * (work.layers - 1):
            continue
        work.now_bounded[0] += 1
        if work.action[o] == SET:
            work.mean[slot] = work.exactly[slot] - work.mean_of[neuron]
            work.apart[slot] = work.reach_of[neuron] + 4 * work.unit * abs(work.exactly[slot])


@inner
def second_order(work: Any) -> Any:
    """The second order of each of the last hidden layer's neurons. Returns more than its magnitudes
    together.
    """
    lanes, pitch, before = block(work.room), work.pitch, work.now_bounded[0]
    none = load(work.weights, 0)
    half, five, more = spread(work.room, 0.5), spread(work.room, 5.0), spread(work.room, 1.25)
    third = spread(work.room, work.third / 3)
    size = none
    for j in range(0, pitch, lanes):
        shift, far = none, none
        for i in range(before):
            weight = load(work.wide, work.failed[i] * pitch + j)
            shift = fma(weight, spread(work.room, work.mean[i]), shift)
            far = fma(larger(none, weight), spread(work.room, work.apart[i]), far)
        far = plus(far, larger(none, shift))
        middle = load(work.middle, j)
        halved = fma(fma(half, shift, none), shift, none)
        doubt = fma(third, far, load(work.spread_of, j))
        weight = fma(load(work.heaviest, j), fma(five, doubt, larger(none, middle)), none)
        size = fma(fma(weight, far, none), far, size)
        store(work.centre, j, fma(middle, halved, none))
        store(work.tilt, j, fma(middle, shift, none))
        store(work.radius, j, fma(fma(more, doubt, none), halved, none))
        store(work.weighted, j, weight)
    for i in range(before, work.now_bounded[1]):
        if work.how[i] != ADD:
            work.centre[work.failed[i]] = work.tilt[work.failed[i]] = work.radius[work.failed[i]] = 0.0
    return total(size)


@inner
def dot(work: Any, one: Any, other: Any) -> Any:
    """The product of two rows of the last hidden layer's pitch."""
    by = load(work.weights, 0)
    for j in range(0, work.pitch, block(work.room)):
        by = fma(load(one, j), load(other, j), by)
    return total(by)


@inner
def look_out(work: Any) -> None:
    """What is bounded once for a configuration: its radius and the factor of |e|^2 (scalars 1 and 2), how
    far the second order moves each output, and how much further by unit of each e.
    """
    lanes, pitch, outputs = block(work.room), work.pitch, work.neurons[work.layers]
    before, failures = work.now_bounded[0], work.now_bounded[1]
    none = load(work.weights, 0)
    moved = float(second_order(work))
    for i in range(failures):
        d = abs(work.mean[i]) + work.apart[i]
        if not (d <= work.tame and abs(work.exactly[i]) <= work.tame):
            moved = np.inf
        if i < before:
            moved += work.steepest * d * work.mass[work.failed[i]]
        else:
            moved += work.heaviest[work.failed[i]] * (abs(work.exactly[i]) + work.size[work.failed[i]])
    radius = 0.0
    for k in range(outputs):
        row = at(work.outgoing, k * pitch)
        work.shift[k] = dot(work, work.centre, row)
        sizes = at(row, outputs * pitch)
        radius = np.maximum(radius, float(dot(work, work.radius, sizes)))
    widest = 0.0
    for i in range(before):
        column = at(work.wide, work.failed[i] * pitch)
        for j in range(0, pitch, lanes):
            store(work.product_of, j, fma(load(column, j), load(work.tilt, j), none))
        for k in range(outputs):
            work.tilted[i * outputs + k] = dot(work, work.product_of, at(work.outgoing, k * pitch))
        for j in range(0, pitch, lanes):
            store(work.product_of, j, fma(load(column, j), load(work.weighted, j), none))
        circle = 0.0
        for other in range(before):
            circle += abs(float(dot(work, work.product_of, at(work.wide, work.failed[other] * pitch))))
        widest = np.maximum(widest, circle)
    few = 2.0 * failures + 64
    many = few + 2 * work.neurons[work.layers - 1]
    slack = work.unit * (many * moved + few * work.scalars[0] + work.scalars[3]) + work.faint
    work.scalars[1] = radius * (1 + 2.0**-10) + slack
    if not moved + work.scalars[0] <= work.wild:
        work.scalars[1] = np.inf
    work.scalars[2] = widest / 2 * (1 + 2.0**-10)


@inner
def deviate_by(work: Any, b: int) -> None:
    """The deviations d of the failures on block b, and e of those before the last hidden layer; of those in
    it, less what was tabulated of their neurons.
    """
    lanes, before = block(work.room), work.now_bounded[0]
    golden = golden_at(work, b)
    none = load(work.weights, 0)
    slope = at(work.slope, (work.now[FIRST] + b) * work.neurons[work.layers - 1] * lanes)
    for i in range(work.now_bounded[1]):
        neuron = work.failed[i]
        y = load(golden, work.y[work.layers - 2 + (i >= before)] + neuron * lanes)
        d = departure(work.how[i], spread(work.room, work.exactly[i]), y, none)
        if i < before:
            store(work.e, i * lanes, minus(d, spread(work.room, work.mean[i])))
        elif work.how[i] != ADD:
            shift = none
            for other in range(before):
                weight = spread(work.room, work.wide[work.failed[other] * work.pitch + neuron])
                shift = fma(weight, load(work.d, other * lanes), shift)
            d = minus(d, fma(load(slope, neuron * lanes), shift, none))
        store(work.d, i * lanes, d)


@inner
def foresee(work: Any, c: int, b: int, upper: Any) -> None:
    """What no input's error in block b exceeds. Counts the classes that certainly change; where that is not
    certain either way, nothing bounds the error.
    """
    lanes, outputs, before = block(work.room), work.neurons[work.layers], work.now_bounded[0]
    golden = golden_at(work, b)
    none = load(work.weights, 0)
    columns = at(work.weights, work.columns[work.layers])
    effect = at(work.effect, (work.now[FIRST] + b) * work.neurons[work.layers - 2] * outputs * lanes)
    deviate_by(work, b)
    square = none
    for i in range(before):
        square = fma(load(work.e, i * lanes), load(work.e, i * lanes), square)
    radius = fma(square, spread(work.room, work.scalars[2]), spread(work.room, work.scalars[1]))
    error = none
    for k in range(outputs):
        move = spread(work.room, work.shift[k])
        for i in range(before):
            tilt = spread(work.room, work.tilted[i * outputs + k])
            by = load(effect, (work.failed[i] * outputs + k) * lanes)
            move = fma(tilt, load(work.e, i * lanes), fma(by, load(work.d, i * lanes), move))
        for i in range(before, work.now_bounded[1]):
            move = fma(columns[work.failed[i] * outputs + k], load(work.d, i * lanes), move)
        store(work.move, k * lanes, move)
        error = larger(error, move)
    error = plus(error, radius)
    here = at(upper, b * lanes)
    inside = inside_of(work, b)
    safe = less(error, load(golden, work.threshold))
    if ones(safe) != lanes:
        category = load(golden, work.category)
        infinite = spread(work.room, np.inf)
        own, rival = none, minus(none, infinite)
        for k in range(outputs):
            move = load(work.move, k * lanes)
            same = equal(category, float(k))
            own = choose(same, move, own)
            rival = higher(rival, choose(same, rival, plus(load(golden, work.gap + k * lanes), move)))
        lead, least = minus(rival, own), plus(radius, radius)
        changed, kept = greater(lead, least), less(lead, minus(none, least))
        bounded = less(error, np.inf)
        work.sdc[c] += ones(changed & bounded & inside)
        error = choose((changed | kept) & bounded, error, infinite)
    store(here, 0, choose(inside, error, spread(work.room, -1.0)))


@inner
def bound(work: Any, c: int, length: int, upper: Any) -> None:
    """The same for the whole tile and the configuration at hand, whose rows are `length`."""
    list_failures(work, length)
    look_out(work)
    for b in range(work.now[BLOCKS]):
        foresee(work, c, b, upper)
