"""Runs of configurations that differ in one neuron of the last hidden layer alone: no activation follows, so
each costs one multiply-add an output.

Most of that need not be done. A sweep is a run along successive neurons: what the failure of each of them
alone can do is tabulated (tables.py), and what the run's configurations share is added once a run. An output
that cannot exceed its configuration's error so far is not computed; and a class is known to change, or not
to, wherever the sum of both gains says so by more than every rounding on the way. What is left open is
computed as it would be without tables: they change no bit. See csrc/sweep.inc.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba import words
from neurofail._numba.lanes import (
    at,
    block,
    choose,
    first_one,
    fma,
    greater,
    higher,
    highest,
    inlined,
    inner,
    larger,
    largest,
    less,
    load,
    lower,
    minus,
    ones,
    plus,
    spread,
    store,
)
from neurofail._numba.outputs import count, of_class, take
from neurofail._numba.tables import (
    MOST,
    catch_up,
    deviations_at,
    gains_at,
    operation_at,
    reaches_at,
    tabled,
)
from neurofail._numba.work import (
    BLOCKS,
    departure,
    deviation_at,
    golden_at,
    inside_of,
    updated_at,
    value_of,
)

_ONE = np.uint64(1)


@inner
def look_ahead(work: Any, kept: int) -> Any:
    """How far what a run's configurations share moves each output in each block. Returns the block where that
    is most: what comes after it mostly stays below its errors.
    """
    lanes, outputs = block(work.room), work.neurons[work.layers]
    none = load(work.weights, 0)
    foremost = 0
    for b in range(work.now[BLOCKS]):
        start = updated_at(work, work.layers, kept, False, b)
        size = none
        for k in range(outputs):
            here = load(start, k * lanes)
            work.rises[b * outputs + k] = highest(here)
            work.falls[b * outputs + k] = highest(minus(none, here))
            size = larger(size, here)
        work.shared_size[b] = largest(size)
        if work.shared_size[b] > work.shared_size[foremost]:
            foremost = b
    return foremost


@inlined
def lead(work: Any, b: int, start: Any, slack: float) -> Any:
    """What the outputs lead the golden class by, where some gain might be enough, and the outputs of which
    that is so, lane by lane. Returns the lanes with any.
    """
    lanes, outputs = block(work.room), work.neurons[work.layers]
    own, live, none = of_class(work, b, start), load(work.weights, 0), load(work.weights, 0)
    store(work.own_shared, 0, own)
    scale = work.scale[b]
    any_lanes = np.uint64(0)
    for k in range(outputs):
        here = (b * outputs + k) * lanes
        ahead = minus(plus(load(work.rivals, here), load(start, k * lanes)), own)
        ahead = fma(scale, ahead, none)
        enough = greater(plus(ahead, load(work.peak, here)), -slack)
        if enough:
            any_lanes |= enough
            live = choose(enough, plus(float(1 << k), live), live)
            limit = spread(work.room, float(words.MOST))
            words.shorten(work.lead, k * lanes, higher(lower(ahead, limit), minus(none, limit)))
    store(work.live, 0, live)
    return any_lanes & inside_of(work, b)


@inlined
def between(top: int, low: int, high: int, many: int) -> Any:
    """The words of numbers top, top + 1, .. that are at least `low` and below `high`, as bits."""
    left = min(high - top, many)
    bits = ~np.uint64(0) >> np.uint64(64 - left)
    return bits & (~np.uint64(0) << np.uint64(max(low - top, 0)))


@inlined
def overtaken(work: Any, b: int, start: Any, neuron: int) -> Any:
    """In how many lanes another output exceeds the golden class's own when the neuron fails."""
    lanes, outputs = block(work.room), work.neurons[work.layers]
    golden = golden_at(work, b)
    gap, column = at(golden, work.gap), at(work.weights, work.columns[work.layers] + neuron * outputs)
    d = load(deviations_at(work, b), neuron * lanes)
    own = fma(load(golden, work.own + neuron * lanes), d, load(work.own_shared, 0))
    rival = spread(work.room, -np.inf)
    for k in range(outputs):
        rival = higher(rival, plus(load(gap, k * lanes), fma(column[k], d, load(start, k * lanes))))
    return ones(greater(rival, own) & inside_of(work, b))


@inner
def judge(work: Any, c: int, b: int, start: Any, first: int, alike: int) -> None:
    """Counts the lanes of a block that lose their golden class, for the configurations of a sweep. What
    rounding leaves open is computed.
    """
    lanes, many = block(work.room), block(work.gains)
    if work.stale[2 * b] < work.stale[2 * b + 1]:
        catch_up(work, b)
    size, widest = float(work.shared_size[b]), float(work.widest[b])
    # What roundings can make of a lead and a gain: 64 units of their magnitude.
    slack = ((size + widest) * 64 * work.unit + work.least_normal) * work.scale[b] + 3
    left_over = lead(work, b, start, slack)
    if not left_over:
        return
    base = first // many * many
    low = first - base
    slack_word = spread(work.gains, int(min(slack, float(words.MOST))))
    nothing, lowest = spread(work.gains, 0), spread(work.gains, -words.MOST)
    for top in range(0, low + alike, many):
        gains = gains_at(work, b, (base + top) // many)
        lost, nearest = nothing, spread(work.gains, words.MOST)
        left = left_over
        while left:
            lane = first_one(left)
            left &= left - _ONE
            most = lowest
            bits = np.uint64(int(work.live[lane]))
            # Two outputs a round, the last twice if need be: the loop then ends where it is expected to.
            while bits:
                k = first_one(bits)
                bits &= bits - _ONE
                other = first_one(bits) if bits else k
                bits &= bits - _ONE
                at_k, at_other = k * lanes + lane, other * lanes + lane
                one = words.add(spread(work.gains, work.lead[at_k]), load(gains, at_k * many))
                two = words.add(spread(work.gains, work.lead[at_other]), load(gains, at_other * many))
                most = words.most(most, words.most(one, two))
            lost = words.minus(lost, words.above(most, nothing))
            nearest = words.least(nearest, words.size(most))
        known = words.above(nearest, slack_word)
        store(work.lost, top, words.add(load(work.lost, top), words.both(lost, known)))
        bits = ~words.bits_of(known) & between(top, low, low + alike, many)
        while bits:
            i = top + first_one(bits)
            bits &= bits - _ONE
            work.sdc[c + i - low] += overtaken(work, b, start, base + i)


@inlined
def scale_down(work: Any, b: int, high: int) -> None:
    """The errors so far of a run's configurations as words, rounded down."""
    none, limit = load(work.weights, 0), spread(work.room, float(words.MOST - 1))
    for i in range(0, high, block(work.room)):
        here = fma(work.scale[b], load(work.run_error, i), none)
        words.shorten(work.so_far, i, lower(here, limit))


@inlined
def furthest(work: Any, reaches: Any, k: int) -> Any:
    """How far output k can go, of a group's reaches."""
    many = block(reaches)
    up = words.add(spread(reaches, work.rise[k]), load(reaches, 2 * k * many))
    down = words.add(spread(reaches, work.fall[k]), load(reaches, (2 * k + 1) * many))
    return words.most(up, down)


@inlined
def raise_by(work: Any, start: Any, deviations: Any, base: int, i: int, k: int) -> None:
    """Raises the error at i by output k; it is of the configuration in which neuron base + i fails."""
    lanes, none = block(work.room), load(work.weights, 0)
    weight = work.weights[work.columns[work.layers] + (base + i) * work.neurons[work.layers] + k]
    error = fma(weight, load(deviations, (base + i) * lanes), load(start, k * lanes))
    work.run_error[i] = max(work.run_error[i], largest(larger(none, error)))


@inner
def sweep(work: Any, b: int, start: Any, first: int, alike: int) -> None:
    """The errors of a sweep's configurations on one block. Those that are open are first marked, of all of
    them, or every vector would end a loop where nothing foretells it.
    """
    many, outputs = block(work.reaches), work.neurons[work.layers]
    base, deviations = first // many * many, deviations_at(work, b)
    low = first - base
    high = low + alike
    for k in range(outputs):
        work.rise[k] = np.int16(work.rises[b * outputs + k] * work.scale[b] + 2)
        work.fall[k] = np.int16(work.falls[b * outputs + k] * work.scale[b] + 2)
    scale_down(work, b, high)
    for top in range(0, high, many):
        reaches = reaches_at(work, b, (base + top) // many)
        most = second = spread(reaches, -words.MOST - 1)
        which = spread(reaches, 0)
        for k in range(outputs):
            reach = furthest(work, reaches, k)
            which = words.select(words.above(reach, most), spread(reaches, k), which)
            second = words.most(second, words.least(reach, most))
            most = words.most(reach, most)
        store(work.second, top, second)
        store(work.which, top, which)
        over = words.bits_of(words.above(most, load(work.so_far, top)))
        work.open[top // many] = over & between(top, low, high, many)
    # First the output that can be the worst, which mostly spares the others.
    for top in range(0, high, many):
        bits = work.open[top // many]
        while bits:
            i = top + first_one(bits)
            bits &= bits - _ONE
            raise_by(work, start, deviations, base, i, int(work.which[i]))
    scale_down(work, b, high)
    for top in range(0, high, many):
        so_far = load(work.so_far, top)
        open_still = words.bits_of(words.above(load(work.second, top), so_far)) & between(
            top, low, high, many
        )
        work.open[top // many] = open_still
        if open_still:
            reaches, marked = reaches_at(work, b, (base + top) // many), spread(work.reaches, 0)
            for k in range(outputs):
                over = words.above(furthest(work, reaches, k), so_far)
                marked = words.add(marked, words.both(over, spread(reaches, 1 << k)))
            store(work.marks, top, marked)
    for top in range(0, high, many):
        open_still = work.open[top // many]
        while open_still:
            i = top + first_one(open_still)
            open_still &= open_still - _ONE
            bits = np.uint64(work.marks[i]) & ~(_ONE << np.uint64(work.which[i]))
            while bits:
                raise_by(work, start, deviations, base, i, first_one(bits))
                bits &= bits - _ONE


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


@inlined
def begin(work: Any, c: int, alike: int, at_first: int) -> None:
    """Begins a sweep with the errors so far, rounded down."""
    for i in range(alike):
        work.run_error[at_first + i] = work.errors[c + i]
        if work.run_error[at_first + i] > work.errors[c + i]:
            work.run_error[at_first + i] = 0.0
        work.lost[at_first + i] = 0


@inlined
def end(work: Any, c: int, alike: int, at_first: int) -> None:
    """Ends a sweep: what it has raised the errors to, and how many lanes have lost their class."""
    for i in range(alike):
        work.errors[c + i] = max(work.errors[c + i], float(work.run_error[at_first + i]))
        work.sdc[c + i] += work.lost[at_first + i]


@inlined
def bounded_on(work: Any, b: int) -> Any:
    """Whether words tell what a sweep's configurations do in block b."""
    return work.shared_size[b] * work.scale[b] <= MOST and work.widest[b] <= work.wild


@inner
def run_alike(work: Any, c: int, kept: int, dense: bool, alike: int, slot: int) -> None:
    """Runs `alike` configurations from c on, alike but for the last row; `kept` rows before it are shared."""
    first = tabled(work, alike, slot) if work.swept and not work.drawn and not dense else -1
    swept, plain, foremost = first >= 0, False, 0
    at_first = first % block(work.reaches)
    if swept:
        foremost = look_ahead(work, kept)
        begin(work, c, alike, at_first)
    for number in range(work.now[BLOCKS]):
        b = foremost if number == 0 else number - 1 if number <= foremost else number
        start = updated_at(work, work.layers, kept, dense, b)
        if swept and bounded_on(work, b):
            # No single neuron makes an output deviate by more than this half.
            if work.shared_size[b] + words.MOST / (2 * work.scale[b]) >= work.safest[b]:
                judge(work, c, b, start, first, alike)
            sweep(work, b, start, first, alike)
            continue
        if not plain:
            for i in range(alike):
                store(work.room, work.run + i * block(work.room), 0.0)
            plain = True
        raise_all(work, c, b, start, dense, alike, slot)
    if plain:
        settle(work, c, alike)
    if swept:
        end(work, c, alike, at_first)
