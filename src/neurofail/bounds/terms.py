"""What the theorems see of a network and its faults: widths, |W|, K, R, D and M, all rounded up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from neurofail.activations import Activation
from neurofail.bounds.deviation import neuron_deviation, synapse_deviation
from neurofail.bounds.intervals import Enclosure
from neurofail.bounds.rounding import dot, minus, plus, times
from neurofail.errors import InputError
from neurofail.faults import Fault
from neurofail.network import Network

Array = npt.NDArray[np.float64]
Margin = int | tuple[int, int] | None


def steepness(phi: Activation) -> float:
    """K rounded up.

    1/6 is not a float64 number, and a steepness asked for is reached only to rounding: phi is evaluated as
    base(g x) with g the rounded quotient K / K_base.

    >>> steepness(Activation("relu"))
    1.0
    >>> steepness(Activation("hard_sigmoid")) > 1 / 6
    True
    """
    if phi.gain == 1.0 and phi.name != "hard_sigmoid":
        return phi.lipschitz
    return float(times(phi.lipschitz, 1.0))


def _readout(net: Network, margin: Margin) -> Array:
    """The rows whose error is bounded, as combinations of outputs, (P, N_{L+1}).

    margin None: every output. (c, k): the margin F_c - F_k. c: its margin over every other class.
    """
    outputs = net.widths[-1]
    if margin is None:
        return np.eye(outputs)
    if isinstance(margin, (int, np.integer)):
        chosen = [(int(margin), k) for k in range(outputs) if k != margin]
    elif (
        isinstance(margin, tuple)
        and len(margin) == 2
        and all(isinstance(c, (int, np.integer)) for c in margin)
    ):
        chosen = [margin]
    else:
        raise InputError(f"margin is {margin!r}; it must be a class c or a pair of classes (c, k)")
    if not chosen or not all(0 <= c < outputs and 0 <= k < outputs and c != k for c, k in chosen):
        raise InputError(
            f"margin is {margin!r}; it must be a class, or two different ones, out of 0..{outputs - 1}"
        )
    rows = np.zeros((len(chosen), outputs))
    for row, (c, k) in zip(rows, chosen, strict=True):
        row[c], row[k] = 1.0, -1.0
    return rows


@dataclass(frozen=True)
class Terms:
    """The quantities of bounds.md, section 1 and 2, for some inputs (n rows) or for the domain (one row).

    Layers count from 1 to L + 1; the "output layer" L + 1 has the P rows of the readout and K = 1.
    """

    net: Network
    faults: tuple[Fault, ...]
    nominal: Enclosure
    margin: Margin = None
    _deviations: dict[tuple[int, int], Array] = field(default_factory=dict, repr=False)
    _worst: dict[tuple[int, int], Array] = field(default_factory=dict, repr=False)

    def at(self, nominal: Enclosure) -> Terms:
        """The same question at other nominal signals; what depends on the weights alone is kept."""
        other = Terms(self.net, self.faults, nominal, self.margin)
        for name in ("readout", "weights", "greatest", "influence"):
            other.__dict__[name] = getattr(self, name)
        return other

    @property
    def depth(self) -> int:
        """L."""
        return self.net.depth

    @cached_property
    def blocking(self) -> bool:
        """Whether the (N - f) forms hold: every fault is a neuron's and blocks upstream error."""
        return all(fault.blocking for fault in self.faults)

    @cached_property
    def readout(self) -> Array:
        """|Q|: how each output enters each row of the readout, (P, N_{L+1})."""
        return np.abs(_readout(self.net, self.margin))

    @cached_property
    def weights(self) -> tuple[Array, ...]:
        """|W_1|, .., |W_L|, and |Q W_{L+1}| rounded up (exact without a margin).

        A neuron of layer L that equivocates may tell the two outputs of a margin different things, so with
        one about it is |Q| |W_{L+1}|: |W_c| + |W_k| for |W_c - W_k|.
        """
        last = self.net.weights[-1]
        if self.margin is None:
            final = np.abs(last)
        else:
            rows = _readout(self.net, self.margin)
            c, k = last[np.argmax(rows, axis=1)], last[np.argmin(rows, axis=1)]
            if any(fault.equivocates for fault in self.faults):
                final = plus(np.abs(c), np.abs(k))
            else:
                final = np.maximum(minus(c, k), minus(k, c))
        return (*(np.abs(w) for w in self.net.weights[:-1]), final)

    def weight(self, layer: int) -> Array:
        """|W_l|, or |Q W_{L+1}| for the last layer."""
        return self.weights[layer - 1]

    @cached_property
    def greatest(self) -> tuple[float, ...]:
        """w_1 .. w_{L+1}: the greatest weight of each layer."""
        return tuple(float(np.max(w)) for w in self.weights)

    @cached_property
    def _steepness(self) -> tuple[float, ...]:
        return tuple(steepness(phi) for phi in self.net.activations)

    def lipschitz(self, layer: int) -> float:
        """K_l, rounded up; 1 for the output layer."""
        return self._steepness[layer - 1]

    def reach(self, layer: int) -> Array:
        """R_{l,j}: how far a correct neuron can be from its nominal output at all, (n, N_l); may be inf."""
        return self.nominal.distance(layer, *self.net.activations[layer - 1].range)

    def deviation(self, fault: int, layer: int) -> Array:
        """D of fault number `fault` in `layer`, (n, N_l), or its M, (n, N_l, N_{l-1})."""
        key = fault, layer
        if key not in self._deviations:
            kind = self.faults[fault]
            if kind.place == "neuron":
                self._deviations[key] = neuron_deviation(kind, self.nominal, layer)
            else:
                self._deviations[key] = synapse_deviation(kind, self.net, self.nominal, layer)
        return self._deviations[key]

    def worst_deviation(self, fault: int, layer: int) -> Array:
        """D_l = max_j D_{l,j}, or max M^l, (n,)."""
        key = fault, layer
        if key not in self._worst:
            table = self.deviation(fault, layer)
            rows = len(self.nominal.low[0])
            self._worst[key] = np.broadcast_to(table.reshape(len(table), -1).max(axis=1), (rows,))
        return self._worst[key]

    def neuron_faults(self) -> Sequence[int]:
        """The numbers of the faults that strike neurons."""
        return [k for k, fault in enumerate(self.faults) if fault.place == "neuron"]

    def synapse_faults(self) -> Sequence[int]:
        """The numbers of the faults that strike synapses."""
        return [k for k, fault in enumerate(self.faults) if fault.place == "synapse"]

    @cached_property
    def influence(self) -> tuple[Array, ...]:
        """r^1 .. r^{L+1} (section 4): how much each neuron can move each row of the readout, (P, N_l)."""
        below = [self.readout, self.weight(self.depth + 1)]
        for layer in range(self.depth, 1, -1):
            below.append(dot(times(below[-1], self.lipschitz(layer)), self.weight(layer)))
        return tuple(reversed(below))
