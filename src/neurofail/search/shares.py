"""A second bound for a neuron of stage 1: what the failures of stage 0 do to it, one by one.

With r failures w_i still to come on top of a pre-activation a, the deviation phi(a + sum w_i) - phi(a) is
bounded by a sum of one share for each failure, and is 0 where none comes. A line over an interval is not, and
costs that much at every neuron; so shares win where failures are few, or reach few neurons each, or cannot
all push the same way. What a share is:

- the last failure's (r = 1) is phi(a + w) - phi(a), exactly;
- of a ReLU, from above: by convexity phi(a + sum w_i) is at most the mean of the phi(a + r w_i), where fewer
  than r failures count as zeros. The leak of a leaky ReLU is at most 1 here: phi(x) = gain max(x, leak x);
- of any other: w times the steepest slope (the least, if w pushes back) on the way.

Where a failure has a range of values, its share is that of the worst of them, neuron by neuron.
"""

from __future__ import annotations

import numpy as np

from neurofail.search.circuit import (
    BACK,
    E_HIGH,
    E_LOW,
    FAILED,
    FIRST,
    FREE,
    FROM,
    GAIN,
    HERE,
    HIGH,
    INTO,
    LEAN,
    LINE,
    LOW,
    ONE,
    OTHER,
    OUT,
    PRE,
    PULL,
    SECOND,
    SHARE,
    SHARED,
    SOFT,
    SOUND,
    SURE,
    TURNING,
    Case,
    Circuit,
    Desk,
    phi_at,
)
from neurofail.search.compiled import inner
from neurofail.search.selection import largest
from neurofail.search.shapes import image, steepness

Pair = tuple[float, float]
Line = tuple[float, float, float]


@inner
def _open(circuit: Circuit, i: int, desk: Desk) -> bool:
    """Whether a neuron of stage 0 has failed, but not yet with a value."""
    return bool(desk.state[HERE, 0, i] == FAILED and desk.of[LOW, 0, i] < desk.of[HIGH, 0, i])


@inner
def to_come(circuit: Circuit, desk: Desk) -> int:
    """How many failures there are shares for, those without a value included; 0 where shares do not apply.

    Values that several neurons feel are better halved than shared out, and neurons that equivocate have none.
    """
    if len(circuit.width) == 1 or circuit.split:
        return 0
    count = int(np.int64(desk.left[0]))
    if circuit.ranged:
        for i in range(circuit.width[0]):
            if _open(circuit, i, desk):
                if not circuit.lone:
                    return 0
                count += 1
    return count


@inner
def swift(circuit: Circuit) -> bool:
    """Whether `mean_of_shares` says for all ReLUs at once if shares are worth looking at one by one."""
    return circuit.leak <= 1.0 and not circuit.ranged and not circuit.lone


@inner
def mean_of_shares(circuit: Circuit, left: int, desk: Desk) -> None:
    """What the shares of every ReLU of stage 1 come to, if stage 0 fails as softly as in SOFT; into SHARED.

    Receivers run innermost, so that no sum is over the fastest index: that would keep one addition waiting
    for another.
    """
    shared, sure = desk.of[SHARED, 1], desk.of[SURE, 1]
    gain, leak = circuit.phi[GAIN, 1], circuit.leak
    receivers = circuit.width[1]
    for j in range(receivers):
        shared[j] = 0.0
    placed, idle = 0.0, 0.0
    for i in range(circuit.width[0]):
        if desk.state[HERE, 0, i] != FREE:
            continue
        soft, step = desk.of[SOFT, 0, i], left * desk.of[LOW, 0, i]
        placed += soft
        if step == 0.0:
            idle += soft
            continue
        for j in range(receivers):
            x = sure[j] + step * circuit.link[FROM, 0, i, j]
            shared[j] += soft * max(x, leak * x)
    # Fewer failures than there could be leave the rest of the shares where they start.
    idle += left - placed
    scale = gain / left
    for j in range(receivers):
        shared[j] = scale * (shared[j] + idle * max(sure[j], leak * sure[j]))


@inner
def _slopes(circuit: Circuit, case: Case, j: int, desk: Desk) -> tuple[float, float]:
    """The least and the greatest slope that neuron j of stage 1 can meet on its way from SURE."""
    sure, s = desk.of[SURE, 1, j], case.of[PRE, 1, j]
    return steepness(
        circuit.code[1],
        circuit.phi[GAIN, 1],
        circuit.phi[FIRST, 1],
        circuit.phi[SECOND, 1],
        min(sure, s + desk.of[E_LOW, 1, j]),
        max(sure, s + desk.of[E_HIGH, 1, j]),
    )


@inner
def _share(
    circuit: Circuit, sure: float, start: float, step: float, left: int, above: bool, slopes: Pair
) -> float:
    """The share of a failure that moves a pre-activation by `step`, above what it does or below it."""
    if left == 1 or (above and circuit.leak <= 1.0):
        return (phi_at(circuit, 1, sure + left * step) - start) / left
    least, most = slopes
    return step * (most if (step > 0.0) == above else least)


@inner
def shares(
    circuit: Circuit, case: Case, j: int, left: int, above: bool, line: Line, near: float, desk: Desk
) -> bool:
    """Whether shares bound neuron j of stage 1 better at SOFT than a line (slope, a point, the value there).

    left is how many failures are to come, near is the pre-activation at SOFT. If they do, the shares are in
    ONE, above what the neuron's output does (or below it), and in BACK how much more they would be at the
    high end of a range than at the low one.
    """
    sure = desk.of[SURE, 1, j]
    slope, x, at_x = line
    start, slopes = phi_at(circuit, 1, sure), (0.0, 0.0)
    convex = above and circuit.leak <= 1.0
    if convex and swift(circuit):
        if desk.of[SHARED, 1, j] >= at_x + slope * (near - x):
            return False
        scale, leak = circuit.phi[GAIN, 1] / left, circuit.leak
        floor = max(sure, leak * sure)
        for i in range(circuit.width[0]):
            far = sure + left * desk.of[LOW, 0, i] * circuit.link[INTO, 0, j, i]
            desk.of[ONE, 0, i] = scale * (max(far, leak * far) - floor)
        return True
    if not convex and not circuit.lone:
        return False  # many failures reach each neuron, and each would have the steepest slope
    if not convex and left > 1:
        slopes = _slopes(circuit, case, j, desk)
    apart = start - at_x - slope * (sure - x)  # of shares and line, at SOFT
    for i in range(circuit.span[INTO, 0, j, 0], circuit.span[INTO, 0, j, 1]):
        w = circuit.link[INTO, 0, j, i]
        desk.of[ONE, 0, i] = desk.of[BACK, 0, i] = 0.0
        if w == 0.0 or not (desk.state[HERE, 0, i] == FREE or _open(circuit, i, desk)):
            continue
        low: float = w * desk.of[LOW, 0, i]
        high: float = w * desk.of[HIGH, 0, i]
        one = at_low = _share(circuit, sure, start, low, left, above, slopes)
        straight: float = slope * low
        if circuit.ranged:
            at_high = _share(circuit, sure, start, high, left, above, slopes)
            desk.of[BACK, 0, i] = at_high - at_low
            one = max(at_low, at_high) if above else min(at_low, at_high)
            straight = max(straight, slope * high) if above else min(straight, slope * high)
            if left == 1 and not above:
                one = min(one, _trough(circuit, sure, start, low, high))
        desk.of[ONE, 0, i] = one
        apart += desk.of[SOFT, 0, i] * (one - straight)
    return bool(apart < 0.0 if above else apart > 0.0)


@inner
def _trough(circuit: Circuit, sure: float, start: float, low: float, high: float) -> float:
    """The least that one failure within a range does: between its ends, where the activation turns."""
    return (
        image(
            circuit.code[1],
            circuit.phi[GAIN, 1],
            circuit.phi[FIRST, 1],
            circuit.phi[SECOND, 1],
            circuit.phi[TURNING, 1],
            sure + min(low, high),
            sure + max(low, high),
        )[0]
        - start
    )


@inner
def share_out(circuit: Circuit, j: int, desk: Desk) -> None:
    """Pass the coefficient on neuron j of stage 1 down to the failures of stage 0, by the shares in ONE."""
    pull = desk.of[PULL, 1, j]
    first, last = circuit.span[INTO, 0, j, 0], circuit.span[INTO, 0, j, 1]
    for i in range(first, last):
        desk.of[SHARE, 0, i] += pull * desk.of[ONE, 0, i]
    if circuit.ranged:
        for i in range(first, last):
            desk.of[LEAN, 0, i] += pull * desk.of[BACK, 0, i]


@inner
def narrow(circuit: Circuit, case: Case, left: int, desk: Desk) -> None:
    """Narrow the intervals of stage 2 where each neuron of stage 0 reaches one neuron of stage 1 at most.

    Those of stage 1 then do not all deviate at once, as intervals have it: a failure moves one of them, by no
    more than its share.
    """
    for j in range(circuit.width[1]):
        if desk.state[HERE, 1, j] != SOUND:
            return
    for j in range(circuit.width[1]):
        sure = desk.of[SURE, 1, j]
        start = phi_at(circuit, 1, sure)
        desk.of[LINE, 1, j] = start - case.of[OUT, 1, j]
        slopes = _slopes(circuit, case, j, desk)
        for i in range(circuit.span[INTO, 0, j, 0], circuit.span[INTO, 0, j, 1]):
            w = circuit.link[INTO, 0, j, i]
            if w == 0.0:
                continue  # what stands between j's senders may be another receiver's
            # What the failure does to j lies between ONE and BACK.
            desk.of[ONE, 0, i] = desk.of[BACK, 0, i] = 0.0
            if not (desk.state[HERE, 0, i] == FREE or _open(circuit, i, desk)):
                continue
            low: float = w * desk.of[LOW, 0, i]
            high: float = w * desk.of[HIGH, 0, i]
            desk.of[ONE, 0, i] = max(
                _share(circuit, sure, start, low, left, True, slopes),
                _share(circuit, sure, start, high, left, True, slopes),
            )
            desk.of[BACK, 0, i] = min(
                _share(circuit, sure, start, low, left, False, slopes),
                _share(circuit, sure, start, high, left, False, slopes),
                _trough(circuit, sure, start, low, high) if left == 1 and circuit.ranged else np.inf,
            )
    for k in range(circuit.width[2]):
        size, high, low = int(np.int64(0)), 0.0, 0.0
        for j in range(circuit.span[INTO, 1, k, 0], circuit.span[INTO, 1, k, 1]):
            w = circuit.link[INTO, 1, k, j]
            high += w * desk.of[LINE, 1, j]
            low += w * desk.of[LINE, 1, j]
            for i in range(circuit.span[INTO, 0, j, 0], circuit.span[INTO, 0, j, 1]):
                if circuit.link[INTO, 0, j, i] == 0.0:
                    continue
                a, b = w * desk.of[ONE, 0, i], w * desk.of[BACK, 0, i]
                if desk.state[HERE, 0, i] == FAILED:
                    high += max(a, b)
                    low += min(a, b)
                elif desk.state[HERE, 0, i] == FREE:
                    desk.of[LINE, 0, size], desk.of[OTHER, 0, size] = max(a, b), -min(a, b)
                    size += 1
        high += largest(desk.of[LINE, 0], size, desk.left[0], False)
        low -= largest(desk.of[OTHER, 0], size, desk.left[0], False)
        desk.of[E_HIGH, 2, k] = min(desk.of[E_HIGH, 2, k], high)
        desk.of[E_LOW, 2, k] = max(desk.of[E_LOW, 2, k], low)
