"""The bound of one node: intervals forwards, lines backwards, a selection at every stage.

At a node some neurons have failed, some are sound, the rest are free and a known number of them may fail.

Forwards, each pre-activation deviation lies in an interval: what the failed neurons send, and the largest
(least) terms among the free ones. Backwards, each activation is replaced by a line on the side that the
objective's sign asks for, so the objective is bounded by a linear function of the stage below; a free neuron
that fails replaces its line by its failure, which is worth at most their largest difference. What is left is,
at every stage, a sum of the largest gains.
"""

from __future__ import annotations

import numpy as np

from neurofail.search.circuit import (
    D_HIGH,
    D_LOW,
    E_HIGH,
    E_LOW,
    FAILED,
    FREE,
    LINE,
    OTHER,
    PULL,
    PUSH,
    SHARE,
    TERM,
    WORST,
    Array,
    Case,
    Circuit,
    Desk,
    E,
    Ints,
    States,
    copy,
)
from neurofail.search.compiled import inner
from neurofail.search.shapes import line, steepness, value


@inner
def _phi(circuit: Circuit, k: int, x: float) -> float:
    return value(circuit.code[k], circuit.first[k], circuit.second[k], circuit.gain[k] * x)


@inner
def largest(terms: Array, size: int, wanted: int, forced: bool) -> float:
    """The sum of the `wanted` largest of terms[:size] (if positive, unless forced); reorders them."""
    total = 0.0
    for k in range(min(wanted, size)):
        best = k
        for x in range(k + 1, size):
            if terms[x] > terms[best]:
                best = x
        terms[k], terms[best] = terms[best], terms[k]
        if terms[k] <= 0.0 and not forced:
            break
        total += terms[k]
    return total


@inner
def _leave_first(
    circuit: Circuit, case: Case, state: States, left: int, low: Array, high: Array, desk: Desk
) -> None:
    """The intervals of stage 1: failed terms, and the largest of the free ones in their known order."""
    senders, receivers = circuit.width[0], circuit.width[1]
    forced = circuit.forced and not circuit.pooled
    up, down = desk.of[E_HIGH, 1], desk.of[E_LOW, 1]
    for j in range(receivers):
        up[j] = down[j] = 0.0
    for i in range(senders):
        if state[0, i] == FAILED:
            a, b = low[0, i], high[0, i]
            for j in range(receivers):
                x, y = circuit.turned[0, i, j] * a, circuit.turned[0, i, j] * b
                up[j] += max(x, y)
                down[j] += min(x, y)
    if left == 0:
        return
    for j in range(receivers):
        taken, total = 0, 0.0
        for x in range(senders):
            term = case.up_term[j, x]
            if taken == left or (term <= 0.0 and not forced):
                break
            if state[0, case.up_order[j, x]] == FREE:
                total += term
                taken += 1
        up[j] += total
        taken, total = 0, 0.0
        for x in range(senders):
            term = case.down_term[j, x]
            if taken == left or (term >= 0.0 and not forced):
                break
            if state[0, case.down_order[j, x]] == FREE:
                total += term
                taken += 1
        down[j] += total


@inner
def _leave(circuit: Circuit, k: int, state: States, left: int, low: Array, high: Array, desk: Desk) -> None:
    """The intervals of stage k + 1, k > 0: sound deviations, failed terms, the largest differences."""
    senders, receivers = circuit.width[k], circuit.width[k + 1]
    up, down = desk.of[E_HIGH, k + 1], desk.of[E_LOW, k + 1]
    for j in range(receivers):
        up[j] = down[j] = 0.0
    for i in range(senders):
        a, b = desk.of[D_LOW, k, i], desk.of[D_HIGH, k, i]
        if state[k, i] == FAILED:
            if circuit.blocking:
                a, b = low[k, i], high[k, i]
            else:
                a, b = a + low[k, i], b + high[k, i]
        for j in range(receivers):
            x, y = circuit.turned[k, i, j] * a, circuit.turned[k, i, j] * b
            up[j] += max(x, y)
            down[j] += min(x, y)
    if left == 0:
        return
    forced = circuit.forced and not circuit.pooled
    for j in range(receivers):
        size = 0
        for i in range(senders):
            if state[k, i] == FREE:
                w = circuit.weight[k, j, i]
                a, b = w * low[k, i], w * high[k, i]
                x, y = w * desk.of[D_LOW, k, i], w * desk.of[D_HIGH, k, i]
                if not circuit.blocking:
                    x, y = 0.0, 0.0
                desk.of[LINE, 0, size] = max(a, b) - max(x, y)
                desk.of[OTHER, 0, size] = min(x, y) - min(a, b)
                size += 1
        up[j] += largest(desk.of[LINE, 0], size, left, forced)
        down[j] -= largest(desk.of[OTHER, 0], size, left, forced)


@inner
def _slopes(circuit: Circuit, case: Case, k: int, j: int, desk: Desk) -> tuple[float, float]:
    """The slopes of a neuron's activation between its golden and its faulty pre-activations, of a box."""
    low = case.pre[k, j] + min(desk.of[E_LOW, k, j], 0.0)
    high = case.pre_high[k, j] + max(desk.of[E_HIGH, k, j], 0.0)
    return steepness(circuit.code[k], circuit.gain[k], circuit.first[k], circuit.second[k], low, high)


@inner
def _deviate(circuit: Circuit, case: Case, k: int, j: int, desk: Desk) -> None:
    """The interval of a sound neuron's output deviation, of a box: slope times pre-activation deviation."""
    least, most = _slopes(circuit, case, k, j, desk)
    e_low, e_high = desk.of[E_LOW, k, j], desk.of[E_HIGH, k, j]
    low = min(least * e_low, most * e_low, least * e_high, most * e_high)
    high = max(least * e_low, most * e_low, least * e_high, most * e_high)
    if np.isnan(circuit.turning[k]):
        s, t = case.pre[k, j], case.pre_high[k, j]
        high = min(high, _phi(circuit, k, t + e_high) - _phi(circuit, k, s))
        low = max(low, _phi(circuit, k, s + e_low) - _phi(circuit, k, t))
    desk.of[D_LOW, k, j], desk.of[D_HIGH, k, j] = low, high


@inner
def _fan(least: float, most: float, low: float, high: float, above: bool) -> tuple[float, float]:
    """A line above (below) slope * e for every slope in [least, most] and e in [low, high]: (slope, at 0)."""
    if above:
        at_low, at_high = max(least * low, most * low), max(least * high, most * high)
    else:
        at_low, at_high = min(least * low, most * low), min(least * high, most * high)
    slope = (at_high - at_low) / (high - low) if high > low else 0.0
    return slope, at_low - slope * low


@inner
def spread(
    circuit: Circuit, case: Case, state: States, left: Ints, low: Array, high: Array, desk: Desk
) -> None:
    """The intervals of every stage: e of the pre-activations, d of a sound neuron's output."""
    for k in range(1, len(circuit.width)):
        if k == 1:
            _leave_first(circuit, case, state, left[0], low, high, desk)
        else:
            _leave(circuit, k - 1, state, left[k - 1], low, high, desk)
        turning = circuit.turning[k]
        for j in range(circuit.width[k]):
            if circuit.boxed:
                _deviate(circuit, case, k, j, desk)
                continue
            s, y = case.pre[k, j], case.out[k, j]
            least, most = s + desk.of[E_LOW, k, j], s + desk.of[E_HIGH, k, j]
            a, b = _phi(circuit, k, least), _phi(circuit, k, most)
            desk.of[D_HIGH, k, j] = max(a, b) - y
            bottom = min(a, b)
            if least < turning and turning < most:
                bottom = min(bottom, _phi(circuit, k, turning))
            desk.of[D_LOW, k, j] = bottom - y


@inner
def _select(circuit: Circuit, left: Ints, desk: Desk) -> float:
    """Mark the largest terms of each stage's free neurons (of all, if pooled); their sum, -inf if too few."""
    total = 0.0
    stages = len(circuit.width)
    for group in range(1 if circuit.pooled else stages):
        first, last = (0, stages) if circuit.pooled else (group, group + 1)
        for _ in range(left[group]):
            best, at_k, at_j = -np.inf, -1, -1
            for k in range(first, last):
                for j in range(circuit.width[k]):
                    if desk.of[TERM, k, j] > best and desk.pick[k, j] == FREE:
                        best, at_k, at_j = desk.of[TERM, k, j], k, j
            if at_k < 0 and circuit.forced:
                return -np.inf  # fewer free neurons than failures to place
            if at_k < 0 or (best <= 0.0 and not circuit.forced):
                break
            desk.pick[at_k, at_j] = FAILED
            total += best
    return total


@inner
def _collect(circuit: Circuit, k: int, j: int, low: Array, high: Array, desk: Desk) -> None:
    """Pass the coefficient on neuron j of stage k down to the neurons of stage k - 1."""
    push = desk.of[PUSH, k, j]
    for i in range(circuit.width[k - 1]):
        desk.of[PULL, k - 1, i] += push * circuit.weight[k - 1, j, i]
    if circuit.split:
        for i in range(circuit.width[k - 1]):
            each = push * circuit.weight[k - 1, j, i]
            desk.of[WORST, k - 1, i] += max(each * low[k - 1, i], each * high[k - 1, i])


@inner
def _jensen(circuit: Circuit, case: Case, j: int, left: int, low: Array, above: float, desk: Desk) -> bool:
    """Bound a ReLU neuron of stage 1 by shares, if that is tighter at the candidate than the line there.

    With r failures w_i still to come, convexity gives phi(a + sum w_i) <= the mean of the phi(a + r w_i): a
    sum of one share for each failure (fewer than r count as zeros). `above` is the line's value. The leak of
    leaky ReLU is at most 1, so that phi(x) = gain max(x, leak x).
    """
    senders = circuit.width[0]
    gain, leak = circuit.gain[1], circuit.leak
    weight, shares, chosen = circuit.weight[0, j], desk.of[OTHER, 0], desk.of[LINE, 0]
    fixed = case.pre[1, j] + desk.of[E, 1, j]
    for i in range(senders):
        if chosen[i] > 0.0:
            fixed -= weight[i] * low[0, i]
    start = gain * max(fixed, leak * fixed)
    scale = gain / left
    for i in range(senders):
        x = fixed + left * weight[i] * low[0, i]
        shares[i] = scale * max(x, leak * x) - start / left
    total = start - case.out[1, j]
    for i in range(senders):
        if chosen[i] > 0.0:
            total += shares[i]
    if total >= above:
        return False
    pull = desk.of[PULL, 1, j]
    for i in range(senders):
        desk.of[SHARE, 0, i] += pull * shares[i]
    desk.of[TERM, 1, j] = start - case.out[1, j]
    return True


@inner
def bound(
    circuit: Circuit,
    case: Case,
    row: int,
    state: States,
    left: Ints,
    low: Array,
    high: Array,
    again: bool,
    desk: Desk,
) -> float:
    """The linear bound, with lines that touch near desk.of[E].

    again: desk.pick and desk.of[E] are those of a candidate, around which the bound should be tight.

    Leaves the maximiser in desk.pick, the gains in TERM, the coefficients in PULL and PUSH.
    """
    stages = len(circuit.width)
    constant: float = case.offset[row]
    for j in range(circuit.width[stages - 1]):
        desk.of[PULL, stages - 1, j] = circuit.rows[row, j]
    shared = again and stages > 1 and left[0] > 0 and circuit.leak <= 1.0 and not circuit.ranged
    for i in range(circuit.width[0]):
        desk.of[SHARE, 0, i] = 0.0
        desk.of[LINE, 0, i] = 1.0 if desk.pick[0, i] == FAILED and state[0, i] == FREE else 0.0
    copy(desk.pick, state)
    placed = True
    for k in range(stages):
        placed = placed and left[k] <= 0
    boxed = np.inf
    for k in range(stages - 1, -1, -1):
        if k > 0:
            for i in range(circuit.width[k - 1]):
                desk.of[PULL, k - 1, i] = desk.of[WORST, k - 1, i] = 0.0
        box = constant
        for j in range(circuit.width[k]):
            pull, now = desk.of[PULL, k, j], state[k, j]
            worst = desk.of[WORST, k, j]
            if not circuit.split or k == stages - 1:
                worst = max(pull * low[k, j], pull * high[k, j])
            desk.of[TERM, k, j], desk.of[PUSH, k, j] = worst, 0.0
            if k == 0:
                desk.of[TERM, k, j] += desk.of[SHARE, 0, j]
            if now == FAILED:
                constant += worst
                box += worst
            if k == 0 or pull == 0.0 or (now == FAILED and circuit.blocking):
                continue
            box += max(pull * desk.of[D_LOW, k, j], pull * desk.of[D_HIGH, k, j])
            s, e_low, e_high = case.pre[k, j], desk.of[E_LOW, k, j], desk.of[E_HIGH, k, j]
            if circuit.boxed:
                least, most = _slopes(circuit, case, k, j, desk)
                slope, at_zero = _fan(least, most, e_low, e_high, pull > 0.0)
                base, push = pull * at_zero, pull * slope
            else:
                slope, x, at_x = line(
                    circuit.code[k],
                    circuit.gain[k],
                    circuit.first[k],
                    circuit.second[k],
                    s + e_low,
                    s + e_high,
                    s + desk.of[E, k, j],
                    pull > 0.0,
                )
                above = at_x - case.out[k, j] + slope * (s + desk.of[E, k, j] - x)
                if k == 1 and shared and pull > 0.0 and now != FREE:  # noqa: SIM102  # what is cheap comes first
                    if _jensen(circuit, case, j, left[0], low, above, desk):
                        constant += pull * desk.of[TERM, 1, j]
                        continue
                base, push = pull * (at_x - case.out[k, j] + slope * (s - x)), pull * slope
            constant += base
            if circuit.blocking:
                desk.of[TERM, k, j] -= base + min(push * e_low, push * e_high)
            desk.of[PUSH, k, j] = push
            _collect(circuit, k, j, low, high, desk)
        if k > 0 and placed:
            boxed = min(boxed, box)
    return min(boxed, constant + _select(circuit, left, desk))


@inner
def measure(circuit: Circuit, case: Case, row: int, pick: States, choice: Array, desk: Desk) -> float:
    """The objective of one configuration: failed neurons `pick`, their deviations `choice`; fills desk.of[E].

    With equivocation, `choice` holds desk.of[PUSH] instead: every receiver gets the end that it asks for.
    """
    stages = len(circuit.width)
    total: float = case.offset[row]
    for k in range(stages):
        if k + 1 < stages:
            for j in range(circuit.width[k + 1]):
                desk.of[E, k + 1, j] = 0.0
        for i in range(circuit.width[k]):
            failed = pick[k, i] == FAILED
            if failed and circuit.split:
                if k + 1 == stages:
                    total += max(
                        circuit.rows[row, i] * case.low[k, i], circuit.rows[row, i] * case.high[k, i]
                    )
                    continue
                for j in range(circuit.width[k + 1]):
                    w = circuit.turned[k, i, j]
                    upward = choice[k + 1, j] * w >= 0.0
                    desk.of[E, k + 1, j] += w * (case.high[k, i] if upward else case.low[k, i])
                continue
            deviation = 0.0
            if k > 0 and not (failed and circuit.blocking):
                deviation = _phi(circuit, k, case.pre[k, i] + desk.of[E, k, i]) - case.out[k, i]
            if failed:
                deviation += choice[k, i]
            if deviation == 0.0:
                continue
            if k + 1 < stages:
                for j in range(circuit.width[k + 1]):
                    desk.of[E, k + 1, j] += circuit.turned[k, i, j] * deviation
            else:
                total += circuit.rows[row, i] * deviation
    return total
