"""Whole campaigns on networks small enough to work by hand; the working stands beside each."""

from __future__ import annotations

import math

import numpy as np
import pytest

import neurofail as nf
from neurofail.activations import Activation
from neurofail.faults import Byzantine, Crash, StuckAt, SynapseByzantine, SynapseCrash
from neurofail.network import Network
from neurofail.plans import Exhaustive


def worst(net: Network, x: object, fault: object, backend: str, **counts: object) -> nf.tally.Worst:
    plan = Exhaustive(net, fault, **counts)  # type: ignore[arg-type]  # every form that users write
    found = nf.run(net, x, plan, backend, "float64").worst  # type: ignore[arg-type]  # lists
    assert found is not None
    return found


def error(net: Network, plan: Exhaustive, index: int, backend: str) -> float:
    found = nf.run(net, X, plan, backend, "float64", start=index, stop=index + 1).worst
    assert found is not None
    return found.error


@pytest.fixture
def relu() -> Network:
    """2-3-2-2, ReLU.

    On x = (1, 2): s1 = (1, 2, 3 - 4) = (1, 2, -1), y1 = (1, 2, 0);
    s2 = (1 + 2*2 - 1, -1 + 3*2) = (4, 5), y2 = (4, 5); F = (4 - 5, 2*4 + 0.5*5) = (-1, 10.5).
    """
    return Network.dense(
        [[[1, 0], [0, 1], [3, -2]], [[1, 2, 5], [-1, 3, 0]], [[1, -1], [2, 0.5]]],
        [[0, 0, 0], [-1, 0], [0, 0]],
        ["relu", "relu", "identity"],
        (0.0, 2.0),
    )


X = [[1.0, 2.0]]


def test_the_golden_run(relu: Network) -> None:
    assert relu(X).tolist() == [[-1.0, 10.5]]


def test_one_crash_in_layer_1(relu: Network, backend: str) -> None:
    # Of neuron 0: s2 = (3, 6), F = (-3, 9): errors (2, 1.5).
    # Of neuron 1: y1 = (1, 0, 0): s2 = (0, -1), y2 = (0, 0), F = (0, 0): errors (1, 10.5).
    # Of neuron 2: y1_2 was 0 already: no error.
    found = worst(relu, X, Crash(), backend, failures=(1, 0))
    assert (found.error, found.index, found.output) == (10.5, 1, 1)
    plan = Exhaustive(relu, Crash(), failures=(1, 0))
    each = [nf.run(relu, X, plan, backend, "float64", start=i, stop=i + 1) for i in range(3)]
    assert [t.worst.error for t in each] == [2.0, 10.5, 0.0]  # type: ignore[union-attr]  # they ran
    # Golden class 1; crash 0: F = (-3, 9), class 1; crash 1: F = (0, 0), a tie, which changes nothing.
    assert [t.sdc for t in each] == [0, 0, 0]


def test_a_crash_in_both_layers(relu: Network, backend: str) -> None:
    # Layer 1 neuron 0 and layer 2 neuron 0: s2 = (3, 6), y2 = (0, 6), F = (-6, 3): errors (5, 7.5).
    # 0 and 1: y2 = (3, 0), F = (3, 6): (4, 4.5). 1 and 0, 1 and 1: y2 = (0, 0): (1, 10.5) both.
    # 2 and 0: y2 = (0, 5), F = (-5, 2.5): (4, 8). 2 and 1: y2 = (4, 0), F = (4, 8): (5, 2.5).
    plan = Exhaustive(relu, Crash(), failures=(1, 1))
    assert [error(relu, plan, i, backend) for i in range(6)] == [7.5, 4.5, 10.5, 10.5, 8.0, 5.0]
    found = worst(relu, X, Crash(), backend, failures=(1, 1))
    assert (found.error, found.index) == (10.5, 2)  # the first of the two


def test_any_two_crashes_anywhere(relu: Network, backend: str) -> None:
    # Besides the six above: 0 and 1 of layer 1: y1 = 0, s2 = (-1, 0): F = 0: 10.5. 0 and 2: as 0 alone, 2.
    # 1 and 2: as 1 alone, 10.5. Both of layer 2: F = 0: 10.5. Numbering: pairs of places 0..4 in order,
    # (0,1) first.
    found = worst(relu, X, Crash(), backend, total=2)
    assert (found.error, found.index, found.output) == (10.5, 0, 1)


def test_stuck_high(relu: Network, backend: str) -> None:
    # Neuron 1 of layer 1 stuck at 10: s2 = (1 + 20 - 1, -1 + 30) = (20, 29), F = (-9, 54.5): errors (8, 44).
    # Neuron 2 stuck at 10: s2 = (4 + 50, 5), F = (49, 110.5): (50, 100). Neuron 0 stuck at 10:
    # s2 = (13, -4), y2 = (13, 0), F = (13, 26): (14, 15.5).
    found = worst(relu, X, StuckAt(10.0), backend, failures=(1, 0))
    assert (found.error, found.index, found.output) == (100.0, 2, 1)


def test_byzantine_semantics_differ_by_what_they_stand_on(relu: Network, backend: str) -> None:
    # Crash of neuron 1 in layer 1 drives y2 to (0, 0). One Byzantine neuron besides, in layer 2, C = 1:
    # value +1 at neuron 0: y2 = (1, 0), F = (1, 2): errors (2, 8.5); -1: F = (-1, -2): (0, 12.5).
    crash = Crash()
    value = worst(relu, X, [crash, Byzantine(1.0)], backend, failures=[(1, 0), (0, 1)])
    # Over all: crash of neuron 1 with -1 at neuron 0 is the worst for output 1.
    assert (value.error, value.output) == (12.5, 1)
    # nominal + 1: y2_0 = 4 +- 1 whatever arrives. With crash 1, y2 = (3, 0): F = (3, 6), (4, 4.5);
    # y2 = (5, 0): (6, 0.5); at neuron 1, y2 = (0, 4): F = (-4, 2): (3, 8.5); (0, 6): (-6, 3): (5, 7.5).
    # With crash 0, s2 = (3, 6): y2 = (3 or 5, 6), (3, 4 or 6): F = (-3, 9), (-1, 13), (-1, 8), (-3, 9):
    # at most 2.5.
    # With crash 2 nothing arrives: y2 = (3 or 5, 5), (4, 4 or 6): F = (-2, 8.5), (0, 12.5), ..: at most 2.
    nominal = worst(relu, X, [crash, Byzantine(1.0, "nominal")], backend, failures=[(1, 0), (0, 1)])
    assert (nominal.error, nominal.output) == (8.5, 1)
    # own - 1 with crash 1: y2 = (-1, 0): F = (-1, -2): 12.5, as with a value, for its own is 0.
    own = worst(relu, X, [crash, Byzantine(1.0, "own")], backend, failures=[(1, 0), (0, 1)])
    assert (own.error, own.output) == (12.5, 1)


def test_synapses(relu: Network, backend: str) -> None:
    # Synapse 1->0 into layer 2 (weight 2, y = 2) crashed: s2 = (0, 5): F = (-5, 2.5): errors (4, 8).
    # 0->0 (1): s2 = (3, 5): (1, 2). 2->0: y = 0: none. 0->1 (-1): s2 = (4, 6): (1, 0.5).
    # 1->1 (3): s2 = (4, -1): y2 = (4, 0), F = (4, 8): (5, 2.5). 2->1: none.
    plan = Exhaustive(relu, SynapseCrash(), failures=(0, 1, 0))
    assert [error(relu, plan, i, backend) for i in range(6)] == [2.0, 8.0, 0.0, 1.0, 5.0, 0.0]


def test_trap_3_synapses_have_no_n_minus_f(backend: str) -> None:
    """bounds.md, trap 3: N = (2, 2), all weights 1, identity zone, a synapse into each layer adds 1: error 3.

    x -> n1 of layer 1 adds 1: y1 = (x + 1, x), so each of layer 2 gains 1; n2 -> n1 into layer 2 adds 1 more
    to its receiver: 2 + 1 = 3 at the output. The (N - f) form would say 2.
    """
    net = Network.dense([np.ones((2, 1)), np.ones((2, 2)), np.ones((1, 2))], None, ["identity"] * 3)
    found = worst(net, [[0.5]], SynapseByzantine(1.0, "additive"), backend, failures=(1, 1, 0))
    assert found.error == 3.0
    assert nf.fep(net, SynapseByzantine(1.0, "additive"), (1, 1, 0)) >= 3.0


def test_trap_4_at_most_needs_its_own_form() -> None:
    """bounds.md, trap 4: N = (3, 3), w = (1, 2, 1), K = D = 1: T0(1, 0) = 6, T0(1, 3) = 3; ReLU attains both.

    x in [0, 1], W1 = ones, W2 = 2 ones, W3 = ones: D_1 = 1 (crash of y1 = x = 1). e_2 = 2 * 1 = 2 a neuron,
    three of them: 6. With layer 2 stuck at its nominal plus 1, 3 * 1 = 3.
    """
    net = Network.dense(
        [np.ones((3, 1)), np.full((3, 3), 2.0), np.ones((1, 3))],
        None,
        ["relu", "relu", "identity"],
        (1.0, 1.0),
    )
    fault = Byzantine(1.0, "nominal")
    assert nf.fep(net, fault, (1, 0)) == pytest.approx(6.0, rel=1e-12)
    assert nf.fep(net, fault, (1, 3)) == pytest.approx(3.0, rel=1e-12)
    assert nf.fep(net, fault, (1, 3), at_most=True) >= 6.0
    for counts, error in (((1, 0), 6.0), ((1, 3), 3.0)):
        tally = nf.run(net, [[1.0]], Exhaustive(net, fault, counts), dtype="float64")
        assert tally.worst is not None
        assert tally.worst.error == error


def test_a_sigmoid_by_hand(backend: str) -> None:
    """One input 0, biases 0: y1 = (1/2, 1/2); s2 = 2 * 1/2 - 1/2 + 1 = 1.5; F = 3 sigmoid(1.5).

    Crash of neuron 0 (weight 2): s2 = 0.5; of neuron 1 (weight -1): s2 = 2.
    """
    net = Network.dense(
        [[[1], [1]], [[2, -1]], [[3]]], [None, [1.0], None], ["sigmoid", "sigmoid", "identity"]
    )

    def logistic(s: float) -> float:
        return 1 / (1 + math.exp(-s))

    found = worst(net, [[0.0]], Crash(), backend, failures=(1, 0))
    assert found.error == pytest.approx(3 * (logistic(1.5) - logistic(0.5)), rel=1e-14)
    assert found.index == 0


def test_the_papers_steepness_by_hand(backend: str) -> None:
    """K = 2 makes sigmoid(8 s): at s = 0.25, sigmoid(2); a synapse adding 0.25 makes sigmoid(4)."""
    net = Network.dense([[[1.0]], [[1.0]]], None, [Activation("sigmoid", lipschitz=2.0), "identity"])
    found = worst(net, [[0.25]], SynapseByzantine(0.25, "additive"), backend, failures=(1, 0))
    up = 1 / (1 + math.exp(-4)) - 1 / (1 + math.exp(-2))
    down = 1 / (1 + math.exp(-2)) - 1 / 2
    assert found.error == pytest.approx(max(up, down), rel=1e-14)
    assert found.index == 0  # variant 0 subtracts, and that is the worse


def test_classes_turn_where_the_error_crosses_the_gap(backend: str) -> None:
    """F = (1, x): crashing neuron 0 takes F0 to 0, so every x > 0 changes class; x = 0 is a tie."""
    net = Network.dense([[[0.0], [1.0]], np.eye(2)], [[1.0, 0.0], None], ["relu", "identity"])
    x = [[0.0], [0.25], [0.5], [0.75]]
    tally = nf.run(net, x, Exhaustive(net, Crash(), (1,)), backend, "float64", epsilon=0.9)
    # Crash 0: three of four inputs change; crash 1: F = (1, 0): none. Errors 1 and 0.75.
    assert (tally.sdc, tally.due, tally.exceeded, tally.evaluations) == (3, 0, 1, 8)
    assert tally.worst is not None
    assert (tally.worst.index, tally.worst.error, tally.worst.input) == (0, 1.0, 0)
