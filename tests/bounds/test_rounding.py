"""Outward arithmetic against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neurofail.bounds import rounding

# From subnormal to huge: the helpers must be right where products underflow and where sums overflow.
SIZES = st.floats(0, 1e300) | st.floats(0, 1e-290) | st.just(0.0) | st.floats(0, 2)


def matrix(rows: int, columns: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, (rows, columns), elements=SIZES)


def exact(value: npt.ArrayLike) -> Fraction | float:
    number = float(np.asarray(value))
    return Fraction(number) if np.isfinite(number) else np.inf


@given(matrix(2, 5), matrix(5, 3))
def test_dot_never_falls_below_the_exact_product(a: np.ndarray, b: np.ndarray) -> None:
    result = rounding.dot(a, b)
    for i in range(2):
        for j in range(3):
            true = sum((Fraction(x) * Fraction(y) for x, y in zip(a[i], b[:, j], strict=True)), Fraction(0))
            assert exact(result[i, j]) >= true
            if true < 1e300:
                assert result[i, j] <= float(true) * (1 + 1e-14) + 1e-270
            if true == 0:
                assert result[i, j] <= 1e-270


@given(SIZES, SIZES, SIZES)
def test_times_plus_minus(a: float, b: float, c: float) -> None:
    assert exact(rounding.times(a, b)) >= Fraction(a) * Fraction(b)
    assert (rounding.times(a, b) == 0) == (a == 0 or b == 0)
    assert exact(rounding.plus(a, b, c)) >= Fraction(a) + Fraction(b) + Fraction(c)
    assert exact(rounding.minus(a, b)) >= max(Fraction(a) - Fraction(b), Fraction(0))
    assert rounding.plus(a, 0.0) == a
    assert rounding.minus(a, a) == 0


@given(arrays(np.float64, (7,), elements=st.floats(0, 1e10)), st.integers(0, 7))
def test_top_is_the_sum_of_the_largest(values: np.ndarray, count: int) -> None:
    true = sum((Fraction(v) for v in sorted(values, reverse=True)[:count]), Fraction(0))
    assert true <= exact(rounding.top(values, count))
    assert rounding.top(values, count) <= float(true) * (1 + 1e-14)
    assert np.all(rounding.tops(values, 7)[count] >= float(true))


def test_plain_summation_would_fall_below() -> None:
    """Trap 7: the sum of 0.1 (as float64) ten times is above what float64 addition says."""
    values = np.full(10, 0.1)
    true = 10 * Fraction(0.1)
    assert Fraction(sum(values.tolist())) < true <= Fraction(float(rounding.top(values, 10)))


def test_infinite_and_undefined_become_infinite() -> None:
    assert rounding.times(1e300, 1e300) == np.inf
    assert np.all(rounding.dot(np.array([[np.inf, 1.0]]), np.array([[0.0], [1.0]])) == np.inf)
    assert rounding.minus(np.inf, 1.0) == np.inf
    assert rounding.plus(np.inf, 1.0) == np.inf
