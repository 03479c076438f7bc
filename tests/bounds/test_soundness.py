"""No observed error above any bound offered: random small networks, every semantics, no slack.

The observed error is a float64 number, so what it may be off, `rounding_budget`, is subtracted from it;
nothing else is. The long version has 5,000 networks, three of the faults on each in turn, and 2,000 mixtures:

    python -m pytest tests/bounds/test_soundness.py -m slow
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, product

import numpy as np
import pytest

from neurofail.bounds import bounds, expected_error, given_set, rounding_budget
from neurofail.budget import Budget
from neurofail.faults import Fault
from neurofail.network import Network

from .bruteforce import Configuration, configurations, errors, every_fault, random_network

CONSIDERED = 5000  # configurations that are listed at most, before some are drawn from them


def drawn(
    net: Network, fault: Fault, failures: Sequence[int], most: int, rng: np.random.Generator
) -> list[Configuration]:
    """All configurations, or `most` of them at random."""
    found = list(islice(configurations(net, fault, failures), CONSIDERED))
    if len(found) > most:
        found = [found[i] for i in rng.choice(len(found), most, replace=False)]
    return found


def random_failures(net: Network, fault: Fault, rng: np.random.Generator) -> tuple[int, ...]:
    """Up to two failures a layer, now and then all of it."""
    most = [fault.places(net, layer) for layer in fault.layers(net)]
    return tuple(n if n < 5 and rng.uniform() < 0.1 else int(rng.integers(0, min(n, 2) + 1)) for n in most)


def random_inputs(net: Network, rng: np.random.Generator) -> np.ndarray:
    corners = np.array([[1.0], [-1.0]]) * np.ones(net.widths[0])
    return np.concatenate([corners, rng.uniform(-1, 1, size=(2, net.widths[0]))])


def check_one_fault(net: Network, fault: Fault, most: int, rng: np.random.Generator) -> None:
    failures, inputs = random_failures(net, fault, rng), random_inputs(net, rng)
    cases = drawn(net, fault, failures, most, rng)
    observed = errors(net, inputs, [fault], [(case,) for case in cases], rng)
    budget = Budget.of(net, fault, failures)
    slack = rounding_budget(net, "float64", budget, inputs)
    worst = observed.max() - slack
    for given in (inputs, None):
        for at_most in (False, True):
            found = bounds(net, fault, failures, inputs=given, at_most=at_most)
            low = {name: value for name, value in found.items() if value < worst}
            assert not low, (net.describe(), fault, failures, worst, low)
        # Every smaller count is covered by "at most", and its own distribution by "anywhere".
        found = bounds(net, fault, total=sum(failures), inputs=given)
        assert min(found.values()) >= worst, (net.describe(), fault, failures)
    fewer = tuple(int(rng.integers(0, f + 1)) for f in failures)
    less = errors(net, inputs, [fault], [(c,) for c in drawn(net, fault, fewer, most // 4, rng)], rng)
    assert min(bounds(net, fault, failures, inputs=inputs, at_most=True).values()) >= less.max() - slack
    exactly = bounds(net, fault, failures, inputs=inputs)
    tightest = min(exactly["influence"], exactly.get("rowwise", np.inf))
    for case, error in list(zip(cases, observed, strict=True))[:3]:
        places = [[place for place, _ in layer] for layer in case]
        value = given_set(net, fault, places, inputs=inputs)
        assert error.max() - slack <= value
        assert value <= tightest * (1 + 1e-11) + 1e-250
    if fault.place == "neuron":
        expected = expected_error(net, fault, failures, inputs=inputs)
        assert expected <= exactly["fep"] * (1 + 1e-11) + 1e-250


@pytest.mark.parametrize("seed", range(100))
def test_one_fault(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng)
    for fault in rng.permutation(np.array(every_fault(rng), dtype=object))[:4]:
        check_one_fault(net, fault, 60, rng)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(50))
def test_one_fault_at_length(block: int) -> None:
    for seed in range(100):
        rng = np.random.default_rng([block, seed])
        net = random_network(rng)
        faults = every_fault(rng)
        for i in range(3):
            check_one_fault(net, faults[(3 * seed + i) % len(faults)], 100, rng)


def check_mixture(seed: int, most: int) -> None:
    rng = np.random.default_rng([7, seed])
    net, inputs = random_network(rng), None
    faults = [every_fault(rng)[i] for i in rng.integers(0, 14, size=2)]
    failures = [tuple(min(f, 1) for f in random_failures(net, fault, rng)) for fault in faults]
    neurons = [f for fault, f in zip(faults, failures, strict=True) if fault.place == "neuron"]
    if len(neurons) == 2 and any(a + b > n for a, b, n in zip(*neurons, net.widths[1:], strict=False)):
        return
    inputs = random_inputs(net, rng)
    pairs = product(*(drawn(net, fault, f, 30, rng) for fault, f in zip(faults, failures, strict=True)))
    alike = faults[0].place == faults[1].place
    cases = [pair for pair in pairs if not (alike and _overlap(*pair))]
    if not cases:
        return
    cases = [cases[i] for i in rng.permutation(len(cases))[:most]]
    observed = errors(net, inputs, faults, cases, rng)
    worst = observed.max() - rounding_budget(net, "float64", Budget.of(net, faults, failures), inputs)
    totals = [sum(f) for f in failures]
    for found in (
        bounds(net, faults, failures, inputs=inputs),
        bounds(net, faults, failures, at_most=True),
        bounds(net, faults, total=totals, inputs=inputs),
    ):
        low = {name: value for name, value in found.items() if value < worst}
        assert not low, (net.describe(), faults, failures, worst, low)


def _overlap(a: Configuration, b: Configuration) -> bool:
    return any({p for p, _ in x} & {p for p, _ in y} for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("block", range(10))
def test_mixtures(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        check_mixture(seed, 60)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10, 30))
def test_mixtures_at_length(block: int) -> None:
    for seed in range(100 * block, 100 * block + 100):
        check_mixture(seed, 300)


@pytest.mark.parametrize("seed", range(30))
def test_margins(seed: int) -> None:
    rng = np.random.default_rng([9, seed])
    net = random_network(rng)
    while net.widths[-1] < 2:
        net = random_network(rng)
    inputs = random_inputs(net, rng)
    for fault in rng.permutation(np.array(every_fault(rng), dtype=object))[:4]:
        failures = random_failures(net, fault, rng)
        cases = drawn(net, fault, failures, 60, rng)
        rows = np.zeros((1, net.widths[-1]))
        rows[0, 0], rows[0, 1] = 1.0, -1.0
        observed = errors(net, inputs, [fault], [(c,) for c in cases], rng, rows)
        # A margin is the difference of two outputs, each off by the budget.
        slack = 2 * rounding_budget(net, "float64", Budget.of(net, fault, failures), inputs)
        for given in (inputs, None):
            pair = bounds(net, fault, failures, inputs=given, margin=(0, 1))
            assert min(pair.values()) >= observed.max() - slack, (net.describe(), fault, failures)
            every = bounds(net, fault, failures, inputs=given, margin=0)
            assert every["best"] >= pair["best"] * (1 - 1e-11)
