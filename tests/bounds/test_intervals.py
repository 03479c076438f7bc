"""Enclosures of the nominal signals hold the signals, and little else."""

from __future__ import annotations

import mpmath as mp  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pytest

from neurofail.activations import NAMES, Activation
from neurofail.bounds.intervals import domain, pointwise
from neurofail.bounds.terms import steepness
from neurofail.network import Network

from .bruteforce import random_network


@pytest.mark.parametrize("seed", range(50))
def test_the_domain_holds_every_point_and_points_are_tiny(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng)
    inputs = rng.uniform(-1, 1, size=(200, net.widths[0]))
    whole, points = domain(net), pointwise(net, inputs)
    y = inputs
    for layer in range(1, net.depth + 1):
        y = net.activations[layer - 1](y @ net.weights[layer - 1].T + net.biases[layer - 1])
        assert np.all(whole.low[layer] <= y)
        assert np.all(y <= whole.high[layer])
        assert np.all(points.low[layer] <= y)
        assert np.all(y <= points.high[layer])
        size = 1 + np.abs(y).max()
        assert np.all(points.high[layer] - points.low[layer] <= 1e-10 * size)


def test_one_layer_is_as_tight_as_intervals_get() -> None:
    net = Network.dense([[[2.0, -1.0]], [[1.0]]], [[0.25], None], ["identity", "identity"], (-1.0, 3.0))
    found = domain(net)
    assert found.low[1][0, 0] == pytest.approx(0.25 - 2 - 3, rel=1e-14)
    assert found.high[1][0, 0] == pytest.approx(0.25 + 6 + 1, rel=1e-14)
    assert found.low[1][0, 0] < -4.75
    assert found.high[1][0, 0] > 7.25


@pytest.mark.parametrize("point", [-30.1, -7.3, -1.7, 0.3, 5.9])
def test_points_hold_the_exact_value_in_the_tails(point: float) -> None:
    """A steep tail amplifies the rounding of the argument; 50 digits decide."""
    exact = {
        "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
        "gelu": lambda x: x * mp.ncdf(x),
        "silu": lambda x: x / (1 + mp.exp(-x)),
        "softplus": lambda x: mp.log1p(mp.exp(x)),
        "tanh": mp.tanh,
    }
    for name, phi in exact.items():
        for factor in (None, 0.7, 1 / 3):
            activation = Activation(name, lipschitz=factor)
            net = Network.dense([[[1.0]], [[1.0]]], None, [activation, "identity"], (-50.0, 50.0))
            found = pointwise(net, np.array([[point]]))
            with mp.workdps(50):
                true = phi(mp.mpf(activation.gain) * mp.mpf(point))
                assert mp.mpf(float(found.low[1][0, 0])) <= true <= mp.mpf(float(found.high[1][0, 0]))


def test_overflow_is_an_infinite_interval() -> None:
    net = Network.dense([[[1e308, 1e308]], [[1.0]]], None, ["relu", "identity"], (0.0, 1e10))
    assert domain(net).high[1][0, 0] == np.inf


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [None, 0.3, 1.0, 7.0])
def test_the_steepness_covers_every_slope(name: str, factor: float | None) -> None:
    phi = Activation(name, lipschitz=factor)
    x = np.linspace(-12, 12, 4001)
    y = phi(x)
    slopes = np.abs(np.diff(y)) / np.diff(x)
    rounding = 1e-15 * np.maximum(1.0, np.abs(y[1:])) / np.diff(x)
    assert np.all(slopes - rounding <= steepness(phi))
    assert slopes.max() >= 0.95 * steepness(phi)
    assert phi.lipschitz <= steepness(phi) <= phi.lipschitz * (1 + 1e-15)
