"""How far a configuration can move the outputs on each input, without running it, where the last hidden
layer's activation has a kink: csrc/sift.inc. What is left is looked at more closely (look.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba.kinks import AHEAD, BEHIND, DOWN, UP, WAYS
from neurofail._numba.lanes import (
    at,
    at_most,
    block,
    choose,
    greater,
    higher,
    inner,
    less,
    load,
    minus,
    ones,
    plus,
    spread,
    store,
)
from neurofail._numba.work import BLOCKS, FIRST, inside_of, length_of


@inner
def sift(work: Any, first: int, last: int, b: int) -> None:
    """What the errors of configurations first .. last - 1 on block b of the tile do not exceed. Counts the
    classes that certainly change; where that is not certain either way, nothing bounds the error.
    """
    lanes, outputs = block(work.room), work.neurons[work.layers]
    area, tile = outputs * lanes, work.now[BLOCKS] * lanes
    number = work.now[FIRST] + b
    none, infinite = load(work.weights, 0), spread(work.room, np.inf)
    slack = load(work.slack, number * lanes)
    twice = plus(slack, slack)
    inside, past = inside_of(work, b), spread(work.room, -1.0)
    for c in range(first, last):
        length = length_of(work, c * work.slots)
        error = none
        ahead = least = minus(none, infinite)
        for k in range(outputs):
            up = down = before = behind = none
            for slot in range(length):
                record = work.record_of[work.rows[c * work.slots + slot]]
                far = at(work.far, (number * work.records + record) * WAYS * area + k * lanes)
                up, down = plus(up, load(far, UP * area)), plus(down, load(far, DOWN * area))
                before, behind = plus(before, load(far, AHEAD * area)), plus(behind, load(far, BEHIND * area))
            gap = load(work.gaps, number * area + k * lanes)
            error = higher(error, higher(up, down))
            ahead, least = higher(ahead, plus(gap, before)), higher(least, minus(gap, behind))
        error = plus(error, slack)
        changed, kept = greater(least, twice), at_most(ahead, minus(none, twice))
        bounded = less(error, np.inf)
        work.sdc[c] += ones(changed & bounded & inside)
        here = at(work.upper, (c - first) * tile + b * lanes)
        store(here, 0, choose(inside, choose((changed | kept) & bounded, error, infinite), past))
