"""Failures before the last hidden layer are bounded, and only what can matter is run: asked for every
error, all is.

The rows of a plan that asks for each error are run one by one, so its worst errors and counts are the
oracle here.
"""

from __future__ import annotations

import numpy as np
import pytest
from networks import random_inputs, random_network

import neurofail as nf
from neurofail import lowering
from neurofail.faults import Byzantine, Crash, Fault, StuckAt
from neurofail.kernel import open_session
from neurofail.network import Array, Network
from neurofail.plans import Exhaustive, Plan, Sampled


def held_to_each(backend: str, plan: Plan, x: Array, dtype: str, most: int = 600) -> tuple[int, int]:
    """Every configuration's worst error to the bit, and its counts; returns the sums of these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering, "slopes_pay", lambda plan, inputs: True)
        session = open_session(backend, plan, x, dtype)
    session.golden(0, session.blocks)
    rows, levels = session.rows(0, min(plan.count, most))
    every = session.evaluate(rows, levels, 0, session.blocks, session.desk(), each=True)
    desk = session.desk()
    # The second time the desk remembers whether bounds paid.
    for _ in range(2):
        bounded = session.evaluate(rows, levels, 0, session.blocks, desk)
        assert bounded.errors.tobytes() == every.errors.tobytes()
        assert bounded.sdc.tolist() == every.sdc.tolist()
        assert bounded.due.tolist() == every.due.tolist()
    return int(every.sdc.sum()), int(every.due.sum())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("phi", ["sigmoid", "tanh", "relu", "leaky_relu"])
@pytest.mark.parametrize(
    "fault",
    [
        Crash(),
        StuckAt(0.75),
        StuckAt(-40.0),
        Byzantine(0.5, "own"),
        Byzantine(0.25, "nominal"),
        Byzantine(1.0, draw="guided"),
    ],
    ids=str,
)
def test_bounds_change_no_bit(compiled: str, fault: Fault, phi: str, dtype: str) -> None:
    net = random_network((5, 24, 70, 6), phi, seed=1)
    x = random_inputs(net, 300)
    held_to_each(compiled, Exhaustive(net, fault, failures=(2, 0)), x, dtype)
    held_to_each(compiled, Exhaustive(net, fault, failures=(1, 1), at_most=True), x, dtype)
    held_to_each(compiled, Sampled(net, fault, failures=(3, 2), count=400, seed=2), x, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_drawn_at_random_are_bounded_one_by_one(compiled: str, dtype: str) -> None:
    net = random_network((5, 24, 33, 4), "sigmoid", seed=3)
    plan = Sampled(net, Byzantine((-0.5, 2.0), draw="uniform"), failures=(2, 1), count=400, seed=1)
    held_to_each(compiled, plan, random_inputs(net, 90), dtype)


@pytest.mark.parametrize("outputs", [1, 2, 4, 9, 12])
@pytest.mark.parametrize("width", [2, 16, 33])
def test_bounds_at_awkward_sizes(compiled: str, outputs: int, width: int) -> None:
    net = random_network((3, 17, width, outputs), "sigmoid", seed=outputs + width)
    for inputs in (9, 31, 700):
        held_to_each(
            compiled, Exhaustive(net, Crash(), failures=(2, 0)), random_inputs(net, inputs), "float32"
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("failures", [3, 16, 17])
def test_many_failures_are_bounded_up_to_a_number(compiled: str, failures: int, dtype: str) -> None:
    net = random_network((4, 40, 50, 3), "sigmoid", seed=5)
    plan = Sampled(net, Crash(), failures=(failures, 20), count=200, seed=1)
    held_to_each(compiled, plan, random_inputs(net, 65), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ties_with_the_golden_class_change_nothing(compiled: str, dtype: str) -> None:
    """Two outputs are the same sum, so that whatever fails they tie; a third is one of them but for the
    last bit.
    """
    rng = np.random.default_rng(0)
    last = rng.normal(size=(4, 40))
    last[1] = last[0]
    last[2] = np.nextafter(last[0].astype(np.float32), np.float32(9))
    weights = [rng.normal(size=(20, 4)), rng.normal(size=(40, 20)) / 4, last]
    net = Network.dense(weights, None, ["sigmoid", "sigmoid", "identity"])
    sdc, _ = held_to_each(compiled, Exhaustive(net, Crash(), failures=(2, 0)), rng.random((200, 4)), dtype)
    assert sdc


@pytest.mark.parametrize("outputs", [1, 5])
def test_what_overflows_is_not_bounded(compiled: str, outputs: int) -> None:
    """Of the largest numbers no sum is bounded beforehand: some are infinite, and are counted as such."""
    net = random_network((3, 20, 30, outputs), "sigmoid", seed=2)
    net = Network.dense(
        [*net.weights[:2], 9 * net.weights[2]], net.biases, ["sigmoid", "sigmoid", "identity"]
    )
    plan = Exhaustive(net, StuckAt(3e38), failures=(2, 0))
    x = random_inputs(net, 50)
    held_to_each(compiled, plan, x, "float32")
    both = Sampled(net, StuckAt(3e38), failures=(2, 2), count=300, seed=1)
    assert held_to_each(compiled, both, x, "float32")[1]
    assert not held_to_each(compiled, both, x, "float64")[1]


@pytest.mark.parametrize("large", [1e-30, 1e-18, 1e18, 1e30])
@pytest.mark.parametrize("layer", [1, 2])
def test_bounds_of_tiny_and_huge_weights(compiled: str, layer: int, large: float) -> None:
    """Neither what falls below the smallest normal number nor what rounds by more than all else hides an
    error.
    """
    net = random_network((4, 20, 40, 5), "sigmoid", seed=4)
    weights = [w * (large if i == layer else 1.0) for i, w in enumerate(net.weights)]
    net = Network.dense(weights, net.biases, ["sigmoid", "sigmoid", "identity"])
    held_to_each(compiled, Exhaustive(net, Crash(), failures=(2, 0)), random_inputs(net, 150), "float32")


@pytest.mark.parametrize("weight", [1e20, 1e22, 1e23])
@pytest.mark.parametrize("small", [1e-4, 1e-12])
def test_deviations_whose_squares_vanish_are_not_bounded(compiled: str, weight: float, small: float) -> None:
    """Tiny outputs with huge weights behind them: what a square loses, a factor makes large again."""
    deviation, s = 0.5, 0.7
    unit = deviation / weight
    slope = 1 - np.tanh(s) ** 2
    bias = small * (np.tanh(s) - slope * deviation - np.tanh(s) * slope * deviation**2 / 2)
    net = Network.dense(
        [[[2 * unit], [-2 * unit]], [[weight, weight]], [[small], [0.0]]],
        [[0, 2 * unit], [s - 2 * deviation], [0, bias]],
        ["relu", "tanh", "identity"],
    )
    plan = Exhaustive(net, StuckAt(unit), failures=(1, 0))
    held_to_each(compiled, plan, np.linspace(0, 1, 128)[:, None], "float32")


def test_large_values_times_weights_that_vanish_are_not_bounded(compiled: str) -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(12, 4))
    first[0] *= 1e20
    weights = [first, 1e-20 * rng.normal(size=(20, 12)), 1e-30 * rng.normal(size=(3, 20))]
    biases = [rng.normal(size=12), rng.normal(size=20), np.zeros(3)]
    biases[0][0] = 0
    net = Network.dense(weights, biases, ["relu", "sigmoid", "identity"])
    held_to_each(
        compiled, Exhaustive(net, StuckAt(1e20), failures=(1, 0)), rng.normal(size=(200, 4)), "float32"
    )


@pytest.mark.parametrize("large", [1e33, 3e34])
def test_products_that_overflow_beside_nothing_are_not_bounded(compiled: str, large: float) -> None:
    """Infinity times the 0 of another failed column is no number, and must not pass for a small one."""
    weight, stuck = 8e3 * 4e34 / large, 6e-4 * large / 4e34
    net = Network.dense(
        [
            [[0.1], [2 * stuck], [0.3]],
            [[0, weight, 0], [1, 0, 0.1]],
            [[large, 0]],
        ],
        [np.zeros(3), [-5, 0.3], [0]],
        ["relu", "tanh", "identity"],
    )
    plan = Exhaustive(net, StuckAt(stuck), failures=(2, 0))
    held_to_each(compiled, plan, np.linspace(0, 1, 128)[:, None], "float32")


def test_an_input_that_is_no_number_hides_no_other(compiled: str) -> None:
    """Upstream an input overflows float32; what is known of its block is of the others."""
    stuck, weight = 0.6, 8.0
    net = Network.dense(
        [
            [[1e30, 0], [1e30, 0], [0, 1]],
            [[1, -1, 1], [0, 0, -1]],
            [[weight, weight]],
            [[1], [0]],
        ],
        [np.zeros(3), [0, 1.2], [-3 - weight * 1.2], [0, 0]],
        ["relu", "relu", "tanh", "identity"],
    )
    x = np.zeros((160, 2))
    x[:, 1] = stuck + np.linspace(-1e-3, 1e-3, 160)
    x[1:32, 1] = np.linspace(0, 0.1, 31)
    for first in (0.0, 1e10):
        x[0, 0] = first
        held_to_each(compiled, Exhaustive(net, StuckAt(stuck), failures=(0, 1, 0)), x, "float32")


def test_configurations_with_and_without_bounds_follow_each_other(compiled: str) -> None:
    """Those that fail in other layers, in synapses too, or share what fails first with their neighbours."""
    net = random_network((4, 6, 20, 40, 5), "sigmoid", seed=4)
    x = random_inputs(net, 150)
    for plan in (
        Exhaustive(net, Crash(), total=2),
        Sampled(net, Crash(), total=3, at_most=True, count=400, seed=1),
        Sampled(net, [Crash(), nf.SynapseCrash()], total=(1, 1), at_most=True, count=400, seed=1),
    ):
        held_to_each(compiled, plan, x, "float32", most=2000)


def test_slopes_are_for_many_configurations_that_they_can_bound() -> None:
    net = random_network((4, 20, 40, 5))
    assert lowering.slopes_pay(Exhaustive(net, Crash(), failures=(2, 0)), 64)
    assert lowering.slopes_pay(Exhaustive(net, Crash(), total=2), 64)
    assert not lowering.slopes_pay(Exhaustive(net, Crash(), failures=(2, 0)), 63)
    assert not lowering.slopes_pay(Exhaustive(net, Crash(), failures=(2, 0)), 10**7)
    assert not lowering.slopes_pay(Exhaustive(net, Crash(), failures=(1, 0)), 64)
    assert not lowering.slopes_pay(Exhaustive(net, Crash(), failures=(0, 2)), 64)
    assert not lowering.slopes_pay(Exhaustive(net, nf.SynapseCrash(), failures=(0, 2, 0)), 64)
    assert not lowering.slopes_pay(Exhaustive(random_network((4, 20, 5)), Crash(), failures=(2,)), 64)
    assert not lowering.slopes_pay(Exhaustive(random_network((4, 20, 10, 1)), Crash(), failures=(2, 0)), 64)
