"""Every bound against exact rational arithmetic: never below, and above by rounding only."""

from __future__ import annotations

from fractions import Fraction as Q
from itertools import pairwise, product

import numpy as np
import pytest

from neurofail.bounds import bounds, fep, tolerance
from neurofail.bounds.frontier import By
from neurofail.faults import Byzantine, Crash
from neurofail.network import Network

from .rational import SHAPES, Exact


def network(seed: int) -> tuple[Network, tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 4))
    widths = rng.integers(1, 5, size=depth + 2)
    net = Network.dense(
        [rng.normal(size=(b, a)) for a, b in pairwise(widths)],
        [rng.normal(size=b) for b in widths[1:]],
        [str(rng.choice(list(SHAPES))) for _ in range(depth)] + ["identity"],
        (-1.0, 1.0),
    )
    return net, tuple(int(rng.integers(0, n + 1)) for n in widths[1:-1])


CASES = [(Crash(), Q(0), Q(0)), (Byzantine((-0.25, 1.5)), Q(-1, 4), Q(3, 2))]


@pytest.mark.parametrize("seed", range(40))
def test_bounds_are_the_exact_ones_rounded_up(seed: int) -> None:
    net, failures = network(seed)
    for fault, low, high in CASES:
        exact = Exact(net, low, high)
        true = {
            "fep": exact.fep(failures),
            "fep_capped": exact.fep(failures, capped=True),
            "influence": exact.one(failures),
            "rowwise": max(exact.rows(failures)[-1]),
            "hybrid": exact.three(failures),
        }
        found = bounds(net, fault, failures)
        for name, value in true.items():
            assert Q(found[name]) >= value, name
            assert found[name] <= float(value) * (1 + 1e-11) + 1e-250, name
        at_most = bounds(net, fault, failures, at_most=True)
        # T1 is the maximum of T0 over every smaller count; the exact T1 formula says the same.
        assert exact.fep(failures, at_most=True) == max(exact.fep(f) for f in exact.smaller(failures))
        assert Q(at_most["fep"]) >= exact.fep(failures, at_most=True)
        assert at_most["fep"] == pytest.approx(float(exact.fep(failures, at_most=True)), rel=1e-11)
        # The order of section 4, in exact arithmetic.
        assert true["hybrid"] <= min(true["influence"], true["rowwise"])
        assert true["rowwise"] <= exact.fep(failures, at_most=True, capped=True)
        assert found["hybrid"] <= min(found["influence"], found["rowwise"])


@pytest.mark.parametrize("seed", range(40, 60))
def test_any_n_anywhere_is_the_maximum_over_all_distributions(seed: int) -> None:
    net, _ = network(seed)
    fault, low, high = CASES[seed % 2]
    exact = Exact(net, low, high)
    for total in range(min(4, sum(net.widths[1:-1])) + 1):
        spread = [f for f in product(*(range(n + 1) for n in net.widths[1:-1])) if sum(f) == total]
        upto = [f for f in product(*(range(n + 1) for n in net.widths[1:-1])) if sum(f) <= total]
        for at_most, among in ((False, spread), (True, upto)):
            found = bounds(net, fault, total=total, at_most=at_most)
            for name, capped in (("fep", False), ("fep_capped", True)):
                true = max(exact.fep(f, capped=capped) for f in among)
                assert Q(found[name]) >= true
                assert found[name] <= float(true) * (1 + 1e-11)
            assert fep(net, fault, total=total, at_most=at_most) == found["fep"]
            # The pooled I1 is the maximum over distributions for each output, hence its maximum.
            one = max(exact.one(f) for f in spread)
            assert Q(found["influence"]) >= one
            assert found["influence"] <= float(one) * (1 + 1e-11)
            # I2 and I3 take the largest deviation neuron by neuron: above the maximum, below T1's.
            assert Q(found["rowwise"]) >= max(max(exact.rows(f)[-1]) for f in spread)
            assert Q(found["hybrid"]) >= max(exact.three(f) for f in spread)
            cap = max(exact.fep(f, capped=True) for f in upto)
            assert found["hybrid"] <= found["rowwise"] <= float(cap) * (1 + 1e-11)


@pytest.mark.parametrize("seed", range(60, 80))
def test_the_frontier_is_that_of_the_exact_region(seed: int) -> None:
    net, failures = network(seed)
    fault, low, high = CASES[seed % 2]
    exact = Exact(net, low, high)
    everything = list(product(*(range(n + 1) for n in net.widths[1:-1])))
    values: dict[By, dict[tuple[int, ...], Q]] = {
        "fep": {f: exact.fep(f, at_most=True) for f in everything},
        "fep_capped": {f: exact.fep(f, at_most=True, capped=True) for f in everything},
        "influence": {f: exact.one(f) for f in everything},
    }
    for by, value in values.items():
        # Just above a value that is taken, so that no rounding decides.
        budget = float(value[failures]) * (1 + 1e-9)
        inside = {f for f in everything if value[f] <= Q(budget)}
        maximal = {f for f in inside if not any(_more(f, i) in inside for i in range(len(f)))}
        assert list(tolerance(net, fault, budget, by=by)) == sorted(maximal, reverse=True)


def _more(f: tuple[int, ...], i: int) -> tuple[int, ...]:
    return (*f[:i], f[i] + 1, *f[i + 1 :])
