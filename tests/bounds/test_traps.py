"""The traps of bounds.md, section 7, each with its numbers."""

from __future__ import annotations

from fractions import Fraction as Q

import numpy as np
import pytest

from neurofail._reference import deviations
from neurofail.bounds import bounds, fep, tolerance
from neurofail.bounds.intervals import domain
from neurofail.bounds.refined import rowwise
from neurofail.bounds.terms import Terms
from neurofail.errors import UnsoundError
from neurofail.faults import Byzantine, Crash, Fault, SynapseByzantine
from neurofail.network import Network
from neurofail.sites import Operation


def error(net: Network, x: float, fault: Fault, rows: list[tuple[int, int]]) -> float:
    """The error of the failures (layer, row) on the input (x, .., x)."""
    operations: list[Operation] = []
    for layer, row in rows:
        operations.extend(fault.operations(net, layer).row(row))
    return float(np.max(np.abs(deviations(net, np.full((1, net.widths[0]), x), operations))))


def test_1_a_value_in_minus_c_to_c_deviates_by_c_plus_the_signal() -> None:
    net = Network.dense([[[1.0]], [[1.0]]], None, ["clip", "identity"], (0.0, 1.0))
    fault = Byzantine(1.0)
    seen = error(net, 1.0, fault, [(1, 0)])  # v = -1 against y = 1
    assert seen == 2.0
    assert seen > 1.0 * fault.ends[1]  # the unsound D = C
    assert seen <= fep(net, fault, (1,)) < 2.0 + 1e-12


def test_2_the_blocking_form_is_unsound_for_own_faulty_computation() -> None:
    # N = (1, 36), all weights 1, everything linear. Layer 2 fails whole: N - f = 0 would forget layer 1.
    net = Network.dense(
        [[[1.0]], [[1.0]] * 36, [[1.0] * 36]], None, ["identity", "identity", "identity"], (0.0, 1.0)
    )
    strong, weak = Byzantine(36.0, "own"), Byzantine(1.0, "own")
    upstream = list(strong.operations(net, 1).row(1))
    here = [op for place in range(36) for op in weak.operations(net, 2).row(2 * place + 1)]
    seen = float(deviations(net, np.ones((1, 1)), [*upstream, *here])[0, 0])
    blocking = 36 * 1.0 + (36 - 36) * 36.0
    assert seen == 37 * blocking  # 36 * 36 + 36
    found = bounds(net, [strong, weak], [(1, 0), (0, 36)])
    assert found["fep"] >= seen
    assert found["fep"] == pytest.approx(seen, rel=1e-12)
    for name in ("rowwise", "hybrid"):
        assert name not in found
        with pytest.raises(UnsoundError, match="upstream"):
            found[name]
    with pytest.raises(UnsoundError, match="row-wise"):
        rowwise(Terms(net, (strong,), domain(net)), [(1, 0)])
    with pytest.raises(UnsoundError, match="row-wise"):
        tolerance(net, strong, 1.0, by="hybrid")


def test_3_the_blocking_form_is_unsound_for_synapses() -> None:
    net = Network.dense(
        [[[1.0], [1.0]], [[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0]]], None, ["identity"] * 3, (0.0, 1.0)
    )
    fault = SynapseByzantine(1.0, "additive")
    # x -> n1 of layer 1 is place 0; n2 -> n1 into layer 2 is place 1; variant 1 is +1.
    seen = error(net, 0.5, fault, [(1, 1), (2, 3)])
    assert seen == 3.0
    assert seen > 2.0  # what (N - f) says: 1 + (2 - 1) * 1
    found = bounds(net, fault, (1, 1, 0))
    assert found["fep"] == pytest.approx(3.0, rel=1e-12)
    assert found["fep"] >= 3.0
    assert found["influence"] >= 3.0
    assert set(found.refused) == {"rowwise", "hybrid"}


def test_4_plain_t0_is_not_monotone() -> None:
    net = Network.dense([[[1.0]] * 3, [[2.0] * 3] * 3, [[1.0] * 3]], None, ["relu", "relu", "identity"])
    fault = Byzantine(1.0, "nominal")
    exactly = {f: fep(net, fault, f) for f in ((1, 0), (1, 3))}
    assert exactly[1, 0] == pytest.approx(6.0, rel=1e-12)
    assert exactly[1, 3] == pytest.approx(3.0, rel=1e-12)
    seen = error(net, 1.0, fault, [(1, 1)])
    assert seen == 6.0
    assert fep(net, fault, (1, 3), at_most=True) >= seen
    # tolerated counts use T1: (1, 3) may not be promised for a budget that (1, 0) breaks
    assert not tolerance(net, fault, 5.0).tolerates((1, 3))


def test_5_unbounded_transmission_in_an_early_layer_is_capped_by_the_range() -> None:
    net = Network.dense(
        [[[1.0]] * 2, [[0.5] * 2] * 3, [[1.0] * 3]], None, ["sigmoid", "sigmoid", "identity"], (0.0, 1.0)
    )
    fault = Byzantine(1e9)
    assert fep(net, fault, (1, 0)) > 1e8
    capped = bounds(net, fault, (1, 0))["fep_capped"]
    assert error(net, 1.0, fault, [(1, 0)]) <= capped <= 3.0
    assert tolerance(net, fault, 3.0, by="fep_capped").alone[0] >= 1
    assert tolerance(net, fault, 3.0, by="fep_capped").alone[1] == 0  # the last layer passes no range


def test_6_not_promised_does_not_mean_exceeded() -> None:
    """The weights cancel: no crash of two neurons moves the output, and still T1 promises none."""
    net = Network.dense(
        [[[1.0]] * 2, [[1.0, -1.0]], [[1.0]]], None, ["identity", "identity", "identity"], (1.0, 1.0)
    )
    assert fep(net, Crash(), (2, 0)) == pytest.approx(2.0, rel=1e-12)
    assert not tolerance(net, Crash(), 0.5).tolerates((2, 0))
    assert error(net, 1.0, Crash(), [(1, 0), (1, 1)]) == 0.0


def test_7_plain_floating_point_would_fall_below_the_exact_bound() -> None:
    # Fep = w (y_1 + ..): w = 1/3, S = 0.1 as float64 numbers, f = 3: plain arithmetic rounds below.
    w, s = 1 / 3, 0.1
    net = Network.dense([[[s]] * 3, [[w] * 3]], None, ["identity", "identity"], (1.0, 1.0))
    exact = 3 * Q(s) * Q(w)
    assert Q(w * (3 * s)) != exact
    found = bounds(net, Crash(), (3,))
    for name, value in found.items():
        assert Q(value) >= exact, name
        assert value == pytest.approx(float(exact), rel=1e-12)
