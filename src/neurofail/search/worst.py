"""The exact worst case: the question, and the answer with its certificate."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

    def operations(self) -> list[Operation]:
        """The witness in the operations that the reference and the kernel replay."""
        from neurofail.search.problem import Effect

        action = Effect.of(self.fault).action
        return [
            Operation(action, failure.layer, failure.neuron, -1, 0.0, value)
            for failure, value in zip(self.configuration, self.values, strict=True)
        ]

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
    gap : stop when the upper limit is within this fraction of the error
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

    search = Search(problem, _fraction(gap), threads or os.cpu_count() or 1)
    search.run(time_limit, progress)
    return _answer(search.problem, search.best, search.upper, search.nodes, search.slack, not search.open)


def _fraction(gap: float) -> float:
    if isinstance(gap, bool) or not isinstance(gap, (int, float)) or not 0 <= gap < np.inf:
        raise InputError(f"gap is {gap!r}; it must be a fraction of the error, 0 or more")
    return float(gap)


def _error_problem(net: Network, inputs: Array, fault: Fault, budget: Budget) -> Problem:
    """Each output's deviation, up and down, on every input."""
    from neurofail.search.problem import Problem

    rows = np.vstack([net.weights[-1], -net.weights[-1]])
    shape = (len(inputs), len(rows))
    return Problem(net, inputs, fault, budget, rows, np.zeros(shape), np.ones(shape, dtype=np.bool_))


def _witness(problem: Problem, best: Best) -> tuple[Configuration, tuple[float, ...]]:
    """The best candidate as failures, and the value that each operation carries."""
    from neurofail.search.circuit import FAILED

    failures, values = [], []
    low, high = problem.effect.low, problem.effect.high
    for k, neuron in np.argwhere(best.pick == FAILED):
        layer = problem.start + int(k)
        value = float(best.choice[k, neuron])
        if problem.effect.action is Action.SET:
            value += float(problem.golden[1][layer][best.input, neuron])
        value = min(max(value, low), high)
        share = (value - low) / (high - low) if high > low else 0.0
        failures.append(Failure(layer, int(neuron), None, problem.fault.kind, level=min(share, 1 - 2**-53)))
        values.append(value)
    return Configuration(tuple(failures)), tuple(values)


def _answer(
    problem: Problem, best: Best | None, upper: float, nodes: int, slack: float, done: bool
) -> WorstCase:
    """Replay the witness through the reference and put the answer together."""
    assert best is not None
    configuration, values = _witness(problem, best)
    answer = WorstCase(
        0.0,
        upper,
        done,
        4.0 * slack,
        configuration,
        values,
        best.input,
        0,
        nodes,
        problem.fault,
        problem.budget,
    )
    errors = np.abs(deviations(problem.net, problem.inputs[[best.input]], answer.operations()))[0]
    output = int(np.argmax(errors))
    error = float(errors[output])
    return replace(
        answer,
        error=error,
        output=output,
        upper=max(upper, error),
        exact=done and upper - error <= answer.rounding,
    )
