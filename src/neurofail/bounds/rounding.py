"""Arithmetic on non-negative numbers that never rounds below the exact value.

Everything here computes in float64, rounding to nearest, and then inflates the result by a factor that
provably covers what may have been lost (bounds.md, section 7, trap 7).

Why `up` is right. Let u = 2^-53 and let s be a sum of n products of non-negative numbers, computed as s' in
any order, with or without fused multiply-add. Every product reaches s' through at most n roundings, each of
which multiplies it by at least 1 - u, and no term is negative, so s' >= (1 - u)^n s unless a product
underflowed; hence s <= s' / (1 - n u) <= s' (1 + 2 n u) as long as n u <= 1/2. The factor used, 1 + (n + 2) e
with e = 2 u = 2^-52, is a float64 number that exceeds 1 + 2 n u by 4 u, more than the rounding of `up` itself
takes back. Sums do not underflow: an addition whose result is subnormal is exact. A product that underflows
errs by less than 2^-1022 (even if subnormal results are flushed to 0), n of them by n 2^-1022; `times` and
`dot` add 2^-900 where that can happen. It is far more than needed, so that later products with ordinary
weights stay out of the slow subnormal range, and still invisible; what is exactly 0 stays 0. Overflow rounds
to infinity, and inf - inf or 0 * inf, which NumPy calls NaN, becomes infinity too: an upper bound as well.

Chains of products go through `times`, one rounding up for each multiplication, so that no underflow is
multiplied by a large factor afterwards.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

EPS = 2.0**-52
_FLOOR, _SAFE = 2.0**-900, 2.0**-1000
_quiet = np.errstate(over="ignore", invalid="ignore")


@_quiet
def up(computed: npt.ArrayLike, terms: int = 1) -> Array:
    """An upper bound of a sum of `terms` non-negative numbers or products, none of which underflowed."""
    raised = np.asarray(computed, dtype=np.float64) * (1.0 + (terms + 2) * EPS)
    return np.where(np.isnan(raised), np.inf, raised)


@_quiet
def times(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """a * b for non-negative a and b, rounded up; exactly 0 where a factor is 0."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return np.where((a == 0) | (b == 0), 0.0, up(a * b) + _FLOOR)


@_quiet
def plus(*parts: npt.ArrayLike) -> Array:
    """The sum of non-negative numbers, rounded up."""
    result = np.asarray(parts[0], dtype=np.float64)
    for part in parts[1:]:
        other = np.asarray(part, dtype=np.float64)
        result = np.where(result == 0, other, np.where(other == 0, result, up(result + other)))
    return result


@_quiet
def minus(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """max(a - b, 0), rounded up; a and b are exact."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    difference = a - b
    raised = np.where(np.isnan(difference), np.inf, np.nextafter(difference, np.inf))
    result: Array = np.where(a <= b, 0.0, raised)
    return result


@_quiet
def dot(a: Array, b: Array) -> Array:
    """a @ b for non-negative a (.., n) and b (n, m), rounded up."""
    underflows = _least(a) * _least(b) < _SAFE
    return up(a @ b, a.shape[-1]) + (_FLOOR if underflows else 0.0)


def _least(values: Array) -> float:
    """The smallest positive entry; infinite if there is none."""
    least = float(np.min(values, initial=np.inf))
    return least if least > 0 else float(np.min(values, where=values > 0, initial=np.inf))


@_quiet
def top(values: Array, count: int) -> Array:
    """The sum of the `count` largest non-negative numbers along the last axis, rounded up."""
    size = values.shape[-1]
    if count == 0:
        return np.zeros(values.shape[:-1])
    if count == 1:
        return np.asarray(np.max(values, axis=-1))
    if count < size:
        values = np.partition(values, size - count, axis=-1)[..., size - count :]
    return up(values.sum(axis=-1), count)


@_quiet
def tops(values: Array, most: int) -> Array:
    """`top` for every count 0..min(most, size) at once, (.., counts); or of products, as `up` has it."""
    size = values.shape[-1]
    most = min(most, size)
    if most == 1:
        best = np.max(values, axis=-1, keepdims=True)
        return np.concatenate([np.zeros_like(best), up(best)], axis=-1)
    if 0 < most < size:
        values = np.partition(values, size - most, axis=-1)[..., size - most :]
    sums = np.zeros((*values.shape[:-1], most + 1))
    np.cumsum(np.sort(values, axis=-1)[..., : -most - 1 : -1], axis=-1, out=sums[..., 1:])
    return up(sums, most)


@_quiet
def product_tops(a: Array, b: Array, most: int) -> Array:
    """`tops` of the products of non-negative a and b (broadcast), rounded up once for each sum."""
    if not np.isfinite(b).all():
        return tops(times(a, b), most)  # where 0 times infinity is 0
    sums = tops(a * b, most)
    if _least(a) * _least(b) < _SAFE:
        sums[..., 1:] += _FLOOR
    return sums
