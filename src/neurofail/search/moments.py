"""A third bound for the ReLUs of stage 1: all of them at once, by the second moments of what fails.

Lines and shares look at one neuron at a time, and many failures may push any one neuron a long way; but not
all neurons at once. With z_i = 1 where neuron i of stage 0 fails, a ReLU of stage 1 reads u = a + v z, and
for any t > 0

    max(0, u) <= (u + t)^2 / (4 t).

So an objective sum c_j max(0, u_j) is at most a quadratic function of z, plus (where c_j < 0) concave ones.
As z_i^2 = z_i, adding sum d_i (z_i - z_i^2) changes it at no z that counts, and where the matrix D - Q, of
Q = sum c_j / (4 t_j) v_j v_j', is positive definite, the sum is concave: its tangent anywhere bounds it, and
is linear in the failures, as the search wants its bounds.

This is the dual of a semidefinite relaxation: at the best d and t, (D - Q)^-1 is the covariance of failures
drawn at random, up to the factor mu of a barrier, its diagonal is z_i (1 - z_i), and t_j^2 is the mean of
u_j^2. Newton steps and repeated tangents seek that point from where the parent node was; whatever they find
is a bound. That D - Q is positive definite is proven each time: its Cholesky factorisation, less a margin
for rounding, runs to its end (S. M. Rump, Verification of positive definiteness, BIT 2006).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neurofail.search.circuit import (
    D_HIGH,
    D_LOW,
    E_HIGH,
    E_LOW,
    FAILED,
    FREE,
    GAIN,
    HERE,
    HIGH,
    INTO,
    LOW,
    OUT,
    PRE,
    PULL,
    SURE,
    TERM,
    WORTH,
    Array,
    Case,
    Circuit,
    Desk,
    Ints,
    Singles,
)
from neurofail.search.compiled import inner

MANY = 6  # failures of stage 0 still to come: with fewer, lines and shares are quicker
_ROUNDS = 2  # of tuning d and t
_FIRST = 4  # the same where there was no parent to start from
_TANGENTS = 16  # in each round
_BARRIER = 1.2  # mu, as a share of what the quadratic terms come to per site
_TRIES = 60  # at a positive definite matrix
_UNIT = 2.0**-52
_SMALL = 1e-200  # matrices of smaller numbers are not looked at: margins could underflow

FORM, ROOT, FACTOR, INVERSE, NEAR, FAR, SPREAD = 0, 1, 2, 3, 4, 5, 6  # the matrices of Moments.square
DIAGONAL, TOUCH = 0, 1  # the rows of a node's tuning: d of each site, t of each neuron

# The rows of Moments.of: of the sites,
Z, D, STEP, WIDTH = 0, 1, 2, 3  # where the tangent touches, d, a step of d, z (1 - z)
STRAIGHT, SLOPE, BEST = 4, 5, 6  # the linear terms, the tangent's coefficients, those of the best tangent
PICKED = 7  # 1 for the failures that the tangent would choose
BEST_D, OLD_D = 8, 9  # d at the best tangent, and before a step
# and of the neurons:
BASE, COST, T, U, TO = 10, 11, 12, 13, 14  # a, c, t, u at Z and at PICKED
LEAST, MOST, REACH = 15, 16, 17  # the ends of u, and how large it can be
CHORD, BEST_T = 18, 19  # 1 where a chord is better than a parabola; t at the best tangent
SCORE = 20  # of all neurons of stage 0: how much of the bound is due to their not being decided
SITE, NEURON = 0, 1  # the rows of Moments.place


class Moments(NamedTuple):
    """The scratch space of this bound; n sites of stage 0 and m neurons of stage 1 are in question."""

    square: Array  # (7, P, P)
    of: Array  # (21, P)
    place: Ints  # (2, P) which they are
    tuning: Singles  # (2, P) the parent node's d and t (0: none), then this one's


def moments(side: int) -> Moments:
    """Empty scratch for stages of up to `side` neurons."""
    return Moments(
        np.zeros((7, side, side)),
        np.zeros((21, side)),
        np.zeros((2, side), np.int64),
        np.zeros((2, side), np.float32),
    )


@inner
def factor(matrix: Array, n: int) -> bool:
    """The Cholesky factor U'U of a symmetric matrix in place of its upper half; False if it has none."""
    for k in range(n):
        if not matrix[k, k] > 0.0:
            return False
        scale = 1.0 / np.sqrt(matrix[k, k])
        for j in range(k, n):
            matrix[k, j] *= scale
        for i in range(k + 1, n):
            times = matrix[k, i]
            for j in range(i, n):
                matrix[i, j] -= times * matrix[k, j]
    return True


@inner
def definite(n: int, m: int, work: Moments) -> bool:
    """Whether D - Q is positive definite for certain: less a margin, it has a factor (left in ROOT)."""
    form, root, trace = work.square[FORM], work.square[ROOT], 0.0
    for i in range(n):
        trace += form[i, i] + abs(work.of[D, i])
    margin = 2.0 * _UNIT * (n + m + 16) * trace
    for i in range(n):
        for j in range(i, n):
            root[i, j] = -form[i, j]
        root[i, i] += work.of[D, i] - margin
    return bool(trace > _SMALL and factor(root, n))


@inner
def _invert(n: int, work: Moments) -> None:
    """U'^-1 of the factor in ROOT into FACTOR, (U'U)^-1 into INVERSE."""
    root, low, whole = work.square[ROOT], work.square[FACTOR], work.square[INVERSE]
    for k in range(n):
        for j in range(k):
            low[k, j] = 0.0
        low[k, k] = 1.0
        for x in range(k):
            times = root[x, k]
            for j in range(x + 1):
                low[k, j] -= times * low[x, j]
        scale = 1.0 / root[k, k]
        for j in range(k + 1):
            low[k, j] *= scale
    for i in range(n):
        for j in range(n):
            whole[i, j] = 0.0
    for k in range(n):
        for i in range(k + 1):
            times = low[k, i]
            for j in range(i, k + 1):
                whole[i, j] += times * low[k, j]


@inner
def _newton(n: int, mu: float, work: Moments) -> bool:
    """The step of d towards mu (D - Q)^-1_ii = z_i (1 - z_i); False where none is needed, or can be told."""
    whole, root, step = work.square[INVERSE], work.square[ROOT], work.of[STEP]
    off = 0.0
    for i in range(n):
        step[i] = mu * whole[i, i] - work.of[WIDTH, i]
        off = max(off, abs(step[i]) / work.of[WIDTH, i])
        for j in range(i, n):
            root[i, j] = mu * whole[i, j] * whole[i, j]
    if off < 0.1 or not factor(root, n):
        return False
    for k in range(n):
        step[k] /= root[k, k]
        for j in range(k + 1, n):
            step[j] -= step[k] * root[k, j]
    for k in range(n - 1, -1, -1):
        rest = step[k]
        for j in range(k + 1, n):
            rest -= root[k, j] * step[j]
        step[k] = rest / root[k, k]
    return True


@inner
def _gather(circuit: Circuit, case: Case, desk: Desk, work: Moments) -> tuple[int, int, float]:
    """The sites that may still fail and matter, the ReLUs that may still be on either side of 0.

    Returns (n, m, the constant part of all other neurons); their linear part is in STRAIGHT.
    """
    n, m, constant = 0, 0, 0.0
    for i in range(circuit.width[0]):
        if desk.state[HERE, 0, i] == FREE and desk.of[LOW, 0, i] != 0.0:
            work.place[SITE, n] = i
            work.of[STRAIGHT, n] = 0.0
            n += 1
    near, far = work.square[NEAR], work.square[FAR]
    for j in range(circuit.width[1]):
        pull = desk.of[PULL, 1, j]
        if pull == 0.0 or (desk.state[HERE, 1, j] == FAILED and circuit.blocking):
            continue
        sure = desk.of[SURE, 1, j]
        low, high = case.of[PRE, 1, j] + desk.of[E_LOW, 1, j], case.of[PRE, 1, j] + desk.of[E_HIGH, 1, j]
        steep = pull * circuit.phi[GAIN, 1]
        straight = steep if low >= 0.0 else steep * circuit.leak
        constant += straight * sure - pull * case.of[OUT, 1, j]
        row, reach = near[m], abs(sure)
        for x in range(n):
            i = work.place[SITE, x]
            row[x] = circuit.link[INTO, 0, j, i] * desk.of[LOW, 0, i]
            work.of[STRAIGHT, x] += straight * row[x]
            reach += abs(row[x])
        if low >= 0.0 or high <= 0.0 or circuit.leak == 1.0:
            continue
        work.place[NEURON, m] = j
        work.of[BASE, m], work.of[COST, m] = sure, steep * (1.0 - circuit.leak)
        work.of[LEAST, m], work.of[MOST, m], work.of[REACH, m] = low, high, reach
        for x in range(n):
            far[x, m] = row[x]
        m += 1
    return n, m, constant


@inner
def _place(n: int, m: int, wanted: int, work: Moments) -> None:
    """Let the first tangent touch where all sites have equal chances to fail."""
    u, far, chance = work.of[U], work.square[FAR], min(wanted, n) / n
    for j in range(m):
        u[j] = work.of[BASE, j]
    for x in range(n):
        work.of[Z, x] = chance
        for j in range(m):
            u[j] += chance * far[x, j]


@inner
def _form(n: int, m: int, work: Moments) -> float:
    """Q into FORM, z (1 - z) into WIDTH; what the quadratic terms come to."""
    form, near = work.square[FORM], work.square[NEAR]
    for i in range(n):
        for x in range(i, n):
            form[i, x] = 0.0
    for j in range(m):
        if work.of[COST, j] > 0.0 and work.of[CHORD, j] == 0.0:
            row, scale = near[j], work.of[COST, j] / (4.0 * work.of[T, j])
            for i in range(n):
                times = scale * row[i]
                for x in range(i, n):
                    form[i, x] += times * row[x]
    size = 0.0
    for i in range(n):
        z = work.of[Z, i]
        work.of[WIDTH, i] = max(z * (1.0 - z), 1e-3)
        size += form[i, i] * work.of[WIDTH, i]
    return size


@inner
def _tune(n: int, m: int, mu: float, work: Moments) -> bool:
    """Make D - Q positive definite, and d better; False if that cannot be done."""
    trace, tries = 0.0, 0
    for i in range(n):
        trace += work.square[FORM, i, i]
    while not definite(n, m, work):
        tries += 1
        if tries > _TRIES:
            return False
        for i in range(n):
            work.of[D, i] = 1.1 * max(work.of[D, i], 0.0) + 0.05 * trace / n
    _invert(n, work)
    if not _newton(n, mu, work):
        return True
    for i in range(n):
        work.of[OLD_D, i] = work.of[D, i]
    step = 1.0
    for _ in range(_TRIES):
        for i in range(n):
            work.of[D, i] = work.of[OLD_D, i] + step * work.of[STEP, i]
        if definite(n, m, work):
            return True
        step *= 0.5
    for i in range(n):
        work.of[D, i] = work.of[OLD_D, i]
    return True


@inner
def _second(n: int, m: int, mu: float, work: Moments) -> None:
    """t towards the root of the mean of u^2, by the covariance that d stands for."""
    spread, far, low = work.square[SPREAD], work.square[FAR], work.square[FACTOR]
    mean = work.of[TO]
    for j in range(m):
        mean[j] = 0.0
    for k in range(n):
        row = spread[k]
        for j in range(m):
            row[j] = 0.0
        for x in range(k + 1):
            times = low[k, x]
            for j in range(m):
                row[j] += times * far[x, j]
        for j in range(m):
            mean[j] += row[j] * row[j]
    for j in range(m):
        if work.of[COST, j] > 0.0:
            u = work.of[U, j]
            root = np.sqrt(u * u + mu * mean[j])
            work.of[T, j] = max(np.sqrt(work.of[T, j] * root), 1e-3 * work.of[REACH, j])
            _chord(j, root, work)


@inner
def _chord(j: int, root: float, work: Moments) -> None:
    """Whether a chord from end to end is nearer to a ReLU than a parabola, u^2 having the mean root^2."""
    low, high, u = work.of[LEAST, j], work.of[MOST, j], work.of[U, j]
    work.of[CHORD, j] = 1.0 if high * (u - low) <= 0.5 * (u + root) * (high - low) else 0.0


@inner
def _tangent(n: int, m: int, wanted: int, idle: int, work: Moments) -> tuple[float, float]:
    """The tangent at Z: (its constant part, the most that it allows).

    Its coefficients are in SLOPE, the failures it would choose in PICKED; `idle` failures may go elsewhere.
    """
    slope, near, constant = work.of[SLOPE], work.square[NEAR], 0.0
    for x in range(n):
        z, d = work.of[Z, x], work.of[D, x]
        slope[x] = work.of[STRAIGHT, x] + d * (1.0 - 2.0 * z)
        constant += d * z * z
    for j in range(m):
        a, c, u = work.of[BASE, j], work.of[COST, j], work.of[U, j]
        low, high = work.of[LEAST, j], work.of[MOST, j]
        if c < 0.0:
            rise = c * min(max(u / (0.1 * (high - low)) + 0.5, 0.0), 1.0)
            constant += rise * a
        elif work.of[CHORD, j] != 0.0:
            rise = c * (high / (high - low))
            constant += rise * (a - low)
        else:
            t = work.of[T, j]
            rise = 2.0 * (c / (4.0 * t)) * (u + t)
            constant += 0.5 * rise * (t - u + 2.0 * a)
        row = near[j]
        for x in range(n):
            slope[x] += rise * row[x]
    total = constant
    for x in range(n):
        work.of[PICKED, x] = 0.0
    for taken in range(min(wanted, n)):
        best, at = -np.inf, -1
        for x in range(n):
            if slope[x] > best and work.of[PICKED, x] == 0.0:
                best, at = slope[x], x
        if best <= 0.0 and taken + idle >= wanted:
            break
        work.of[PICKED, at] = 1.0
        total += best
    return constant, total


@inner
def _approach(n: int, m: int, step: float, work: Moments) -> None:
    """Move Z towards PICKED."""
    to, far = work.of[TO], work.square[FAR]
    for j in range(m):
        to[j] = work.of[BASE, j]
    for x in range(n):
        if work.of[PICKED, x] != 0.0:
            for j in range(m):
                to[j] += far[x, j]
        work.of[Z, x] += step * (work.of[PICKED, x] - work.of[Z, x])
    for j in range(m):
        work.of[U, j] += step * (to[j] - work.of[U, j])


@inner
def _slack(n: int, m: int, work: Moments) -> float:
    """What rounding can hide in a tangent, u a little beside Z included: units of all that it adds up."""
    size = 0.0
    for x in range(n):
        size += 4.0 * abs(work.of[D, x]) + abs(work.of[STRAIGHT, x])
    for j in range(m):
        c, reach = work.of[COST, j], work.of[REACH, j]
        if c < 0.0 or work.of[CHORD, j] != 0.0:
            size += 4.0 * abs(c) * reach
        else:
            t = work.of[T, j]
            size += c / t * (reach + t) * (reach + t)
    return 4.0 * _UNIT * (n + m + 32) * size


@inner
def _begin(n: int, m: int, work: Moments) -> int:
    """d and t of the parent node, or some to begin with; how many rounds they need."""
    rounds = _ROUNDS
    for x in range(n):
        work.of[D, x] = work.tuning[DIAGONAL, work.place[SITE, x]]
        if work.of[D, x] == 0.0:
            rounds = _FIRST
    for j in range(m):
        t: float = work.tuning[TOUCH, work.place[NEURON, j]]
        if t == 0.0:
            t = work.of[U, j] * work.of[U, j]
            for x in range(n):
                z, v = work.of[Z, x], work.square[NEAR, j, x]
                t += z * (1.0 - z) * v * v
            t = np.sqrt(t)
        work.of[T, j] = max(t, 1e-3 * work.of[REACH, j])
        _chord(j, work.of[T, j], work)
    return rounds


@inner
def _keep(n: int, m: int, work: Moments) -> None:
    """Keep the tangent as the best so far."""
    for x in range(n):
        z = work.of[Z, x]
        work.of[BEST, x], work.of[BEST_D, x] = work.of[SLOPE, x], work.of[D, x]
        work.of[SCORE, work.place[SITE, x]] = work.of[D, x] * z * (1.0 - z)
    for j in range(m):
        work.of[BEST_T, j] = work.of[T, j]


@inner
def _best(n: int, m: int, wanted: int, idle: int, cut: float, work: Moments) -> float:
    """The constant part of the best tangent found, in BEST and so on; infinite if there is none."""
    best, constant = np.inf, np.inf
    rounds = _begin(n, m, work)
    for turn in range(rounds):
        mu = _BARRIER * _form(n, m, work) / n
        if not _tune(n, m, mu, work):
            break
        for x in range(_TANGENTS):
            base, total = _tangent(n, m, wanted, idle, work)
            slack = _slack(n, m, work)
            if total + slack < best:
                best, constant = total + slack, base + slack
                _keep(n, m, work)
            if best <= cut:
                return constant
            _approach(n, m, 2.0 / (x + 8.0), work)
        if turn < rounds - 1:
            _second(n, m, mu, work)
    return constant


@inner
def sharpen(circuit: Circuit, case: Case, above: float, cut: float, desk: Desk, work: Moments) -> float:
    """The bound of a node with the lines of the stages above: its constant part; the gains are in WORTH.

    above is the constant part of the lines. A bound below cut is good enough. Infinite, and WORTH as it was,
    if there is no bound.
    """
    n, m, constant = _gather(circuit, case, desk, work)
    for j in range(circuit.width[1]):
        if desk.state[HERE, 1, j] == FAILED:
            constant += max(
                desk.of[PULL, 1, j] * desk.of[LOW, 1, j], desk.of[PULL, 1, j] * desk.of[HIGH, 1, j]
            )
    constant += above
    wanted, idle = int(np.int64(desk.left[0])), int(np.int64(circuit.width[0]))
    if circuit.forced and not circuit.pooled:
        idle = -n
        for i in range(circuit.width[0]):
            idle += desk.state[HERE, 0, i] == FREE
    for i in range(circuit.width[0]):
        work.of[SCORE, i] = 0.0
    if n == 0:
        return np.inf
    _place(n, m, wanted, work)
    best = constant + _best(n, m, wanted, idle, cut - constant, work)
    if not best < np.inf:
        return np.inf
    for i in range(circuit.width[0]):
        desk.of[WORTH, 0, i] = work.tuning[DIAGONAL, i] = 0.0
    for x in range(n):
        i = work.place[SITE, x]
        desk.of[WORTH, 0, i], work.tuning[DIAGONAL, i] = work.of[BEST, x], work.of[BEST_D, x]
    for j in range(m):
        work.tuning[TOUCH, work.place[NEURON, j]] = work.of[BEST_T, j]
    for j in range(circuit.width[1]):
        pull = desk.of[PULL, 1, j]
        least = min(pull * desk.of[D_LOW, 1, j], pull * desk.of[D_HIGH, 1, j]) if circuit.blocking else 0.0
        desk.of[WORTH, 1, j] = max(pull * desk.of[LOW, 1, j], pull * desk.of[HIGH, 1, j]) - least
    for k in range(2, len(circuit.width)):
        for j in range(circuit.width[k]):
            desk.of[WORTH, k, j] = desk.of[TERM, k, j]
    return best


@inner
def begun(circuit: Circuit, work: Moments) -> bool:
    """Whether the node's parent was tuned."""
    size = 0.0
    for i in range(circuit.width[0]):
        size += work.tuning[DIAGONAL, i]
    return bool(size > 0.0)


@inner
def fuzziest(circuit: Circuit, desk: Desk, work: Moments) -> int:
    """The free neuron of stage 0 whose being undecided the bound owes most to; -1 if to none."""
    at, most = -1, 0.0
    for i in range(circuit.width[0]):
        if desk.state[HERE, 0, i] == FREE and work.of[SCORE, i] > most:
            at, most = i, work.of[SCORE, i]
    return at
