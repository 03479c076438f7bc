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
    CEILING,
    D_HIGH,
    D_LOW,
    DOWN,
    E_HIGH,
    E_LOW,
    FAILED,
    FIRST,
    FLOOR,
    FREE,
    FROM,
    GAIN,
    HERE,
    HIGH,
    INTO,
    LEAN,
    LEAST,
    LINE,
    LOW,
    MOST,
    NEAR,
    OFFSET,
    OTHER,
    OUT,
    PICK,
    PRE,
    PRE_HIGH,
    PULL,
    PUSH,
    SECOND,
    SHARE,
    SOFT,
    SURE,
    TERM,
    TURNING,
    UP,
    WORST,
    WORTH,
    Array,
    Boxed,
    Case,
    Circuit,
    Desk,
    E,
    States,
    phi_at,
    told,
)
from neurofail.search.compiled import inner, outer
from neurofail.search.selection import largest
from neurofail.search.shapes import fan, image, line, steepness, swept
from neurofail.search.shares import mean_of_shares, narrow, share_out, shares, swift, to_come


@inner
def _send(circuit: Circuit, k: int, i: int, low: float, high: float, desk: Desk) -> None:
    """Add what neuron i of stage k sends, deviating by low to high, to the intervals of stage k + 1."""
    up, down, link = desk.of[E_HIGH, k + 1], desk.of[E_LOW, k + 1], circuit.link[FROM, k, i]
    for j in range(circuit.span[FROM, k, i, 0], circuit.span[FROM, k, i, 1]):
        x, y = link[j] * low, link[j] * high
        up[j] += max(x, y)
        down[j] += min(x, y)


@inner
def _tell(circuit: Circuit, k: int, i: int, desk: Desk) -> None:
    """The same of a failed neuron that equivocates: within the levels of each receiver."""
    low, high = desk.of[LOW, k, i], desk.of[HIGH, k, i]
    up, down, link = desk.of[E_HIGH, k + 1], desk.of[E_LOW, k + 1], circuit.link[FROM, k, i]
    for j in range(circuit.span[FROM, k, i, 0], circuit.span[FROM, k, i, 1]):
        up[j] += told(link[j], low, high, desk.of[CEILING, k + 1, j])
        down[j] += told(link[j], low, high, desk.of[FLOOR, k + 1, j])


@inner
def _leave_first(circuit: Circuit, case: Case, left: int, desk: Desk) -> None:
    """The intervals of stage 1: failed terms, and the largest of the free ones in their known order."""
    senders, receivers = circuit.width[0], circuit.width[1]
    forced = circuit.forced and not circuit.pooled
    up, down = desk.of[E_HIGH, 1], desk.of[E_LOW, 1]
    for j in range(receivers):
        up[j] = down[j] = 0.0
    for i in range(senders):
        if desk.state[HERE, 0, i] == FAILED and desk.of[LOW, 0, i] == desk.of[HIGH, 0, i]:
            _send(circuit, 0, i, desk.of[LOW, 0, i], desk.of[HIGH, 0, i], desk)
    for j in range(receivers):
        desk.of[SURE, 1, j] = case.of[PRE, 1, j] + up[j]
    for i in range(senders):
        if desk.state[HERE, 0, i] == FAILED and desk.of[LOW, 0, i] < desk.of[HIGH, 0, i]:
            if circuit.split:
                _tell(circuit, 0, i, desk)
                continue
            _send(circuit, 0, i, desk.of[LOW, 0, i], desk.of[HIGH, 0, i], desk)
    if left == 0:
        return
    for j in range(receivers):
        taken, total = 0, 0.0
        for x in range(senders):
            term = case.term[UP, j, x]
            if taken == left or (term <= 0.0 and not forced):
                break
            if desk.state[HERE, 0, case.order[UP, j, x]] == FREE:
                total += term
                taken += 1
        up[j] += total
        taken, total = 0, 0.0
        for x in range(senders):
            term = case.term[DOWN, j, x]
            if taken == left or (term >= 0.0 and not forced):
                break
            if desk.state[HERE, 0, case.order[DOWN, j, x]] == FREE:
                total += term
                taken += 1
        down[j] += total


@inner
def _leave(circuit: Circuit, k: int, left: int, desk: Desk) -> None:
    """The intervals of stage k + 1, k > 0: sound deviations, failed terms, the largest differences."""
    senders, receivers = circuit.width[k], circuit.width[k + 1]
    up, down = desk.of[E_HIGH, k + 1], desk.of[E_LOW, k + 1]
    for j in range(receivers):
        up[j] = down[j] = 0.0
    for i in range(senders):
        a, b = desk.of[D_LOW, k, i], desk.of[D_HIGH, k, i]
        if desk.state[HERE, k, i] == FAILED:
            if circuit.split:
                _tell(circuit, k, i, desk)
                continue
            if circuit.blocking:
                a, b = desk.of[LOW, k, i], desk.of[HIGH, k, i]
            else:
                a, b = a + desk.of[LOW, k, i], b + desk.of[HIGH, k, i]
        _send(circuit, k, i, a, b, desk)
    if left == 0:
        return
    forced, free = circuit.forced and not circuit.pooled, 0
    for i in range(senders):
        free += desk.state[HERE, k, i] == FREE
    for j in range(receivers):
        # 0 alone is a type of its own, for which `largest` would be compiled a second time.
        size = int(np.int64(0))
        for i in range(circuit.span[INTO, k, j, 0], circuit.span[INTO, k, j, 1]):
            if desk.state[HERE, k, i] == FREE:
                w = circuit.link[INTO, k, j, i]
                a, b = w * desk.of[LOW, k, i], w * desk.of[HIGH, k, i]
                x, y = w * desk.of[D_LOW, k, i], w * desk.of[D_HIGH, k, i]
                if not circuit.blocking:
                    x, y = 0.0, 0.0
                desk.of[LINE, 0, size] = max(a, b) - max(x, y)
                desk.of[OTHER, 0, size] = min(x, y) - min(a, b)
                size += 1
        for _ in range(min(left, free - size)):  # beyond its span a failure makes no difference
            desk.of[LINE, 0, size] = desk.of[OTHER, 0, size] = 0.0
            size += 1
        up[j] += largest(desk.of[LINE, 0], size, left, forced)
        down[j] -= largest(desk.of[OTHER, 0], size, left, forced)


@inner
def _slopes(circuit: Circuit, case: Case, k: int, j: int, desk: Desk) -> tuple[float, float]:
    """The slopes of a neuron's activation between its golden and its faulty pre-activations, of a box."""
    low = case.of[PRE, k, j] + min(desk.of[E_LOW, k, j], 0.0)
    high = case.of[PRE_HIGH, k, j] + max(desk.of[E_HIGH, k, j], 0.0)
    return steepness(
        circuit.code[k], circuit.phi[GAIN, k], circuit.phi[FIRST, k], circuit.phi[SECOND, k], low, high
    )


@inner
def _deviate(circuit: Circuit, case: Case, k: int, j: int, desk: Desk) -> None:
    """The interval of a sound neuron's output deviation, of a box: slope times pre-activation deviation."""
    least, most = _slopes(circuit, case, k, j, desk)
    e_low, e_high = desk.of[E_LOW, k, j], desk.of[E_HIGH, k, j]
    low, high = swept(least, most, e_low, e_high)
    if np.isnan(circuit.phi[TURNING, k]):
        s, t = case.of[PRE, k, j], case.of[PRE_HIGH, k, j]
        high = min(high, phi_at(circuit, k, t + e_high) - phi_at(circuit, k, s))
        low = max(low, phi_at(circuit, k, s + e_low) - phi_at(circuit, k, t))
    desk.of[D_LOW, k, j], desk.of[D_HIGH, k, j] = low, high


@inner
def spread(circuit: Circuit, case: Case, boxed: Boxed, desk: Desk) -> None:
    """The intervals of every stage: e of the pre-activations, d of a sound neuron's output."""
    for k in range(1, len(circuit.width)):
        if k == 1:
            _leave_first(circuit, case, desk.left[0], desk)
        else:
            _leave(circuit, k - 1, desk.left[k - 1], desk)
            if k == 2 and circuit.lone and boxed is None:
                coming = to_come(circuit, desk)
                if coming > 0:
                    narrow(circuit, case, coming, desk)
        for j in range(circuit.width[k]):
            if boxed is not None:
                _deviate(circuit, case, k, j, desk)
                continue
            s, y = case.of[PRE, k, j], case.of[OUT, k, j]
            least, most = image(
                circuit.code[k],
                circuit.phi[GAIN, k],
                circuit.phi[FIRST, k],
                circuit.phi[SECOND, k],
                circuit.phi[TURNING, k],
                s + desk.of[E_LOW, k, j],
                s + desk.of[E_HIGH, k, j],
            )
            desk.of[D_LOW, k, j], desk.of[D_HIGH, k, j] = least - y, most - y


@inner
def _collect(circuit: Circuit, k: int, j: int, desk: Desk) -> None:
    """Pass the coefficient on neuron j of stage k down to the neurons of stage k - 1."""
    push, first, last = desk.of[PUSH, k, j], circuit.span[INTO, k - 1, j, 0], circuit.span[INTO, k - 1, j, 1]
    for i in range(first, last):
        desk.of[PULL, k - 1, i] += push * circuit.link[INTO, k - 1, j, i]
    if circuit.split:
        level = desk.of[CEILING, k, j] if push > 0.0 else desk.of[FLOOR, k, j]
        for i in range(first, last):
            low, high = desk.of[LOW, k - 1, i], desk.of[HIGH, k - 1, i]
            desk.of[WORST, k - 1, i] += push * told(circuit.link[INTO, k - 1, j, i], low, high, level)


@inner
def start(circuit: Circuit, desk: Desk) -> None:
    """Where the first lines touch: in the middle of each interval; at stage 1, where equal chances lead."""
    stages = len(circuit.width)
    everywhere = 0
    for k in range(stages):
        for i in range(circuit.width[k]):
            everywhere += desk.state[HERE, k, i] == FREE
    for k in range(stages):
        free = everywhere
        if not circuit.pooled:
            free = 0
            for i in range(circuit.width[k]):
                free += desk.state[HERE, k, i] == FREE
        chance = desk.left[k] / max(free, 1)
        for i in range(circuit.width[k]):
            now = desk.state[HERE, k, i]
            desk.of[SOFT, k, i] = chance if now == FREE else 1.0 if now == FAILED else 0.0
        if k > 0:
            for j in range(circuit.width[k]):
                desk.of[NEAR, k, j] = 0.5 * (desk.of[E_LOW, k, j] + desk.of[E_HIGH, k, j])
    if stages == 1:
        return
    near, receivers = desk.of[NEAR, 1], circuit.width[1]
    for j in range(receivers):
        near[j] = 0.0
    for i in range(circuit.width[0]):
        low, high = desk.of[LOW, 0, i], desk.of[HIGH, 0, i]
        soft = desk.of[SOFT, 0, i] * 0.5 * (low + high)
        if circuit.split:
            for j in range(circuit.span[FROM, 0, i, 0], circuit.span[FROM, 0, i, 1]):
                level = 0.5 * (desk.of[FLOOR, 1, j] + desk.of[CEILING, 1, j])
                near[j] += desk.of[SOFT, 0, i] * told(circuit.link[FROM, 0, i, j], low, high, level)
        elif soft != 0.0:
            for j in range(circuit.span[FROM, 0, i, 0], circuit.span[FROM, 0, i, 1]):
                near[j] += soft * circuit.link[FROM, 0, i, j]


@inner
def approach(circuit: Circuit, desk: Desk) -> None:
    """Let the next lines touch halfway between the last ones and the candidate, which has been measured."""
    for k in range(len(circuit.width)):
        for i in range(circuit.width[k]):
            desk.of[SOFT, k, i] += 0.5 * ((desk.state[PICK, k, i] == FAILED) - desk.of[SOFT, k, i])
            desk.of[NEAR, k, i] += 0.5 * (desk.of[E, k, i] - desk.of[NEAR, k, i])


@inner
def bound(
    circuit: Circuit, case: Case, row: int, boxed: Boxed, weight: float, mean: float, desk: Desk
) -> tuple[float, float, float]:
    """The linear bound, with lines that touch near desk.of[NEAR]: (its constant part, a bound by intervals,
    the constant part of the stages beyond stage 1).

    A mean of bounds is a bound: this one enters that of the turns before, whose constant part is `mean`, with
    `weight`. Leaves the mean gains in WORTH, the coefficients in PULL and PUSH.
    """
    stages = len(circuit.width)
    constant: float = case.objective[OFFSET, row]
    for j in range(circuit.width[stages - 1]):
        desk.of[PULL, stages - 1, j] = circuit.rows[row, j]
    coming = to_come(circuit, desk) if boxed is None else 0
    if coming > 0 and swift(circuit):
        mean_of_shares(circuit, coming, desk)
    for i in range(circuit.width[0]):
        desk.of[SHARE, 0, i] = desk.of[LEAN, 0, i] = 0.0
    placed = True
    for k in range(stages):
        placed = placed and desk.left[k] <= 0
    direct, beyond = np.inf, constant
    for k in range(stages - 1, -1, -1):
        if k == 1:
            beyond = constant
        if k > 0:
            for i in range(circuit.width[k - 1]):
                desk.of[PULL, k - 1, i] = desk.of[WORST, k - 1, i] = 0.0
        box = constant
        for j in range(circuit.width[k]):
            pull, now = desk.of[PULL, k, j], desk.state[HERE, k, j]
            worst = desk.of[WORST, k, j]
            if not circuit.split or k == stages - 1:
                worst = max(pull * desk.of[LOW, k, j], pull * desk.of[HIGH, k, j])
            desk.of[TERM, k, j], desk.of[PUSH, k, j] = worst, 0.0
            if k == 0:
                desk.of[TERM, k, j] += desk.of[SHARE, 0, j]
                if circuit.ranged:
                    worst = desk.of[TERM, k, j]  # a failure without a value has shares, too
            if now == FAILED:
                constant += worst
                box += worst
            if k == 0 or pull == 0.0 or (now == FAILED and circuit.blocking):
                continue
            box += max(pull * desk.of[D_LOW, k, j], pull * desk.of[D_HIGH, k, j])
            s, e_low, e_high = case.of[PRE, k, j], desk.of[E_LOW, k, j], desk.of[E_HIGH, k, j]
            if boxed is not None:
                least, most = _slopes(circuit, case, k, j, desk)
                slope, at_zero = fan(least, most, e_low, e_high, pull > 0.0)
                base, push = pull * at_zero, pull * slope
            else:
                near = s + desk.of[NEAR, k, j]
                slope, x, at_x = line(
                    circuit.code[k],
                    circuit.phi[GAIN, k],
                    circuit.phi[FIRST, k],
                    circuit.phi[SECOND, k],
                    s + e_low,
                    s + e_high,
                    near,
                    pull > 0.0,
                )
                lined = (slope, x, at_x)
                if k == 1 and coming > 0 and shares(circuit, case, j, coming, pull > 0.0, lined, near, desk):
                    share_out(circuit, j, desk)
                    constant += pull * (phi_at(circuit, 1, desk.of[SURE, 1, j]) - case.of[OUT, 1, j])
                    if circuit.blocking:
                        # Shares lie beyond what they bound, so they come to no less than its least.
                        desk.of[TERM, k, j] -= min(pull * desk.of[D_LOW, k, j], pull * desk.of[D_HIGH, k, j])
                    continue
                base, push = pull * (at_x - case.of[OUT, k, j] + slope * (s - x)), pull * slope
            constant += base
            if circuit.blocking:
                desk.of[TERM, k, j] -= base + min(push * e_low, push * e_high)
            if push != 0.0:
                desk.of[PUSH, k, j] = push
                _collect(circuit, k, j, desk)
        if k > 0 and placed:
            direct = min(direct, box)
    for k in range(stages):
        for j in range(circuit.width[k]):
            before = 0.0 if weight == 1.0 else (1.0 - weight) * desk.of[WORTH, k, j]
            desk.of[WORTH, k, j] = before + weight * desk.of[TERM, k, j]
    return (1.0 - weight) * mean + weight * constant, direct, beyond


@outer
def measure(circuit: Circuit, case: Case, row: int, pick: States, choice: Array, desk: Desk) -> float:
    """The objective of one configuration: failed neurons `pick`, their deviations `choice`; fills desk.of[E].

    With equivocation, `choice` holds levels instead: of what every receiver is told (see `told`).
    """
    stages = len(circuit.width)
    total: float = case.objective[OFFSET, row]
    for k in range(stages):
        if k + 1 < stages:
            for j in range(circuit.width[k + 1]):
                desk.of[E, k + 1, j] = 0.0
        for i in range(circuit.width[k]):
            failed = pick[k, i] == FAILED
            if failed and circuit.split:
                if k + 1 == stages:
                    total += max(
                        circuit.rows[row, i] * case.of[LEAST, k, i],
                        circuit.rows[row, i] * case.of[MOST, k, i],
                    )
                    continue
                for j in range(circuit.span[FROM, k, i, 0], circuit.span[FROM, k, i, 1]):
                    low, high = case.of[LEAST, k, i], case.of[MOST, k, i]
                    desk.of[E, k + 1, j] += told(circuit.link[FROM, k, i, j], low, high, choice[k + 1, j])
                continue
            deviation = 0.0
            if k > 0 and not (failed and circuit.blocking):
                deviation = phi_at(circuit, k, case.of[PRE, k, i] + desk.of[E, k, i]) - case.of[OUT, k, i]
            if failed:
                deviation += choice[k, i]
            if deviation == 0.0:
                continue
            if k + 1 < stages:
                for j in range(circuit.span[FROM, k, i, 0], circuit.span[FROM, k, i, 1]):
                    desk.of[E, k + 1, j] += circuit.link[FROM, k, i, j] * deviation
            else:
                total += circuit.rows[row, i] * deviation
    return total
