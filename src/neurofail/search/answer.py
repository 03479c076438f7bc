"""What the exact search answers: the number, its certificate, and a witness that anyone can replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neurofail._reference import deviations
from neurofail.budget import Budget
from neurofail.configuration import Configuration, Failure
from neurofail.network import Network
from neurofail.sites import Action, Operation

if TYPE_CHECKING:
    from neurofail.search.problem import Problem
    from neurofail.search.rounds import Best

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Witness:
    """One configuration on one input.

    Attributes
    ----------
    configuration : the failures; `values` holds what each transmits (or adds, see `Byzantine`), the first of
        its values where it equivocates
    input : the row of the inputs
    operations : the same for the reference and the kernel
    """

    configuration: Configuration
    values: tuple[float, ...]
    input: int
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Answer:
    """What both questions share.

    Attributes
    ----------
    exact : whether the number found and the certified limit meet: they differ by at most `rounding`, and that
        is at most a millionth of the number or of the largest output
    rounding : the stated floating-point margin
    interrupted : whether Ctrl-C ended the search
    output : the output (class) at which the witness does its worst
    nodes : nodes of the search tree visited
    witness : the worst configuration found
    """

    exact: bool
    rounding: float
    output: int
    nodes: int
    witness: Witness
    budget: Budget
    interrupted: bool

    @property
    def configuration(self) -> Configuration:
        return self.witness.configuration

    @property
    def values(self) -> tuple[float, ...]:
        return self.witness.values

    @property
    def input(self) -> int:
        return self.witness.input

    def operations(self) -> list[Operation]:
        """The witness in the operations that the reference and the kernel replay."""
        return list(self.witness.operations)

    def to_dict(self) -> dict[str, object]:
        """The answer as plain JSON values."""
        return {
            **self.budget.describe(),
            "exact": self.exact,
            "rounding": self.rounding,
            "interrupted": self.interrupted,
            "configuration": self.configuration.to_dict(),
            "values": list(self.values),
            "input": self.input,
            "output": self.output,
            "nodes": self.nodes,
        }

    def _told(self, found: str, limit: str) -> str:
        proof = f"exact: proven to within {self.rounding:.1g}" if self.exact else f"not settled: {limit}"
        return f"{found} on input {self.input} ({proof}, {self.nodes:,} nodes)\nwitness: {self.configuration}"


@dataclass(frozen=True)
class WorstCase(Answer):
    """The largest output error that a fault's configurations can cause on the given inputs.

    Attributes
    ----------
    error : the largest error found, replayed by the reference; reached at `input`, `output`
    upper : no configuration's error exceeds it, on any of the inputs and outputs; rounding included
    exact, rounding, output, nodes, witness, configuration, values, input : see `Answer`
    """

    error: float
    upper: float

    def to_dict(self) -> dict[str, object]:
        return {"error": self.error, "upper": self.upper, **super().to_dict()}

    def __str__(self) -> str:
        return self._told(
            f"worst error {self.error:.6g} at output {self.output}", f"at most {self.upper:.6g}"
        )


@dataclass(frozen=True)
class WorstMargin(Answer):
    """The smallest classification margin that a fault's configurations can leave on the given inputs.

    Attributes
    ----------
    margin : the smallest F_c - F_k found, c the input's class, k any other; replayed by the reference;
        `output` is that k. Negative: the prediction changes.
    lower : no configuration leaves less; rounding included
    changes : whether some configuration changes some prediction; None if that is not settled
    exact, rounding, output, nodes, witness, configuration, values, input : see `Answer`
    """

    margin: float
    lower: float

    @property
    def changes(self) -> bool | None:
        if self.margin < 0:
            return True
        return False if self.lower > 0 else None

    def to_dict(self) -> dict[str, object]:
        return {"margin": self.margin, "lower": self.lower, "changes": self.changes, **super().to_dict()}

    def __str__(self) -> str:
        told = {True: "changes to", False: "holds against", None: "may change to"}[self.changes]
        found = f"smallest margin {self.margin:.6g}: the prediction {told} class {self.output}"
        return self._told(found, f"at least {self.lower:.6g}")


def witness(problem: Problem, best: Best) -> Witness:
    """The best candidate in words and operations."""
    from neurofail.search.circuit import FAILED

    failures, values, operations = [], [], []
    effect = problem.effect
    for k, neuron in np.argwhere(best.pick == FAILED):
        layer, i = problem.start + int(k), int(neuron)
        if problem.circuit.split:
            weight, sent = problem.net.weights[layer][:, i], _equivocation(problem, best, int(k), i)
            operations += [
                Operation(Action.SYNAPSE, layer + 1, j, i, -float(w), float(w * v))
                for j, (w, v) in enumerate(zip(weight, sent, strict=True))
            ]
            value = float(sent[0])
        else:
            value = float(best.choice[k, i])
            if effect.action is Action.SET:
                value += float(problem.golden[1][layer][best.input, i])
            value = min(max(value, effect.low), effect.high)
            operations.append(Operation(effect.action, layer, i, -1, 0.0, value))
        failures.append(Failure(layer, i, None, problem.fault.kind, level=effect.level(value)))
        values.append(value)
    return Witness(Configuration(tuple(failures)), tuple(values), best.input, tuple(operations))


def _equivocation(problem: Problem, best: Best, k: int, i: int) -> Array:
    """What an equivocating neuron sends: to each receiver as much as its level is."""
    weight = problem.net.weights[problem.start + k][:, i]
    if k + 1 < problem.shape[0]:
        level = best.choice[k + 1, : len(weight)]
        share = np.where(weight >= 0, level, 1.0 - level)
    else:
        # One objective reads one output, up or down; the other outputs do not matter.
        share = np.full(len(weight), float(problem.rows[best.row, i] >= 0))
    low, high = problem.effect.low, problem.effect.high
    return np.clip((1.0 - share) * low + share * high, low, high)


def replay(net: Network, inputs: Array, found: Witness) -> Array:
    """The witness's deviation of every output, by the reference; (N_{L+1},)."""
    return np.asarray(deviations(net, inputs[[found.input]], found.operations)[0])
