"""Branch and bound over one block of nodes of one input, best bound first."""

from __future__ import annotations

import numpy as np

from neurofail.search.circuit import (
    CHOICE,
    E_HIGH,
    E_LOW,
    FAILED,
    FREE,
    PULL,
    PUSH,
    SOUND,
    TERM,
    Array,
    Case,
    Circuit,
    Desk,
    E,
    Ints,
    States,
    copy,
    desk,
)
from neurofail.search.compiled import inner, outer
from neurofail.search.relaxation import bound, measure, spread


@outer
def threshold(incumbent: float, slack: float, gap: float) -> float:
    """A node whose bound does not exceed this is closed: it cannot beat the incumbent by more."""
    return incumbent + max(slack, gap * abs(incumbent))


@inner
def _remaining(circuit: Circuit, state: States, left: Ints) -> None:
    """Fill left with the failures still to place at each stage (in all, if pooled)."""
    stages = len(circuit.width)
    failed = 0
    for k in range(stages):
        here = 0
        for j in range(circuit.width[k]):
            here += state[k, j] == FAILED
        left[k] = circuit.allowed[k] - here
        failed += here
    if circuit.pooled:
        for k in range(stages):
            left[k] = circuit.total - failed


@inner
def _take(circuit: Circuit, low: Array, high: Array, work: Desk) -> None:
    """The deviation of every failed neuron of the candidate: the end that its linear coefficient asks for.

    With equivocation the ends differ by receiver, and the receivers' coefficients say which.
    """
    if circuit.split:
        copy(work.of[CHOICE], work.of[PUSH])
        return
    for k in range(len(circuit.width)):
        for j in range(circuit.width[k]):
            if work.pick[k, j] == FAILED:
                work.of[CHOICE, k, j] = high[k, j] if work.of[PULL, k, j] >= 0.0 else low[k, j]


@inner
def _branching(circuit: Circuit, state: States, left: Ints, work: Desk) -> tuple[int, int]:
    """The free neuron whose failure is worth most, the candidate's own first; (-1, -1) if none may fail."""
    at_k, at_j, gain, picked = -1, -1, -np.inf, False
    for k in range(len(circuit.width)):
        if left[k] == 0:
            continue
        for j in range(circuit.width[k]):
            if state[k, j] == FREE:
                mine = work.pick[k, j] == FAILED
                if (mine and not picked) or (mine == picked and work.of[TERM, k, j] > gain):
                    at_k, at_j, gain, picked = k, j, work.of[TERM, k, j], mine
    return at_k, at_j


@inner
def _widest(circuit: Circuit, state: States, low: Array, high: Array) -> tuple[int, int]:
    """The failed neuron whose range of values moves the next stage most; (-1, -1) if none can be halved.

    The last stage needs no halving: the objective is linear in its deviations.
    """
    at_k, at_j, most = -1, -1, 0.0
    if not circuit.ranged or circuit.split:
        return at_k, at_j
    for k in range(len(circuit.width) - 1):
        for j in range(circuit.width[k]):
            if state[k, j] == FAILED:
                middle = 0.5 * (low[k, j] + high[k, j])
                if not (low[k, j] < middle and middle < high[k, j]):
                    continue
                reach = 0.0
                for i in range(circuit.width[k + 1]):
                    reach += abs(circuit.turned[k, j, i])
                reach *= high[k, j] - low[k, j]
                if reach > most:
                    at_k, at_j, most = k, j, reach
    return at_k, at_j


@outer
def explore(  # type: ignore[no-untyped-def]  # Numba's tuple
    circuit: Circuit,
    case: Case,
    rows: Ints,
    limits: Array,
    states: States,
    lows: Array,
    highs: Array,
    incumbent: float,
    gap: float,
    budget: int,
):
    """Visit up to `budget` nodes below the given ones.

    rows (n,) objectives; limits (n,) upper limits known so far; states (n, S, N); lows, highs (n, S, N) the
    deviations that failures may cause there, or empty where they have no range.
    Returns (best value found, its objective, its states, its deviations, nodes visited, the highest limit
    among the nodes closed, and of the open nodes the rows, limits, states, lows, highs).
    """
    start, stages, width = len(rows), states.shape[1], states.shape[2]
    room = start + budget + 1
    values = room if circuit.ranged else 0
    row_of, limit_of = np.empty(room, dtype=np.int64), np.empty(room)
    state_of = np.empty((room, stages, width), dtype=np.int8)
    low_of, high_of = np.empty((values, stages, width)), np.empty((values, stages, width))
    for x in range(start):
        row_of[x], limit_of[x] = rows[x], limits[x]
        copy(state_of[x], states[x])
        if circuit.ranged:
            copy(low_of[x], lows[x])
            copy(high_of[x], highs[x])
    size, nodes = start, 0
    best, best_row, closed = -np.inf, -1, -np.inf
    best_pick, best_choice = np.zeros((stages, width), dtype=np.int8), np.zeros((stages, width))
    here, left = np.empty((stages, width), dtype=np.int8), np.empty(stages, dtype=np.int64)
    low, high = np.empty((stages, width)), np.empty((stages, width))
    copy(low, case.low)
    copy(high, case.high)
    work = desk(stages, width)
    turns = 3 if stages > 1 and circuit.leak <= 1.0 else 2
    while size > 0 and nodes < budget:
        top = 0
        for x in range(1, size):
            if limit_of[x] > limit_of[top]:
                top = x
        row, limit = row_of[top], limit_of[top]
        size -= 1
        row_of[top], limit_of[top] = row_of[size], limit_of[size]
        copy(here, state_of[top])
        copy(state_of[top], state_of[size])
        if circuit.ranged:
            copy(low, low_of[top])
            copy(high, high_of[top])
            copy(low_of[top], low_of[size])
            copy(high_of[top], high_of[size])
        if limit <= threshold(incumbent, case.slack[row], gap):
            closed = max(closed, limit)
            continue
        nodes += 1
        _remaining(circuit, here, left)
        spread(circuit, case, here, left, low, high, work)
        for k in range(1, stages):
            for j in range(circuit.width[k]):
                work.of[E, k, j] = 0.5 * (work.of[E_LOW, k, j] + work.of[E_HIGH, k, j])
        at_k, at_j = -1, -1
        done = False
        # First lines that touch in the middle of each interval, then lines that touch at their maximiser.
        for turn in range(turns):
            limit = min(limit, bound(circuit, case, row, here, left, low, high, turn > 0, work))
            if limit == -np.inf:
                done = True
                break
            if turn == 0:
                at_k, at_j = _branching(circuit, here, left, work)
            if circuit.boxed:
                done = limit <= threshold(incumbent, case.slack[row], gap)
                break
            _take(circuit, low, high, work)
            reached = measure(circuit, case, row, work.pick, work.of[CHOICE], work)
            if reached > best:
                best, best_row = reached, row
                copy(best_pick, work.pick)
                copy(best_choice, work.of[CHOICE])
                incumbent = max(incumbent, best)
            if limit <= threshold(incumbent, case.slack[row], gap):
                done = True
                break
        if done:
            closed = max(closed, limit)
            continue
        if at_k >= 0:
            for state in (SOUND, FAILED):
                here[at_k, at_j] = state
                row_of[size], limit_of[size] = row, limit
                copy(state_of[size], here)
                if circuit.ranged:
                    copy(low_of[size], low)
                    copy(high_of[size], high)
                size += 1
            continue
        at_k, at_j = _widest(circuit, here, low, high)
        if at_k < 0:
            # Nothing is left to decide: without a range, value and limit differ by rounding alone.
            closed = max(closed, limit)
            continue
        bottom, top_end = low[at_k, at_j], high[at_k, at_j]
        middle = 0.5 * (bottom + top_end)
        for half in range(2):
            low[at_k, at_j] = bottom if half == 0 else middle
            high[at_k, at_j] = middle if half == 0 else top_end
            row_of[size], limit_of[size] = row, limit
            copy(state_of[size], here)
            copy(low_of[size], low)
            copy(high_of[size], high)
            size += 1
    return (
        best,
        best_row,
        best_pick,
        best_choice,
        nodes,
        closed,
        row_of[:size],
        limit_of[:size],
        state_of[:size],
        low_of[: size if circuit.ranged else 0],
        high_of[: size if circuit.ranged else 0],
    )
