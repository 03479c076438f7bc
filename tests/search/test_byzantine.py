"""Byzantine values: the certified interval contains everything tried, and closes to the stated gap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import neurofail as nf
from neurofail._reference import deviations
from neurofail.sites import Action, Operation

from .enumeration import faulty, random_network, sets

ACTIONS = {"value": "set", "nominal": "shift", "own": "add"}


def tried(rng: np.random.Generator, net: nf.Network, inputs: np.ndarray, rows, fault: nf.Byzantine) -> float:
    """The largest error over every set with a common extreme, and with common random values."""
    low, high = fault.ends
    best = 0.0
    for value in (low, high, *rng.uniform(low, high, 12)):
        outputs = faulty(net, inputs, rows, value, ACTIONS[fault.semantics])
        best = max(best, float(np.abs(outputs - net(inputs)).max()))
    return best


def check(seed: int) -> None:
    rng = np.random.default_rng(seed)
    semantics = ("value", "nominal", "own")[rng.integers(3)]
    capacity = float(rng.uniform(0.2, 1.5))
    if semantics == "value" and rng.random() < 0.3:
        capacity = (0.0, capacity)
    fault = nf.Byzantine(capacity, semantics)
    net = random_network(rng, int(rng.integers(1, 4)), width=4, scale=1.0)
    inputs = rng.uniform(-1, 1, (2, net.widths[0]))
    failures = [0] * net.depth
    for _ in range(2):
        layer = rng.integers(net.depth)
        failures[layer] = min(failures[layer] + 1, net.widths[layer + 1])
    answer = nf.worst_case(net, inputs, fault, failures, threads=1, gap=1e-3)
    about = f"seed {seed}: {net}, {fault}, {failures}"
    rows = sets(net, failures)
    assert tried(rng, net, inputs, rows, fault) <= answer.upper, about
    assert answer.error <= answer.upper <= answer.error * (1 + 1e-3) + answer.rounding, about
    low, high = fault.ends
    assert all(low <= v <= high for v in answer.values), about
    signs = list(itertools.product((low, high), repeat=sum(failures)))
    action = {"value": Action.SET, "nominal": Action.SHIFT, "own": Action.ADD}[semantics]
    for row in rows:
        places = [(layer + 1, j) for layer, s in enumerate(row) for j in s]
        for values in signs:
            each = zip(places, values, strict=True)
            operations = [Operation(action, layer, j, -1, 0.0, v) for (layer, j), v in each]
            assert np.abs(deviations(net, inputs, operations)).max() <= answer.upper, about


@pytest.mark.parametrize("block", range(3))
def test_everything_tried_is_below_the_certified_limit(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_everything_tried_is_below_the_certified_limit_at_length(block: int) -> None:
    for seed in range(1000 + 200 * block, 1000 + 200 * (block + 1)):
        check(seed)


def test_saturated_neuron_deviates_by_capacity_plus_its_output() -> None:
    # bounds.md, section 7, trap 1: y = 1, v = -C deviates by C + 1, times the output weight 2.
    net = nf.Network.dense([[[0.0]], [[2.0]]], [[1.0], None], ["relu", "identity"])
    answer = nf.worst_case(net, [[0.5]], nf.Byzantine(3.0), (1,))
    assert (answer.error, answer.values) == (8.0, (-3.0,))
    assert answer.exact


def test_a_value_inside_the_range_can_be_worst() -> None:
    # gelu falls to its only minimum and rises again, so neither end of the range is worst.
    gelu = nf.Network.dense([[[0.0]], [[1.0]], [[1.0]]], None, ["identity", "gelu", "identity"])
    answer = nf.worst_case(gelu, [[0.5]], nf.Byzantine((-2.0, 0.1)), (1, 0))
    # gelu's minimum is -0.16997120747990366 at -0.75179 (see activations); golden output 0.
    assert answer.error == pytest.approx(0.16997120747990366, rel=1e-5)
    assert answer.upper >= 0.16997120747990366
    assert answer.values[0] == pytest.approx(-0.7517915, abs=1e-2)
