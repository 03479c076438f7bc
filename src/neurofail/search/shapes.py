"""Activations for compiled code: value, slope, and the lines that enclose them on an interval.

Every activation of the contract is piecewise linear with at most one convex and one concave kink, or
smooth and convex-then-concave about one inflection, or (GELU, SiLU) concave-convex-concave. A line is
valid on the whole interval by one of those shapes, never by sampling. Values and slopes are good to a few
units of rounding; the search adds a margin for that (`problem.rounding`).
"""

from __future__ import annotations

import math

from neurofail.activations import Activation
from neurofail.search.compiled import inner

_IDENTITY, _RELU, _LEAKY, _RELU6, _SIGMOID, _TANH, _HARD, _CLIP, _SOFTPLUS, _ELU, _GELU, _SILU, _SOFTSIGN = (
    Activation(name).code
    for name in (
        *("identity", "relu", "leaky_relu", "relu6", "sigmoid", "tanh", "hard_sigmoid", "clip"),
        *("softplus", "elu", "gelu", "silu", "softsign"),
    )
)
# Inflections of GELU (exactly sqrt 2) and of SiLU; a tangent on the wrong side of a rounded inflection errs
# by the cube of its distance, far below one unit of rounding.
_GELU_BEND, _SILU_BEND = math.sqrt(2.0), 2.3993572805154676


@inner
def _sigmoid(x: float) -> float:
    # exp of a non-positive number only: no overflow, full relative accuracy in the lower tail.
    tail = math.exp(-abs(x))
    return (1.0 if x >= 0 else tail) / (1.0 + tail)


@inner
def value(code: int, p: float, q: float, x: float) -> float:
    """base(x): the activation at its natural steepness; p and q are its parameters."""
    if code == _RELU:
        return max(x, 0.0)
    if code == _SIGMOID:
        return _sigmoid(x)
    if code == _TANH:
        return math.tanh(x)
    if code == _LEAKY:
        return x if x >= 0 else p * x
    if code == _RELU6:
        return min(max(x, 0.0), 6.0)
    if code == _HARD:
        return min(max(x / 6.0 + 0.5, 0.0), 1.0)
    if code == _CLIP:
        return min(max(x, p), q)
    if code == _SOFTPLUS:
        return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
    if code == _ELU:
        return x if x >= 0 else p * math.expm1(x)
    if code == _GELU:
        return 0.5 * x * math.erfc(-x / math.sqrt(2.0))
    if code == _SILU:
        return x * _sigmoid(x)
    if code == _SOFTSIGN:
        return x / (1.0 + abs(x))
    return x


@inner
def slope(code: int, p: float, q: float, x: float) -> float:
    """The derivative of a smooth base at x (at the kink of elu, the one on the left)."""
    if code == _SIGMOID:
        tail = math.exp(-abs(x))
        return tail / ((1.0 + tail) * (1.0 + tail))
    if code == _TANH:
        t = math.tanh(x)
        return (1.0 - t) * (1.0 + t)
    if code == _SOFTPLUS:
        return _sigmoid(x)
    if code == _ELU:
        return 1.0 if x > 0 else p * math.exp(x)
    if code == _GELU:
        density = math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
        return 0.5 * math.erfc(-x / math.sqrt(2.0)) + x * density
    if code == _SILU:
        s = _sigmoid(x)
        return s * (1.0 + x * (1.0 - s))
    return 1.0 / ((1.0 + abs(x)) * (1.0 + abs(x)))  # softsign


@inner
def _seen(code: int, p: float, q: float, x: float, over: float, up: float) -> float:
    """The base mirrored: up * base(over * x), each factor +1 or -1."""
    return up * value(code, p, q, over * x)


@inner
def _tangent(code: int, p: float, q: float, x: float, over: float, up: float) -> tuple[float, float, float]:
    """The tangent of the mirrored base at x: (slope, a point, the value there)."""
    return up * over * slope(code, p, q, over * x), x, _seen(code, p, q, x, over, up)


@inner
def _chord(low: float, high: float, at_low: float, at_high: float) -> tuple[float, float, float]:
    if high > low:
        return (at_high - at_low) / (high - low), low, at_low
    return 0.0, low, max(at_low, at_high)


@inner
def _bent(
    code: int, p: float, q: float, low: float, high: float, near: float, bend: float, over: float, up: float
) -> tuple[float, float, float]:
    """An upper line for a function that is convex left of `bend` and concave right of it.

    A tangent in the concave part lies above that part; above the convex part too if it does not start
    below the function at `low`. The tangent from (low, f(low)) is sought by halving, and the end where the
    condition holds is used, so the line is valid however early the halving stops.
    """
    at_low = _seen(code, p, q, low, over, up)
    if high <= bend:
        return _chord(low, high, at_low, _seen(code, p, q, high, over, up))
    touch = min(max(near, low), high)
    if low >= bend:
        return _tangent(code, p, q, touch, over, up)
    touch = max(touch, bend)
    line = _tangent(code, p, q, touch, over, up)
    if line[2] + line[0] * (low - line[1]) >= at_low:
        return line
    line = _tangent(code, p, q, high, over, up)
    if line[2] + line[0] * (low - line[1]) < at_low:
        return _chord(low, high, at_low, line[2])
    left, right = touch, high
    for _ in range(8):
        middle = 0.5 * (left + right)
        trial = _tangent(code, p, q, middle, over, up)
        if trial[2] + trial[0] * (low - trial[1]) >= at_low:
            line, right = trial, middle
        else:
            left = middle
    return line


@inner
def _kinked(
    low: float,
    high: float,
    near: float,
    left: float,
    right: float,
    slopes: tuple[float, float, float],
    at_left: float,
) -> tuple[float, float, float]:
    """An upper line for slopes (k0, k1, k2) with a convex kink at `left` and a concave one at `right`.

    Near the concave kink any slope between its two sides is valid; sliding from one to the other keeps the
    bound a smooth function of `near`, which the search's averaging needs.
    """
    k0, k1, k2 = slopes
    if right == math.inf and left == -math.inf:
        return k1, 0.0, 0.0
    if left == -math.inf:
        at_right = at_left  # a single kink: both meet in one point
    else:
        at_right = at_left + k1 * (right - left) if right < math.inf else math.inf
    # f(low), and the chord over the convex kink up to the concave one or to `high`
    end = min(high, right)
    if low >= right:
        return k2, right, at_right
    if left == -math.inf:
        steep = k1
        anchor, at_anchor = right, at_right
    else:
        at_low = at_left + (k0 if low < left else k1) * (low - left)
        at_end = at_left + (k0 if end < left else k1) * (end - left)
        steep, anchor, at_anchor = _chord(low, end, at_low, at_end)
        if low >= left:
            steep = k1
        elif end <= left:
            steep = k0
    if high <= right:
        return steep, anchor, at_anchor
    share = (near - right) / (0.2 * (high - low)) + 0.5
    share = min(max(share, 0.0), 1.0)
    return steep + share * (k2 - steep), right, at_right


@inner
def _pieces(code: int, p: float, q: float) -> tuple[bool, float, float, float, float, float, float]:
    """Whether the base is piecewise linear; its kinks, its three slopes, and its value at the kink(s)."""
    inf = math.inf
    if code == _RELU:
        return True, 0.0, inf, 0.0, 1.0, 0.0, 0.0
    if code == _IDENTITY:
        return True, -inf, inf, 0.0, 1.0, 0.0, 0.0
    if code == _LEAKY:
        if p <= 1.0:
            return True, 0.0, inf, p, 1.0, 0.0, 0.0
        return True, -inf, 0.0, 0.0, p, 1.0, 0.0
    if code == _RELU6:
        return True, 0.0, 6.0, 0.0, 1.0, 0.0, 0.0
    if code == _HARD:
        return True, -3.0, 3.0, 0.0, 1.0 / 6.0, 0.0, 0.0
    if code == _CLIP:
        return True, p, q, 0.0, 1.0, 0.0, p
    return False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0


@inner
def _upper(code: int, p: float, q: float, low: float, high: float, near: float) -> tuple[float, float, float]:
    flat, left, right, k0, k1, k2, at_left = _pieces(code, p, q)
    if flat:
        return _kinked(low, high, near, left, right, (k0, k1, k2), at_left)
    if code in (_GELU, _SILU):
        bend = _GELU_BEND if code == _GELU else _SILU_BEND
        if low >= -bend:
            return _bent(code, p, q, low, high, near, bend, 1.0, 1.0)
        if high <= bend:
            k, x, f = _bent(code, p, q, -high, -low, -near, bend, -1.0, 1.0)
            return -k, -x, f
        return _chord(low, high, 0.0, high)  # neither exceeds ReLU, which is convex
    bend = 0.0
    if code == _SOFTPLUS or (code == _ELU and p <= 1.0):
        bend = math.inf
    return _bent(code, p, q, low, high, near, bend, 1.0, 1.0)


@inner
def _lower(code: int, p: float, q: float, low: float, high: float, near: float) -> tuple[float, float, float]:
    # -f(-x) has the same shape, its kinks and bends mirrored: an upper line of it is a lower line of f.
    flat, left, right, k0, k1, k2, at_left = _pieces(code, p, q)
    if flat:
        at_right = at_left + (k1 * (right - left) if left > -math.inf and right < math.inf else 0.0)
        k, x, f = _kinked(-high, -low, -near, -right, -left, (k2, k1, k0), -at_right)
        return k, -x, -f
    if code in (_GELU, _SILU):
        bend = _GELU_BEND if code == _GELU else _SILU_BEND
        at_low, at_high = value(code, p, q, low), value(code, p, q, high)
        if high <= -bend or low >= bend:
            return _chord(low, high, at_low, at_high)
        # Below the convex part by tangency; below the concave ends if below their outer end points.
        touch = min(max(near, low, -bend), high, bend)
        k, x, f = _tangent(code, p, q, touch, 1.0, 1.0)
        drop = max(0.0, f + k * (low - x) - at_low, f + k * (high - x) - at_high)
        return k, x, f - drop
    bend = 0.0
    if code == _SOFTPLUS or (code == _ELU and p <= 1.0):
        bend = -math.inf
    k, x, f = _bent(code, p, q, -high, -low, -near, bend, -1.0, -1.0)
    return k, -x, -f


@inner
def steepness(code: int, gain: float, p: float, q: float, low: float, high: float) -> tuple[float, float]:
    """The least and the greatest slope of phi(x) = base(gain x) on [low, high]."""
    low, high = gain * low, gain * high
    flat, left, right, k0, k1, k2, _ = _pieces(code, p, q)
    if flat:
        least, most = math.inf, -math.inf
        if low < left:
            least, most = min(least, k0), max(most, k0)
        if high > left and low < right:
            least, most = min(least, k1), max(most, k1)
        if high > right:
            least, most = min(least, k2), max(most, k2)
        if least > most:  # a single point, at a kink
            least, most = min(k0, k1, k2), max(k0, k1, k2)
        return gain * least, gain * most
    at_low, at_high = slope(code, p, q, low), slope(code, p, q, high)
    least, most = min(at_low, at_high), max(at_low, at_high)
    if code in (_GELU, _SILU):
        bend = _GELU_BEND if code == _GELU else _SILU_BEND
        if low < bend < high:
            most = slope(code, p, q, bend)
        if low < -bend < high:
            least = slope(code, p, q, -bend)
    elif low < 0.0 < high:
        # Slopes rise up to 0 and fall after it (softplus and elu: they never fall, or jump once, at 0).
        most = max(most, slope(code, p, q, 0.0))
    return gain * least, gain * most


@inner
def image(
    code: int, gain: float, p: float, q: float, turning: float, low: float, high: float
) -> tuple[float, float]:
    """The least and the greatest value of phi, which falls until it turns (NaN: never) and rises then."""
    a, b = value(code, p, q, gain * low), value(code, p, q, gain * high)
    least = min(a, b)
    if low < turning and turning < high:
        least = min(least, value(code, p, q, gain * turning))
    return least, max(a, b)


@inner
def swept(least: float, most: float, low: float, high: float) -> tuple[float, float]:
    """The least and the greatest of slope * e for slopes in [least, most] and e in [low, high]."""
    a, b, c, d = least * low, most * low, least * high, most * high
    return min(a, b, c, d), max(a, b, c, d)


@inner
def fan(least: float, most: float, low: float, high: float, above: bool) -> tuple[float, float]:
    """A line above (below) slope * e for every slope in [least, most] and e in [low, high]: (slope, at 0)."""
    if above:
        at_low, at_high = max(least * low, most * low), max(least * high, most * high)
    else:
        at_low, at_high = min(least * low, most * low), min(least * high, most * high)
    k = (at_high - at_low) / (high - low) if high > low else 0.0
    # Rounding makes the slope of a short chord anything; the true one is a slope between the two.
    k = min(max(k, least), most)
    return k, at_low - k * low


@inner
def line(
    code: int, gain: float, p: float, q: float, low: float, high: float, near: float, above: bool
) -> tuple[float, float, float]:
    """A line above (or below) phi(x) = base(gain x) on [low, high]: (slope, a point, the line there).

    It touches the best such bound close to `near`, where that is cheap.
    """
    if above:
        k, x, f = _upper(code, p, q, gain * low, gain * high, gain * near)
    else:
        k, x, f = _lower(code, p, q, gain * low, gain * high, gain * near)
    return gain * k, x / gain, f
