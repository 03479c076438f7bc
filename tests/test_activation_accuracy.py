"""The kernel's activations against references that share nothing with them, and against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from neurofail.errors import BackendError

_native = pytest.importorskip("neurofail._native", reason="the C kernel is not built")
mpmath = pytest.importorskip("mpmath")
special = pytest.importorskip("scipy.special")

Array = npt.NDArray[np.floating[Any]]

ISAS = ("portable", "avx2", "avx512")

# The largest error in ulp: float32 on AVX2 and AVX-512, float32 portable (no FMA), float64 likewise.
LIMITS: dict[str, tuple[float, float, float, float]] = {
    "identity": (0.0, 0.0, 0.0, 0.0),
    "relu": (0.0, 0.0, 0.0, 0.0),
    "leaky_relu": (0.5, 0.5, 0.5, 0.5),
    "relu6": (0.0, 0.0, 0.0, 0.0),
    "sigmoid": (4.5, 2.6, 2.6, 2.6),
    "tanh": (5.0, 6.5, 3.5, 4.5),
    "hard_sigmoid": (0.5, 0.5, 0.5, 0.5),
    "clip": (0.0, 0.0, 0.0, 0.0),
    "softplus": (2.9, 2.9, 2.7, 2.7),
    "elu": (1.1, 1.3, 1.2, 1.2),
    "gelu": (6.2, 7.0, 7.0, 7.5),
    "silu": (3.5, 3.5, 3.0, 3.0),
    "softsign": (1.5, 1.5, 1.5, 1.5),
}
# Exact powers of two, so that a parameter adds no rounding of its own.
PARAMETERS: dict[str, tuple[float, float]] = {
    "leaky_relu": (0.125, 0.0),
    "clip": (-0.5, 0.75),
    "elu": (1.0, 0.0),
}
# Within the first of zero silu may be off by the second, whatever that is in ulp.
SILU_NEAR_ZERO = {32: (2.0**-116, 2.0**-141), 64: (2.0**-1012, 2.0**-1066)}
# What each function tends to at -inf and at +inf.
ENDS: dict[str, tuple[float, float]] = {
    "identity": (-np.inf, np.inf),
    "relu": (0.0, np.inf),
    "leaky_relu": (-np.inf, np.inf),
    "relu6": (0.0, 6.0),
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "clip": (-0.5, 0.75),
    "softplus": (0.0, np.inf),
    "elu": (-1.0, np.inf),
    "gelu": (0.0, np.inf),
    "silu": (0.0, np.inf),
    "softsign": (-1.0, 1.0),
}


def _sigmoid(x: Array) -> Array:
    tail = np.exp(-np.abs(x))
    return np.where(x < 0, tail, 1.0) / (1.0 + tail)


# In double precision, for float32 results.
WIDE: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.125 * x),
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "hard_sigmoid": lambda x: np.clip(x + 0.5, 0.0, 1.0),
    "clip": lambda x: np.clip(x, -0.5, 0.75),
    "softplus": lambda x: np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "gelu": lambda x: x * special.ndtr(x),
    "silu": lambda x: x * _sigmoid(x),
    "softsign": lambda x: x / (1.0 + np.abs(x)),
}
# In 40 digits, for float64 results.
EXACT: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, 0),
    "leaky_relu": lambda x: x if x > 0 else x / 8,
    "relu6": lambda x: min(max(x, 0), 6),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "hard_sigmoid": lambda x: min(max(x + mpmath.mpf(0.5), 0), 1),
    "clip": lambda x: min(max(x, mpmath.mpf(-0.5)), mpmath.mpf(0.75)),
    "softplus": lambda x: max(x, 0) + mpmath.log1p(mpmath.exp(-abs(x))),
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "softsign": lambda x: x / (1 + abs(x)),
}


def activate(isa: str, name: str, x: Array) -> Array:
    try:
        return np.asarray(_native.activate(isa, x.dtype, name, PARAMETERS.get(name, (0.0, 0.0)), x))
    except BackendError as error:
        pytest.skip(str(error))


def floats(bits: npt.NDArray[np.uint64]) -> Array:
    x = bits.astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


@pytest.fixture(scope="module")
def singles() -> Array:
    """Every 4099th float, every 331st where curves bend, and the first and last denormals."""
    bend = np.arange(0x3C800000, 0x43000000, 331, dtype=np.uint64)
    small = np.arange(1, 200, dtype=np.uint64)
    magnitudes = np.concatenate([bend, small, 0x00800000 - small, 0x7F800000 - small])
    return floats(
        np.concatenate([np.arange(0, 2**32, 4099, dtype=np.uint64), magnitudes, magnitudes | 0x80000000])
    )


@pytest.fixture(scope="module")
def doubles() -> Array:
    """All exponents alike, and more where the functions are neither 0 nor x nor constant."""
    random = np.random.default_rng(20260)
    everywhere = random.integers(0, 2**64, 700, dtype=np.uint64).view(np.float64)
    return np.concatenate(
        [
            everywhere[np.isfinite(everywhere)],
            random.uniform(-1, 1, 800) * 2.0 ** random.integers(-30, 10, 800),
            random.uniform(-38, 38, 800),
            random.uniform(-708, 38, 300),
            [0.0, 5e-324, -5e-324, 2.2e-308, -2.2e-308, 1.7e308, -1.7e308],
        ]
    )


def near_zero_of_silu(name: str, bits: int, x: Any, error: Any) -> Any:
    """Whether the absolute limit applies and holds."""
    within, allowed = SILU_NEAR_ZERO[bits]
    return (name == "silu") & (abs(x) < within) & (abs(error) <= allowed)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("isa", ISAS)
def test_float32_is_within_its_limit(isa: str, name: str, singles: Array) -> None:
    with np.errstate(all="ignore"):
        right = WIDE[name](singles.astype(np.float64))
        error = activate(isa, name, singles).astype(np.float64) - right
    tiny = float(np.finfo(np.float32).tiny)
    ulp = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(right), tiny))) - 23)
    ulps = np.abs(error) / ulp
    flushed = (np.abs(right) < tiny) & (np.abs(error) < tiny)
    ulps[flushed | near_zero_of_silu(name, 32, singles, error)] = 0.0
    worst = int(np.argmax(ulps))
    assert ulps[worst] <= LIMITS[name][isa == "portable"], f"{name}({singles[worst]!r})"


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("isa", ISAS)
def test_float64_is_within_its_limit(isa: str, name: str, doubles: Array) -> None:
    got = activate(isa, name, doubles)
    limit = LIMITS[name][2 + (isa == "portable")]
    tiny = np.finfo(np.float64).tiny
    with mpmath.workdps(40):
        for x, y in zip(doubles.tolist(), got.tolist(), strict=True):
            # Further out the functions are 0 or x to the last bit, and mpmath takes its time.
            if abs(x) > 800 and name not in ("softsign", "leaky_relu"):
                assert y == ENDS[name][x > 0] or y == x, f"{name}({x!r})"
                continue
            right = EXACT[name](mpmath.mpf(x))
            error = mpmath.mpf(y) - right
            if near_zero_of_silu(name, 64, x, error):
                continue
            if abs(right) < tiny:
                assert abs(error) < tiny, f"{name}({x!r})"
            else:
                ulp = mpmath.ldexp(1, int(np.frexp(float(abs(right)))[1]) - 53)
                assert abs(error) <= limit * ulp, f"{name}({x!r}) is {float(error / ulp)} ulp off"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("isa", ISAS)
def test_ends_and_nan(isa: str, name: str, dtype: type) -> None:
    nan: Array = np.array([np.nan, -np.nan], dtype)
    assert np.isnan(activate(isa, name, nan)).all()
    assert np.isfinite(activate(isa, name, np.array([0.0, -0.0], dtype))).all()
    assert tuple(activate(isa, name, np.array([-np.inf, np.inf], dtype))) == ENDS[name]
    # A NaN stays in its lane.
    x: Array = np.linspace(-3, 3, 37).astype(dtype)
    spoiled = x.copy()
    spoiled[::5] = np.nan
    got = activate(isa, name, spoiled)
    assert np.array_equal(np.isnan(got), np.isnan(spoiled))
    assert np.array_equal(got[~np.isnan(got)], activate(isa, name, x)[~np.isnan(got)])


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softsign"])
@pytest.mark.parametrize("isa", ISAS)
def test_range_is_never_left(isa: str, name: str, doubles: Array) -> None:
    """Every float from 1/2 to 32, where rounding could carry a result past its bound."""
    low, high = (np.array([limit], np.float32).view(np.uint32)[0] for limit in (0.5, 32.0))
    x = np.arange(low, high, dtype=np.uint32).view(np.float32)
    bottom, top = ENDS[name]
    for batch in (x, -x, doubles, np.linspace(-45, 45, 100_003)):
        got = activate(isa, name, batch)
        assert got.min() >= bottom
        assert got.max() <= top


@pytest.mark.parametrize("name", LIMITS)
def test_avx2_and_avx512_agree_bit_for_bit(name: str, singles: Array, doubles: Array) -> None:
    random = np.random.default_rng(7).integers(0, 2**64, 100_000, dtype=np.uint64).view(np.float64)
    for x in (singles, doubles, random[~np.isnan(random)]):
        assert activate("avx2", name, x).tobytes() == activate("avx512", name, x).tobytes()
