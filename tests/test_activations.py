"""Activations: K is the least Lipschitz constant, the range is tight, an interval's image encloses it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import ACTIVATIONS

from neurofail.activations import NAMES, Activation
from neurofail.errors import InputError

mpmath = pytest.importorskip("mpmath")
mp = mpmath.mp


def _silu_second(x: object) -> object:
    s = 1 / (1 + mp.exp(-x))
    return s * (1 - s) * (2 + x * (1 - 2 * s))


# phi at its own steepness, from its definition in the literature, at 40 digits; shares no code with ours.
BASE: dict[str, Callable[..., object]] = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, 0),
    "leaky_relu": lambda x, alpha: x if x >= 0 else alpha * x,
    "relu6": lambda x: min(max(x, 0), 6),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "tanh": lambda x: mp.tanh(x),
    "hard_sigmoid": lambda x: min(max(x / 6 + mp.mpf(1) / 2, 0), 1),
    "clip": lambda x, low, high: min(max(x, low), high),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "elu": lambda x, alpha: x if x >= 0 else alpha * mp.expm1(x),
    "gelu": lambda x: x * mp.ncdf(x),
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "softsign": lambda x: x / (1 + abs(x)),
}
# The K of each at its own steepness.
STEEPEST: dict[str, Callable[..., object]] = {
    **dict.fromkeys(NAMES, lambda *p: 1),
    "leaky_relu": lambda alpha: max(1, abs(alpha)),
    "sigmoid": lambda: mp.mpf(1) / 4,
    "hard_sigmoid": lambda: mp.mpf(1) / 6,
    "elu": lambda alpha: max(1, alpha),
    # phi'' = 0 at sqrt(2): phi' = Phi + x density there.
    "gelu": lambda: mp.ncdf(mp.sqrt(2)) + mp.sqrt(2) * mp.npdf(mp.sqrt(2)),
    "silu": lambda: mp.diff(
        lambda x: x / (1 + mp.exp(-x)),
        mp.findroot(_silu_second, 2.4),
    ),
}


def exact(phi: Activation, x: float) -> object:
    """phi(x) at 40 digits: base(g x) with g from K and the base's true K."""
    with mp.workdps(40):
        p = [mp.mpf(v) for v in phi.parameters]
        gain = mp.mpf(phi.gain)
        return +BASE[phi.name](gain * mp.mpf(x), *p)


EACH = pytest.mark.parametrize("phi", ACTIVATIONS, ids=str)
FAR = np.concatenate([-np.geomspace(1e-3, 700, 60)[::-1], [0.0], np.geomspace(1e-3, 700, 60)])


@EACH
def test_values(phi: Activation) -> None:
    points = np.concatenate([np.linspace(-12, 12, 101), FAR])
    for x, y in zip(points, phi(points), strict=True):
        true = exact(phi, x)
        # The argument is rounded, which the steepest tail (GELU's) magnifies by its square.
        allowed = 8 * 2.0**-52 * abs(true) * (1 + (x * phi.gain) ** 2)
        assert abs(mp.mpf(float(y)) - true) <= allowed + mp.mpf(2) ** -1000


@EACH
def test_lipschitz_is_the_steepest_slope_and_no_more(phi: Activation) -> None:
    with mp.workdps(40):
        own = STEEPEST[phi.name](*phi.parameters)
        # Not below (a K too small would be unsound) and not above by more than the last places.
        steepest = mp.mpf(phi.gain) * own
        assert steepest <= mp.mpf(phi.lipschitz) * (1 + mp.mpf(2) ** -51)
        assert mp.mpf(phi.lipschitz) <= steepest * (1 + mp.mpf(2) ** -50)


@EACH
def test_no_chord_is_steeper_and_one_nearly_as_steep(phi: Activation) -> None:
    x = np.linspace(-20, 20, 40_001) / phi.gain
    slopes = np.abs(np.diff(phi(x)) / np.diff(x))
    assert slopes.max() <= phi.lipschitz * (1 + 1e-9)
    assert slopes.max() >= phi.lipschitz * (1 - 1e-3)


@EACH
def test_the_range_encloses_every_value_and_is_reached(phi: Activation) -> None:
    low, high = phi.range
    values = phi(np.concatenate([np.linspace(-30, 30, 200_001), [-1e6, 1e6]]) / phi.gain)
    assert values.min() >= low
    assert values.max() <= high
    assert values.min() <= low + 1e-5 if math.isfinite(low) else values.min() < -1000
    assert values.max() >= high - 1e-5 if math.isfinite(high) else values.max() > 1000


@EACH
@given(ends=st.tuples(st.floats(-40, 40), st.floats(-40, 40)), inside=st.floats(0, 1))
def test_the_image_of_an_interval_encloses_phi_of_every_point(
    phi: Activation, ends: tuple[float, float], inside: float
) -> None:
    low, high = min(ends), max(ends)
    bottom, top = phi.image(np.array([low]), np.array([high]))
    points = [low, high, min(max(low + inside * (high - low), low), high)]
    if phi.turning is not None and low <= phi.turning <= high:
        points.append(phi.turning)
    for x in points:
        # Against what is computed and against what is true.
        assert bottom[0] <= float(phi(x)) <= top[0]
        assert mp.mpf(float(bottom[0])) <= exact(phi, x) <= mp.mpf(float(top[0]))


@EACH
def test_the_image_is_tight(phi: Activation) -> None:
    low, high = np.array([-1.5, 0.25, -3.0]), np.array([2.0, 0.5, -2.0])
    bottom, top = phi.image(low, high)
    for i in range(3):
        values = phi(np.linspace(low[i], high[i], 10_001))
        assert values.min() - 1e-3 <= bottom[i]
        assert top[i] <= values.max() + 1e-3


@EACH
def test_monotone_where_no_turning_point_is_named(phi: Activation) -> None:
    x = np.linspace(-30, 30, 60_001)
    steps = np.diff(phi(x))
    rising = steps >= -1e-12
    if phi.turning is None:
        assert rising.all()
    else:
        assert rising[x[:-1] >= phi.turning].all()
        assert (steps <= 1e-12)[x[1:] <= phi.turning].all()


@EACH
def test_infinities_and_nan(phi: Activation) -> None:
    low, high = phi.range
    at = phi(np.array([-np.inf, np.inf, np.nan]))
    assert math.isnan(at[2])
    assert not np.isnan(at[:2]).any()
    if phi.turning is None:
        assert tuple(at[:2]) == (low, high) or phi.name == "leaky_relu"


def test_steepness_scales_the_argument() -> None:
    # The paper's sigmoid(4 K x); K = 2 at x = 0.3: 1 / (1 + e^-2.4).
    assert float(Activation("sigmoid", lipschitz=2.0)(0.3)) == pytest.approx(
        1 / (1 + math.exp(-2.4)), rel=1e-15
    )
    # hard_sigmoid of slope K is clip(K x + 1/2, 0, 1).
    assert float(Activation("hard_sigmoid", lipschitz=0.5)(0.25)) == 0.625


def test_a_gain_of_one_is_the_activation_itself() -> None:
    assert Activation("sigmoid", lipschitz=0.25) == Activation("sigmoid")
    assert Activation("relu", lipschitz=1.0) == Activation("relu")


@EACH
def test_to_dict_and_back(phi: Activation) -> None:
    assert Activation.from_dict(json.loads(json.dumps(phi.to_dict()))) == phi


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("swish", {}, "activation 'swish' is unknown; known are"),
        ("relu", {"alpha": 1.0}, "does not take alpha"),
        ("elu", {"alpha": -1.0}, "alpha is -1.0, must be at least 0"),
        ("clip", {"low": 1.0, "high": 1.0}, "low 1.0 must be below high 1.0"),
        ("clip", {"low": -math.inf}, "which is not finite"),
        ("leaky_relu", {"alpha": math.nan}, "which is not finite"),
        ("relu", {"lipschitz": 0.0}, "must be positive"),
        ("relu", {"lipschitz": math.inf}, "which is not finite"),
        ("relu", {"lipschitz": math.nan}, "which is not finite"),
        (["relu"], {}, "is unknown"),
        ("relu", {"lipschitz": "steep"}, "lipschitz is 'steep'"),
        ("elu", {"alpha": "steep"}, "alpha is 'steep'"),
    ],
    ids=str,
)
def test_refusals(name: object, options: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Activation(name, **options)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "record", [None, [], {}, {"name": 3}, {"name": "relu", "x": 1}, {"name": "elu", "alpha": "1"}], ids=str
)
def test_from_dict_refuses(record: object) -> None:
    with pytest.raises(InputError):
        Activation.from_dict(record)  # type: ignore[arg-type]  # wrong on purpose
