"""The worst case over a whole box of inputs: certified from above, searched for from below.

From above: the node bound with golden values as intervals, on sub-boxes; the one with the highest limit is
split next. From below: the exact search picks the failures for an input, an ascent moves the input for those
failures, and so on from several starts. A set of failures that is given has a certificate of its own
(`given`), and where counts allow few sets, theirs is the largest of those.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from neurofail._reference import deviations
from neurofail.bounds import bounds_of, given_set
from neurofail.bounds.intervals import domain
from neurofail.budget import Budget
from neurofail.configuration import Configuration, Failure
from neurofail.errors import InputError
from neurofail.faults import Fault
from neurofail.network import Network, positive, whole
from neurofail.search import ascent
from neurofail.search.unfold import Unfolded, unfold
from neurofail.sites import Operation

Array = npt.NDArray[np.float64]
_NODES = 128  # visited in each sub-box


@dataclass(frozen=True)
class WorstInBox:
    """The largest error of any configuration on any input of the network's domain.

    Attributes
    ----------
    error : the largest error found, by the reference, of `configuration` at `input` (N_0,), at `output`
    upper : no configuration's error exceeds it on any input of the domain, in exact arithmetic (what float64
        may add to an error is `rounding_budget`)
    bound : the best closed-form bound of the same question, which `upper` never exceeds
    boxes : sub-boxes examined
    """

    error: float
    upper: float
    bound: float
    input: Array
    output: int
    configuration: Configuration
    boxes: int

    def to_dict(self) -> dict[str, object]:
        """The answer as plain JSON values."""
        return {
            "error": self.error,
            "upper": self.upper,
            "bound": self.bound,
            "input": self.input.tolist(),
            "output": self.output,
            "configuration": self.configuration.to_dict(),
            "boxes": self.boxes,
        }

    def __str__(self) -> str:
        return (
            f"over all inputs: observed {self.error:.6g} <= certified {self.upper:.6g} "
            f"<= bound {self.bound:.6g} ({self.boxes:,} sub-boxes)\nwitness: {self.configuration}"
        )


def worst_in_box(
    net: Network,
    fault: Fault,
    failures: Sequence[int] | None = None,
    *,
    total: int | None = None,
    at_most: bool = False,
    failed: Sequence[Sequence[int]] | None = None,
    time_limit: float = 10.0,
    gap: float = 0.01,
    starts: int = 8,
    seed: int = 0,
) -> WorstInBox:
    """A certified upper limit of the error over the network's whole `input_range`, and a strong lower one.

    Parameters
    ----------
    net, fault, failures, total, at_most : as for `worst_case`
    failed : instead, the failed neurons of each hidden layer, [[0, 3], []]; the answer is then about that set
        alone, and `bound` is the given-set bound (bounds.md, section 4)
    time_limit : seconds spent on splitting the domain, at most; the search from below, which comes first,
        takes no longer (or a second)
    gap : stop splitting when the limit is within this fraction of the error found
    starts, seed : how many inputs the search from below starts from, and what draws them

    Raises
    ------
    InputError : as `worst_case` does; a set that the network cannot have, or of neurons that equivocate.

    >>> import neurofail as nf
    >>> net = nf.Network.dense([[[1.0], [-1.0]], [[1.0, 2.0]]], [[0.0, 1.0], None], ["relu", "identity"])
    >>> found = worst_in_box(net, nf.Crash(), failures=(1,))  # relu(1 - x), doubled, at x = 0
    >>> found.error, round(found.upper, 9)
    (2.0, 2.0)
    >>> worst_in_box(net, nf.Crash(), failed=[[0]]).error  # relu(x) at x = 1
    1.0
    """
    _check(gap, time_limit, starts, seed)
    if not isinstance(fault, Fault):
        raise InputError(f"fault is {fault!r}; the search over a box takes one fault such as Crash()")
    if failed is not None:
        if failures is not None or total is not None or at_most:
            raise InputError("give either counts of failures or failed (the set itself), not both")
        if fault.place != "neuron":
            raise InputError(f"failed lists neurons, and {fault.kind} is a fault of synapses; give counts")
        if fault.equivocates:
            raise InputError("a given set does not know equivocation; give counts, or use equivocate=False")
        return _given(net, fault, failed, gap, time_limit, starts, seed)
    budget = Budget.of(net, fault, failures, total=total, at_most=at_most)
    bound = bounds_of(net, budget)["best"]
    question = unfold(net, fault, budget)
    error, x, output, configuration = _ascend(net, fault, budget, starts, seed, time_limit)
    upper, boxes, better = _certify(question, error, gap, time_limit, bound)
    if better is not None:
        return _answer(net, fault, *better, upper, bound, boxes)
    return WorstInBox(error, max(error, min(upper, bound)), bound, x, output, configuration, boxes)


def _ascend(
    net: Network, fault: Fault, budget: Budget, starts: int, seed: int, time_limit: float
) -> tuple[float, Array, int, Configuration]:
    """The largest error found by turns: the worst failures for an input, a worse input for those failures."""
    from neurofail.search.worst import answer_error

    best, until = None, np.inf
    for point in ascent.starts(net.low, net.high, starts, seed):
        x, error = point, -np.inf
        for _ in range(8):
            if time.monotonic() >= until:
                break
            found = answer_error(net, x[None], fault, budget, time_limit=1.0, gap=0.01)
            if best is None and error == -np.inf:
                until = ascent.deadline(time_limit)  # from here on, for the first answer waits for a compiler
            if found.error <= error * (1 + 1e-9):
                break
            operations = found.operations()

            def errors(points: Array, operations: list[Operation] = operations) -> Array:
                largest: Array = np.abs(deviations(net, points, operations)).max(axis=1)
                return largest

            x = ascent.climb(errors, net.low, net.high, x, until)
            moved = np.abs(deviations(net, x[None], operations))[0]
            error = float(moved.max())
            if best is None or error > best[0]:
                best = (error, x, int(np.argmax(moved)), found.configuration)
    assert best is not None
    return best


def _given(
    net: Network,
    fault: Fault,
    failed: Sequence[Sequence[int]],
    gap: float,
    time_limit: float,
    starts: int,
    seed: int,
) -> WorstInBox:
    """The answer for one set of failed neurons."""
    from neurofail.search import given

    checked = given.places(net, failed)
    bound = given_set(net, fault, checked)
    points = ascent.starts(net.low, net.high, starts, seed)
    x, operations, upper, boxes = given.worst(net, fault, checked, gap, time_limit, points)
    return _answer(net, fault, x, operations, upper, bound, boxes)


def _answer(
    net: Network,
    fault: Fault,
    x: Array,
    operations: list[Operation],
    upper: float,
    bound: float,
    boxes: int,
) -> WorstInBox:
    """The answer whose witness is given by its operations, replayed by the reference."""
    from neurofail.search.problem import Effect

    moved, effect = np.abs(deviations(net, x[None], operations))[0], Effect.of(fault)
    output = int(np.argmax(moved))
    error = float(moved[output])
    found = Configuration(
        tuple(
            Failure(one.layer, one.neuron, None, fault.kind, level=effect.level(one.value))
            for one in operations
        )
    )
    return WorstInBox(error, max(error, min(upper, bound)), bound, x, output, found, boxes)


def _check(gap: object, time_limit: object, starts: object, seed: object) -> None:
    """InputError for options that have no meaning."""
    from neurofail.search.worst import check_ends

    check_ends(gap, time_limit)
    whole(seed, "seed")
    positive(starts, "starts")


def _certify(
    question: Unfolded, error: float, gap: float, time_limit: float, bound: float
) -> tuple[float, int, tuple[Array, list[Operation]] | None]:
    """A limit over the domain, how many sub-boxes it took, and a worse input with its failures, if met."""
    from neurofail.search import given
    from neurofail.search.difference import Boxes, Difference
    from neurofail.search.problem import Effect

    net, fault = question.net, question.budget.faults[0]
    limit = min(bound, _limit(question, net.low, net.high, error, gap))
    until = time.monotonic() + time_limit  # from here on, for the first limit waits for a compiler
    # A set's own limit is of neurons that send everyone the same.
    apart = net is not question.original or fault.equivocates
    sets = None if apart else given.every(net, question.budget)
    if sets is None:
        return *_split(question, error, gap, limit, until), None
    left = until - time.monotonic()
    if left <= 0.0:
        return limit, 1, None
    of = Difference(net, Effect.of(fault))
    start = given.Point(error, net.low, sets[0])
    upper, best, boxes = given.certify(of, Boxes.whole(net, of.effect, sets), start, gap, left, limit)
    better = None if best is start else (best.at[: net.widths[0]], given.operations(of, best))
    return upper, 1 + boxes, better


def _split(question: Unfolded, error: float, gap: float, limit: float, until: float) -> tuple[float, int]:
    """The certified limit over the domain, cut in two time and again; `limit` is that of the whole."""
    serial, net = count(), question.net
    heap = [(-limit, next(serial), net.low, net.high)]
    closed, boxes = error, 1
    importance = np.abs(net.weights[0]).sum(axis=0)
    while heap and time.monotonic() < until:
        limit, _, low, high = heapq.heappop(heap)
        limit = -limit
        widths = (high - low) * importance
        axis = int(np.argmax(widths))
        middle = low[axis] + (high[axis] - low[axis]) / 2
        if limit <= error * (1 + gap) or not low[axis] < middle < high[axis]:
            closed = max(closed, limit)
            continue
        for half in range(2):
            lower, higher = low.copy(), high.copy()
            (higher if half == 0 else lower)[axis] = middle
            least = min(limit, _limit(question, lower, higher, error, gap))
            heapq.heappush(heap, (-least, next(serial), lower, higher))
            boxes += 1
    return max([closed, *(-entry[0] for entry in heap)]), boxes


def _limit(question: Unfolded, lowest: Array, highest: Array, error: float, gap: float) -> float:
    """A certified limit over the inputs from `lowest` to `highest`, of a few nodes' work."""
    from neurofail.search.circuit import Case, ranking
    from neurofail.search.tree import explore
    from neurofail.sites import Action

    own = question.net
    net = Network(own.weights, own.biases, own.activations, lowest, highest)
    rows = np.vstack([net.weights[-1], -net.weights[-1]])
    none = np.zeros((0, len(rows)))
    problem = question.problem(none, rows, none, none.astype(np.bool_))
    golden = domain(net)
    magnitudes = [golden.magnitude(layer)[0] for layer in range(net.depth + 1)]
    pre, pre_high = np.zeros(problem.shape), np.zeros(problem.shape)
    low, high = np.zeros(problem.shape), np.zeros(problem.shape)
    for k, width in enumerate(problem.circuit.width):
        layer = problem.start + k
        weight, bias = net.weights[layer - 1], net.biases[layer - 1]
        least, most = golden.low[layer - 1][0], golden.high[layer - 1][0]
        pre[k, :width] = np.minimum(weight * least, weight * most).sum(axis=1) + bias
        pre_high[k, :width] = np.maximum(weight * least, weight * most).sum(axis=1) + bias
        set_ = problem.effect.action is Action.SET
        low[k, :width] = problem.effect.low - (golden.high[layer][0] if set_ else 0.0)
        high[k, :width] = problem.effect.high - (golden.low[layer][0] if set_ else 0.0)
    senders = problem.circuit.width[0]
    offset = np.zeros(len(rows))
    ranked = ranking(net.weights[problem.start][:, :senders], low[0, :senders], high[0, :senders])
    slack = problem.rounding(magnitudes, offset, low, high)
    case = Case(
        np.stack([pre, pre_high, np.zeros(problem.shape), low, high]), *ranked, np.stack([offset, slack])
    )
    states = np.repeat(problem.root[None], len(rows), axis=0)
    empty = np.zeros((0, *problem.shape))
    *_, closed, _, limits, _, _, _, _ = explore(
        problem.circuit._replace(ranged=False, side=0),
        case,
        np.arange(len(rows)),
        np.full(len(rows), np.inf),
        states,
        empty,
        empty,
        np.zeros((len(rows), 2, 0), np.float32),
        error,
        gap,
        _NODES + len(rows),
        boxed=True,
    )
    return float(max(closed, limits.max(initial=-np.inf)) + slack.max())
