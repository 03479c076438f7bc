"""The exact worst case equals exhaustive enumeration, whatever the network, the fault and the counts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import neurofail as nf
from neurofail import worst_case
from neurofail._reference import deviations

from .enumeration import random_network, sets, worst


def random_counts(rng: np.random.Generator, net: nf.Network) -> dict[str, object]:
    at_most = bool(rng.random() < 0.4)
    if rng.random() < 0.4:
        return {"total": int(rng.integers(0, min(4, sum(net.widths[1:-1])) + 1)), "at_most": at_most}
    return {
        "failures": tuple(int(rng.integers(0, min(3, n) + 1)) for n in net.widths[1:-1]),
        "at_most": at_most,
    }


def check(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(1, 5)), width)
    inputs = rng.uniform(-1, 1, (int(rng.integers(1, 4)), net.widths[0]))
    fault = nf.Crash() if rng.random() < 0.5 else nf.StuckAt(float(rng.normal()))
    counts = random_counts(rng, net)
    answer = worst_case(net, inputs, fault, threads=1, **counts)
    rows = sets(net, **counts)
    truth = worst(net, inputs, rows, getattr(fault, "value", 0.0))
    about = f"seed {seed}: {net}, {fault}, {counts}"
    assert answer.exact, about
    assert abs(answer.error - truth) <= answer.rounding, about
    assert truth <= answer.upper <= truth + 2 * answer.rounding, about
    assert answer.rounding <= 1e-8 * (1 + truth), about
    chosen = [tuple(f.neuron for f in answer.configuration if f.layer == m) for m in range(1, net.depth + 1)]
    assert chosen in rows, about
    replayed = np.abs(deviations(net, inputs[[answer.input]], answer.operations()))
    assert replayed[0, answer.output] == replayed.max() == answer.error, about


@pytest.mark.parametrize("block", range(8))
def test_equals_enumeration(block: int) -> None:
    for seed in range(250 * block, 250 * (block + 1)):
        check(seed, width=5)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_equals_enumeration_at_length(block: int) -> None:
    for seed in range(10_000 + 1000 * block, 10_000 + 1000 * (block + 1)):
        check(seed, width=5)


def dense(widths: tuple[int, ...], phi: str, seed: int) -> nf.Network:
    rng = np.random.default_rng(seed)
    weights = [rng.uniform(-1, 1, (b, a)) * np.sqrt(6 / (a + b)) for a, b in itertools.pairwise(widths)]
    return nf.Network.dense(weights, None, [phi] * (len(widths) - 2) + ["identity"])


@pytest.mark.parametrize("phi", ["sigmoid", "relu", "gelu"])
@pytest.mark.parametrize(
    ("failures", "total"), [((3, 0, 0), None), ((0, 2, 1), None), ((1, 1, 1), None), (None, 3)]
)
def test_wider_networks_equal_enumeration(
    phi: str, failures: tuple[int, ...] | None, total: int | None
) -> None:
    net = dense((6, 12, 11, 9, 3), phi, 5)
    inputs = np.random.default_rng(6).random((3, 6))
    counts = {"failures": failures, "total": total}
    answer = worst_case(net, inputs, nf.Crash(), **counts)
    widths = net.widths[1:-1]
    if total is None:
        rows = list(
            itertools.product(
                *(itertools.combinations(range(n), f) for n, f in zip(widths, failures, strict=True))
            )
        )
    else:
        places = [(layer, j) for layer, n in enumerate(widths) for j in range(n)]
        rows = [
            [[j for layer, j in chosen if layer == m] for m in range(3)]
            for chosen in itertools.combinations(places, total)
        ]
    assert answer.exact
    assert answer.error == pytest.approx(worst(net, inputs, rows, 0.0), rel=1e-12)


def test_last_hidden_layer_is_a_selection() -> None:
    # y = 1 everywhere (relu of 0 x + 1): crashing f of the outputs' weights 3, 2, -4 takes the largest sums
    # of one sign: one failure 4, two failures 3 + 2 = 5, three failures |3 + 2 - 4| = 1.
    net = nf.Network.dense([np.zeros((3, 1)), [[3.0, 2.0, -4.0]]], [np.ones(3), None], ["relu", "identity"])
    for failures, error in ((0, 0.0), (1, 4.0), (2, 5.0), (3, 1.0)):
        answer = worst_case(net, [[0.5]], nf.Crash(), (failures,))
        assert (answer.error, answer.exact) == (error, True)
    assert worst_case(net, [[0.5]], nf.Crash(), (3,), at_most=True).error == 5.0


def test_threads_do_not_matter() -> None:
    net = dense((16, 40, 40, 4), "relu", 1)
    inputs = np.random.default_rng(2).random((40, 16))
    answers = [worst_case(net, inputs, nf.Crash(), (4, 1), threads=n) for n in (1, 2, 7)]
    assert answers[0].nodes > 1000
    assert answers[0] == answers[1] == answers[2]


def test_a_negative_gap_is_refused() -> None:
    net = dense((2, 3, 1), "relu", 1)
    with pytest.raises(nf.InputError, match="gap"):
        worst_case(net, [[0.5, 0.5]], nf.Crash(), (1,), gap=-1.0)


@pytest.mark.parametrize(("depth", "scale", "exact"), [(4, 3.0, True), (16, 3.0, False), (3, 1e6, False)])
def test_a_network_that_amplifies_rounding_to_its_size_is_not_called_settled(
    depth: int, scale: float, exact: bool
) -> None:
    rng = np.random.default_rng(0)
    widths = [4, *[6] * depth, 2]
    weights = [scale * rng.normal(size=(b, a)) for a, b in itertools.pairwise(widths)]
    net = nf.Network.dense(weights, None, ["tanh"] * depth + ["identity"])
    inputs = rng.uniform(0, 1, (2, 4))
    answer = worst_case(net, inputs, nf.Crash(), total=1, time_limit=2.0)
    tried = nf.run(net, inputs, nf.Exhaustive(net, nf.Crash(), total=1), backend="numpy").worst
    assert tried is not None
    assert answer.exact is exact
    assert tried.error <= answer.upper
    assert answer.upper <= 1.001 * nf.bounds(net, nf.Crash(), total=1, inputs=inputs)["best"] or exact
    assert not exact or answer.error == pytest.approx(tried.error, rel=1e-9)


@pytest.mark.parametrize("bias", [1.0, 1e6, 1e9])
def test_a_large_output_bias_does_not_keep_a_finished_search_unsettled(bias: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weights = [rng.normal(size=(b, a)) for a, b in ((2, 5), (5, 4), (4, 2))]
        biases = [rng.normal(size=5), rng.normal(size=4), np.full(2, bias)]
        net = nf.Network.dense(weights, biases, ["relu", "relu", "identity"])
        inputs = rng.uniform(0, 1, (2, 2))
        answer = worst_case(net, inputs, nf.Crash(), (1, 1), threads=1)
        tried = nf.run(net, inputs, nf.Exhaustive(net, nf.Crash(), (1, 1)), backend="numpy").worst
        assert tried is not None
        assert answer.exact
        assert tried.error <= answer.upper


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": -1}, "threads is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"time_limit": "a"}, "time_limit is 'a'"),
        ({"time_limit": np.nan}, "time_limit is nan"),
        ({"incumbent": "x"}, "incumbent is 'x'"),
        ({"incumbent": (0, [1])}, "incumbent is"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, object], words: str) -> None:
    net = nf.Network.dense([[[1.0], [2.0]], [[1.0, -1.0]]], None, ["relu", "identity"])
    with pytest.raises(nf.InputError, match=words):
        worst_case(net, [[1.0]], nf.Crash(), (1,), **options)  # type: ignore[arg-type]  # the point


def test_receivers_whose_senders_interleave() -> None:
    """What stands between two senders of a neuron, and reaches another, keeps its own share."""
    for seed, count in ((6, 1), (56, 3)):
        rng = np.random.default_rng(seed)
        apart = np.zeros((2, 6))
        apart[np.arange(6) % 2, np.arange(6)] = rng.normal(size=6)
        weights = [rng.normal(size=(6, 2)), apart, rng.normal(size=(2, 2)), rng.normal(size=(1, 2))]
        phis = [str(rng.choice(["relu", "tanh", "gelu"])) for _ in range(3)]
        net = nf.Network.dense(weights, None, [*phis, "identity"], (-1.0, 1.0))
        inputs = rng.uniform(-1, 1, (2, 2))
        answer = worst_case(net, inputs, nf.Crash(), (count, 0, 0))
        truth = worst(net, inputs, sets(net, (count, 0, 0)), 0.0)
        assert abs(answer.error - truth) <= answer.rounding, seed
        assert truth <= answer.upper, seed
