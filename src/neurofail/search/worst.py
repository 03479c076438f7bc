"""The exact worst case: the question, and the answer with its certificate."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neurofail._reference import deviations
from neurofail.budget import Budget
from neurofail.configuration import Configuration, Failure
from neurofail.errors import InputError
from neurofail.faults import Fault
from neurofail.network import Network
from neurofail.sites import Action, Operation

if TYPE_CHECKING:
    from neurofail.search.problem import Problem
    from neurofail.search.rounds import Best, Snapshot

Array = npt.NDArray[np.float64]
Counts = Sequence[int]


@dataclass(frozen=True)
class WorstCase:
    """The largest output error that a fault's configurations can cause on the given inputs.

    Attributes
    ----------
    error : the largest error found, replayed by the reference
    upper : no configuration's error exceeds it, on any of the inputs; rounding included
    exact : whether the two meet: `upper` exceeds `error` by rounding alone, at most by `rounding`
    rounding : the stated floating-point margin
    configuration : the witness; `values` holds what each failed neuron transmits (or adds, see `Byzantine`)
    input, output : where the witness reaches `error`
    nodes : nodes of the search tree visited
    """

    error: float
    upper: float
    exact: bool
    rounding: float
    configuration: Configuration
    values: tuple[float, ...]
    input: int
    output: int
    nodes: int
    fault: Fault
    budget: Budget
    _operations: tuple[Operation, ...] = ()

    def operations(self) -> list[Operation]:
        """The witness in the operations that the reference and the kernel replay."""
        return list(self._operations)

    def to_dict(self) -> dict[str, object]:
        """The answer as plain JSON values."""
        return {
            **self.budget.describe(),
            "error": self.error,
            "upper": self.upper,
            "exact": self.exact,
            "rounding": self.rounding,
            "configuration": self.configuration.to_dict(),
            "values": list(self.values),
            "input": self.input,
            "output": self.output,
            "nodes": self.nodes,
        }

    def __str__(self) -> str:
        if self.exact:
            verdict = f"exact: proven to within {self.rounding:.1g} in {self.nodes:,} nodes"
        else:
            verdict = f"not settled: at most {self.upper:.6g} after {self.nodes:,} nodes"
        return (
            f"worst error {self.error:.6g} at output {self.output} on input {self.input} ({verdict})\n"
            f"witness: {self.configuration}"
        )


def worst_case(
    net: Network,
    inputs: npt.ArrayLike,
    fault: Fault,
    failures: Counts | None = None,
    *,
    total: int | None = None,
    at_most: bool = False,
    threads: int | None = None,
    time_limit: float | None = None,
    gap: float = 0.0,
    progress: Callable[[Snapshot], object] | None = None,
) -> WorstCase:
    """The largest error over all configurations, inputs and outputs, without visiting them all.

    Branch and bound with linear relaxations; the relaxations' sums carry a proven margin for rounding.

    Parameters
    ----------
    net, inputs : the network, and (n, N_0) inputs in its domain
    fault : `Crash()`, `StuckAt(v)` or `Byzantine(..)`, whose `draw` does not matter here: every value within
        the capacity is considered
    failures, total, at_most : how many failures, as for `Exhaustive`
    threads : all cores by default; the answer does not depend on it
    time_limit : seconds after which the answer so far, with its certified upper limit, is returned
    gap : stop when the upper limit is within this fraction of the error; Byzantine values are a continuum, so
        there it is at least 1e-6
    progress : called with a `Snapshot` after every round

    Raises
    ------
    InputError : a fault that the search does not know, counts that do not fit, inputs outside the domain.

    An interrupt (Ctrl-C) ends the search like a time limit.

    >>> import neurofail as nf
    >>> net = nf.Network.dense([[[1.0], [2.0]], [[1.0, -1.0]]], None, ["relu", "identity"])
    >>> answer = worst_case(net, [[1.0]], nf.Crash(), failures=(1,))
    >>> answer.error, answer.exact, str(answer.configuration)
    (2.0, True, 'crash of layer 1 neuron 1')
    """
    problem = _error_problem(
        net, net.check_inputs(inputs), fault, Budget.of(net, fault, failures, total=total, at_most=at_most)
    )
    from neurofail.search.rounds import Search

    search = Search(problem, _fraction(gap, problem.circuit.ranged), threads or os.cpu_count() or 1)
    search.run(time_limit, progress)
    return _answer(search.problem, search.best, search.upper, search.nodes, search.slack, not search.open)


def _fraction(gap: float, ranged: bool) -> float:
    if isinstance(gap, bool) or not isinstance(gap, (int, float)) or not 0 <= gap < np.inf:
        raise InputError(f"gap is {gap!r}; it must be a fraction of the error, 0 or more")
    return max(float(gap), 1e-6 if ranged else 0.0)


def _error_problem(net: Network, inputs: Array, fault: Fault, budget: Budget) -> Problem:
    """Each output's deviation, up and down, on every input."""
    from neurofail.search.problem import Problem

    rows = np.vstack([net.weights[-1], -net.weights[-1]])
    shape = (len(inputs), len(rows))
    return Problem(net, inputs, fault, budget, rows, np.zeros(shape), np.ones(shape, dtype=np.bool_))


def _witness(problem: Problem, best: Best) -> tuple[Configuration, tuple[float, ...], list[Operation]]:
    """The best candidate as failures, the value that each takes, and the operations that replay it.

    With equivocation the first value of a neuron stands for all that it sends.
    """
    from neurofail.search.circuit import FAILED

    failures, values, operations = [], [], []
    effect = problem.effect
    for k, neuron in np.argwhere(best.pick == FAILED):
        layer, i = problem.start + int(k), int(neuron)
        if problem.circuit.split:
            sent = _equivocation(problem, best, int(k), i)
            operations.extend(sent)
            value = sent[0].value / -sent[0].weight if sent[0].weight else effect.low
        else:
            value = float(best.choice[k, i])
            if effect.action is Action.SET:
                value += float(problem.golden[1][layer][best.input, i])
            value = min(max(value, effect.low), effect.high)
            operations.append(Operation(effect.action, layer, i, -1, 0.0, value))
        width = effect.high - effect.low
        share = (value - effect.low) / width if width > 0 else 0.0
        failures.append(Failure(layer, i, None, problem.fault.kind, level=min(share, 1 - 2**-53)))
        values.append(value)
    return Configuration(tuple(failures)), tuple(values), operations


def _equivocation(problem: Problem, best: Best, k: int, i: int) -> list[Operation]:
    """What an equivocating neuron sends: to each receiver the end that its coefficient asks for."""
    layer = problem.start + k
    weight = problem.net.weights[layer][:, i]
    if k + 1 < problem.shape[0]:
        upward = best.choice[k + 1, : len(weight)] * weight >= 0
    else:
        # One objective reads one output, up or down; the other outputs do not matter.
        upward = np.full(len(weight), problem.rows[best.row, i] >= 0)
    sent = np.where(upward, problem.effect.high, problem.effect.low)
    return [
        Operation(Action.SYNAPSE, layer + 1, j, i, -float(w), float(w * v))
        for j, (w, v) in enumerate(zip(weight, sent, strict=True))
    ]


def _answer(
    problem: Problem, best: Best | None, upper: float, nodes: int, slack: float, done: bool
) -> WorstCase:
    """Replay the witness through the reference and put the answer together."""
    assert best is not None
    configuration, values, operations = _witness(problem, best)
    errors = np.abs(deviations(problem.net, problem.inputs[[best.input]], operations))[0]
    output = int(np.argmax(errors))
    error, rounding = float(errors[output]), 4.0 * slack
    return WorstCase(
        error,
        max(upper, error),
        done and upper - error <= rounding,
        rounding,
        configuration,
        values,
        best.input,
        output,
        nodes,
        problem.fault,
        problem.budget,
        tuple(operations),
    )
