"""The witnesses of bounds.md, section 6: networks that attain their bounds, so no smaller one is sound.

W_l = w_l times ones, and biases that put every neuron of layer l at the nominal output Y_l. The one input is
x = 1. Numbers are dyadic, so that the networks are exactly what they should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest

from neurofail._reference import deviations
from neurofail.activations import Activation
from neurofail.bounds import bounds, given_set
from neurofail.faults import Byzantine, Crash, Fault, SynapseByzantine
from neurofail.network import Network
from neurofail.sites import Operation

X = np.ones((1, 1))
EQUAL = 1e-12


def witness(
    widths: Sequence[int], w: Sequence[float], phi: Activation, preactivation: float, nominal: float
) -> Network:
    """Every neuron has `preactivation` and puts out `nominal` = phi(preactivation)."""
    sizes = (1, *widths, 1)
    before = [1.0, *[nominal] * len(widths)]
    weights = [np.full((b, a), v) for a, b, v in zip(sizes, sizes[1:], w, strict=False)]
    biases = [
        np.full(len(m), preactivation - v * m.shape[1] * y)
        for m, v, y in zip(weights, w, before, strict=False)
    ]
    biases[-1] = np.zeros(1)
    net = Network.dense(weights, biases, [phi] * len(widths) + ["identity"], (1.0, 1.0))
    assert np.all(phi(np.array([preactivation])) == nominal)
    return net


def worst(net: Network, fault: Fault, failures: Sequence[int], variant: int = 0) -> float:
    """The error with the first f_l places of each layer failed (all are alike), one variant throughout."""
    operations: list[Operation] = []
    for layer, count in zip(fault.layers(net), failures, strict=True):
        table = fault.operations(net, layer)
        for place in range(count):
            operations.extend(table.row(place * fault.variants(net) + variant))
    return float(np.max(np.abs(deviations(net, X, operations))))


TOPOLOGIES = [
    ((3,), (1.0, 0.5), (2,)),
    ((3, 4), (1.0, 0.125, 0.5), (1, 2)),
    ((2, 3, 4), (0.5, 0.25, 0.125, 2.0), (1, 1, 2)),
    ((4, 4, 2, 3), (0.5, 0.0625, 0.125, 0.25, 1.0), (2, 0, 1, 1)),
]


@pytest.mark.parametrize(("widths", "w", "failures"), TOPOLOGIES)
@pytest.mark.parametrize("steepness", [0.5, 1.0, 2.0])
def test_1_crash_at_the_top_edge_of_the_linear_zone(
    widths: tuple[int, ...], w: tuple[float, ...], failures: tuple[int, ...], steepness: float
) -> None:
    phi = Activation("clip", lipschitz=steepness)  # clip(K s, 0, 1); the 1/2 of the text is in the bias
    net = witness(widths, w, phi, 1 / steepness, 1.0)
    found = bounds(net, Crash(), failures)
    error = worst(net, Crash(), failures)
    assert error == pytest.approx(found["fep_capped"], rel=EQUAL)
    if steepness <= 1:  # then all e_l <= 1 here, and the cap does not bind
        assert error == pytest.approx(found["fep"], rel=EQUAL)


def test_1_the_cap_binds_where_deviations_would_exceed_the_range() -> None:
    net = witness((4, 3), (1.0, 2.0, 1.0), Activation("clip"), 1.0, 1.0)
    found = bounds(net, Crash(), (2, 1))
    assert worst(net, Crash(), (2, 1)) == pytest.approx(found["fep_capped"], rel=EQUAL)
    # e_2 = min(2 * 2, 1) = 1: 1 + 2 * 1 = 3 capped, 1 + 2 * 4 = 9 not.
    assert found["fep_capped"] == pytest.approx(3, rel=EQUAL)
    assert found["fep"] == pytest.approx(9, rel=EQUAL)


@pytest.mark.parametrize(("widths", "w", "failures"), TOPOLOGIES)
def test_2_byzantine_against_a_saturated_layer(
    widths: tuple[int, ...], w: tuple[float, ...], failures: tuple[int, ...]
) -> None:
    net = witness(widths, w, Activation("clip"), 1.0, 1.0)
    fault = Byzantine(2.0)  # v = -2 against y = 1: D = C + 1
    assert worst(net, fault, failures, 0) == pytest.approx(
        bounds(net, fault, failures)["fep_capped"], rel=EQUAL
    )
    net = witness(widths, w, Activation("clip"), 0.0, 0.0)
    fault = Byzantine((0.0, 2.0))  # v = 2 against y = 0: the paper's D = C
    found = bounds(net, fault, failures)
    assert worst(net, fault, failures, 1) == pytest.approx(found["fep_capped"], rel=EQUAL)
    if len(widths) == 1:
        assert found["fep"] == pytest.approx(failures[0] * 2.0 * w[-1], rel=EQUAL)


@pytest.mark.parametrize(("widths", "w", "failures"), TOPOLOGIES)
@pytest.mark.parametrize("steepness", [0.5, 2.0])
def test_3_relu(
    widths: tuple[int, ...], w: tuple[float, ...], failures: tuple[int, ...], steepness: float
) -> None:
    phi = Activation("relu", lipschitz=steepness)
    net = witness(widths, w, phi, 8.0, 8.0 * steepness)
    for fault in (Byzantine(3.0, "nominal"), Byzantine(3.0, "own")):  # T0 with D = C, and TN
        found = bounds(net, fault, failures)
        assert worst(net, fault, failures, 1) == pytest.approx(found["fep"], rel=EQUAL)
    # A crash takes D_l = Y_l, which no upstream error exceeds in these networks.
    assert worst(net, Crash(), failures) == pytest.approx(bounds(net, Crash(), failures)["fep"], rel=EQUAL)
    # lambda at every neuron: the precision bound of section 5 is TN with f = N.
    precision = Byzantine(0.125, "own")
    assert worst(net, precision, widths, 1) == pytest.approx(bounds(net, precision, widths)["fep"], rel=EQUAL)


@pytest.mark.parametrize("seed", range(5))
def test_4_influence_is_attained_in_the_linear_zone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = (1, 3, 4, 3, 2)
    weights = [np.abs(rng.normal(size=(b, a))) for a, b in pairwise(widths)]
    net = Network.dense(weights, None, ["relu"] * 3 + ["identity"], (1.0, 1.0))
    fault, failures = Byzantine(1.0, "own"), (1, 2, 1)
    error = 0.0
    sets = [list(combinations(range(n), f)) for n, f in zip(widths[1:-1], failures, strict=True)]
    for first in sets[0]:
        for second in sets[1]:
            for third in sets[2]:
                operations = [
                    operation
                    for layer, places in enumerate((first, second, third), start=1)
                    for place in places
                    for operation in fault.operations(net, layer).row(2 * place + 1)
                ]
                error = max(error, float(np.max(deviations(net, X, operations))))
    assert error == pytest.approx(bounds(net, fault, failures)["influence"], rel=EQUAL)


def test_5_synapses_attain_tn_for_every_subset() -> None:
    net = witness((2, 3), (1.0, 0.5, 0.25), Activation("relu"), 8.0, 8.0)
    fault = SynapseByzantine(1.0, "additive")
    failures = (1, 2, 1)
    found = bounds(net, fault, failures)
    assert found["influence"] == pytest.approx(found["fep"], rel=EQUAL)
    for a in range(2):
        for pair in combinations(range(6), 2):
            for c in range(3):
                places = [(a,), pair, (c,)]
                operations = [
                    operation
                    for layer, chosen in enumerate(places, start=1)
                    for place in chosen
                    for operation in fault.operations(net, layer).row(2 * place + 1)
                ]
                error = float(np.max(deviations(net, X, operations)))
                assert error == pytest.approx(found["fep"], rel=EQUAL)
                assert given_set(net, fault, places) == pytest.approx(error, rel=EQUAL)


def test_6_the_logistic_attains_it_in_the_limit() -> None:
    """Three layers of sigmoid(4 K x), K = 1/2: the failed neurons saturated, the others centred.

    bounds.md gives the ratios and no network; N = (1, 6, 5) with f = (1, 2, 1) has them to their last digit.
    """
    widths, failures = (1, 6, 5), (1, 2, 1)
    phi = Activation("sigmoid", lipschitz=0.5)
    ratios = []
    for scale in (1.0, 0.1, 0.01, 0.001):
        weights, biases = [np.zeros((widths[0], 1))], [np.zeros(widths[0])]
        for layer, (n, f) in enumerate(zip(widths, failures, strict=True)):
            nominal = np.array([1.0] * f + [0.5] * (n - f))
            biases[-1][:f] += 80.0  # phi is 1 to the last bit; it is 1/2 at 0
            receivers = widths[layer + 1] if layer + 1 < len(widths) else 1
            weights.append(np.full((receivers, n), scale))
            biases.append(-weights[-1] @ nominal)
        net = Network.dense(weights, biases, [phi] * 3 + ["identity"], (1.0, 1.0))
        ratios.append(worst(net, Crash(), failures) / bounds(net, Crash(), failures)["fep"])
    assert max(ratios) <= 1
    assert [round(ratios[0], 3), round(ratios[1], 3), round(ratios[2], 6)] == [0.333, 0.995, 0.999995]
    assert 0 < 1 - ratios[3] < 1e-8
