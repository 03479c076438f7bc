"""Given sets of failed neurons over a box of inputs: certified by cutting the box, and the worst point."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, count, pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from neurofail.budget import Budget
from neurofail.errors import InputError
from neurofail.faults import Fault
from neurofail.network import Network, whole
from neurofail.search import ascent
from neurofail.search.difference import Boxes, Difference
from neurofail.search.problem import Effect
from neurofail.sites import Operation

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_BATCH = 64  # boxes bounded together, fewer where the layers are wide:
_CELLS = 1 << 20  # entries in one of their arrays
_WORK = 1 << 22  # sets times such entries: about a second's work
_LISTS = (list, tuple, set, frozenset, range, np.ndarray)


@dataclass(frozen=True)
class Point:
    """A point of a box, its error by float64 (no certificate), and the failed neurons, (hidden,)."""

    error: float
    at: Array
    failed: Mask


def places(net: Network, failed: object) -> tuple[tuple[int, ...], ...]:
    """The failed neurons of each hidden layer, checked; InputError for anything else."""
    listed = isinstance(failed, _LISTS) and getattr(failed, "ndim", 1) > 0
    rows: tuple[Any, ...] = tuple(failed) if listed else ()  # type: ignore[arg-type]  # one of _LISTS
    if len(rows) != net.depth or not all(isinstance(row, _LISTS) for row in rows):
        example = [[0], *([] for _ in range(net.depth - 1))]
        raise InputError(
            f"failed is {failed!r}; it must list the failed neurons of each of the {net.depth} hidden "
            f"layers, such as {example}"
        )
    found = []
    for layer, row in enumerate(rows, start=1):
        neurons = tuple(whole(neuron, f"a failed neuron of layer {layer}") for neuron in row)
        width = net.widths[layer]
        for neuron in neurons:
            if neuron >= width:
                raise InputError(
                    f"neuron {neuron} of layer {layer} does not exist; there are {width} neurons, "
                    "counted from 0"
                )
            if neurons.count(neuron) > 1:
                raise InputError(f"neuron {neuron} of layer {layer} is listed twice; a neuron fails once")
        found.append(neurons)
    return tuple(found)


def every(net: Network, budget: Budget) -> Mask | None:
    """Every set of failed neurons that the counts allow, (n, hidden); None if that is too much work."""
    widths = net.widths[1:-1]
    if budget.totals is not None:
        pools = [(sum(widths), budget.totals[0])]
    else:
        assert budget.failures is not None
        pools = list(zip(widths, budget.failures[0], strict=True))
    sizes = [range(0 if budget.at_most else most, most + 1) for _, most in pools]
    number = math.prod(
        sum(math.comb(width, size) for size in each) for (width, _), each in zip(pools, sizes, strict=True)
    )
    if number * _cells(net) > _WORK:
        return None
    parts = [
        [np.isin(np.arange(width), chosen) for size in each for chosen in combinations(range(width), size)]
        for (width, _), each in zip(pools, sizes, strict=True)
    ]
    return np.array([np.concatenate(row) for row in product(*parts)])


def worst(
    net: Network, fault: Fault, failed: Sequence[Sequence[int]], gap: float, time_limit: float, points: Array
) -> tuple[Array, list[Operation], float, int]:
    """The worst input for one set of failed neurons, and their worst values where there is a choice.

    points (n, N_0) are where the search from below starts. Returns the input, the operations, a limit of the
    error on every input, and how many boxes that took.
    """
    of = Difference(net, Effect.of(fault))
    hidden = list(zip(failed, net.widths[1:-1], strict=True))
    mask = np.array([[neuron in row for row, width in hidden for neuron in range(width)]])
    box = Boxes.whole(net, of.effect, mask)
    values = ascent.starts(box.low[0], box.high[0], len(points), seed=0)[:, net.widths[0] :]
    until = ascent.deadline(time_limit)
    tops = np.stack([_climbed(of, box, start, until) for start in np.hstack([points, values])])
    errors = of.errors(tops, mask).max(axis=1)
    best = Point(float(errors.max()), tops[np.argmax(errors)], mask[0])
    upper, best, boxes = certify(of, box, best, gap, time_limit)
    return best.at[: net.widths[0]], operations(of, best), upper, boxes


def operations(of: Difference, point: Point) -> list[Operation]:
    """What the failed neurons do at a point."""
    neurons = [(layer, j) for layer, width in enumerate(of.net.widths[1:-1], start=1) for j in range(width)]
    values = point.at[of.net.widths[0] :]
    return [
        Operation(of.effect.action, layer, neuron, -1, 0.0, float(value))
        for (layer, neuron), value, failed in zip(neurons, values, point.failed, strict=True)
        if failed
    ]


def certify(
    of: Difference, boxes: Boxes, best: Point, gap: float, time_limit: float, ceiling: float = np.inf
) -> tuple[float, Point, int]:
    """A limit over all the boxes, the best point met, and how many boxes that took.

    best is the largest error known so far, ceiling a limit known already. First every box is visited; then
    those of the highest limits are cut, a batch at a time.
    """
    begun = time.monotonic()
    batch = max(1, min(_BATCH, _CELLS // _cells(of.net)))
    serial, visited, closed, start = count(), 0, best.error, best
    heap: list[tuple[float, int, Array, Array, Mask, int]] = []
    firsts = range(0, len(boxes), batch)
    waiting = [boxes[np.arange(first, min(first + batch, len(boxes)))] for first in reversed(firsts)]
    while True:
        late = visited > 0 and time.monotonic() - begun >= time_limit
        highest = ceiling if waiting else max(closed, -heap[0][0] if heap else closed)
        settled = highest <= best.error + max(gap * best.error, 2.0 * of.rounding)
        if late or settled or not (waiting or heap):
            break
        if waiting:
            fresh = waiting.pop()
            above = np.full(len(fresh), ceiling)
        else:
            taken = [heapq.heappop(heap) for _ in range(min(batch, len(heap)))]
            falling, _, low, high, failed, axes = zip(*taken, strict=True)
            fresh = Boxes(np.stack(low), np.stack(high), np.stack(failed)).halved(np.array(axes))
            above = np.tile(np.negative(falling), 2)
        known = of.limits(fresh)
        visited += len(fresh)
        top = int(np.argmax(known.error))
        if known.error[top] > best.error:
            best = Point(float(known.error[top]), known.point[top], fresh.failed[top])
        limits = np.minimum(known.upper, above)
        rows = zip(limits, fresh.low, fresh.high, fresh.failed, known.axis, strict=True)
        for limit, low, high, failed, axis in rows:
            if low[axis] < low[axis] + (high[axis] - low[axis]) / 2 < high[axis]:
                heapq.heappush(heap, (-float(limit), next(serial), low, high, failed, int(axis)))
            else:
                closed = max(closed, float(limit))
    if best is not start:
        box = Boxes.whole(of.net, of.effect, best.failed[None])
        at = _climbed(of, box, best.at, ascent.deadline(0.0))
        best = Point(float(of.errors(at[None], best.failed[None]).max()), at, best.failed)
    return max(best.error, highest), best, visited


def _climbed(of: Difference, box: Boxes, start: Array, until: float) -> Array:
    """The point of larger error that an ascent in one box reaches in time."""

    def errors(points: Array) -> Array:
        largest: Array = of.errors(points, box.failed).max(axis=1)
        return largest

    return ascent.climb(errors, box.low[0], box.high[0], start, until)


def _cells(net: Network) -> int:
    """The entries of the largest weight matrix behind the first, which set the work that a box is."""
    return max(a * b for a, b in pairwise(net.widths[1:]))
