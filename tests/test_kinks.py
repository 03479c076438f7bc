"""Failures before a last hidden layer of ReLUs: their kinks are looked at, and only what can matter is run.

As in test_bounded.py, the oracle is the same kernel, asked for every evaluation's error, which it then runs.
"""

from __future__ import annotations

import numpy as np
import pytest
from networks import random_inputs, random_network
from test_bounded import held_to_each

import neurofail as nf
from neurofail import lowering
from neurofail.activations import Activation
from neurofail.faults import Byzantine, Crash, Fault, StuckAt
from neurofail.network import Network
from neurofail.plans import Exhaustive, Sampled


def with_last(net: Network, phi: Activation | str) -> Network:
    """The same network, its last hidden layer's activation replaced."""
    return Network.dense(net.weights, net.biases, [*net.activations[:-2], phi, net.activations[-1]])


@pytest.mark.parametrize("outputs", [1, 2, 6, 7, 12, 13])
@pytest.mark.parametrize("width", [1, 16, 63, 65])
def test_kinks_at_awkward_sizes(compiled: str, outputs: int, width: int) -> None:
    net = random_network((3, 17, width, outputs), "relu", seed=outputs + width)
    for inputs in (9, 33, 140):
        plan = Exhaustive(net, Crash(), failures=(2, 0))
        held_to_each(compiled, plan, random_inputs(net, inputs), "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("below", [-0.5, 0.0, 0.01, 1.0, 3.0])
def test_kinks_of_any_sharpness(compiled: str, below: float, dtype: str) -> None:
    net = random_network((4, 20, 70, 5), "tanh", seed=1)
    net = with_last(net, Activation("leaky_relu", alpha=below))
    x = random_inputs(net, 70)
    for fault in (Crash(), StuckAt(3.0), Byzantine(0.5, "own"), Byzantine(0.5, "nominal")):
        held_to_each(compiled, Exhaustive(net, fault, failures=(2, 0)), x, dtype)


def test_pre_activations_of_zero_are_on_either_side(compiled: str) -> None:
    """Inputs of 0 without biases: every pre-activation is 0, or -0; and so is every output."""
    net = with_last(random_network((4, 18, 40, 4), "identity", seed=2), "relu")
    net = Network.dense(net.weights, None, net.activations)
    x = random_inputs(net, 100)
    x[::3] = 0.0
    held_to_each(compiled, Exhaustive(net, StuckAt(0.25), failures=(2, 0)), x, "float32")
    held_to_each(compiled, Exhaustive(net, StuckAt(-0.25), failures=(1, 0)), x, "float32")


@pytest.mark.parametrize("drift", [-1e-3, 0.0, 1e-3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_whole_layer_at_its_kinks(compiled: str, dtype: str, drift: float) -> None:
    """All pre-activations are next to 0, so that words tell of none on which side it is."""
    net = random_network((4, 18, 200, 4), "sigmoid", seed=7)
    net = with_last(net, "relu")
    steep = np.abs(net.weights[1])
    before = 1 / (1 + np.exp(-net.biases[0]))
    biases = [net.biases[0], drift - steep @ before, net.biases[2]]
    net = Network.dense([net.weights[0], steep, np.abs(net.weights[2])], biases, net.activations)
    x = random_inputs(net, 100) * 1e-4
    for failures in ((1, 0), (2, 0), (2, 1)):
        held_to_each(compiled, Exhaustive(net, Byzantine(0.01, "own"), failures=failures), x, dtype)
        held_to_each(compiled, Exhaustive(net, Crash(), failures=failures), x, dtype)


def test_inputs_that_only_roundings_set_apart(compiled: str) -> None:
    """All kinks are crossed the same way, by failures that are rounded differently from input to input: the
    words' roundings add up, to more than the errors differ by. With `doubt` a tenth of what it is, two of
    these fail.
    """
    for seed in range(12):
        net = random_network((4, 18, 10, 4), "sigmoid", seed=seed)
        steep = np.abs(net.weights[1])
        before = 1 / (1 + np.exp(-net.biases[0]))
        biases = [net.biases[0], -1e-3 - steep @ before, net.biases[2]]
        weights = [net.weights[0], steep, np.abs(net.weights[2])]
        net = Network.dense(weights, biases, ["sigmoid", "relu", "identity"])
        x = random_inputs(net, 300) * 5e-5
        held_to_each(compiled, Exhaustive(net, StuckAt(1.0), failures=(2, 0)), x, "float64")


@pytest.mark.parametrize(("most", "other", "overtaken"), [(0.04, 1.5, 0), (0.048, 0.299, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kinks_that_decide(compiled: str, dtype: str, most: float, other: float, overtaken: int) -> None:
    """Where y, what all neurons before transmit, is small, five crashes cross no kink and move output 0 by
    y / 2, no more than 0.3 or 0.31. Where it is large the kinks are 1.2 y - 2.27 away: crossing them alone
    moves it by 2.27 - 0.7 y, up to 0.30125. That is the largest error, or makes it overtake output 1. What
    kinks can do at most is then just what they do: with 0.97 of how far they move outputs the first case
    fails, with 0.97 of leads the second. Output 2 has inputs with a small y looked at first.
    """
    neurons, bent = 12, 40
    net = Network.dense(
        [
            np.full((neurons, 1), 2.5),
            np.full((bent, neurons), -0.1),
            np.outer([1.0, 0.0, 0.93], np.full(bent, 1 / bent)),
        ],
        [np.full(neurons, 0.5), np.full(bent, 2.27), [0.0, other, 0.0]],
        ["relu", "relu", "identity"],
    )
    x = np.concatenate([np.linspace(0.0, most, 70), np.linspace(0.925, 1.0, 70)])[:, None]
    changed, _ = held_to_each(compiled, Sampled(net, Crash(), failures=(5, 0), count=50, seed=1), x, dtype)
    assert changed == 50 * overtaken


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_inputs_and_tied_classes(compiled: str, dtype: str) -> None:
    net = random_network((4, 18, 40, 4), "relu", seed=3)
    weights = [np.round(w * 4) / 4 for w in net.weights]
    weights[-1][1] = weights[-1][0]
    net = Network.dense(weights, None, net.activations)
    x = np.round(random_inputs(net, 100) * 2) / 2
    x[50:] = x[0]
    held_to_each(compiled, Exhaustive(net, Crash(), failures=(2, 0)), x, dtype)


def test_more_failures_than_the_tables_are_for_are_run(
    compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = random_network((4, 20, 70, 5), "relu", seed=4)
    monkeypatch.setattr(lowering, "most_before", lambda plan: 1)
    plan = Sampled(net, Crash(), failures=(3, 0), at_most=True, count=400, seed=1)
    held_to_each(compiled, plan, random_inputs(net, 150), "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_slopes_that_overflow_are_not_bounded(compiled: str, dtype: str) -> None:
    """The run multiplies by the slope first, and is infinite; the outgoing weight comes too late."""
    steep, weight = (2.0**120, 2.0**-60) if dtype == "float32" else (2.0**1017, 2.0**-500)
    phi = Activation("leaky_relu", alpha=steep)
    weights = [np.ones((2, 1)), np.array([[1.0, 0.5]]), np.array([[weight], [0.0]])]
    biases = [np.zeros(2), np.array([-1.0]), np.array([0.0, -3.0])]
    net = Network.dense(weights, biases, ["relu", phi, "identity"], (-1, 1))
    x = np.linspace(0, 1, 64)[:, None]
    held_to_each(compiled, Exhaustive(net, StuckAt(-400.0), failures=(1, 0)), x, dtype)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("large", [1e-38, 1e-20, 1e12, 1e30])
def test_kinks_of_tiny_and_huge_weights(compiled: str, large: float, layer: int) -> None:
    net = random_network((4, 16, 40, 5), "relu", seed=5)
    weights = [w * (large if i == layer else 1.0) for i, w in enumerate(net.weights)]
    net = Network.dense(weights, None, net.activations)
    x = random_inputs(net, 130)
    for value in (0.0, 1e3, 1e25, 3e38):
        held_to_each(compiled, Exhaustive(net, StuckAt(value), failures=(2, 0)), x, "float32")


def test_what_is_infinite_on_the_first_inputs_is_counted_on_the_others(compiled: str) -> None:
    """More inputs than are sifted at once, and configurations enough that some are sifted again on the later
    ones.
    """
    net = random_network((4, 36, 40, 5), "relu", seed=7)
    weights = [w * (10.0 if i == 1 else 1.0) for i, w in enumerate(net.weights)]
    net = Network.dense(weights, net.biases, net.activations)
    x = random_inputs(net, 300)
    _, due = held_to_each(compiled, Exhaustive(net, StuckAt(3e38), failures=(2, 0)), x, "float32")
    assert due > 0


def test_an_outlier_among_the_failures_does_not_blur_the_others(compiled: str) -> None:
    """One neuron's steps are nearly all there are; configurations with too many are run."""
    net = random_network((4, 40, 70, 5), "relu", seed=6)
    weights = [w.copy() for w in net.weights]
    weights[1][:, :2] *= 100
    net = Network.dense(weights, net.biases, net.activations)
    held_to_each(compiled, Exhaustive(net, Crash(), failures=(2, 0)), random_inputs(net, 150), "float32")


@pytest.mark.parametrize("heavy", [2, 5])
def test_heavy_failures_that_hardly_ever_come_together(compiled: str, heavy: int) -> None:
    """Words are as fine as suits nearly all configurations; the first ones are too much for them."""
    net = random_network((4, 60, 70, 8), "relu", seed=12)
    weights = [w.copy() for w in net.weights]
    weights[1][:, :5] = 10 * weights[1][:, :1]
    biases = [b.copy() for b in net.biases]
    biases[0][:5] += 2  # they always transmit
    net = Network.dense(weights, biases, net.activations)
    held_to_each(compiled, Exhaustive(net, Crash(), failures=(heavy, 0)), random_inputs(net, 70), "float32")


def test_neurons_that_transmit_nothing_on_some_blocks(compiled: str) -> None:
    """Their crashes change nothing there: of a configuration's failures none count, some, or all."""
    net = random_network((4, 40, 70, 6), "relu", seed=13)
    biases = [b.copy() for b in net.biases]
    biases[0][:30] -= np.linspace(0.5, 2.5, 30)
    net = Network.dense(net.weights, biases, net.activations)
    x = random_inputs(net, 300)
    for failures in ((1, 0), (2, 0), (3, 1), (8, 2)):
        held_to_each(compiled, Sampled(net, Crash(), failures=failures, count=200, seed=1), x, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "fault", [Crash(), StuckAt(-3.0), Byzantine(0.5, "own"), Byzantine(0.5, "nominal")], ids=str
)
def test_failures_on_both_sides_of_the_kinks(compiled: str, fault: Fault, dtype: str) -> None:
    """Neurons of the layer before fail, and some of those whose kinks they would cross."""
    net = random_network((4, 20, 70, 5), "tanh", seed=8)
    x = random_inputs(net, 70)
    for failures, below in (((1, 1), 0.0), ((3, 2), -0.5), ((8, 4), 0.0), ((16, 7), 2.0)):
        kinked = with_last(net, Activation("leaky_relu", alpha=below))
        plan = Sampled(kinked, fault, failures=failures, at_most=failures[0] < 8, count=60, seed=1)
        held_to_each(compiled, plan, x, dtype)


@pytest.mark.parametrize("width", [1, 63, 130])
def test_more_failures_than_are_sifted_at_awkward_sizes(compiled: str, width: int) -> None:
    net = random_network((3, 17, width, 12), "relu", seed=width)
    plan = Sampled(net, Crash(), failures=(6, 1), count=60, seed=1)
    for inputs in (9, 33, 140):
        held_to_each(compiled, plan, random_inputs(net, inputs), "float32")


def test_some_configurations_are_sifted_and_some_are_not(compiled: str) -> None:
    net = random_network((4, 20, 70, 5), "relu", seed=9)
    x = random_inputs(net, 70)
    held_to_each(compiled, Sampled(net, Crash(), total=3, at_most=True, count=300, seed=1), x, "float32")
    held_to_each(compiled, Exhaustive(net, Crash(), total=2, at_most=True), x, "float32")


def test_many_late_failures(compiled: str) -> None:
    net = random_network((4, 20, 70, 5), "relu", seed=14)
    plan = Sampled(net, Crash(), failures=(2, 40), at_most=True, count=200, seed=1)
    held_to_each(compiled, plan, random_inputs(net, 70), "float32")


@pytest.mark.parametrize("value", [1e3, 2e4, 1e25, 3e38])
def test_late_failures_that_transmit_much(compiled: str, value: float) -> None:
    net = random_network((4, 30, 70, 5), "relu", seed=10)
    x = random_inputs(net, 70)
    held_to_each(compiled, Sampled(net, StuckAt(value), failures=(2, 2), count=60, seed=1), x, "float32")
    late = Sampled(net, [Crash(), StuckAt(value)], failures=[(5, 0), (0, 2)], count=60, seed=1)
    held_to_each(compiled, late, x, "float32")


def test_an_outlier_among_many_failures(compiled: str) -> None:
    """What a few neurons do is too much for words; configurations with one of these are run."""
    net = random_network((4, 60, 70, 5), "relu", seed=11)
    for layer, column in ((1, slice(0, 2)), (2, slice(0, 1))):
        weights = [w.copy() for w in net.weights]
        weights[layer][:, column] *= 1000
        steep = Network.dense(weights, net.biases, net.activations)
        plan = Sampled(steep, Crash(), failures=(7, 2), count=80, seed=1)
        held_to_each(compiled, plan, random_inputs(steep, 70), "float32")


def test_kinks_are_for_wide_layers_and_few_failures_before_them() -> None:
    net = random_network((4, 100, 128, 10), "relu")
    crash = Crash()
    assert lowering.slopes_pay(Exhaustive(net, crash, failures=(2, 0)), 64)
    assert lowering.slopes_pay(Sampled(net, crash, failures=(4, 0), count=5000, seed=1), 64)
    assert lowering.slopes_pay(Sampled(net, crash, failures=(8, 9), count=5000, seed=1), 64)
    assert not lowering.slopes_pay(Sampled(net, crash, failures=(9, 0), count=5000, seed=1), 64)
    assert not lowering.slopes_pay(Exhaustive(net, crash, failures=(2, 1)), 64)
    assert not lowering.slopes_pay(Exhaustive(net, crash, failures=(2, 1), at_most=True), 64)
    drawn = nf.Byzantine(1.0, draw="uniform")
    assert not lowering.slopes_pay(Sampled(net, drawn, failures=(2, 1), count=5000, seed=1), 64)
    assert not lowering.slopes_pay(Exhaustive(net, crash, failures=(2, 0)), 10**6)
    assert not lowering.slopes_pay(Sampled(net, crash, failures=(2, 0), count=1500, seed=1), 64)
    narrow = random_network((4, 100, 100, 10), "relu")
    assert not lowering.slopes_pay(Exhaustive(narrow, crash, failures=(2, 0)), 64)
    fewer = random_network((4, 100, 200, 6), "relu")
    assert lowering.slopes_pay(Sampled(fewer, crash, failures=(4, 0), count=5000, seed=1), 64)
    assert lowering.slopes_pay(Sampled(fewer, crash, failures=(4, 1), count=5000, seed=1), 64)
    assert not lowering.slopes_pay(Sampled(fewer, crash, failures=(5, 0), count=5000, seed=1), 64)
    synapses = Sampled(net, [crash, nf.SynapseCrash()], failures=[(1, 0), (0, 1, 0)], count=5000, seed=1)
    assert not lowering.slopes_pay(synapses, 64)


def test_few_failures_by_themselves_are_sifted() -> None:
    net = random_network((4, 100, 128, 10), "relu")
    assert lowering.sifts(Exhaustive(net, Crash(), failures=(2, 0)))
    assert lowering.sifts(Exhaustive(net, Crash(), total=4, at_most=True))
    assert not lowering.sifts(Sampled(net, Crash(), failures=(5, 0), count=9, seed=1))
    assert not lowering.sifts(Sampled(net, Crash(), failures=(2, 1), count=9, seed=1))
