"""Over a box of inputs: nothing tried exceeds the limit, and the limit never exceeds a closed-form bound."""

from __future__ import annotations

import numpy as np
import pytest

import neurofail as nf
from neurofail._reference import deviations
from neurofail.budget import Budget
from neurofail.search import ascent, given
from neurofail.sites import Action, Operation

from .enumeration import faulty, random_network, sets

FAULTS = (
    (nf.Crash(), (0.0,), "set"),
    (nf.StuckAt(0.7), (0.7,), "set"),
    (nf.Byzantine(0.5), (-0.5, 0.1, 0.5), "set"),
    (nf.Byzantine(0.5, "nominal"), (-0.5, 0.5), "shift"),
    (nf.Byzantine(0.5, "own"), (-0.5, 0.5), "add"),
)


def check(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(1, 4)), width=4)
    fault, values, action = FAULTS[rng.integers(len(FAULTS))]
    counts = {
        "total": int(rng.integers(1, min(3, sum(net.widths[1:-1])) + 1)),
        "at_most": bool(rng.random() < 0.5),
    }
    answer = nf.worst_in_box(net, fault, time_limit=0.1, starts=2, **counts)
    inputs = np.vstack(
        [rng.uniform(-1, 1, (200, net.widths[0])), rng.choice([-1.0, 1.0], (8, net.widths[0]))]
    )
    rows = sets(net, **counts)
    tried = max(float(np.abs(faulty(net, inputs, rows, v, action) - net(inputs)).max()) for v in values)
    about = f"seed {seed}: {net}, {fault}, {counts}"
    # What is tried carries its own rounding; the limit bounds the exact error.
    assert tried <= answer.upper * (1 + 1e-9), about
    assert answer.upper <= answer.bound * (1 + 1e-9), about
    assert answer.error <= answer.upper, about
    assert np.all((answer.input >= net.low) & (answer.input <= net.high)), about


@pytest.fixture(params=["by sets", "by counts"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks have few sets, whose own limits count; `by counts` makes even them too many."""
    if request.param == "by counts":
        monkeypatch.setattr(given, "_WORK", 0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("block", range(2))
def test_everything_tried_is_below(block: int) -> None:
    for seed in range(40 * block, 40 * (block + 1)):
        check(seed)


@pytest.mark.slow
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("block", range(10))
def test_everything_tried_is_below_at_length(block: int) -> None:
    for seed in range(1000 + 100 * block, 1000 + 100 * (block + 1)):
        check(seed)


@pytest.mark.usefixtures("way")
def test_splitting_closes_the_gap() -> None:
    # F = 2 sigmoid(4 x - 2) on [0, 1]: crashing the neuron loses at most 2 sigmoid(2).
    net = nf.Network.dense(
        [[[4.0]], [[1.0]], [[2.0]]], [[-2.0], None, None], ["sigmoid", "identity", "identity"]
    )
    answer = nf.worst_in_box(net, nf.Crash(), (1, 0))
    truth = 2.0 / (1.0 + np.exp(-2.0))
    assert answer.error == pytest.approx(truth, rel=1e-12)
    assert truth <= answer.upper <= 1.01 * truth
    assert answer.to_dict()["boxes"] == answer.boxes
    assert "certified" in str(answer)


@pytest.mark.usefixtures("way")
def test_more_time_never_loosens() -> None:
    rng = np.random.default_rng(2)
    net = nf.Network.dense(
        [rng.normal(size=s) for s in ((6, 3), (5, 6), (1, 5))], None, ["relu", "tanh", "identity"]
    )
    quick = nf.worst_in_box(net, nf.Crash(), (2, 0), time_limit=0.0)
    longer = nf.worst_in_box(net, nf.Crash(), (2, 0), time_limit=0.5)
    assert longer.error == quick.error <= longer.upper < quick.upper <= quick.bound
    assert longer.boxes > quick.boxes == 1


def test_the_sets_that_counts_allow() -> None:
    net = nf.Network.dense([np.ones(s) for s in ((3, 2), (4, 3), (1, 4))], None, ["relu", "relu", "identity"])
    for counts in (
        {"total": 2},
        {"total": 3, "at_most": True},
        {"failures": (1, 2)},
        {"failures": (2, 0), "at_most": True},
    ):
        found = given.every(net, Budget.of(net, nf.Crash(), **counts))
        assert found is not None
        rows = {tuple(np.flatnonzero(row).tolist()) for row in found}
        assert len(rows) == len(found)
        assert rows == {(*first, *(3 + j for j in second)) for first, second in sets(net, **counts)}


def test_few_sets_close_the_gap_of_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    net = nf.Network.dense(
        [rng.normal(size=s) for s in ((6, 3), (6, 6), (1, 6))], None, ["relu", "relu", "identity"]
    )
    by_sets = nf.worst_in_box(net, nf.Crash(), total=2, at_most=True, time_limit=5.0)
    monkeypatch.setattr(given, "_WORK", 0)
    by_counts = nf.worst_in_box(net, nf.Crash(), total=2, at_most=True, time_limit=0.2)
    assert by_sets.error <= by_sets.upper <= 1.01 * by_sets.error
    assert by_sets.upper < by_counts.upper
    assert by_sets.error <= by_counts.upper


def test_equivocation_is_below_the_limit_too() -> None:
    fault = nf.Byzantine(0.5, draw="guided", equivocate=True)
    rng = np.random.default_rng(8)
    for _ in range(6):
        net = random_network(rng, 2, width=4, scale=1.0)
        answer = nf.worst_in_box(net, fault, (1, 0), time_limit=0.2, starts=2)
        alike = nf.worst_in_box(net, nf.Byzantine(0.5), (1, 0), time_limit=0.2, starts=2)
        assert alike.error <= answer.upper * (1 + 1e-9)
        assert answer.error <= answer.upper <= answer.bound
        x = rng.uniform(-1, 1, (40, net.widths[0]))
        for i in range(net.widths[1]):
            weight = net.weights[1][:, i]
            for _ in range(20):
                sent = rng.choice([-0.5, 0.5], len(weight))
                operations = [
                    Operation(Action.SYNAPSE, 2, j, i, -w, w * v)
                    for j, (w, v) in enumerate(zip(weight, sent, strict=True))
                ]
                assert np.abs(deviations(net, x, operations)).max() <= answer.upper * (1 + 1e-9)


def test_the_search_from_below_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    net = nf.Network.dense([rng.normal(size=s) for s in ((6, 9), (1, 6))], None, ["relu", "identity"])
    start = np.full(9, 0.5)
    best = ascent.climb(lambda x: x.sum(axis=1), net.low, net.high, start)
    assert best.sum() == 9.0
    stopped = ascent.climb(lambda x: x.sum(axis=1), net.low, net.high, start, until=-np.inf)
    assert stopped is start
    whole = nf.worst_in_box(net, nf.Crash(), (2,), time_limit=0.0)
    monkeypatch.setattr(ascent, "deadline", lambda time_limit: -np.inf)
    begun = nf.worst_in_box(net, nf.Crash(), (2,), time_limit=0.0)
    assert 0 < begun.error < whole.error <= begun.upper
