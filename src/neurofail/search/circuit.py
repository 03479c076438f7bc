"""What the compiled search reads: the layers that failures reach, one input's golden run, a scratch desk.

A *stage* is a hidden layer from the first that can fail (stage 0) to the last hidden one; deviations from the
golden run are all that matters from there on. Arrays are padded to the widest stage.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neurofail.search.compiled import inner

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Order = npt.NDArray[np.int32]
States = npt.NDArray[np.int8]

FREE, SOUND, FAILED = 0, 1, 2


class Circuit(NamedTuple):
    """The network from stage 0 on, and the failures allowed. N is the widest stage, S the stages."""

    width: Ints  # (S,)
    weight: Array  # (S - 1, N, N): [k, j, i] from neuron i of stage k to neuron j of stage k + 1
    turned: Array  # (S - 1, N, N): the same with [k, i, j]
    code: Ints  # (S,) the activation of each stage, and its gain and parameters
    gain: Array
    first: Array
    second: Array
    turning: Array  # (S,) where it has its minimum; NaN if it never falls
    leak: float  # stage 1's slope below 0 if it is a ReLU or a leaky one; infinite if not
    allowed: Ints  # (S,) failures allowed in each stage
    total: int  # failures allowed in all
    forced: bool  # that many exactly, not fewer
    pooled: bool  # counted over all stages together, not stage by stage
    blocking: bool  # a failed neuron blocks the error that reaches it
    ranged: bool  # a failure has a range of values, not one
    split: bool  # a failed neuron may send each receiver a value of its own (equivocation)
    boxed: bool  # the input ranges over a box: golden values are intervals, and nothing can be measured
    rows: Array  # (O, N) the objectives: coefficients of the last stage's deviations


class Case(NamedTuple):
    """One input, or a box of them: the golden run, and what a failure may do to each neuron's output."""

    pre: Array  # (S, N) golden pre-activations; of a box, the least
    pre_high: Array  # (S, N) of a box, the greatest
    out: Array  # (S, N) golden outputs
    low: Array  # (S, N) the deviations that a failure may cause, from low
    high: Array  # (S, N) to high
    up_order: Order  # (N_1, N_0) stage-0 neurons by what they can add to each receiver
    up_term: Array  # (N_1, N_0) those terms, falling
    down_order: Order
    down_term: Array  # the least terms, rising
    offset: Array  # (O,) the constant part of each objective
    slack: Array  # (O,) what rounding can hide, either way


# The rows of a desk, each (S, N).
E_LOW, E_HIGH = 0, 1  # the pre-activation deviation lies in [e_low, e_high]
D_LOW, D_HIGH = 2, 3  # a sound neuron's output deviation lies in [d_low, d_high]
E = 4  # where the lines should touch; the candidate's pre-activation deviations, once measured
PULL, PUSH = 5, 6  # the linear coefficient on each output deviation, on each pre-activation deviation
WORST = 7  # the most that a neuron's failure adds to the linear function
TERM = 8  # the same for a free neuron, less what it would do if sound
CHOICE = 9  # the deviation that each failed neuron of the candidate takes
LINE, OTHER = 10, 11  # scratch
SHARE = 12  # (its row 0) what the failure of a free neuron of stage 0 adds through convex activations


class Desk(NamedTuple):
    """Scratch space of one node's bound: one array, because each array of a tuple costs compile time."""

    of: Array  # (13, S, N)
    pick: States  # (S, N) the candidate: states with the selection made


@inner
def desk(stages: int, width: int) -> Desk:
    """An empty desk."""
    return Desk(np.zeros((13, stages, width)), np.zeros((stages, width), dtype=np.int8))


def ranking(weight: Array, low: Array, high: Array) -> tuple[Order, Array, Order, Array]:
    """The stage-0 terms of every receiver in order of size: (up_order, up_term, down_order, down_term).

    weight (N_1, N_0); low, high (N_0,)
    """
    most, least = np.maximum(weight * low, weight * high), np.minimum(weight * low, weight * high)
    up, down = np.argsort(-most, axis=1, kind="stable"), np.argsort(least, axis=1, kind="stable")
    return (
        up.astype(np.int32),
        np.take_along_axis(most, up, axis=1),
        down.astype(np.int32),
        np.take_along_axis(least, down, axis=1),
    )


@inner
def copy(target: States | Array, source: States | Array) -> None:
    """target[...] = source for matrices; compiles in a fraction of the time."""
    for k in range(len(source)):
        for j in range(source.shape[1]):
            target[k, j] = source[k, j]
