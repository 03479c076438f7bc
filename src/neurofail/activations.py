"""Activations: value, Lipschitz constant, global range, and the image of an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neurofail.errors import InputError

Array = npt.NDArray[np.float64]

_ERFC = np.frompyfunc(math.erfc, 1, 1)
# NumPy's and libm's elementary functions are good to a few ulp; the image of an interval is widened by
# this many units of relative rounding so that it is an enclosure whichever library computed it.
_EPS = float(np.finfo(np.float64).eps)
_SLACK = 16 * _EPS


def _sigmoid(x: Array, _: tuple[float, ...]) -> Array:
    # exp of a non-positive number only: no overflow, and full relative accuracy in the lower tail.
    tail = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, tail) / (1.0 + tail)


def _gelu(x: Array, _: tuple[float, ...]) -> Array:
    # x Phi(x), with Phi by erfc: the usual 1 + erf cancels in the lower tail.
    phi = 0.5 * np.asarray(_ERFC(-x / math.sqrt(2.0)), dtype=np.float64)
    return np.where(np.isneginf(x), 0.0, np.where(np.isneginf(x), 0.0, x) * phi)


def _silu(x: Array, p: tuple[float, ...]) -> Array:
    return np.where(np.isneginf(x), 0.0, np.where(np.isneginf(x), 0.0, x) * _sigmoid(x, p))


def _softsign(x: Array, _: tuple[float, ...]) -> Array:
    infinite = np.isinf(x)
    finite = np.where(infinite, 0.0, x)
    return np.where(infinite, np.sign(x), finite / (1.0 + np.abs(finite)))


@dataclass(frozen=True)
class _Kind:
    """What an activation name stands for, at its natural steepness."""

    code: int  # the kernel's number for it; neurofail.h lists the same
    value: Callable[[Array, tuple[float, ...]], Array]
    lipschitz: Callable[[tuple[float, ...]], float]
    span: Callable[[tuple[float, ...]], tuple[float, float]]  # the global range [A, B]
    defaults: tuple[tuple[str, float], ...] = ()
    # Where a non-monotone activation has its only minimum (it falls before and rises after).
    turning: Callable[[tuple[float, ...]], float | None] = lambda p: None
    exact: bool = False  # piecewise linear: evaluated without rounding at unit steepness


_INF = math.inf
# sup |phi'| of GELU, at sqrt(2), is Phi(sqrt 2) + sqrt(2) phi(sqrt 2) = 1.12890414518515478...; of SiLU,
# at 2.3993572805154..., 1.09983932012886691... Minima: GELU -0.16997120747990361... at -0.75179152469...,
# SiLU -0.27846454276107379... at -1.27846454276... Found with mpmath at 40 digits, rounded outwards.
_GELU_K, _GELU_MIN, _GELU_ARGMIN = 1.128904145185155, -0.1699712074799037, -0.7517915246935645
_SILU_K, _SILU_MIN, _SILU_ARGMIN = 1.0998393201288671, -0.27846454276107385, -1.2784645427610738

_KINDS: dict[str, _Kind] = {
    "identity": _Kind(0, lambda x, p: x, lambda p: 1.0, lambda p: (-_INF, _INF), exact=True),
    "relu": _Kind(1, lambda x, p: np.maximum(x, 0.0), lambda p: 1.0, lambda p: (0.0, _INF), exact=True),
    "leaky_relu": _Kind(
        2,
        lambda x, p: np.where(x < 0, p[0] * x, x),
        lambda p: max(1.0, abs(p[0])),
        lambda p: (-_INF if p[0] > 0 else 0.0, _INF),
        (("alpha", 0.01),),
        turning=lambda p: 0.0 if p[0] < 0 else None,
    ),
    "relu6": _Kind(3, lambda x, p: np.clip(x, 0.0, 6.0), lambda p: 1.0, lambda p: (0.0, 6.0), exact=True),
    "sigmoid": _Kind(4, _sigmoid, lambda p: 0.25, lambda p: (0.0, 1.0)),
    "tanh": _Kind(5, lambda x, p: np.tanh(x), lambda p: 1.0, lambda p: (-1.0, 1.0)),
    "hard_sigmoid": _Kind(
        6, lambda x, p: np.clip(x / 6.0 + 0.5, 0.0, 1.0), lambda p: 1.0 / 6.0, lambda p: (0.0, 1.0)
    ),
    "clip": _Kind(
        7,
        lambda x, p: np.clip(x, p[0], p[1]),
        lambda p: 1.0,
        lambda p: (p[0], p[1]),
        (("low", 0.0), ("high", 1.0)),
        exact=True,
    ),
    "softplus": _Kind(8, lambda x, p: np.logaddexp(0.0, x), lambda p: 1.0, lambda p: (0.0, _INF)),
    "elu": _Kind(
        9,
        lambda x, p: np.where(x < 0, p[0] * np.expm1(np.minimum(x, 0.0)), x),
        lambda p: max(1.0, p[0]),
        lambda p: (-p[0], _INF),
        (("alpha", 1.0),),
    ),
    "gelu": _Kind(10, _gelu, lambda p: _GELU_K, lambda p: (_GELU_MIN, _INF), turning=lambda p: _GELU_ARGMIN),
    "silu": _Kind(11, _silu, lambda p: _SILU_K, lambda p: (_SILU_MIN, _INF), turning=lambda p: _SILU_ARGMIN),
    "softsign": _Kind(12, _softsign, lambda p: 1.0, lambda p: (-1.0, 1.0)),
}

NAMES = tuple(_KINDS)


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{what} is {value!r}, not a number")
    if not np.isfinite(value):
        raise InputError(f"{what} is {value}, which is not finite")
    return float(value)


@dataclass(frozen=True, init=False)
class Activation:
    """An activation phi with Lipschitz constant K over the whole real line.

    Parameters
    ----------
    name : one of `identity relu leaky_relu relu6 sigmoid tanh hard_sigmoid clip softplus elu gelu silu
        softsign`. `gelu` is the exact x Phi(x); `hard_sigmoid` is clip(x / 6 + 1/2, 0, 1).
    lipschitz : K > 0; the activation is then phi(x) = base(x K / K_base), so that
        `Activation("sigmoid", lipschitz=K)` is the paper's steepness sigmoid(4 K x). Without it, the
        activation's own K.
    alpha : the slope of `leaky_relu` below 0 (0.01), or the scale of `elu` (1, not negative).
    low, high : the limits of `clip` (0 and 1).

    Raises
    ------
    InputError : unknown name, a parameter that the activation does not take, or one out of range.

    >>> Activation("sigmoid").lipschitz
    0.25
    >>> float(Activation("sigmoid", lipschitz=2.0)(0.0))
    0.5
    >>> Activation("tanh").range
    (-1.0, 1.0)
    """

    name: str
    lipschitz: float
    parameters: tuple[float, ...]

    def __init__(
        self,
        name: str,
        *,
        lipschitz: float | None = None,
        alpha: float | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        if not isinstance(name, str) or name not in _KINDS:
            raise InputError(f"activation {name!r} is unknown; known are {', '.join(NAMES)}")
        kind = _KINDS[name]
        given = {"alpha": alpha, "low": low, "high": high}
        taken = dict(kind.defaults)
        for key, value in given.items():
            if value is None:
                continue
            if key not in taken:
                takes = ", ".join(taken) or "no parameter besides lipschitz"
                raise InputError(f"activation {name!r} does not take {key}; it takes {takes}")
            taken[key] = _number(value, f"activation {name!r}: {key}")
        if name == "elu" and taken["alpha"] < 0:
            raise InputError(f"activation 'elu': alpha is {taken['alpha']}, must be at least 0")
        if name == "clip" and not taken["low"] < taken["high"]:
            raise InputError(f"activation 'clip': low {taken['low']} must be below high {taken['high']}")
        parameters = tuple(taken.values())
        if lipschitz is None:
            lipschitz = kind.lipschitz(parameters)
        elif _number(lipschitz, f"activation {name!r}: lipschitz") <= 0:
            raise InputError(f"activation {name!r}: lipschitz is {lipschitz}, must be positive")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "lipschitz", float(lipschitz))
        object.__setattr__(self, "parameters", parameters)

    @classmethod
    def of(cls, value: str | Activation) -> Activation:
        """The activation that a name stands for, or the activation itself."""
        if isinstance(value, Activation):
            return value
        if isinstance(value, str):
            return cls(value)
        raise InputError(f"activation {value!r} must be a name or an Activation")

    @property
    def _kind(self) -> _Kind:
        return _KINDS[self.name]

    @property
    def code(self) -> int:
        """The kernel's number for this activation."""
        return self._kind.code

    @property
    def gain(self) -> float:
        """The factor g in phi(x) = base(g x); 1 at the activation's own steepness."""
        return self.lipschitz / self._kind.lipschitz(self.parameters)

    @property
    def range(self) -> tuple[float, float]:
        """The global range [A, B] of phi; infinite ends are allowed."""
        return self._kind.span(self.parameters)

    @property
    def turning(self) -> float | None:
        """Where phi has its only minimum if it is not monotone, else None (phi never falls)."""
        point = self._kind.turning(self.parameters)
        return None if point is None else point / self.gain

    @property
    def piecewise_linear(self) -> bool:
        """Whether phi is evaluated without rounding (piecewise linear at unit steepness)."""
        return self._kind.exact and self.gain == 1.0

    def __call__(self, x: npt.ArrayLike) -> Array:
        """phi(x) in float64, elementwise."""
        with np.errstate(all="ignore"):
            values = self._kind.value(self.gain * np.asarray(x, dtype=np.float64), self.parameters)
        return np.asarray(values, dtype=np.float64)

    def image(self, low: Array, high: Array) -> tuple[Array, Array]:
        """An enclosure of phi([low, high]), elementwise, rounded outwards.

        >>> low, high = Activation("relu").image(np.array([-1.0]), np.array([2.0]))
        >>> float(low[0]), float(high[0])
        (0.0, 2.0)
        """
        if not self.piecewise_linear:
            # In a steep tail the rounding of the argument (a steepness, the sqrt 2 of GELU) counts |x| times
            # or more; ends moved out by more than it cover it where a relative slack would not.
            low, high = low - 4 * _EPS * np.abs(low), high + 4 * _EPS * np.abs(high)
        at_low, at_high = self(low), self(high)
        bottom, top = np.minimum(at_low, at_high), np.maximum(at_low, at_high)
        if self.turning is not None:
            inside = (low <= self.turning) & (self.turning <= high)
            bottom = np.where(inside, np.minimum(bottom, self(self.turning)), bottom)
        if not self.piecewise_linear:
            bottom = np.nextafter(bottom - _SLACK * np.abs(bottom), -np.inf)
            top = np.nextafter(top + _SLACK * np.abs(top), np.inf)
        least, most = self.range
        return np.clip(bottom, least, most), np.clip(top, least, most)

    def to_dict(self) -> dict[str, object]:
        """The activation as plain JSON values; `from_dict` is its inverse."""
        names = (key for key, _ in self._kind.defaults)
        return {
            "name": self.name,
            "lipschitz": self.lipschitz,
            **dict(zip(names, self.parameters, strict=True)),
        }

    @classmethod
    def from_dict(cls, record: dict[str, object]) -> Activation:
        """The activation that `to_dict` described; raises InputError on anything else."""
        known = {"name", "lipschitz", "alpha", "low", "high"}
        if not isinstance(record, dict) or not isinstance(record.get("name"), str):
            raise InputError(f"activation {record!r} must be an object with a name")
        extra = set(record) - known
        if extra:
            raise InputError(f"activation {record['name']!r} has unknown fields {sorted(extra)}")
        numbers: dict[str, float] = {}
        for key in known - {"name"}:
            value = record.get(key)
            if value is None:
                continue
            numbers[key] = _number(value, f"activation {record['name']!r}: {key}")
        return cls(str(record["name"]), **numbers)
