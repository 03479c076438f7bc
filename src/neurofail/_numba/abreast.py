"""Evaluations in lanes of their own, of any configuration and input: what failures do to the last hidden
layer and behind it. They come out as they would among their neighbours: csrc/abreast.inc.
"""

from __future__ import annotations

from typing import Any

from neurofail._numba.lanes import at, block, fma, fma_one, inlined, inner, load, spread, store
from neurofail._numba.loops import apply
from neurofail._numba.work import ADD, FIRST, ROW, SET, golden_at, value_of


@inlined
def input_of(work: Any, b: int, within: int) -> Any:
    """The number of the input in lane `within` of block b of the tile."""
    return (work.now[FIRST] + b) * block(work.room) + within


@inlined
def deviate(work: Any, b: int, within: int) -> Any:
    """Lists the failures before the last hidden layer, of the configuration at hand: the neurons, `failed`,
    and by how much they deviate on one input, `exactly`. Returns how many they are.
    """
    lanes, hidden = block(work.room), work.layers - 1
    golden = golden_at(work, b)
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
    return count


@inlined
def strike(work: Any, b: int, within: int) -> None:
    """The last hidden layer's pre-activations on one input, of the configuration at hand, to `product_of`:
    neuron beside neuron.
    """
    lanes, start, count = block(work.room), input_of(work, b, within) * work.pitch, deviate(work, b, within)
    for j in range(0, work.pitch, lanes):
        s = load(work.sums, start + j)
        for t in range(count):
            s = fma(load(work.wide, work.failed[t] * work.pitch + j), spread(work.room, work.exactly[t]), s)
        store(work.product_of, j, s)


@inner
def strike_lane(work: Any, i: int, b: int, within: int) -> None:
    """The deviations of the last hidden layer of the evaluation in lane i, whose configuration is at hand."""
    lanes, pitch = block(work.room), work.pitch
    hidden, zero = work.layers - 1, work.weights
    strike(work, b, within)
    apply(
        work.activation[hidden],
        work.a[hidden],
        work.b[hidden],
        pitch // lanes,
        work.product_of,
        zero,
        0,
        zero,
        at(work.outs, input_of(work, b, within) * pitch),
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
