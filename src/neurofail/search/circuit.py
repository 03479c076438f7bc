"""What the compiled search reads: the layers that failures reach, one input's golden run, a scratch desk.

A *stage* is a hidden layer from the first that can fail (stage 0) to the last hidden one; deviations from the
golden run are all that matters from there on. Arrays are padded to the widest stage.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from neurofail.search.compiled import inner
from neurofail.search.shapes import value

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Order = npt.NDArray[np.int32]
Spans = npt.NDArray[np.uint64]  # without a sign, so that Numba need not look for indices below 0
States = npt.NDArray[np.int8]
Singles = npt.NDArray[np.float32]

FREE, SOUND, FAILED = 0, 1, 2

# Whether the input ranges over a box: golden values are intervals, and nothing can be measured. None if not:
# by its type, Numba leaves that half of the code out.
Boxed = Literal[True] | None

GAIN, FIRST, SECOND, TURNING = 0, 1, 2, 3  # the rows of Circuit.phi
INTO, FROM = 0, 1  # of Circuit.link


class Circuit(NamedTuple):
    """The network from stage 0 on, and the failures allowed. N is the widest stage, S the stages.

    Arrays are few, here and below: compiled calls pass each one's address, sizes and strides, and all of that
    costs compile time.
    """

    width: Ints  # (S,)
    link: Array  # (2, S - 1, N, N) from neuron i of stage k to j of k + 1: [INTO, k, j, i], [FROM, k, i, j]
    # Beyond its span a neuron's links are 0: the first and one past the last of the senders of neuron j of
    # stage k + 1 in [INTO, k, j], of the receivers of neuron i of stage k in [FROM, k, i].
    span: Spans  # (2, S - 1, N, 2)
    lone: bool  # each neuron of stage 0 has one receiver at most
    code: Ints  # (S,) the activation of each stage
    phi: Array  # (4, S) its gain, its two parameters, and where it has its minimum (NaN if it never falls)
    leak: float  # stage 1's slope below 0 if it is a ReLU or a leaky one; infinite if not
    allowed: Ints  # (S,) failures allowed in each stage
    total: int  # failures allowed in all
    forced: bool  # that many exactly, not fewer
    pooled: bool  # counted over all stages together, not stage by stage
    blocking: bool  # a failed neuron blocks the error that reaches it
    ranged: bool  # a failure has a range of values, not one
    split: bool  # a failed neuron may send each receiver a value of its own (equivocation)
    side: int  # the widest stage if second moments are looked at (see `moments`), 0 if not
    rows: Array  # (O, N) the objectives: coefficients of the last stage's deviations


# The rows of Case.of, each (S, N): golden pre-activations (of a box, the least and the greatest), golden
# outputs, and the deviations that a failure may cause, from LEAST to MOST.
PRE, PRE_HIGH, OUT, LEAST, MOST = 0, 1, 2, 3, 4
UP, DOWN = 0, 1  # of Case.order and Case.term
OFFSET, SLACK = 0, 1  # of Case.objective


class Case(NamedTuple):
    """One input, or a box of them: the golden run, and what a failure may do to each neuron's output."""

    of: Array  # (5, S, N)
    order: Order  # (2, N_1, N_0) stage-0 neurons by the most, and by the least, they can add to each receiver
    term: Array  # (2, N_1, N_0) those terms: UP falling, DOWN rising
    objective: Array  # (2, O) the constant part of each objective; what rounding can hide, either way


# The rows of a desk, each (S, N).
E_LOW, E_HIGH = 0, 1  # the pre-activation deviation lies in [e_low, e_high]
D_LOW, D_HIGH = 2, 3  # a sound neuron's output deviation lies in [d_low, d_high]
E = 4  # the candidate's pre-activation deviations, once measured
PULL, PUSH = 5, 6  # the linear coefficient on each output deviation, on each pre-activation deviation
WORST = 7  # the most that a neuron's failure adds to the linear function
TERM = 8  # the same for a free neuron, less what it would do if sound
WORTH = 9  # the mean of TERM over the turns of a node
CHOICE = 10  # the deviation that each failed neuron of the candidate takes; or each receiver's level
LINE, OTHER = 11, 12  # scratch
SHARE = 13  # (its row 0) what a free neuron of stage 0 adds, failed, through receivers bounded by shares
LOW, HIGH = 14, 15  # the node's own ranges of deviations
BEST = 16  # the deviations of the best candidate
NEAR = 17  # the pre-activation deviations near which the lines should touch
SOFT = 18  # the failures that they belong to, as shares of 1
SURE = 19  # (its row 1) the pre-activation if nothing more fails, of failures that have a value
SHARED = 20  # (its row 1) the output of a ReLU, bounded by shares, at SOFT
ONE, BACK = (
    21,
    22,
)  # (their rows 0) the shares of the receiver at hand, and how they differ between the ends of a range
LEAN = 23  # (its row 0) how much more SHARE would be at HIGH than at LOW
# With equivocation all that the failed neurons send a receiver lies between a least and a greatest sum, 0 and
# 1 here; its level is chosen receiver by receiver, between these two.
FLOOR, CEILING = 24, 25


# The states on a desk: the node's, its candidate's (with the selection made), the best candidate's.
HERE, PICK, FOUND = 0, 1, 2


class Desk(NamedTuple):
    """One node, and the scratch space of its bound."""

    of: Array  # (26, S, N)
    state: States  # (3, S, N)
    left: Ints  # (S,) failures still to place


def desk(shape: tuple[int, ...]) -> Desk:
    """An empty desk for (stages, width). Compiled code allocates nothing (see `compiled`)."""
    of = np.zeros((26, *shape))
    of[CEILING] = 1.0
    return Desk(of, np.zeros((3, *shape), np.int8), np.zeros(shape[0], np.int64))


def ranking(weight: Array, low: Array, high: Array) -> tuple[Order, Array]:
    """The stage-0 terms of every receiver in order of size: (order, term) of a `Case`.

    weight (N_1, N_0); low, high (N_0,)
    """
    most, least = np.maximum(weight * low, weight * high), np.minimum(weight * low, weight * high)
    terms = np.stack([most, least])
    order = np.argsort(np.stack([-most, least]), axis=2, kind="stable")
    return order.astype(np.int32), np.take_along_axis(terms, order, axis=2)


def spans(matrix: Array) -> Spans:
    """Of each row, where its first number other than 0 stands, and one past the last; (rows, 2)."""
    there = matrix != 0
    ends = np.stack([there.argmax(axis=1), matrix.shape[1] - there[:, ::-1].argmax(axis=1)], axis=1)
    return np.where(there.any(axis=1)[:, None], ends, 0).astype(np.uint64)


@inner
def phi_at(circuit: Circuit, k: int, x: float) -> float:
    """The activation of stage k at x."""
    return value(circuit.code[k], circuit.phi[FIRST, k], circuit.phi[SECOND, k], circuit.phi[GAIN, k] * x)


@inner
def told(weight: float, low: float, high: float, level: float) -> float:
    """What a synapse delivers of a deviation from low to high, at a level from its least to its greatest."""
    x, y = weight * low, weight * high
    return (1.0 - level) * min(x, y) + level * max(x, y)


@inner
def copy(target: States | Array | Singles, source: States | Array | Singles) -> None:
    """target[...] = source for matrices; compiles in a fraction of the time."""
    for k in range(len(source)):
        for j in range(source.shape[1]):
            target[k, j] = source[k, j]
