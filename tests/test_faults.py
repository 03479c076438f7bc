"""Each fault, seen through the oracle: a known place injected has exactly the known effect."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from neurofail._reference import trace
from neurofail.errors import InputError
from neurofail.faults import (
    Byzantine,
    Crash,
    Fault,
    StuckAt,
    SynapseByzantine,
    SynapseCrash,
    fault_from,
    from_dict,
)
from neurofail.network import Network

X = np.array([[0.25, 1.0], [0.5, -1.0]])


@pytest.fixture
def net() -> Network:
    """2-2-3-2, dyadic weights, so that every sum below is exact."""
    return Network.dense(
        [
            [[1.0, -2.0], [0.5, 1.0]],
            [[1.0, 2.0], [-1.0, 0.5], [0.25, -4.0]],
            [[1.0, -2.0, 0.5], [-1.0, 0.25, 2.0]],
        ],
        [[0.5, 0], [0, 1, 0], [0, 0]],
        ["identity", "identity", "identity"],
        (-1.0, 1.0),
    )


ALL = [
    Crash(),
    StuckAt(-0.5),
    Byzantine(2.0),
    Byzantine((-1.0, 3.0), draw="uniform"),
    Byzantine(2.0, "nominal"),
    Byzantine(2.0, "own", draw="guided"),
    Byzantine(2.0, draw="guided", equivocate=True),
    SynapseCrash(),
    SynapseByzantine(2.0),
    SynapseByzantine((0.0, 2.0), weighted=False, draw="uniform"),
    SynapseByzantine(2.0, "additive", draw="guided"),
    SynapseByzantine(2.0, "additive", weighted=False),
]


@pytest.mark.parametrize("fault", ALL, ids=str)
def test_describe_is_plain_json_and_from_dict_undoes_it(fault: Fault) -> None:
    assert from_dict(json.loads(json.dumps(fault.describe()))) == fault


@pytest.mark.parametrize("fault", ALL, ids=str)
def test_there_is_one_row_for_each_place_and_variant(net: Network, fault: Fault) -> None:
    for layer in fault.layers(net):
        operations = fault.operations(net, layer)
        assert len(operations) == fault.places(net, layer) * fault.variants(net)
        assert np.any(operations.span != 0) == fault.drawn


def outcome(net: Network, fault: Fault, layer: int, row: int, level: float = 0.0) -> list[np.ndarray]:
    return trace(net, X, fault.operations(net, layer).row(row, level))[1]


@pytest.mark.parametrize(
    ("fault", "row", "expected"),
    [
        (Crash(), 1, lambda y: 0 * y),
        (StuckAt(0.75), 1, lambda y: 0 * y + 0.75),
        (Byzantine(2.0), 2, lambda y: 0 * y - 2),  # neuron 1, variant 0
        (Byzantine(2.0), 3, lambda y: 0 * y + 2),
        (Byzantine((-1.0, 3.0)), 3, lambda y: 0 * y + 3),
        (Byzantine(2.0, "nominal"), 3, lambda y: y + 2),
        (Byzantine(2.0, "own"), 2, lambda y: y - 2),
    ],
    ids=str,
)
def test_a_failed_neuron_transmits(
    net: Network, fault: Fault, row: int, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    golden, faulty = trace(net, X)[1], outcome(net, fault, 2, row)
    assert np.array_equal(faulty[2][:, 1], expected(golden[2][:, 1]))
    assert np.array_equal(faulty[2][:, [0, 2]], golden[2][:, [0, 2]])
    assert np.array_equal(faulty[3], faulty[2] @ net.weights[2].T)


@pytest.mark.parametrize(
    ("fault", "row", "difference"),
    [
        # Synapse from neuron 0 to neuron 1 into layer 2 is place 1 * 2 + 0; W = -1, y = s = y^1_0.
        (SynapseCrash(), 2, lambda y: y),
        (SynapseByzantine(2.0), 4, lambda y: y + 2),  # W v - W y with v = -2
        (SynapseByzantine(2.0), 5, lambda y: y - 2),
        (SynapseByzantine(2.0, weighted=False), 5, lambda y: y + 2),
        (SynapseByzantine(2.0, "additive"), 5, lambda y: 0 * y - 2),
        (SynapseByzantine(2.0, "additive", weighted=False), 5, lambda y: 0 * y + 2),
    ],
    ids=str,
)
def test_a_failed_synapse_changes_one_preactivation(
    net: Network, fault: Fault, row: int, difference: Callable[[np.ndarray], np.ndarray]
) -> None:
    golden, faulty = trace(net, X)[1], outcome(net, fault, 2, row)
    assert np.array_equal(faulty[2][:, 1] - golden[2][:, 1], difference(golden[1][:, 0]))
    assert np.array_equal(faulty[2][:, [0, 2]], golden[2][:, [0, 2]])


def test_uniform_draws_reach_from_low_to_high_and_never_beyond(net: Network) -> None:
    low, high = -0.1, 0.7
    operations = Byzantine((low, high), draw="uniform").operations(net, 1)
    (first,) = operations.row(0, 0.0)
    (last,) = operations.row(0, 1.0)
    assert first.value == low
    assert high - 1e-15 <= last.value <= high


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("equivocate", [False, True])
def test_guided_variants_push_the_chosen_output(net: Network, layer: int, equivocate: bool) -> None:
    """In a linear network the guided end is the best end: no other variant moves output k further."""
    fault = Byzantine(2.0, draw="guided", equivocate=equivocate)
    assert fault.joint
    golden = net(X)
    for place in range(net.widths[layer]):
        moved = np.stack(
            [
                outcome(net, fault, layer, place * fault.variants(net) + v)[3] - golden
                for v in range(fault.variants(net))
            ]
        )
        for k in range(2):
            assert np.all(moved[2 * k, :, k] >= moved[:, :, k].max(axis=0) - 1e-12)
            assert np.all(moved[2 * k + 1, :, k] <= moved[:, :, k].min(axis=0) + 1e-12)


def test_an_equivocating_neuron_tells_each_receiver_its_own_value(net: Network) -> None:
    # Layer 1, neuron 0, pushing output 0 up. Into layer 2: W = (1, -1, 0.25); the influence of layer 2 on
    # output 0 is (1, -2, 0.5), so the values are (+C, +C, +C) after signs (+, +, +): -1 * -2 > 0.
    # Neuron 1: W = (2, 0.5, -4), signs (+, -, -).
    fault = Byzantine(2.0, draw="guided", equivocate=True)
    pre, _ = trace(net, X, fault.operations(net, 1).row(1 * 4 + 0))
    golden_pre, golden = trace(net, X)
    sent = np.array([2.0, -2.0, -2.0])
    expected = golden_pre[1] + net.weights[1][:, 1] * (sent - golden[1][:, 1:2])
    assert np.allclose(pre[1], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: StuckAt(np.nan), "finite"),
        (lambda: StuckAt("1"), "number"),  # type: ignore[arg-type]  # the point
        (lambda: Byzantine(0.0), "positive"),
        (lambda: Byzantine(-1.0), "not negative"),
        (lambda: Byzantine((1.0, 0.0)), "upside down"),
        (lambda: Byzantine((0.0, 1.0), "nominal"), "one capacity"),
        (lambda: Byzantine((0.0, 1.0, 2.0)), "two ends"),  # type: ignore[arg-type]  # the point
        (lambda: Byzantine(1.0, "other"), "value, nominal, own"),  # type: ignore[arg-type]  # the point
        (lambda: Byzantine(1.0, draw="all"), "extremes, uniform, guided"),  # type: ignore[arg-type]  # the point
        (lambda: Byzantine(1.0, equivocate=True), "guided"),
        (lambda: SynapseByzantine((0.0, 1.0), "additive"), "one capacity"),
        (lambda: SynapseByzantine(1.0, "own"), "value, additive"),  # type: ignore[arg-type]  # the point
        (lambda: fault_from("melt"), "known are crash"),
        (lambda: fault_from("crash", value=1.0), "no options"),
        (lambda: fault_from("stuck-at"), "value"),
        (lambda: from_dict({"value": 1.0}), "kind"),
    ],
)
def test_bad_faults_are_refused_with_the_remedy(build: Callable[[], Fault], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build()
