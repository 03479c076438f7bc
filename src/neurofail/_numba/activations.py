"""The activations as the Numba backend computes them, with the formulas and numbers of csrc/activation.inc.

That file says how large the errors are, and where each formula is from; csrc/activation_coefficients.py made
the coefficients. Here a lane is never branched upon either: NaN gives NaN, infinities give the limit. The
steepness of an activation is in the weights already; for hard_sigmoid that includes its slope.
"""

from __future__ import annotations

from collections.abc import Callable

from neurofail._numba.lanes import Value

_LOG2E = 1.4426950408889634074

# By number format: float32, float64. Lowest power first.
COEFFICIENTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "coth_terms": (
        (0.16666654727578007, -0.0027698387854326876),
        (
            0.16666666666666661494, -0.0027777777777562863279, 6.6137564708555082022e-5,
            -1.6534058842837583218e-6, 4.143709688078019665e-8,
        ),
    ),
    "expm1_terms": (
        (0.5, 0.16666576666119928, 0.04166655421298415, 0.0083632328836826182, 0.0013926250831497612),
        (
            0.5, 0.1666666666666667103, 0.041666666666666669783, 0.0083333333333260831202,
            0.0013888888888883711167, 0.00019841269875002278793, 2.48015873256774619e-5,
            2.7557255170000887438e-6, 2.7557273478718580474e-7, 2.5105312729622101787e-8,
            2.09147553258932022e-9,
        ),
    ),
    "atanh_terms": (
        (
            0.33333333660263706, 0.19999853165964859, 0.14296178997151419, 0.10853287900440337,
            0.11612164612011674,
        ),
        (
            0.33333333333333329281, 0.20000000000007291337, 0.14285714283554378581,
            0.11111111358713931495, 0.090908947180664290846, 0.076927850324793115517,
            0.066570721048274680752, 0.060005364047953562676, 0.044003692430723369411,
            0.080820228059717661105,
        ),
    ),
    "tanh_top": (
        (
            1168819.2168986386, 157174.83077709183, 4178.4975496576022, 25.657660974790734,
            0.017899521157113044,
        ),
        (),
    ),
    "tanh_bottom": (
        (1168819.2168986386, 546781.17290021334, 30596.426730761089, 399.37053668113919),
        (),
    ),
    "mills_top": (
        (
            0.50000000235387431, 0.43565366081858203, 0.18127923322987748, 0.039973892678382242,
            0.0040183541031271447,
        ),
        (
            0.49999999999999997791, 0.77395760789459436502, 0.59271680732198190014,
            0.28838182810691926423, 0.097272031725604278674, 0.02349168540237521103,
            0.0040614993734590169803, 0.00048638733655101361546, 3.6887270614627385562e-5,
            1.3693105838470755009e-6,
        ),
    ),
    "mills_bottom": (
        (
            1.0, 1.6691922267898362, 1.1943771364917439, 0.46430671204350138, 0.1002070703301993,
            0.01007237684074919,
        ),
        (
            1.0, 2.3457997765920452201, 2.5571110391218562663, 1.7101047065556877002,
            0.77934716145742873442, 0.25382055649854719765, 0.060097250847297855263,
            0.010273131830319882195, 0.0012226246030657613065, 9.2462675494214786751e-5,
            3.4323526262342381162e-6,
        ),
    ),
}  # fmt: skip


def _pick(x: Value, single: float, wide: float) -> float:
    return single if x.single else wide


def _horner(x: Value, name: str, monic: bool = False) -> Value:
    """The polynomial in x; where it is monic, the table leaves the leading 1 out."""
    table = COEFFICIENTS[name][0 if x.single else 1]
    total = x + table[-1] if monic else x.fma(table[-1], table[-2])
    for coefficient in reversed(table[: -1 if monic else -2]):
        total = total.fma(x, coefficient)
    return total


def _clamp(x: Value, low: float, high: float) -> Value:
    return x.at_least(low).at_most(high)


def _shifter(x: Value) -> float:
    """Added to a small x, it leaves round(x) plus the exponent's bias in the low bits of the sum."""
    return _pick(x, 1.5 * 2.0**23 + 127, 1.5 * 2.0**52 + 1023)


def _power(shifted: Value) -> Value:
    """2^round(x) of x + _shifter(x)."""
    return shifted.shifted(23 if shifted.single else 52)


def _reduce(x: Value, n: Value) -> Value:
    """x - n ln 2. The first part of ln 2 is short, so that its product with n is exact without FMA."""
    r = n.fma(_pick(x, -0.693145751953125, -0.6931471805596629565116018), x)
    return n.fma(_pick(x, -1.42860682030941723e-6, -2.8235290563031577123e-13), r)


def _coth(r: Value) -> Value:
    """r coth(r / 2)"""
    square = r * r
    return square.fma(_horner(square, "coth_terms"), 2.0)


def _expm1(r: Value) -> Value:
    """e^r - 1"""
    return (r * r).fma(_horner(r, "expm1_terms"), r)


def _identity(x: Value, a: Value, b: Value) -> Value:
    return x


def _relu(x: Value, a: Value, b: Value) -> Value:
    return x.at_least(0.0)


def _leaky_relu(x: Value, a: Value, b: Value) -> Value:
    return x.choose(x.compare(">", 0.0), x * a)


def _relu6(x: Value, a: Value, b: Value) -> Value:
    return _clamp(x, 0.0, 6.0)


def _sigmoid(x: Value, a: Value, b: Value) -> Value:
    # 1 / (1 + e^-x), where e^-x = 2^n (g - r) / (g + r).
    y = _clamp(x, _pick(x, -89.0, -710.0), _pick(x, 80.0, 700.0))
    shifted = y.fma(-_LOG2E, _shifter(x))
    r = _reduce(y, -(shifted - _shifter(x)))
    g = _coth(r)
    top = g + r
    return top / _power(shifted).fma(g - r, top)


def _tanh(x: Value, a: Value, b: Value) -> Value:
    if x.single:
        y = _clamp(x, -7.9997454, 7.9997454)
        square = y * y
        return y * _horner(square, "tanh_top") / _horner(square, "tanh_bottom", monic=True)
    # (e - 1) / (e + 1), where e = e^2x = 2^n (g + r) / (g - r).
    y = _clamp(x + x, -44.0, 44.0)
    shifted = y.fma(_LOG2E, _shifter(x))
    power = _power(shifted)
    r = _reduce(y, shifted - _shifter(x))
    g = _coth(r)
    less, more = power - 1.0, power + 1.0
    return _clamp(less.fma(g, more * r) / less.fma(r, more * g), -1.0, 1.0)


def _hard_sigmoid(x: Value, a: Value, b: Value) -> Value:
    return _clamp(x + 0.5, 0.0, 1.0)


def _clip(x: Value, a: Value, b: Value) -> Value:
    above = a.choose(x.compare("<", a), x)
    return b.choose(above.compare(">", b), above)


def _softplus(x: Value, a: Value, b: Value) -> Value:
    # max(x, 0) + log(1 + e), e = e^-|x|, and log(1 + e) = 2 atanh(z), z = e / (2 + e).
    y = -abs(x).at_most(_pick(x, 88.0, 709.0))
    shifted = y.fma(_LOG2E, _shifter(x))
    power = _power(shifted)
    e = power.fma(_expm1(_reduce(y, shifted - _shifter(x))), power)
    twice = (e + e) / (e + 2.0)
    z = twice * 0.5
    square = z * z
    return x.at_least(0.0) + (twice * square).fma(_horner(square, "atanh_terms"), twice)


def _elu(x: Value, a: Value, b: Value) -> Value:
    # e^x - 1 = 2^n (e^r - 1) + (2^n - 1)
    y = _clamp(x, _pick(x, -20.0, -40.0), 0.0)
    shifted = y.fma(_LOG2E, _shifter(x))
    power = _power(shifted)
    below = power.fma(_expm1(_reduce(y, shifted - _shifter(x))), power - 1.0)
    return x.choose(x.compare(">", 0.0), below * a)


def _gelu(x: Value, a: Value, b: Value) -> Value:
    # max(x, 0) - |x| Q(|x|), the square in the exponent of Q taken in two exact parts.
    size = abs(x).at_most(_pick(x, 13.27, 37.66))
    cut = _pick(x, 49152.0, 6442450944.0)
    head = (size + cut) - cut
    tail = size - head
    shifted = (size * size).fma(-_LOG2E * 0.5, _shifter(x))
    r = _reduce(head * head * -0.5, shifted - _shifter(x))
    e = _expm1(r - tail * (size + head) * 0.5)
    share = size * (_horner(size, "mills_top") / _horner(size, "mills_bottom"))
    return x.at_least(0.0) - share.fma(e, share) * _power(shifted)


def _silu(x: Value, a: Value, b: Value) -> Value:
    # x / (1 + e^-x), the quotient 2^10 times too large and x as many times too small, for far below zero.
    above = x.at_least(_pick(x, -96.0, -717.0))
    y = above.at_most(_pick(x, 80.0, 700.0))
    shifted = y.fma(-_LOG2E, _shifter(x))
    r = _reduce(y, -(shifted - _shifter(x)))
    g = _coth(r)
    top = g + r
    power = _power(shifted - 10.0)
    return above * 2.0**-10 * (top / power.fma(g - r, top * 2.0**-10))


def _softsign(x: Value, a: Value, b: Value) -> Value:
    limit = _pick(x, 2.0**31, 2.0**60)
    y = _clamp(x, -limit, limit)
    return y / (abs(y) + 1.0)


# By the codes of neurofail.h; a and b are the activation's parameters.
ACTIVATIONS: tuple[Callable[[Value, Value, Value], Value], ...] = (
    _identity,
    _relu,
    _leaky_relu,
    _relu6,
    _sigmoid,
    _tanh,
    _hard_sigmoid,
    _clip,
    _softplus,
    _elu,
    _gelu,
    _silu,
    _softsign,
)
