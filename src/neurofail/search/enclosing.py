"""Lines around an activation over many intervals at once, and the step of a linear bound through a layer.

Compiled, for arrays whose last axis is the neurons of one layer; `difference` says what s, e, a and b are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neurofail.search.compiled import outer
from neurofail.search.shapes import fan, image, line, steepness, swept

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Phi = tuple[float, float, float, float]  # an activation's gain, its two parameters, and where it turns

S_LOW, S_HIGH, T_LOW, T_HIGH, E_LOW, E_HIGH = 0, 1, 2, 3, 4, 5  # the intervals: of s, of t = s + e, of e
OVER_S, OVER_T, OVER_E = 0, 1, 2  # a line's ground: phi(s) over s, phi(t) over t, their difference over e
ABOVE, BELOW = 0, 1
SLOPE, BASE = 0, 1  # a line's slope, its value at 0


@outer
def enclose(code: int, phi: Phi, over: Array, near: Array, lines: Array, out: Array) -> None:
    """Fill in the lines and images of neurons whose intervals are given.

    over (6, n): intervals of s, t, e; near (3, n): the points of them where lines should be tight; lines
    (3, 2, 2, n); out (6, n): intervals of phi(s), phi(t), phi(t) - phi(s)
    """
    gain, p, q, turning = phi
    for i in range(over.shape[1]):
        for part in range(2):
            low, high = over[2 * part, i], over[2 * part + 1, i]
            out[2 * part, i], out[2 * part + 1, i] = image(code, gain, p, q, turning, low, high)
            least, most = steepness(code, gain, p, q, low, high)
            for side in range(2):
                k, x, f = line(code, gain, p, q, low, high, near[part, i], side == ABOVE)
                k = min(max(k, least), most)  # as in `fan`
                lines[part, side, SLOPE, i], lines[part, side, BASE, i] = k, f - k * x
        low, high = min(over[S_LOW, i], over[T_LOW, i]), max(over[S_HIGH, i], over[T_HIGH, i])
        least, most = steepness(code, gain, p, q, low, high)
        low, high = over[E_LOW, i], over[E_HIGH, i]
        for side in range(2):
            k, f = fan(least, most, low, high, side == ABOVE)
            lines[OVER_E, side, SLOPE, i], lines[OVER_E, side, BASE, i] = k, f
        down, up = swept(least, most, low, high)
        out[E_LOW, i] = max(out[T_LOW, i] - out[S_HIGH, i], down)
        out[E_HIGH, i] = min(out[T_HIGH, i] - out[S_LOW, i], up)


@outer
def release(
    failed: Mask, ends: Array, sets: bool, blocks: bool, a: Array, b: Array, own: Array, total: Array
) -> None:
    """Take the failed neurons out of upper limits total + a . y + b . d, in place.

    failed (n, N), ends (2, n, N): which failed, and the least and the greatest value of each; sets: the value
    replaces y; blocks: no error from upstream passes. a, b, own (n, R, N), total (n, R). own receives the
    coefficients of the values.
    """
    boxes, rows, width = a.shape
    for i in range(boxes):
        for j in range(width):
            for r in range(rows):
                own[i, r, j] = 0.0
                if failed[i, j]:
                    k = b[i, r, j]
                    own[i, r, j] = k
                    total[i, r] += max(k * ends[0, i, j], k * ends[1, i, j])
                    if sets:
                        a[i, r, j] -= k
                    if blocks:
                        b[i, r, j] = 0.0


@outer
def descend(over: Array, near: Array, lines: Array, fans: bool, a: Array, b: Array, base: Array) -> None:
    """Turn upper limits a . y + b . d into upper limits a . s + b . e + the sum of base, in place.

    over (6, n, N), near (3, n, N), lines (3, 2, 2, n, N): see `enclose`; a, b, base (n, R, N). fans: lines
    over e are used where they are tighter at `near`, not only where e is 0.
    """
    boxes, rows, width = a.shape
    for i in range(boxes):
        for j in range(width):
            s, e = near[OVER_S, i, j], near[OVER_E, i, j]
            sound = over[E_LOW, i, j] == 0.0 and over[E_HIGH, i, j] == 0.0
            for r in range(rows):
                x, y = a[i, r, j], b[i, r, j]
                side = ABOVE if x > 0.0 else BELOW
                way = ABOVE if y > 0.0 else BELOW
                on_s = x * lines[OVER_S, side, SLOPE, i, j]
                on_e = y * lines[OVER_E, way, SLOPE, i, j]
                rest = x * lines[OVER_S, side, BASE, i, j] + y * lines[OVER_E, way, BASE, i, j]
                if not sound:
                    # x phi(s) + y (phi(t) - phi(s)) = (x - y) phi(s) + y phi(t)
                    z = x - y
                    side = ABOVE if z > 0.0 else BELOW
                    k = y * lines[OVER_T, way, SLOPE, i, j]
                    h = z * lines[OVER_S, side, SLOPE, i, j] + k
                    f = z * lines[OVER_S, side, BASE, i, j] + y * lines[OVER_T, way, BASE, i, j]
                    if not fans or h * s + k * e + f < on_s * s + on_e * e + rest:
                        on_s, on_e, rest = h, k, f
                a[i, r, j], b[i, r, j], base[i, r, j] = on_s, on_e, rest
