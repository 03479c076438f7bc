"""A closer look at evaluations that sifting leaves: how far a configuration moves the outputs on one input,
its kinks crossed, but without its run: csrc/look.inc. Lanes are neurons, then outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba.abreast import input_of, strike
from neurofail._numba.lanes import (
    at_most,
    block,
    first_one,
    fma,
    greater,
    inlined,
    larger,
    load,
    minus,
    parted,
    plus,
    spread,
    store,
)
from neurofail._numba.work import ROW

# Evaluations that are looked at together.
LOOK = 32
# What a look finds: the error may exceed what it is held against; the class certainly changes; or it may, or
# an output is NaN or infinite.
EXCEEDS, CHANGED, DOUBTFUL = 1, 2, 4


@inlined
def cross(work: Any, b: int, within: int, past: Any, crossed: Any) -> None:
    """Makes the pre-activations of an evaluation, `past`, and marks in `crossed`, 64 neurons to a number,
    those whose sign is not what it was.
    """
    lanes, here = block(work.room), input_of(work, b, within) * work.pitch
    strike(work, b, within, past)
    for j in range(0, work.pitch, lanes):
        signs = parted(load(work.sums, here + j), load(past, j)) << np.uint64(j % 64)
        crossed[j // 64] = signs if j % 64 == 0 else crossed[j // 64] | signs


@inlined
def straight(work: Any, which: int, i: int) -> Any:
    """How far the outputs from number i on move where no kink is crossed."""
    move = load(work.weights, 0)
    for slot in range(work.slots):
        row = work.rows[work.now[ROW] + slot]
        if row < 0:
            break
        move = plus(move, load(work.linear, (which * work.records + work.record_of[row]) * work.across + i))
    return move


@inlined
def bent(work: Any, past: Any, crossed: Any, i: int) -> Any:
    """How much further the kinks that are crossed move the outputs from number i on."""
    even = odd = load(work.weights, 0)
    for top in range(0, work.pitch, 64):
        bits = crossed[top // 64]
        while bits:
            j = top + first_one(bits)
            bits &= bits - np.uint64(1)
            # One that is no neuron's follows the last, and weighs nothing.
            other = top + first_one(bits) if bits else work.pitch
            bits &= bits - np.uint64(1)
            even = fma(abs(past[j]), load(work.by_neuron, j * work.across + i), even)
            odd = fma(abs(past[other]), load(work.by_neuron, other * work.across + i), odd)
    return plus(even, odd)


@inlined
def judge(work: Any, b: int, within: int, past: Any, crossed: Any, most: float) -> Any:
    """What a look finds of an evaluation, which is held against an error of `most`."""
    lanes, outputs, across = block(work.room), work.neurons[work.layers], work.across
    which = input_of(work, b, within)
    for i in range(0, across, lanes):
        move = fma(1 - work.below, bent(work, past, crossed, i), straight(work, which, i))
        store(work.moved, i, move)
    radius = work.slack[which] + work.moved[outputs]
    if not radius <= work.most:
        return EXCEEDS | DOUBTFUL
    own, sure = spread(work.room, work.moved[work.class_of[which]]), spread(work.room, 2 * radius)
    bar, none = minus(most, spread(work.room, radius)), load(work.weights, 0)
    every = np.uint64((1 << lanes) - 1)
    same, found = every, 0
    for i in range(0, across, lanes):
        move = load(work.moved, i)
        lead = minus(plus(load(work.gap_rows, which * across + i), move), own)
        is_output = np.uint64((1 << max(0, min(lanes, outputs - i))) - 1)
        if greater(larger(none, move), bar) & is_output:
            found |= EXCEEDS
        if greater(lead, sure):
            found |= CHANGED
        same &= at_most(lead, minus(none, sure))
    return found if same == every or found & CHANGED else found | DOUBTFUL
