"""Equivocation: every receiver is told a value of its own, and halving their levels closes the gap."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import neurofail as nf
from neurofail._reference import deviations
from neurofail.sites import Action, Operation

from .enumeration import random_network, sets

FAULT = nf.Byzantine(0.5, draw="guided", equivocate=True)


@pytest.mark.parametrize("phi", ["sigmoid", "relu", "tanh"])
def test_equivocation_is_exact_one_layer_before_the_last(phi: str) -> None:
    # Each receiver's pre-activation moves on its own, so the worst of a set is a sum of each receiver's worse
    # end: enumerated here.
    rng = np.random.default_rng(3)
    net = nf.Network.dense(
        [rng.normal(size=(4, 2)), rng.normal(size=(5, 4)), rng.normal(size=(2, 5))],
        None,
        [phi, phi, "identity"],
    )
    x = np.array([[0.2, 0.7]])
    s, y = (
        net.weights[1] @ net.activations[0](net.weights[0] @ x[0]),
        net.activations[0](net.weights[0] @ x[0]),
    )
    best = 0.0
    for chosen in itertools.combinations(range(4), 2):
        low = s.copy()
        high = s.copy()
        for i in chosen:
            w = net.weights[1][:, i]
            low += np.minimum(w * (-1 - y[i]), w * (1 - y[i]))
            high += np.maximum(w * (-1 - y[i]), w * (1 - y[i]))
        ends = np.stack([net.activations[1](low), net.activations[1](high)]) - net.activations[1](s)
        for row in (*net.weights[2], *-net.weights[2]):
            best = max(best, float(np.max(row * ends, axis=0).sum()))
    fault = nf.Byzantine(1.0, draw="guided", equivocate=True)
    answer = nf.worst_case(net, x, fault, (2, 0))
    assert answer.error == pytest.approx(best, rel=1e-12)
    assert answer.exact
    assert answer.error >= nf.worst_case(net, x, nf.Byzantine(1.0), (2, 0)).error


def told(net: nf.Network, failed, sent) -> list[Operation]:
    """The failed neurons (layer, neuron) each send `sent()` to every receiver."""
    found = []
    for layer, i in failed:
        for j, w in enumerate(net.weights[layer][:, i]):
            found.append(Operation(Action.SYNAPSE, layer + 1, j, i, -w, w * sent()))
    return found


def check(seed: int) -> None:
    """The limit closes onto what is found, and nothing that is tried exceeds it."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(2, 5)), width=4, scale=float(rng.choice([0.5, 1.0, 2.0])))
    inputs = rng.uniform(-1, 1, (2, net.widths[0]))
    failures = [0] * net.depth
    for _ in range(int(rng.integers(1, 4))):
        layer = rng.integers(net.depth)
        failures[layer] = min(failures[layer] + 1, net.widths[layer + 1])
    answer = nf.worst_case(net, inputs, FAULT, failures, threads=1, gap=1e-3)
    about = f"seed {seed}: {net}, {failures}, {[phi.name for phi in net.activations]}"
    assert answer.error <= answer.upper <= answer.error * (1 + 1e-3) + answer.rounding, about
    assert all(-0.5 <= value <= 0.5 for value in answer.values), about
    ends, within = partial(rng.choice, [-0.5, 0.5]), partial(rng.uniform, -0.5, 0.5)
    for row in sets(net, failures):
        failed = [(layer, i) for layer, neurons in enumerate(row, start=1) for i in neurons]
        for sent in (*[ends] * 6, *[within] * 3):
            tried = np.abs(deviations(net, inputs, told(net, failed, sent))).max()
            assert tried <= answer.upper, about


@pytest.mark.parametrize("block", range(3))
def test_the_limit_closes_and_holds(block: int) -> None:
    for seed in range(60 * block, 60 * (block + 1)):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_the_limit_closes_and_holds_in_thousands(block: int) -> None:
    for seed in range(1000 + 100 * block, 1000 + 100 * (block + 1)):
        check(seed)


@pytest.mark.parametrize("phi", ["gelu", "silu"])
def test_the_worst_value_lies_within_the_range(phi: str) -> None:
    """Both receivers at the bottom of their trough: one told its place, the other minus it (by hand)."""
    bottom = nf.Activation(phi).turning
    assert bottom is not None
    net = nf.Network.dense(
        [[[1.0]], [[1.0], [-1.0]], [[-1.0, -1.0]]], None, ["identity", phi, "identity"], (-3.0, 3.0)
    )
    golden, least = (float(net.activations[1](np.array(x))) for x in (2.0, bottom))
    other = float(net.activations[1](np.array(-2.0)))
    fault = nf.Byzantine(2.0, draw="guided", equivocate=True)
    answer = nf.worst_case(net, [[2.0]], fault, (1, 0))
    assert answer.error == pytest.approx(golden + other - 2 * least, rel=1e-6)
    assert answer.upper <= answer.error * (1 + 1e-6) + answer.rounding
    sent = [operation.value for operation in answer.operations()]
    assert sent == pytest.approx([bottom, bottom], abs=0.01)
    assert nf.worst_case(net, [[2.0]], nf.Byzantine(2.0), (1, 0)).upper < answer.error


def deep() -> tuple[nf.Network, np.ndarray]:
    """A question that takes a few hundred nodes, most of them halves."""
    rng = np.random.default_rng(8)
    sizes = ((6, 3), (6, 6), (6, 6), (2, 6))
    net = nf.Network.dense(
        [rng.normal(size=s) for s in sizes], None, ["tanh", "sigmoid", "tanh", "identity"], (0.0, 1.0)
    )
    return net, rng.random((3, 3))


def test_halved_levels_survive_an_interrupt(tmp_path: Path) -> None:
    net, inputs = deep()
    path, rounds = tmp_path / "kept", itertools.count()
    whole = nf.worst_case(net, inputs, FAULT, (1, 1, 0))
    assert whole.nodes > 100

    def interrupt(_: object) -> None:
        if next(rounds) == 2:
            raise KeyboardInterrupt

    early = nf.worst_case(net, inputs, FAULT, (1, 1, 0), checkpoint=path, progress=interrupt)
    assert early.interrupted
    assert early.upper >= whole.upper - whole.rounding
    with np.load(path) as kept:
        assert np.any((kept["low"] > 0) | (kept["high"] < 1)), "no halved level was open"
    assert nf.worst_case(net, inputs, FAULT, (1, 1, 0), checkpoint=path) == whole
    assert nf.worst_case(net, inputs, FAULT, (1, 1, 0), threads=1) == whole


def test_an_equivocating_neuron_stays_in_its_range() -> None:
    """The value reported is the one sent, not what rounding leaves of it once it is weighted."""
    fault = nf.Byzantine((-0.3, 3.0), draw="guided", equivocate=True)
    for weight in (0.7, 1.1, 3.3, -0.7, -1.9):
        net = nf.Network.dense([[[1.0]], [[weight]]], None, ["relu", "identity"])
        answer = nf.worst_case(net, [[0.5]], fault, (1,))
        assert answer.values == (3.0,), weight
        assert 0.0 <= answer.configuration.failures[0].level < 1.0, weight


@pytest.mark.parametrize("equivocate", [False, True])
def test_what_a_campaign_found_is_not_lost(equivocate: bool) -> None:
    """A search without time answers with no less than the guided campaign's worst."""
    fault = nf.Byzantine(0.5, draw="guided", equivocate=equivocate)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        net = random_network(rng, 3, width=5, scale=1.0)
        inputs, failures = rng.uniform(-1, 1, (2, net.widths[0])), (1, 1, 0)
        worst = nf.run(net, inputs, nf.Exhaustive(net, fault, failures=failures), dtype="float64").worst
        assert worst is not None
        start = (worst.input, worst.configuration)
        answer = nf.worst_case(net, inputs, fault, failures, incumbent=start, time_limit=0.0)
        assert answer.error >= worst.error * (1 - 1e-9) - answer.rounding, seed
