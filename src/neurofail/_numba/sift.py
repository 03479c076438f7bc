"""How far a configuration can move the outputs on each input, without running it, where the last hidden
layer's activation has a kink: csrc/sift.inc. What is left is run; csrc/look.inc is not done here.
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
from neurofail._numba.work import BLOCKS, FIRST, ROW


@inner
def sifted(work: Any, c: int) -> Any:
    """Whether kinks say something of configuration c."""
    count = 0
    for slot in range(work.slots):
        row = work.rows[c * work.slots + slot]
        if row < 0:
            break
        if work.record_of[row] < 0:
            return False
        count += 1
    return 0 < count <= work.most_failures


@inner
def sift(work: Any, c: int, length: int, upper: Any) -> None:
    """What no input's error exceeds, of the configuration at hand, whose rows are `length`. Counts the
    classes that certainly change; where that is not certain either way, nothing bounds the error.
    """
    lanes, outputs = block(work.room), work.neurons[work.layers]
    area = outputs * lanes
    none, infinite = load(work.weights, 0), spread(work.room, np.inf)
    for b in range(work.now[BLOCKS]):
        number = work.now[FIRST] + b
        error = none
        ahead = least = minus(none, infinite)
        for k in range(outputs):
            up = down = before = behind = none
            for slot in range(length):
                record = work.record_of[work.rows[work.now[ROW] + slot]]
                far = at(work.far, (number * work.records + record) * WAYS * area + k * lanes)
                up, down = plus(up, load(far, UP * area)), plus(down, load(far, DOWN * area))
                before, behind = plus(before, load(far, AHEAD * area)), plus(behind, load(far, BEHIND * area))
            gap = load(work.gaps, number * area + k * lanes)
            error = higher(error, higher(up, down))
            ahead, least = higher(ahead, plus(gap, before)), higher(least, minus(gap, behind))
        slack = load(work.slack, number * lanes)
        twice = plus(slack, slack)
        error = plus(error, slack)
        changed, kept = greater(least, twice), at_most(ahead, minus(none, twice))
        bounded = less(error, np.inf)
        left = work.inputs - number * lanes
        inside = np.uint64((1 << min(left, lanes)) - 1)
        work.sdc[c] += ones(changed & bounded & inside)
        here = at(upper, b * lanes)
        store(here, 0, choose((changed | kept) & bounded, error, infinite))
        for lane in range(max(left, 0), lanes):
            here[lane] = -1.0
