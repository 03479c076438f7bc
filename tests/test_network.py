"""Networks: what is accepted, what each refusal says, and the golden run by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from networks import random_network

from neurofail.activations import Activation
from neurofail.errors import InputError
from neurofail.network import Network, magnitude, whole

W = [[[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]], [[1.0, -1.0, 2.0]]]
B = [[0.5, -1.0, 0.0], [0.25]]
PHI = ["relu", "identity"]


def test_the_golden_run_by_hand() -> None:
    # x = (1, 0.25): s = (1 - 0.5 + 0.5, 0.5 - 1, 3 + 0.25) = (1, -0.5, 3.25); y = (1, 0, 3.25);
    # F = 1 - 0 + 6.5 + 0.25 = 7.75.
    assert Network.dense(W, B, PHI)([[1.0, 0.25]]).tolist() == [[7.75]]


def test_widths_and_depth_count_as_the_paper_does() -> None:
    net = random_network((5, 4, 3, 2))
    assert (net.widths, net.depth, len(net.weights)) == ((5, 4, 3, 2), 2, 3)


def test_missing_biases_are_zeros() -> None:
    zeros = [[0.0, 0.0, 0.0], [0.0]]
    assert Network.dense(W, None, PHI) == Network.dense(W, [None, None], PHI) == Network.dense(W, zeros, PHI)


def test_a_network_is_a_private_read_only_copy() -> None:
    mine = np.ones((2, 2))
    net = Network.dense([mine, mine], None, PHI)
    mine[0, 0] = 99.0
    assert net.weights[0][0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        net.weights[0][0, 0] = 1.0


def test_equality_is_equality_of_every_number() -> None:
    net = Network.dense(W, B, PHI)
    assert net == Network.dense([np.array(W[0], order="F"), W[1]], B, PHI)
    assert hash(net) == hash(Network.dense(W, B, PHI))
    nudged = [W[0], [[1.0, -1.0, math.nextafter(2.0, 3.0)]]]
    for other in (
        Network.dense(nudged, B, PHI),
        Network.dense(W, [B[0], [0.5]], PHI),
        Network.dense(W, B, ["sigmoid", "identity"]),
        Network.dense(W, B, [Activation("relu", lipschitz=2.0), "identity"]),
        Network.dense(W, B, PHI, (0.0, 2.0)),
    ):
        assert net != other


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([W[0]], None, ["relu"]), "a network needs a hidden and an output layer"),
        ((W, B, ["relu"]), "one of each a layer"),
        ((W, [B[0]], PHI), "one of each a layer"),
        ((W, B, "relu"), "activations must be a list"),
        ((W, B, ["relu", "relu"]), "the output layer must be 'identity'"),
        ((W, B, ["rely", "identity"]), "activation 'rely' is unknown; known are identity, relu"),
        ((W, B, [3, "identity"]), "must be a name or an Activation"),
        (([W[0], [[1.0, 2.0]]], B, PHI), r"weights\[1\] has shape \(1, 2\) but layer 1 has 3 neurons"),
        (([[1.0, 2.0], W[1]], B, PHI), r"weights\[0\] has shape \(2,\); it must have 2 dimension"),
        (([np.zeros((0, 2)), W[1]], B, PHI), "no layer may be empty"),
        ((W, [[1.0], B[1]], PHI), r"biases\[0\] has 1 entries; weights\[0\] needs 3"),
        ((W, [[[1.0]], B[1]], PHI), r"biases\[0\] has shape"),
        (([[[1.0, math.nan]], [[1.0]]], None, PHI), r"weights\[0\] holds nan at \(0, 1\)"),
        (([[[1.0]], [[-math.inf]]], None, PHI), r"weights\[1\] holds -inf at \(0, 0\)"),
        (([[[1.0]], [[1.0]]], [[math.nan], None], PHI), r"biases\[0\] holds nan"),
        (([[["a"]], [[1.0]]], None, PHI), r"weights\[0\] must be an array of real numbers"),
        (([[[1j]], [[1.0]]], None, PHI), r"weights\[0\] must be an array of real numbers"),
        (([[[1.0], [1.0, 2.0]], [[1.0]]], None, PHI), r"weights\[0\] must be an array of real numbers"),
        (([[[10**400]], [[1.0]]], None, PHI), r"weights\[0\] must be an array of real numbers"),
        ((5, None, PHI), "weights must be a list"),
        ((W, 5, PHI), "biases must be a list"),
        ((W, B, PHI, 3.0), "input_range is 3.0; it must be"),
        ((W, B, PHI, (1.0, 0.0)), "low 1.0 exceeds high 0.0 at input 0"),
        ((W, B, PHI, ([0.0, 2.0], 1.0)), "low 2.0 exceeds high 1.0 at input 1"),
        ((W, B, PHI, (0.0, math.inf)), "input_range high holds inf"),
        ((W, B, PHI, (math.nan, 1.0)), "input_range low holds nan"),
        ((W, B, PHI, ([0.0] * 3, 1.0)), "low must be a number or 2 numbers"),
        ((W, B, PHI, ("a", "b")), "low must be a number or 2 numbers"),
    ],
    ids=str,
)
def test_refusals_say_what_is_wrong_in_one_line(arguments: tuple[object, ...], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Network.dense(*arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([0.0, 0.0], r"inputs has shape \(2,\)"),
        ([[0.0]], r"inputs have shape \(1, 1\); this network needs \(n, 2\)"),
        (np.zeros((0, 2)), "inputs are empty"),
        ([[0.0, 0.0], [0.5, 1.5]], r"inputs\[1, 1\] is 1.5, outside the network's input_range \[0.0, 1.0\]"),
        ([[0.0, -1e-300]], r"inputs\[0, 1\] is -1e-300, outside"),
        ([[0.0, math.nan]], r"inputs holds nan at \(0, 1\)"),
        ([["x", "y"]], "inputs must be an array of real numbers"),
        (np.array([[object(), 1]]), "inputs must be an array of real numbers"),
    ],
    ids=str,
)
def test_inputs_outside_the_domain_are_refused(inputs: object, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Network.dense(W, B, PHI).check_inputs(inputs)  # type: ignore[arg-type]  # wrong on purpose
    assert "\n" not in str(caught.value)


def test_each_input_has_its_own_range() -> None:
    net = Network.dense(W, B, PHI, ([0.0, -2.0], [1.0, -1.0]))
    assert net.check_inputs([[1.0, -2.0]]).tolist() == [[1.0, -2.0]]
    with pytest.raises(InputError, match=r"inputs\[0, 1\]"):
        net.check_inputs([[1.0, 0.0]])


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None, np.float64(1)])
def test_whole_refuses(value: object) -> None:
    with pytest.raises(InputError, match="count is"):
        whole(value, "count")


def test_whole_takes_numpy_and_big_integers() -> None:
    assert (whole(np.int32(3), "n"), whole(10**30, "n")) == (3, 10**30)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, True, "1", None])
def test_magnitude_refuses(value: object) -> None:
    with pytest.raises(InputError, match="size is"):
        magnitude(value, "size")
