"""Branch and bound over one block of nodes of one input, best bound first."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neurofail.search.circuit import (
    BEST,
    CEILING,
    CHOICE,
    E_HIGH,
    E_LOW,
    FAILED,
    FIRST,
    FLOOR,
    FOUND,
    FROM,
    GAIN,
    HERE,
    HIGH,
    INTO,
    LEAN,
    LEAST,
    LINE,
    LOW,
    MOST,
    PICK,
    PRE,
    PULL,
    PUSH,
    SECOND,
    SLACK,
    SOUND,
    Array,
    Boxed,
    Case,
    Circuit,
    Desk,
    Ints,
    Singles,
    States,
    copy,
    desk,
)
from neurofail.search.compiled import inner, outer
from neurofail.search.moments import MANY, Moments, begun, fuzziest, moments, sharpen
from neurofail.search.relaxation import approach, bound, measure, spread, start
from neurofail.search.selection import branching, decide, select
from neurofail.search.shapes import steepness

_LATER = 0.6  # the weight of a node's second bound, whose lines are better placed, in the mean with the first
_FAR = 1.0  # mean failures' worth between a limit and the incumbent: nearer, lines get there


@outer
def threshold(incumbent: float, slack: float, gap: float) -> float:
    """A node whose bound does not exceed this is closed: it cannot beat the incumbent by more."""
    return incumbent + max(slack, gap * abs(incumbent))


@inner
def _remaining(circuit: Circuit, work: Desk) -> None:
    """Fill work.left with the failures still to place at each stage (in all, if pooled)."""
    stages = len(circuit.width)
    failed = 0
    for k in range(stages):
        here = 0
        for j in range(circuit.width[k]):
            here += work.state[HERE, k, j] == FAILED
        work.left[k] = circuit.allowed[k] - here
        failed += here
    if circuit.pooled:
        for k in range(stages):
            work.left[k] = circuit.total - failed


@inner
def _take(circuit: Circuit, work: Desk) -> None:
    """The deviation of every failed neuron of the candidate: the end that its linear coefficient asks for.

    With equivocation the ends are those of each receiver's level.
    """
    if circuit.split:
        for k in range(1, len(circuit.width)):
            for j in range(circuit.width[k]):
                high = work.of[PUSH, k, j] >= 0.0
                work.of[CHOICE, k, j] = work.of[CEILING, k, j] if high else work.of[FLOOR, k, j]
        return
    for k in range(len(circuit.width)):
        for j in range(circuit.width[k]):
            if work.state[PICK, k, j] == FAILED:
                low, high = work.of[LOW, k, j], work.of[HIGH, k, j]
                gain = work.of[PULL, k, j] * (high - low) + (work.of[LEAN, 0, j] if k == 0 else 0.0)
                work.of[CHOICE, k, j] = high if gain >= 0.0 else low


@inner
def _widest(circuit: Circuit, work: Desk) -> tuple[int, int]:
    """The failed neuron whose range of values moves the next stage most; (-1, -1) if none can be halved.

    The last stage needs no halving: the objective is linear in its deviations.
    """
    at_k, at_j, most = -1, -1, 0.0
    if not circuit.ranged:
        return at_k, at_j
    for k in range(len(circuit.width) - 1):
        for j in range(circuit.width[k]):
            if work.state[HERE, k, j] == FAILED:
                middle = 0.5 * (work.of[LOW, k, j] + work.of[HIGH, k, j])
                if not (work.of[LOW, k, j] < middle and middle < work.of[HIGH, k, j]):
                    continue
                reach = 0.0
                for i in range(circuit.width[k + 1]):
                    reach += abs(circuit.link[FROM, k, j, i])
                reach *= work.of[HIGH, k, j] - work.of[LOW, k, j]
                if reach > most:
                    at_k, at_j, most = k, j, reach
    return at_k, at_j


@inner
def _loosest(circuit: Circuit, case: Case, work: Desk) -> tuple[int, int]:
    """The receiver whose range of levels loosens the bound most; (-1, -1) if none can be halved.

    A line loses no more than the width of its neuron's interval times how much the slope changes there, and
    a width is felt by the lines of every stage that follows: LINE is what a unit of it may lose in all.
    """
    at_k, at_j, most = -1, -1, 0.0
    stages = len(circuit.width)
    for k in range(stages - 1, 0, -1):
        for j in range(circuit.width[k]):
            work.of[LINE, k, j] = 0.0
            if work.state[HERE, k, j] == FAILED:
                continue  # it sends what it wants, whatever it is told
            s = case.of[PRE, k, j]
            least, steepest = steepness(
                circuit.code[k],
                circuit.phi[GAIN, k],
                circuit.phi[FIRST, k],
                circuit.phi[SECOND, k],
                s + work.of[E_LOW, k, j],
                s + work.of[E_HIGH, k, j],
            )
            lost = abs(work.of[PULL, k, j]) * (steepest - least)
            if k + 1 < stages:
                later = 0.0
                for m in range(circuit.span[FROM, k, j, 0], circuit.span[FROM, k, j, 1]):
                    later += abs(circuit.link[FROM, k, j, m]) * work.of[LINE, k + 1, m]
                lost += max(abs(least), abs(steepest)) * later
            work.of[LINE, k, j] = lost
            floor, ceiling = work.of[FLOOR, k, j], work.of[CEILING, k, j]
            middle = 0.5 * (floor + ceiling)
            if lost == 0.0 or not (floor < middle and middle < ceiling):
                continue
            width = 0.0
            for i in range(circuit.span[INTO, k - 1, j, 0], circuit.span[INTO, k - 1, j, 1]):
                if work.state[HERE, k - 1, i] == FAILED:
                    reach = work.of[HIGH, k - 1, i] - work.of[LOW, k - 1, i]
                    width += abs(circuit.link[INTO, k - 1, j, i]) * reach
            if width * (ceiling - floor) * lost > most:
                at_k, at_j, most = k, j, width * (ceiling - floor) * lost
    return at_k, at_j


class Nodes(NamedTuple):
    """Room for open nodes."""

    rows: Ints  # (n,) objectives
    limits: Array  # (n,) upper limits known so far
    states: States  # (n, S, N)
    # (n, S, N) the deviations that failures may cause there, from lows to highs; with equivocation, the
    # levels of what each neuron is told; empty without a range
    lows: Array
    highs: Array
    tuned: Singles  # (n, 2, P) what the parents' moments were tuned to


def explore(
    circuit: Circuit,
    case: Case,
    rows: Ints,
    limits: Array,
    states: States,
    lows: Array,
    highs: Array,
    tuned: Singles,
    incumbent: float,
    gap: float,
    budget: int,
    boxed: Boxed = None,
) -> tuple[float, int, States, Array, int, float, Ints, Array, States, Array, Array, Singles]:
    """Visit up to `budget` nodes below the given ones.

    rows .. tuned : as in `Nodes`, without room to spare.
    Returns (best value found, its objective, its states, its deviations, nodes visited, the highest limit
    among the nodes closed, and of the open nodes the rows, limits, states, lows, highs, tuned).
    """
    room = len(rows) + budget + 1
    given: tuple[npt.NDArray[Any], ...] = (rows, limits, states, lows, highs, tuned)
    roomy = [np.empty((room if len(part) else 0, *part.shape[1:]), part.dtype) for part in given]
    for kept, part in zip(roomy, given, strict=True):
        kept[: len(part)] = part
    nodes = Nodes(*roomy)
    work = desk(states.shape[1:])
    # By its type, None leaves the code of moments out, a third of what there is to compile.
    second = moments(circuit.side) if circuit.side else None
    best, row, visited, closed, size = _explore(
        circuit, case, nodes, len(rows), incumbent, gap, budget, boxed, work, second
    )
    left = (part[:size].copy() for part in nodes)
    return best, row, work.state[FOUND], work.of[BEST], visited, closed, *left


@inner
def _move(circuit: Circuit, nodes: Nodes, source: int, target: int) -> None:
    """Put one open node in the place of another."""
    nodes.rows[target], nodes.limits[target] = nodes.rows[source], nodes.limits[source]
    copy(nodes.states[target], nodes.states[source])
    copy(nodes.tuned[target], nodes.tuned[source])
    if circuit.ranged:
        copy(nodes.lows[target], nodes.lows[source])
        copy(nodes.highs[target], nodes.highs[source])


@inner
def _add(
    circuit: Circuit, nodes: Nodes, at: int, row: int, limit: float, work: Desk, second: Moments | None
) -> None:
    """Put the node on the desk among the open ones."""
    nodes.rows[at], nodes.limits[at] = row, limit
    copy(nodes.states[at], work.state[HERE])
    if second is not None:
        copy(nodes.tuned[at], second.tuning)
    if circuit.ranged:
        copy(nodes.lows[at], work.of[FLOOR if circuit.split else LOW])
        copy(nodes.highs[at], work.of[CEILING if circuit.split else HIGH])


@outer
def _explore(
    circuit: Circuit,
    case: Case,
    nodes: Nodes,
    size: int,
    incumbent: float,
    gap: float,
    budget: int,
    boxed: Boxed,
    work: Desk,
    second: Moments | None,
) -> tuple[float, int, int, float, int]:
    """`explore` in the room given: (best value, its objective, nodes visited, highest closed, still open)."""
    visited = 0
    best, best_row, closed = -np.inf, -1, -np.inf
    here, pick = work.state[HERE], work.state[PICK]
    copy(work.of[LOW], case.of[LEAST])
    copy(work.of[HIGH], case.of[MOST])
    low, high = (work.of[FLOOR], work.of[CEILING]) if circuit.split else (work.of[LOW], work.of[HIGH])
    while size > 0 and visited < budget:
        top = int(np.int64(0))  # see `relaxation._leave`
        for x in range(1, size):
            if nodes.limits[x] > nodes.limits[top]:
                top = x
        row, limit = nodes.rows[top], nodes.limits[top]
        copy(here, nodes.states[top])
        if second is not None:
            copy(second.tuning, nodes.tuned[top])
        if circuit.ranged:
            copy(low, nodes.lows[top])
            copy(high, nodes.highs[top])
        size -= 1
        _move(circuit, nodes, size, top)
        if limit <= threshold(incumbent, case.objective[SLACK, row], gap):
            closed = max(closed, limit)
            continue
        visited += 1
        _remaining(circuit, work)
        spread(circuit, case, boxed, work)
        start(circuit, work)
        many, fresh = work.left[0] >= MANY, limit == np.inf
        for k in range(1, len(circuit.width)):
            many = many and work.left[k] == 0  # what may fail further up is better decided first
        done, far, sharp, total, cut, direct, above = False, False, False, 0.0, 0.0, 0.0, 0.0
        mean, gain = 0.0, 0.0
        for turn in range(3):
            if turn < 2:
                weight = 1.0 if turn == 0 else _LATER
                mean, direct, above = bound(circuit, case, row, boxed, weight, mean, work)
            elif second is not None:
                far = many and (begun(circuit, second) or (limit - cut) * work.left[0] > _FAR * gain)
                sharp = far and not fresh
                if sharp:
                    mean = sharpen(circuit, case, above, cut, work, second)
            if turn == 2 and not sharp:
                break
            gain = select(circuit, work)
            total = mean + gain
            limit = min(limit, total, direct)
            if limit == -np.inf:
                done = True
                break
            if boxed is None:
                _take(circuit, work)
                reached = measure(circuit, case, row, pick, work.of[CHOICE], work)
                if reached > best:
                    best, best_row = reached, row
                    copy(work.state[FOUND], pick)
                    copy(work.of[BEST], work.of[CHOICE])
                    incumbent = max(incumbent, best)
                approach(circuit, work)
            cut = threshold(incumbent, case.objective[SLACK, row], gap)
            if limit <= cut:
                done = True
                break
            if boxed is not None:
                break
        if done:
            closed = max(closed, limit)
            continue
        decided, ruled_out = decide(circuit, total, cut, work)
        closed = max(closed, ruled_out)
        if far and fresh and limit < np.inf:
            # Moments take longer than lines: better once the other objectives and inputs had their say.
            _add(circuit, nodes, size, row, limit, work, second)
            size += 1
            continue
        _remaining(circuit, work)
        at_k, at_j = 0, -1
        if second is not None and sharp:
            at_j = fuzziest(circuit, work, second)
        if at_j < 0:
            at_k, at_j = branching(circuit, work)
        if at_k >= 0:
            for state in (SOUND, FAILED):
                here[at_k, at_j] = state
                _add(circuit, nodes, size, row, limit, work, second)
                size += 1
            continue
        if decided:
            _add(circuit, nodes, size, row, limit, work, second)
            size += 1
            continue
        at_k, at_j = _loosest(circuit, case, work) if circuit.split else _widest(circuit, work)
        if at_k < 0:
            # Nothing is left to decide: without a range, value and limit differ by rounding alone.
            closed = max(closed, limit)
            continue
        bottom, top_end = low[at_k, at_j], high[at_k, at_j]
        middle = 0.5 * (bottom + top_end)
        for half in range(2):
            low[at_k, at_j] = bottom if half == 0 else middle
            high[at_k, at_j] = middle if half == 0 else top_end
            _add(circuit, nodes, size, row, limit, work, second)
            size += 1
    return best, best_row, visited, closed, size
