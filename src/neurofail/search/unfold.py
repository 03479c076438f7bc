"""Synapses as neurons: what lets the search answer for synapses without knowing them.

Where synapses into a layer may fail, a layer of identity neurons goes between it and the one before, one for
each synapse, in the order in which synapses are places (receiver by receiver). Each copies what its synapse
reads, and its only outgoing weight is the synapse's; or, where the fault comes after the weighting, it
carries the weighted signal, and its only outgoing weight is 1. Either way the synapse's fault is a neuron's
there: what replaces a signal is set, what is added to one is added to the neuron's own computation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neurofail.activations import Activation
from neurofail.bounds.arithmetic import rounding_budget
from neurofail.budget import Budget
from neurofail.configuration import Configuration, Failure
from neurofail.errors import InputError
from neurofail.faults import Byzantine, Crash, Fault, SynapseByzantine, SynapseCrash
from neurofail.network import Network
from neurofail.search.answer import Witness
from neurofail.sites import Action, Operation

if TYPE_CHECKING:
    from neurofail.search.problem import Problem

Array = npt.NDArray[np.float64]

# The most synapses into a layer where some may fail: with a hundred inputs the search then takes 2.5 GB, most
# of it for golden runs with every receiver's terms in order.
WIDEST = 8192


@dataclass(frozen=True)
class Unfolded:
    """A question in which only neurons fail, and the way back to the question that was asked.

    Attributes
    ----------
    asked, original : the question's counts and network
    budget, net : the search's; the same ones where neurons fail
    entered : for each hidden layer of `net` that stands for synapses, the layer of `original` they enter
    """

    asked: Budget
    original: Network
    budget: Budget
    net: Network
    entered: Mapping[int, int]

    @property
    def _same(self) -> bool:
        """Whether failures are the same in both."""
        return self.asked.faults[0].place == "neuron"

    @property
    def fallible(self) -> frozenset[int]:
        """The hidden layers of `net` in which failures count."""
        return frozenset(range(1, self.original.depth + 1) if self._same else self.entered)

    def problem(self, inputs: Array, rows: Array, offsets: Array, asked: npt.NDArray[np.bool_]) -> Problem:
        """The search's question, of objectives as `Problem` has them."""
        from neurofail.search.problem import Problem

        fault, fallible = self.budget.faults[0], self.fallible
        return Problem(self.net, inputs, fault, self.budget, rows, offsets, asked, fallible)

    def rounding(self, inputs: Array) -> float:
        """How far an error that the reference computes on `original` can be from the exact one.

        The search's own margin covers what is computed on `net`: not biases of the output, nor its size.
        """
        return rounding_budget(self.original, "float64", self.asked, inputs)

    def inward(self, configuration: Configuration) -> Configuration:
        """A configuration of `original` as one of `net`; InputError for a failure that cannot be one."""
        for failure in configuration:
            if failure.kind != self.asked.faults[0].kind:
                raise InputError(f"incumbent holds {failure}, which this question does not allow")
        if self._same:
            return configuration
        return Configuration(tuple(self._inward(failure) for failure in configuration))

    def _inward(self, failure: Failure) -> Failure:
        i, j = failure.neuron, failure.source
        for virtual, layer in self.entered.items():
            receivers, senders = self.original.weights[layer - 1].shape
            if layer == failure.layer and j is not None and 0 <= i < receivers and 0 <= j < senders:
                return replace(failure, layer=virtual, neuron=i * senders + j, source=None)
        raise InputError(f"incumbent holds {failure}, which this question does not allow")

    def outward(self, found: Witness) -> Witness:
        """A witness on `net` as one on `original`."""
        if self._same:
            return found
        fault, failures, operations = self.asked.faults[0], [], []
        for failure, value in zip(found.configuration, found.values, strict=True):
            layer = self.entered[failure.layer]
            weight = self.original.weights[layer - 1]
            i, j = divmod(failure.neuron, weight.shape[1])
            failures.append(replace(failure, layer=layer, neuron=i, source=j, kind=fault.kind))
            lost = -weight[i, j] if self.budget.faults[0].blocking else 0.0
            gained = value if _after_weighting(fault) else weight[i, j] * value
            operations.append(Operation(Action.SYNAPSE, layer, i, j, float(lost), float(gained)))
        return replace(found, configuration=Configuration(tuple(failures)), operations=tuple(operations))


def unfold(net: Network, fault: Fault, budget: Budget) -> Unfolded:
    """The question with a neuron in place of each synapse that may fail.

    Raises InputError for a mixture of faults, a fault that the search does not know, and more than `WIDEST`
    synapses into a layer where some may fail.
    """
    if not isinstance(fault, Fault):
        raise InputError(
            "the exact search takes one fault, not a list of them; a campaign and the bounds take mixtures"
        )
    if fault.place == "neuron":
        return Unfolded(budget, net, budget, net, {})
    layers: list[tuple[Array, Array, Activation]] = []
    entered: dict[int, int] = {}
    for layer, own in enumerate(zip(net.weights, net.biases, net.activations, strict=True), start=1):
        if not (budget.count(0, layer) if budget.totals is None else budget.totals[0]):
            layers.append(own)
            continue
        weight, bias, phi = own
        if weight.size > WIDEST:
            raise InputError(
                f"{weight.size:,} synapses enter layer {layer}; the exact search takes {WIDEST:,} at most "
                "where some may fail. Allow failures in smaller layers alone, or run a campaign"
            )
        into, out = _through_synapses(weight, _after_weighting(fault))
        layers += [(into, np.zeros(weight.size), Activation("identity")), (out, bias, phi)]
        entered[len(layers) - 1] = layer
    weights, biases, phis = zip(*layers, strict=True)
    counts = None
    if budget.totals is None:
        counts = (tuple(budget.count(0, entered.get(k, 0)) for k in range(1, len(layers))),)
    return Unfolded(
        budget,
        net,
        Budget((_of_neurons(fault),), counts, budget.totals, budget.at_most),
        Network(weights, biases, phis, net.low, net.high),
        entered,
    )


def read_apart(question: Unfolded) -> Unfolded:
    """The same question of neurons, with the outputs as a last hidden layer of identities.

    A neuron that equivocates in the last hidden layer tells each output something else. An objective that
    reads several outputs at once must read each as the neuron told it.
    """
    net, budget = question.net, question.budget
    classes = net.widths[-1]
    counts = None if budget.failures is None else tuple((*row, 0) for row in budget.failures)
    return replace(
        question,
        budget=replace(budget, failures=counts),
        net=Network(
            (*net.weights, np.eye(classes)),
            (*net.biases, np.zeros(classes)),
            (*net.activations, Activation("identity")),
            net.low,
            net.high,
        ),
    )


def _of_neurons(fault: Fault) -> Fault:
    """What a synapse fault does to the neuron that stands for the synapse."""
    if isinstance(fault, SynapseCrash):
        return Crash()
    if isinstance(fault, SynapseByzantine):
        return Byzantine(fault.capacity, "value" if fault.semantics == "value" else "own")
    raise InputError(f"the exact search does not know the fault {fault.kind}")


def _after_weighting(fault: Fault) -> bool:
    """Whether the fault puts its value on what the synapse delivers, not on what it reads."""
    return isinstance(fault, SynapseByzantine) and not fault.weighted


def _through_synapses(weight: Array, after: bool) -> tuple[Array, Array]:
    """The weights into and out of the neurons that stand for a layer's synapses.

    weight (receivers, senders); the results (receivers senders, senders), (receivers, receivers senders)
    """
    receivers, senders = weight.shape
    into = np.tile(np.eye(senders), (receivers, 1))
    out = np.zeros((receivers, receivers, senders))
    each = np.arange(receivers)
    if after:
        into *= weight.reshape(-1, 1)
        out[each, each] = 1.0
    else:
        out[each, each] = weight
    return into, out.reshape(receivers, -1)
