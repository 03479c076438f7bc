"""A given set of failed neurons over a box: nothing tried exceeds the limit, known answers, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

import neurofail as nf
from neurofail.bounds import given_set
from neurofail.search.difference import Boxes, Difference
from neurofail.search.problem import Effect

from .enumeration import PHIS, faulty, random_network

FAULTS = (
    (nf.Crash(), (0.0,), "set"),
    (nf.StuckAt(0.7), (0.7,), "set"),
    (nf.Byzantine(0.5), (-0.5, 0.1, 0.5), "set"),
    (nf.Byzantine((0.2, 3.0)), (0.2, 0.9, 3.0), "set"),
    (nf.Byzantine(0.5, "nominal"), (-0.5, 0.2, 0.5), "shift"),
    (nf.Byzantine(0.5, "own"), (-0.5, 0.2, 0.5), "add"),
)


def random_set(rng: np.random.Generator, net: nf.Network) -> list[list[int]]:
    """At least one neuron, of any layers."""
    share = rng.choice([0.2, 0.5])
    rows = [[j for j in range(width) if rng.random() < share] for width in net.widths[1:-1]]
    if not any(rows):
        layer = int(rng.integers(net.depth))
        rows[layer] = [int(rng.integers(net.widths[layer + 1]))]
    return rows


def check_boxes(seed: int) -> None:
    """Limits of the domain and of boxes in it, against points of each box, values of the failed included."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(1, 5)), width=5, scale=float(rng.choice([0.7, 1.5, 3.0])))
    fault, _, _ = FAULTS[rng.integers(len(FAULTS))]
    failed = random_set(rng, net)
    of = Difference(net, Effect.of(fault))
    mask = np.concatenate(
        [np.isin(np.arange(width), row) for row, width in zip(failed, net.widths[1:], strict=False)]
    )
    box = Boxes.whole(net, of.effect, mask[None])
    for _ in range(8):
        known = of.limits(box)
        shares = rng.random((300, box.low.shape[1]))
        shares[::3] = np.round(shares[::3])
        points = np.clip(box.low[0] + shares * (box.high - box.low), box.low[0], box.high[0])
        points = np.vstack([points, known.point])
        tried = float(of.errors(points, mask[None]).max())
        # What is tried carries its own rounding; the limit bounds the exact error.
        assert tried <= known.upper[0] * (1 + 1e-9), f"seed {seed}: {net}, {fault}, {failed}"
        assert known.error[0] == pytest.approx(of.errors(known.point, mask[None])[0].max(), rel=1e-9)
        halves = box.halved(known.axis)
        chosen = int(rng.integers(2))
        box = halves[np.array([chosen])]


def check(seed: int) -> None:
    """The whole answer, against the plain simulation of `enumeration`."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(1, 4)), width=4)
    fault, values, action = FAULTS[rng.integers(len(FAULTS))]
    failed = random_set(rng, net)
    answer = nf.worst_in_box(net, fault, failed=failed, time_limit=0.05, starts=2)
    inputs = np.vstack(
        [rng.uniform(-1, 1, (200, net.widths[0])), rng.choice([-1.0, 1.0], (8, net.widths[0]))]
    )
    row = [tuple(neurons) for neurons in failed]
    tried = max(float(np.abs(faulty(net, inputs, [row], v, action) - net(inputs)).max()) for v in values)
    about = f"seed {seed}: {net}, {fault}, {failed}"
    assert tried <= answer.upper * (1 + 1e-9), about
    assert answer.error <= answer.upper <= max(answer.bound, answer.error), about
    assert answer.bound == given_set(net, fault, failed), about
    assert np.all((answer.input >= net.low) & (answer.input <= net.high)), about
    found = [(failure.layer, failure.neuron) for failure in answer.configuration]
    assert found == [(k, j) for k, neurons in enumerate(failed, start=1) for j in neurons], about


@pytest.mark.parametrize("block", range(4))
def test_every_point_tried_is_below_the_limit_of_its_box(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        check_boxes(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_every_point_tried_is_below_the_limit_of_its_box_at_length(block: int) -> None:
    for seed in range(10_000 + 500 * block, 10_000 + 500 * (block + 1)):
        check_boxes(seed)


def test_answers_hold_against_plain_simulation() -> None:
    for seed in range(60):
        check(seed)


def test_a_box_of_one_point_is_settled() -> None:
    # Nothing is relaxed there, so what is left between the limit and the error is rounding.
    rng = np.random.default_rng(3)
    for phi in PHIS:
        weights = [rng.normal(0, 1, shape) for shape in ((4, 2), (4, 4), (2, 4))]
        net = nf.Network.dense(weights, None, [phi, phi, "identity"], (-1.0, 1.0))
        for fault, _, _ in FAULTS:
            of = Difference(net, Effect.of(fault))
            mask = np.array([[True, False, False, True, False, True, False, False]])
            whole = Boxes.whole(net, of.effect, mask)
            point = whole.low + rng.random(whole.low.shape) * (whole.high - whole.low)
            known = of.limits(Boxes(point, point, mask))
            error = of.errors(point, mask).max()
            assert error <= known.upper[0] * (1 + 1e-12)
            assert known.upper[0] == pytest.approx(error, rel=1e-9, abs=1e-10)


def two_layers(phi: str) -> nf.Network:
    # s = 4 x - 2 and a copy of it, each read by one neuron of layer 2: F = phi(phi(s)) + 3 phi(phi(-s)).
    return nf.Network.dense(
        [[[4.0], [-4.0]], np.eye(2), [[1.0, 3.0]]], [[-2.0, 2.0], None, None], [phi, phi, "identity"]
    )


@pytest.mark.parametrize(
    ("failed", "truth"),
    [
        ([[1], []], 6.0),  # 3 relu(2 - 4 x) is lost: most at x = 0
        ([[], [1]], 6.0),
        ([[0], []], 2.0),
        ([[0, 1], []], 6.0),  # only one of the two is not 0 anywhere
        ([[], []], 0.0),
    ],
)
def test_crashes_of_a_relu_network(failed: list[list[int]], truth: float) -> None:
    answer = nf.worst_in_box(two_layers("relu"), nf.Crash(), failed=failed)
    assert answer.error == truth
    assert truth <= answer.upper <= 1.0100001 * truth + 1e-12


def test_a_byzantine_value_is_part_of_the_box() -> None:
    # Layer 1 neuron 1 sends v in [-1, 5] for relu(2 - 4 x) in [0, 2]: 3 (5 - 0) at x >= 1/2.
    answer = nf.worst_in_box(two_layers("relu"), nf.Byzantine((-1.0, 5.0)), failed=[[1], []])
    assert answer.error == pytest.approx(15.0, rel=1e-12)
    assert 15.0 <= answer.upper <= 15.15
    [failure] = answer.configuration
    assert failure.level == pytest.approx(1.0)
    assert answer.input[0] >= 0.5


def test_a_stuck_sigmoid() -> None:
    # Layer 2 neuron 1 is stuck at 1: it is off by 1 - sigmoid(sigmoid(2 - 4 x)), most at x = 1.
    truth = 3.0 * (1.0 - 1.0 / (1.0 + math.exp(-1.0 / (1.0 + math.exp(2.0)))))
    answer = nf.worst_in_box(two_layers("sigmoid"), nf.StuckAt(1.0), failed=[[], [1]])
    assert answer.error == pytest.approx(truth, rel=1e-12)
    assert truth <= answer.upper <= 1.01 * truth


def test_more_time_never_loosens() -> None:
    rng = np.random.default_rng(2)
    net = nf.Network.dense(
        [rng.normal(size=s) for s in ((6, 3), (5, 6), (1, 5))], None, ["relu", "tanh", "identity"]
    )
    quick = nf.worst_in_box(net, nf.Crash(), failed=[[0, 2], [1]], time_limit=0.0)
    longer = nf.worst_in_box(net, nf.Crash(), failed=[[0, 2], [1]], time_limit=0.5, gap=1e-4)
    assert quick.error <= longer.error <= longer.upper < quick.upper <= quick.bound
    assert longer.boxes > quick.boxes == 1


def test_the_same_question_is_answered_the_same() -> None:
    net = two_layers("tanh")
    first, second = (nf.worst_in_box(net, nf.Byzantine(2.0), failed=[[0], [1]], seed=4) for _ in range(2))
    assert first.to_dict() == second.to_dict()


@pytest.mark.parametrize(
    ("failed", "says"),
    [
        ([[0, 0], []], "neuron 0 of layer 1 is listed twice"),
        ([[2], []], "neuron 2 of layer 1 does not exist; there are 2 neurons, counted from 0"),
        ([[0, 1, 2], []], "neuron 2 of layer 1 does not exist"),
        ([[], [-1]], "a failed neuron of layer 2 is -1; it must be a whole number"),
        ([[float("nan")], []], "a failed neuron of layer 1 is nan"),
        ([[True], []], "a failed neuron of layer 1 is True"),
        ([[0]], r"the failed neurons of each of the 2 hidden layers, such as \[\[0\], \[\]\]"),
        ([0, 1], "each of the 2 hidden layers"),
        ("ab", "each of the 2 hidden layers"),
        (7, "failed is 7"),
    ],
)
def test_sets_that_cannot_be(failed: object, says: str) -> None:
    with pytest.raises(nf.InputError, match=says):
        nf.worst_in_box(two_layers("relu"), nf.Crash(), failed=failed)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"failures": (1, 0)}, "not both"),
        ({"total": 1}, "not both"),
        ({"at_most": True}, "not both"),
        ({"gap": float("nan")}, "gap is nan"),
        ({"gap": -0.1}, "gap is -0.1"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
        ({"starts": 0}, "starts is 0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], says: str) -> None:
    with pytest.raises(nf.InputError, match=says):
        nf.worst_in_box(two_layers("relu"), nf.Crash(), failed=[[0], []], **options)


def test_faults_that_have_no_set_here() -> None:
    with pytest.raises(nf.InputError, match="failed lists neurons"):
        nf.worst_in_box(two_layers("relu"), nf.SynapseCrash(), failed=[[0], []])
    with pytest.raises(nf.InputError, match=r"takes one fault such as Crash\(\)"):
        nf.worst_in_box(two_layers("relu"), [nf.Crash()], failed=[[0], []])
    with pytest.raises(nf.InputError, match="equivocate=False"):
        nf.worst_in_box(
            two_layers("relu"), nf.Byzantine(1.0, draw="guided", equivocate=True), failed=[[0], []]
        )


def test_a_network_that_overflows_has_the_bound_alone() -> None:
    net = nf.Network.dense([[[1e308]], [[1e308]], [[1.0]]], None, ["relu", "relu", "identity"])
    answer = nf.worst_in_box(net, nf.Crash(), failed=[[0], [0]], time_limit=0.1)
    assert answer.upper == answer.bound == np.inf
