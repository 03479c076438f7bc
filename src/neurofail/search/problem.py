"""A question about a network, put into the arrays that the compiled search reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from neurofail._reference import trace
from neurofail.activations import Activation
from neurofail.budget import Budget
from neurofail.errors import InputError
from neurofail.faults import Byzantine, Crash, Fault, StuckAt
from neurofail.network import Network
from neurofail.search.circuit import (
    FAILED,
    FREE,
    FROM,
    INTO,
    SOUND,
    Array,
    Case,
    Circuit,
    States,
    ranking,
    spans,
)
from neurofail.sites import Action

_UNIT = 2.0**-53
# Second moments are looked at where so many neurons of stage 0 may fail, and a sixteenth of them or more, and
# no stage is wider than this (they are matrices). Elsewhere lines and shares are quicker.
_MANY, _WIDE = 8, 256


@dataclass(frozen=True)
class Effect:
    """What a failed neuron does: a SET, SHIFT or ADD by any value in [low, high]."""

    action: Action
    low: float
    high: float

    @classmethod
    def of(cls, fault: Fault) -> Effect:
        """The effect of a neuron fault; raises InputError for faults of other places."""
        if isinstance(fault, Crash):
            return cls(Action.SET, 0.0, 0.0)
        if isinstance(fault, StuckAt):
            return cls(Action.SET, fault.value, fault.value)
        if isinstance(fault, Byzantine):
            action = {"value": Action.SET, "nominal": Action.SHIFT, "own": Action.ADD}[fault.semantics]
            return cls(action, *fault.ends)
        raise InputError(f"the exact search knows crash, stuck-at and byzantine neurons, not {fault.kind}")

    def level(self, value: float) -> float:
        """Where in the range a value lies, as a `Failure` has it: in [0, 1)."""
        width = self.high - self.low
        return min((value - self.low) / width, 1 - 2**-53) if width > 0 else 0.0


def _leak(phi: Activation) -> float:
    """The slope below 0 of a ReLU or leaky ReLU; infinite for other activations."""
    if phi.name == "leaky_relu":
        return phi.parameters[0]
    return 0.0 if phi.name == "relu" else math.inf


@dataclass(frozen=True)
class Problem:
    """One fault with its counts on one network, over inputs, and the objectives to be maximised.

    rows (O, N_L) and offsets (n, O): objective o of input i is offsets[i, o] plus rows[o] times the deviation
    of the last hidden layer. asked (n, O) says which objectives each input has. fallible holds the hidden
    layers in which the failures of a total may fall, None for all.
    """

    net: Network
    inputs: Array
    fault: Fault
    budget: Budget
    rows: Array
    offsets: Array
    asked: npt.NDArray[np.bool_]
    fallible: frozenset[int] | None = None

    @cached_property
    def effect(self) -> Effect:
        return Effect.of(self.fault)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """The failures allowed in each hidden layer."""
        if self.budget.totals is not None:
            most, may = self.budget.totals[0], self.fallible
            hidden = enumerate(self.net.widths[1:-1], start=1)
            return tuple(min(most, n) if may is None or layer in may else 0 for layer, n in hidden)
        assert self.budget.failures is not None
        return self.budget.failures[0]

    @cached_property
    def start(self) -> int:
        """The first hidden layer that can fail: stage 0."""
        hit = [layer for layer, count in enumerate(self.counts, start=1) if count]
        return hit[0] if hit else self.net.depth

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(stages, the widest stage)."""
        return self.net.depth - self.start + 1, max(self.net.widths[self.start : -1])

    @cached_property
    def circuit(self) -> Circuit:
        """The compiled search's view of the network."""
        stages, width = self.shape
        # Zeros that nothing is written to take no memory: narrow layers beside a wide one cost little.
        link = np.zeros((2, stages - 1, width, width))
        span = np.zeros((2, stages - 1, width, 2), dtype=np.uint64)
        for k, matrix in enumerate(self.net.weights[self.start : -1]):
            receivers, senders = matrix.shape
            link[INTO, k, :receivers, :senders] = matrix
            link[FROM, k, :senders, :receivers] = matrix.T
            span[INTO, k, :receivers], span[FROM, k, :senders] = spans(matrix), spans(matrix.T)
        phis = self.net.activations[self.start - 1 : -1]
        shapes = [
            (phi.gain, *(*phi.parameters, 0.0, 0.0)[:2], np.nan if phi.turning is None else phi.turning)
            for phi in phis
        ]
        rows = np.zeros((len(self.rows), width))
        rows[:, : self.rows.shape[1]] = self.rows
        pooled = self.budget.totals is not None
        leak = _leak(phis[1]) if stages > 1 else math.inf
        lone = bool(stages > 1 and (span[FROM, 0, :, 1] - span[FROM, 0, :, 0] <= 1).all())
        ranged = self.effect.low < self.effect.high
        curved = math.isfinite(leak) and not lone and not ranged and not pooled and width <= _WIDE
        curved = curved and self.counts[self.start - 1] >= max(_MANY, width // 16)
        return Circuit(
            width=np.array(self.net.widths[self.start : -1], dtype=np.int64),
            link=link,
            span=span,
            lone=lone,
            code=np.array([phi.code for phi in phis], dtype=np.int64),
            phi=np.array(shapes).T.copy(),
            leak=leak,
            allowed=np.array(self.counts[self.start - 1 :], dtype=np.int64),
            total=sum(self.counts) if self.budget.totals is None else self.budget.totals[0],
            forced=not self.budget.at_most,
            pooled=pooled,
            blocking=self.fault.blocking,
            ranged=ranged,
            split=self.fault.equivocates,
            side=width if curved else 0,
            rows=rows,
        )

    @cached_property
    def root(self) -> States:
        """The undecided state, (stages, width)."""
        state = np.full(self.shape, SOUND, dtype=np.int8)
        for k, width in enumerate(self.circuit.width):
            if self.circuit.allowed[k]:
                state[k, :width] = FREE
        return state

    def allows(self, pick: States) -> bool:
        """Whether a set of failed neurons, (stages, width), has as many members as asked for."""
        placed, wanted = (pick == FAILED).sum(axis=1), self.circuit.allowed
        if self.budget.totals is not None:
            placed, wanted = placed.sum(keepdims=True), np.array(self.budget.totals)
        return bool(np.all(placed <= wanted) if self.budget.at_most else np.all(placed == wanted))

    def influence(self, row: int) -> Array:
        """The product of the weights from each stage's outputs to an objective, with signs; (S, N)."""
        found, onward = np.zeros(self.shape), self.rows[row]
        for k in reversed(range(self.shape[0])):
            found[k, : len(onward)] = onward
            onward = onward @ self.net.weights[self.start + k - 1]
        return found

    @cached_property
    def golden(self) -> tuple[list[Array], list[Array]]:
        """The golden run of all inputs: pre-activations and outputs, layer by layer."""
        return trace(self.net, self.inputs)

    def case(self, index: int) -> Case:
        """The compiled search's view of one input."""
        pre, out = np.zeros(self.shape), np.zeros(self.shape)
        low, high = np.zeros(self.shape), np.zeros(self.shape)
        for k, width in enumerate(self.circuit.width):
            pre[k, :width] = self.golden[0][self.start - 1 + k][index]
            out[k, :width] = self.golden[1][self.start + k][index]
            base = out[k, :width] if self.effect.action is Action.SET else 0.0
            low[k, :width], high[k, :width] = self.effect.low - base, self.effect.high - base
        senders = self.circuit.width[0]
        weight = self.net.weights[self.start][:, :senders]
        sizes = [np.abs(y[index]) for y in self.golden[1]]
        slack = self.rounding(sizes, self.offsets[index], low, high)
        return Case(
            np.stack([pre, pre, out, low, high]),
            *ranking(weight, low[0, :senders], high[0, :senders]),
            np.stack([self.offsets[index], slack]),
        )

    def rounding(self, golden: list[Array], offset: Array, low: Array, high: Array) -> Array:
        """What rounding can move each objective by, either way; (O,).

        golden : the magnitudes |y^0| .. |y^{L+1}|; low, high : the deviations of failures, (S, N).

        Golden run, faulty run and every relaxation are sums of products and activations. Each makes, at a
        neuron of fan-in n, an error of at most (n + 32) units of rounding of the magnitudes it adds up
        (32 covers the activations, good to a few units, and the lines). Such an error at a neuron moves an
        objective by at most its influence (bounds.md, sections 4 and 5); the four of them are added.
        """
        net = self.net
        sizes, local = golden[0], []
        deviation = np.zeros_like(sizes)
        for layer in range(1, net.depth + 1):
            weight, phi = np.abs(net.weights[layer - 1]), net.activations[layer - 1]
            reach = weight @ (sizes + deviation) + np.abs(net.biases[layer - 1])
            sound = np.minimum(phi.lipschitz * (weight @ deviation), phi.range[1] - phi.range[0])
            deviation = sound
            if layer >= self.start:
                width, k = net.widths[layer], layer - self.start
                failed = np.maximum(np.abs(low[k, :width]), np.abs(high[k, :width]))
                deviation = np.maximum(sound, failed) if self.fault.blocking else sound + failed
            sizes = golden[layer]
            units = 4.0 * _UNIT * (weight.shape[1] + 32)
            local.append(units * (phi.lipschitz * reach + sizes + deviation))
        influence = np.abs(self.rows)
        total = 4.0 * _UNIT * (self.rows.shape[1] + 32) * (influence @ (sizes + deviation))
        total += 4.0 * _UNIT * np.abs(offset)
        for layer in range(net.depth, 0, -1):
            total += influence @ local[layer - 1]
            influence = (influence * net.activations[layer - 1].lipschitz) @ np.abs(net.weights[layer - 1])
        return np.asarray(total)
