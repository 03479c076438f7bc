"""The rounding budget against simulations in both formats and a reference of 50 digits."""

from __future__ import annotations

from itertools import pairwise

import mpmath as mp  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pytest

from neurofail._reference import deviations
from neurofail.bounds import rounding_budget
from neurofail.budget import Budget
from neurofail.errors import InputError
from neurofail.faults import Byzantine, Crash, Fault, SynapseByzantine
from neurofail.kernel import run
from neurofail.network import Network
from neurofail.plans import Sampled

from .bruteforce import every_fault, random_network

# The functions as mpmath has them: an independent statement of what the float64 code should compute.
EXACT = {
    "relu": lambda x: max(x, mp.mpf(0)),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "tanh": mp.tanh,
    "gelu": lambda x: x * mp.ncdf(x),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
}


def network(rng: np.random.Generator, name: str, widths: tuple[int, ...], scale: float) -> Network:
    weights = [rng.normal(size=(b, a)) * scale for a, b in pairwise(widths)]
    biases = [rng.normal(size=b) for b in widths[1:]]
    return Network.dense(weights, biases, [name] * (len(widths) - 2) + ["identity"], (-1.0, 1.0))


def exact_error(net: Network, x: np.ndarray, values: dict[tuple[int, int], float]) -> mp.mpf:
    """max over outputs of |F_faulty - F| to 50 digits; values[layer, neuron] is transmitted instead."""
    with mp.workdps(50):
        outputs = []
        for failed in ({}, values):
            y = [mp.mpf(float(v)) for v in x]
            for layer, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True), start=1):
                s = [
                    mp.fsum(mp.mpf(float(w)) * v for w, v in zip(row, y, strict=True)) + mp.mpf(float(b))
                    for row, b in zip(weight, bias, strict=True)
                ]
                y = s if layer > net.depth else [EXACT[net.activations[layer - 1].name](v) for v in s]
                y = [mp.mpf(failed.get((layer, j), v)) for j, v in enumerate(y)]
            outputs.append(y)
        return max(abs(a - b) for a, b in zip(*outputs, strict=True))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("value", [0.0, 100.0])
def test_the_reference_is_within_the_float64_budget(name: str, value: float) -> None:
    rng = np.random.default_rng(len(name))
    for trial in range(4):
        net = network(rng, name, (3, 4, 5, 2), 2.0**trial)
        x = rng.uniform(-1, 1, size=(1, 3))
        fault: Fault = Byzantine((value, value)) if value else Crash()
        budget = Budget.of(net, fault, (1, 1))
        operations = [*fault.operations(net, 1).row(0), *fault.operations(net, 2).row(0)]
        computed = float(np.max(np.abs(deviations(net, x, operations))))
        off = abs(mp.mpf(computed) - exact_error(net, x[0], {(1, 0): value, (2, 0): value}))
        allowed = rounding_budget(net, "float64", budget, x)
        assert off <= allowed
        assert allowed <= 1e-10 * max(1.0, computed)


def single(net: Network, x: np.ndarray, values: dict[tuple[int, int], float], update: bool) -> np.ndarray:
    """The error in float32: densely, or by updating the first affected layer's golden sums."""
    cast = np.float32
    weights, biases = [w.astype(cast) for w in net.weights], [b.astype(cast) for b in net.biases]
    golden = [x.astype(cast)]
    sums = []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        sums.append(golden[-1] @ weight.T + bias)
        golden.append(net.activations[layer - 1](sums[-1]).astype(cast))
    first = min(layer for layer, _ in values)
    y = golden[0]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        s = y @ weight.T + bias
        if update and layer == first + 1:
            s = sums[layer - 1].copy()
            for j in (j for at, j in values if at == first):
                s += weight[:, j] * (y[:, j : j + 1] - golden[first][:, j : j + 1])
        y = net.activations[layer - 1](s).astype(cast)
        for (at, j), value in values.items():
            if at == layer:
                y[:, j] = cast(value)
    return np.asarray(np.abs(y - golden[-1]).max(axis=1))


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "silu", "elu", "hard_sigmoid"])
@pytest.mark.parametrize("update", [False, True])
def test_float32_is_within_its_budget(name: str, update: bool) -> None:
    rng = np.random.default_rng(len(name))
    for trial in range(6):
        net = network(rng, name, (5, 30, 20, 3), 2.0 ** (trial - 3))
        x = rng.uniform(-1, 1, size=(20, 5))
        value = float(rng.choice([0.0, 0.1, -50.0]))
        fault = Byzantine((value, value))
        failures = (2, 1)
        values = {(1, 3): value, (1, 7): value, (2, 0): value}
        operations = [op for layer, j in values for op in fault.operations(net, layer).row(2 * j)]
        reference = np.abs(deviations(net, x, operations)).max(axis=1)
        off = np.abs(single(net, x, values, update) - reference).max()
        budget = Budget.of(net, fault, failures)
        allowed = rounding_budget(net, "float32", budget, x) + rounding_budget(net, "float64", budget, x)
        assert off <= allowed
        assert allowed <= rounding_budget(net, "float32", budget) * 1.01  # the domain covers the inputs
        assert off >= allowed * 1e-5  # and it is not out of all proportion


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_the_kernel_measures_is_within_the_budget(dtype: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(15):
        net = random_network(rng)
        inputs = rng.uniform(-1, 1, size=(9, net.widths[0]))
        for fault in every_fault(rng):
            failures = [min(1, fault.places(net, layer)) for layer in fault.layers(net)]
            plan = Sampled(net, fault, failures=failures, count=50, seed=1)
            worst = run(net, inputs, plan, dtype=dtype).worst
            assert worst is not None
            allowed = sum(rounding_budget(net, t, plan.budget, inputs) for t in (dtype, "float64"))
            assert abs(worst.measured - worst.error) <= allowed


def test_anywhere_and_mixtures_are_covered() -> None:
    net = network(np.random.default_rng(0), "sigmoid", (5, 6, 4, 2), 1.0)
    two = rounding_budget(net, "float32", Budget.of(net, Crash(), (1, 1)))
    assert rounding_budget(net, "float32", Budget.of(net, Crash(), total=2)) >= two
    mixed = Budget.of(net, [Crash(), SynapseByzantine(3.0)], [(1, 1), (1, 0, 1)])
    assert rounding_budget(net, "float32", mixed) >= two


def test_what_cannot_be_answered_is_refused() -> None:
    net = network(np.random.default_rng(0), "relu", (2, 2, 1), 1.0)
    budget = Budget.of(net, Crash(), (1,))
    with pytest.raises(InputError, match="float32"):
        rounding_budget(net, "float16", budget)
