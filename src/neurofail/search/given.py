"""One given set of failed neurons over a box of inputs: certified by cutting the box, and its worst point."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Sequence
from itertools import count, pairwise

import numpy as np
import numpy.typing as npt

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


def places(net: Network, failed: object) -> tuple[tuple[int, ...], ...]:
    """The failed neurons of each hidden layer, checked; InputError for anything else."""
    rows = tuple(failed) if isinstance(failed, Iterable) and not isinstance(failed, str) else ()
    if len(rows) != net.depth or not all(isinstance(row, Iterable) for row in rows):
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
    low, high = box.low[0], box.high[0]

    def errors(points: Array) -> Array:
        largest: Array = of.errors(points, mask).max(axis=1)
        return largest

    values = ascent.starts(low, high, len(points), seed=0)[:, net.widths[0] :]
    tops = np.stack([ascent.climb(errors, low, high, start) for start in np.hstack([points, values])])
    best = tops[np.argmax(errors(tops))]
    error = float(errors(best[None])[0])
    upper, better, boxes = _certify(of, box, error, gap, time_limit)
    if better is not None:
        best = ascent.climb(errors, low, high, better)
    size, operations = net.widths[0], []
    for layer, row in enumerate(failed, start=1):
        for neuron in row:
            value = float(best[size + neuron])
            operations.append(Operation(of.effect.action, layer, neuron, -1, 0.0, value))
        size += net.widths[layer]
    return best[: net.widths[0]], operations, upper, boxes


def _certify(
    of: Difference, box: Boxes, error: float, gap: float, time_limit: float
) -> tuple[float, Array | None, int]:
    """A limit over the box, the best point above `error` if one was met, and how many boxes it took.

    The boxes of the highest limits are cut next, a batch at a time.
    """
    begun = time.monotonic()
    cells = max(a * b for a, b in pairwise(of.net.widths[1:]))
    batch = max(1, min(_BATCH, _CELLS // cells))
    serial, point, boxes = count(), None, 0
    heap: list[tuple[float, int, Array, Array, int]] = []
    closed, fresh, ceiling = error, box, np.full(1, np.inf)
    while True:
        known = of.limits(fresh)
        boxes += len(fresh)
        top = int(np.argmax(known.error))
        if known.error[top] > error:
            error, point = float(known.error[top]), known.point[top]
        limits = np.minimum(known.upper, ceiling)
        for limit, low, high, axis in zip(limits, fresh.low, fresh.high, known.axis, strict=True):
            if low[axis] < low[axis] + (high[axis] - low[axis]) / 2 < high[axis]:
                heapq.heappush(heap, (-float(limit), next(serial), low, high, int(axis)))
            else:
                closed = max(closed, float(limit))
        settled = not heap or -heap[0][0] <= error + max(gap * error, 2.0 * of.rounding)
        if settled or time.monotonic() - begun >= time_limit:
            return max(error, closed, -heap[0][0] if heap else error), point, boxes
        taken = [heapq.heappop(heap) for _ in range(min(batch, len(heap)))]
        falling, _, low, high, axes = zip(*taken, strict=True)
        ceiling = np.tile(np.negative(falling), 2)
        failed = np.repeat(box.failed, len(taken), axis=0)
        fresh = Boxes(np.stack(low), np.stack(high), failed).halved(np.array(axes))
