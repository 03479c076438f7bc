"""Branch and bound over one block of nodes of one input, best bound first."""

from __future__ import annotations

import numpy as np

from neurofail.search.circuit import FAILED, FREE, SOUND, Array, Case, Circuit, Desk, Ints, States, copy, desk
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
    """The deviation of every failed neuron of the candidate: the end that its linear coefficient asks for."""
    for k in range(len(circuit.width)):
        for j in range(circuit.width[k]):
            if work.pick[k, j] == FAILED:
                work.choice[k, j] = high[k, j] if work.pull[k, j] >= 0.0 else low[k, j]


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
                if (mine and not picked) or (mine == picked and work.term[k, j] > gain):
                    at_k, at_j, gain, picked = k, j, work.term[k, j], mine
    return at_k, at_j


@outer
def explore(  # type: ignore[no-untyped-def]
    circuit: Circuit,
    case: Case,
    rows: Ints,
    limits: Array,
    states: States,
    incumbent: float,
    gap: float,
    budget: int,
):
    """Visit up to `budget` nodes below the given ones.

    rows (n,) objectives; limits (n,) upper limits known so far; states (n, S, N).
    Returns (best value found, its objective, its states, its deviations, nodes visited, the open nodes'
    rows, limits, states). Nodes that cannot beat the incumbent by more than the slack are dropped.
    """
    start, stages, width = len(rows), states.shape[1], states.shape[2]
    room = start + budget + 1
    row_of, limit_of = np.empty(room, dtype=np.int64), np.empty(room)
    state_of = np.empty((room, stages, width), dtype=np.int8)
    for x in range(start):
        row_of[x], limit_of[x] = rows[x], limits[x]
        copy(state_of[x], states[x])
    size, nodes = start, 0
    best, best_row = -np.inf, -1
    best_pick, best_choice = np.zeros((stages, width), dtype=np.int8), np.zeros((stages, width))
    here, left = np.empty((stages, width), dtype=np.int8), np.empty(stages, dtype=np.int64)
    work = desk(stages, width)
    low, high = case.low, case.high
    while size > 0 and nodes < budget:
        top = 0
        for x in range(1, size):
            if limit_of[x] > limit_of[top]:
                top = x
        row, limit = row_of[top], limit_of[top]
        copy(here, state_of[top])
        size -= 1
        row_of[top], limit_of[top] = row_of[size], limit_of[size]
        copy(state_of[top], state_of[size])
        if limit <= threshold(incumbent, case.slack[row], gap):
            continue
        nodes += 1
        _remaining(circuit, here, left)
        spread(circuit, case, here, left, low, high, work)
        for k in range(1, stages):
            for j in range(circuit.width[k]):
                work.e[k, j] = 0.5 * (work.e_low[k, j] + work.e_high[k, j])
        at_k, at_j = -1, -1
        # First lines that touch in the middle of each interval, then lines that touch at their maximiser.
        for turn in range(2):
            limit = min(limit, bound(circuit, case, row, here, left, low, high, work))
            if limit == -np.inf:
                break
            if turn == 0:
                at_k, at_j = _branching(circuit, here, left, work)
            _take(circuit, low, high, work)
            reached = measure(circuit, case, row, work.pick, work.choice, work)
            if reached > best:
                best, best_row = reached, row
                copy(best_pick, work.pick)
                copy(best_choice, work.choice)
                incumbent = max(incumbent, best)
            if limit <= threshold(incumbent, case.slack[row], gap):
                break
        else:
            if at_k >= 0:
                for state in (SOUND, FAILED):
                    here[at_k, at_j] = state
                    row_of[size], limit_of[size] = row, limit
                    copy(state_of[size], here)
                    size += 1
    return best, best_row, best_pick, best_choice, nodes, row_of[:size], limit_of[:size], state_of[:size]
