"""The smallest margin equals enumeration, and says rightly whether a prediction changes."""

from __future__ import annotations

import numpy as np
import pytest

import neurofail as nf
from neurofail._reference import deviations
from neurofail.sites import Action, Operation

from .enumeration import faulty, random_network, sets

PHIS = ("relu", "sigmoid", "tanh", "gelu")


def check(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(1, 4)), width=5)
    if net.widths[-1] < 2:
        return
    inputs = rng.uniform(-1, 1, (3, net.widths[0]))
    total, at_most = int(rng.integers(0, min(3, sum(net.widths[1:-1])) + 1)), bool(rng.random() < 0.5)
    answer = nf.worst_margin(net, inputs, nf.Crash(), total=total, at_most=at_most, threads=1)
    outputs = faulty(net, inputs, sets(net, total=total, at_most=at_most), 0.0)
    label = np.argmax(net(inputs), axis=1)
    own = outputs[:, np.arange(3), label]
    outputs[:, np.arange(3), label] = -np.inf
    truth = float((own - outputs.max(axis=2)).min())
    about = f"seed {seed}: {net}, {total}, {at_most}"
    assert answer.exact, about
    assert answer.margin == pytest.approx(truth, abs=answer.rounding), about
    assert truth - 2 * answer.rounding <= answer.lower <= truth + answer.rounding, about
    if abs(truth) > answer.rounding:
        assert answer.changes is (truth < 0), about


@pytest.mark.parametrize("block", range(2))
def test_equals_enumeration(block: int) -> None:
    for seed in range(200 * block, 200 * (block + 1)):
        check(seed)


def test_equivocation_in_the_last_layer_is_exact() -> None:
    """Each output hears the end that hurts it most: the class too little, its rival too much."""
    fault = nf.Byzantine(0.5, draw="guided", equivocate=True)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        net = nf.Network.dense(
            [rng.normal(size=s) for s in ((5, 2), (3, 5))], None, [str(rng.choice(PHIS)), "identity"]
        )
        x, count = rng.random((2, 2)), int(rng.integers(0, 4))
        hidden, golden = net.activations[0](x @ net.weights[0].T), net(x)
        truth = np.inf
        for row, y in zip(hidden, golden, strict=True):
            own = int(np.argmax(y))
            for k in {0, 1, 2} - {own}:
                loss = [
                    max(-net.weights[1][own, i] * (v - row[i]) for v in (-0.5, 0.5))
                    + max(net.weights[1][k, i] * (v - row[i]) for v in (-0.5, 0.5))
                    for i in range(5)
                ]
                truth = min(truth, y[own] - y[k] - sum(sorted(loss)[5 - count :]))
        answer = nf.worst_margin(net, x, fault, (count,))
        assert answer.margin == pytest.approx(truth, rel=1e-6, abs=1e-9), seed
        assert answer.lower == pytest.approx(truth, rel=1e-6, abs=1e-9), seed
        assert truth <= nf.worst_margin(net, x, nf.Byzantine(0.5), (count,)).margin + 1e-9, seed


def test_equivocation_in_depth_is_contained() -> None:
    fault = nf.Byzantine(0.5, draw="guided", equivocate=True)
    rng = np.random.default_rng(6)
    for _ in range(10):
        net = nf.Network.dense(
            [rng.normal(size=s) for s in ((4, 2), (4, 4), (3, 4))], None, ["relu", "sigmoid", "identity"]
        )
        x = rng.random((1, 2))
        answer = nf.worst_margin(net, x, fault, total=1)
        assert answer.margin - 1e-6 * abs(answer.margin) - answer.rounding <= answer.lower <= answer.margin
        golden = net(x)[0]
        own = int(np.argmax(golden))
        for layer, i in [(1, i) for i in range(4)] + [(2, i) for i in range(4)]:
            weight = net.weights[layer][:, i]
            for _ in range(30):
                sent = rng.choice([-0.5, 0.5], len(weight)) * rng.choice([1.0, rng.random()])
                operations = [
                    Operation(Action.SYNAPSE, layer + 1, j, i, -w, w * v)
                    for j, (w, v) in enumerate(zip(weight, sent, strict=True))
                ]
                y = golden + deviations(net, x, operations)[0]
                assert min(y[own] - y[k] for k in {0, 1, 2} - {own}) >= answer.lower - 1e-12


def test_one_output_has_no_margin() -> None:
    net = nf.Network.dense([[[1.0]], [[1.0]]], None, ["relu", "identity"])
    with pytest.raises(nf.InputError, match="two outputs"):
        nf.worst_margin(net, [[0.5]], nf.Crash(), (1,))


def test_out_of_time_the_limit_still_holds() -> None:
    rng = np.random.default_rng(1)
    net = nf.Network.dense(
        [rng.normal(size=s) for s in ((30, 8), (30, 30), (3, 30))], None, ["relu"] * 2 + ["identity"]
    )
    inputs = rng.random((5, 8))
    early = nf.worst_margin(net, inputs, nf.Crash(), (3, 0), time_limit=0.0)
    full = nf.worst_margin(net, inputs, nf.Crash(), (3, 0))
    assert not early.exact
    assert full.exact
    assert early.lower <= full.margin <= early.margin
    assert "not settled" in str(early)
    assert "exact" in str(full)
