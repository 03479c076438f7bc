"""What `bounds` offers, refuses and explains; `tolerance` where the frontier is large."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from neurofail.bounds import bounds, expected_error, fep, given_set, tolerance
from neurofail.bounds.frontier import By
from neurofail.errors import InputError, UnsoundError
from neurofail.faults import Byzantine, Crash, Fault, SynapseByzantine, SynapseCrash
from neurofail.network import Network

ALL = {"fep", "fep_capped", "influence", "rowwise", "hybrid", "best"}


def network(*widths: int, seed: int = 0, phi: str = "sigmoid", scale: float = 1.0) -> Network:
    rng = np.random.default_rng(seed)
    weights = [scale * rng.normal(size=(b, a)) * np.sqrt(2 / (a + b)) for a, b in pairwise(widths)]
    return Network.dense(weights, None, [phi] * (len(widths) - 2) + ["identity"])


@pytest.mark.parametrize(
    ("fault", "failures", "offered", "says"),
    [
        (Crash(), (1, 1), ALL, "T0"),
        (Byzantine(1.0, "nominal"), (1, 1), ALL, "T0"),
        (Byzantine(1.0, draw="guided", equivocate=True), (1, 1), ALL, "T0"),
        (Byzantine(1.0, "own"), (1, 1), ALL - {"rowwise", "hybrid"}, "TN"),
        (SynapseCrash(), (1, 1, 0), ALL - {"rowwise", "hybrid"}, "TN"),
        ([Crash(), Byzantine(1.0)], [(1, 1), (1, 0)], ALL, "mixed"),
        ([Crash(), SynapseCrash()], [(1, 1), (1, 0, 1)], ALL - {"rowwise", "hybrid"}, "TN"),
    ],
)
def test_what_is_sound_is_offered_and_the_rest_refused(
    fault: Fault, failures: tuple[int, ...], offered: set[str], says: str
) -> None:
    found = bounds(network(4, 5, 6, 2), fault, failures)
    assert set(found) == offered == set(found.why)
    assert set(found.refused) == ALL - offered
    assert says in found.why["fep"]
    assert found["best"] == min(found.values()) == found[found.best_name]
    for name in found.refused:
        assert name not in found
        assert found.get(name) is None
        with pytest.raises(UnsoundError, match="not offered"):
            found[name]
    with pytest.raises(KeyError):
        found["other"]
    assert json.loads(json.dumps(found.to_dict()))["values"]["best"] == found["best"]


def test_at_most_says_t1_and_anywhere_says_so() -> None:
    net = network(4, 5, 6, 2)
    assert "T1" in bounds(net, Crash(), (1, 1), at_most=True).why["fep"]
    assert "distributions" in bounds(net, Crash(), total=2).why["fep"]
    assert "rowwise" in bounds(net, [Crash(), Byzantine(1.0)], total=[1, 1]).refused


def test_no_failure_is_no_error() -> None:
    net = network(4, 5, 6, 2)
    for fault, none in ((Crash(), (0, 0)), (Byzantine(1.0, "own"), (0, 0)), (SynapseCrash(), (0, 0, 0))):
        assert set(bounds(net, fault, none).values()) == {0.0}
        assert set(bounds(net, fault, total=0).values()) == {0.0}


def test_inputs_give_tighter_certificates_and_chunks_do_not_matter() -> None:
    net = network(8, 40, 30, 3, phi="relu")
    inputs = np.random.default_rng(1).uniform(size=(700, 8))
    for fault, failures in ((Crash(), (2, 1)), (SynapseByzantine(1.0), (1, 1, 1))):
        whole, given = bounds(net, fault, failures), bounds(net, fault, failures, inputs=inputs)
        each = [bounds(net, fault, failures, inputs=row[None]) for row in inputs[:50]]
        some = bounds(net, fault, failures, inputs=inputs[:50])
        for name, value in given.items():
            assert value <= whole[name]
            assert max(one[name] for one in each) == pytest.approx(some[name], rel=1e-12)


def test_certificates_for_hundreds_of_inputs_are_quick() -> None:
    net = network(64, 128, 128, 10)
    inputs = np.random.default_rng(1).uniform(size=(300, 64))
    start = time.perf_counter()
    bounds(net, Crash(), (2, 2), inputs=inputs)
    assert time.perf_counter() - start < 5  # well under one second on a quiet machine


def test_an_input_outside_the_domain_is_refused() -> None:
    with pytest.raises(InputError, match="input_range"):
        bounds(network(2, 3, 1), Crash(), (1,), inputs=[[0.5, 2.0]])


@pytest.mark.parametrize("margin", [(0, 0), (0, 3), 3, "a", (1,), 0.5])
def test_an_impossible_margin_is_refused(margin: object) -> None:
    with pytest.raises(InputError, match="margin"):
        bounds(network(2, 3, 3), Crash(), (1,), margin=margin)  # type: ignore[arg-type]  # the point


def test_a_margin_of_equal_rows_cannot_move() -> None:
    net = Network.dense([[[1.0]] * 2, [[1.0, 2.0], [1.0, 2.0]]], None, ["sigmoid", "identity"])
    assert bounds(net, Crash(), (2,), margin=(0, 1))["best"] == 0.0
    # unless a neuron tells the two outputs different things
    liar = Byzantine(1.0, draw="guided", equivocate=True)
    assert bounds(net, liar, (2,), margin=(0, 1))["best"] > 6


def test_a_mixture_that_cannot_be_is_refused_and_at_most_clips_it() -> None:
    net = network(2, 3, 2, 1, phi="relu")
    faults = [Crash(), Byzantine(1.0)]
    with pytest.raises(InputError, match="only 3 neurons"):
        fep(net, faults, [(2, 0), (2, 0)])
    whole = fep(net, faults, [(3, 0), (3, 0)], at_most=True)
    assert whole <= fep(net, Byzantine(1.0), (3, 0), at_most=True) * (1 + 1e-12)


def test_a_mixture_with_one_kind_absent_is_the_other_alone() -> None:
    net = network(4, 5, 6, 2)
    alone, mixed = bounds(net, Crash(), (2, 1)), bounds(net, [Crash(), Byzantine(1.0)], [(2, 1), (0, 0)])
    assert dict(mixed) == pytest.approx(dict(alone), rel=1e-12)


def test_crash_and_byzantine_share_their_common_part() -> None:
    # One neuron with a large influence, one with a small: two failures cannot both have the large one.
    net = Network.dense([[[1.0]] * 2, [[1.0, 0.0]]], None, ["identity", "identity"], (1.0, 1.0))
    found = bounds(net, [Crash(), Byzantine(1.0)], [(1,), (1,)])
    # top_1(r D^c) + top_1(r D^b) = 1 + 2; top_2(r D^c) + C top_1(r) = 1 + 1.
    assert found["influence"] == pytest.approx(2.0, rel=1e-12)


def test_given_sets_name_places_that_exist() -> None:
    net = network(2, 3, 2, 1)
    with pytest.raises(InputError, match="place 3 of layer 1"):
        given_set(net, Crash(), [[3], []])
    with pytest.raises(InputError, match="give one count for each"):
        given_set(net, Crash(), [[1]])


def test_expected_error_is_the_average_on_a_linear_network() -> None:
    # f of N crash, all signals 1, all weights 1/4: the average error is f / 4 exactly.
    net = Network.dense([[[1.0]] * 4, [[0.25] * 4]], None, ["identity", "identity"], (1.0, 1.0))
    assert expected_error(net, Crash(), (3,)) == pytest.approx(0.75, rel=1e-12)
    with pytest.raises(UnsoundError, match="expected error"):
        expected_error(net, SynapseCrash(), (1, 0))


@pytest.mark.parametrize("fault", [Crash(), Byzantine(2.0, "own"), SynapseCrash()], ids=str)
def test_every_point_of_the_frontier_is_tolerated_and_no_neighbour_is(fault: Fault) -> None:
    net = network(3, 6, 5, 2, phi="tanh")
    budget = fep(net, fault, [1] * len(fault.layers(net)), at_most=True)
    for by in ("fep", "fep_capped", "influence"):
        frontier = tolerance(net, fault, budget, by=by)
        points = frontier.first(500)
        assert len(points) > 1
        assert points == sorted(points, reverse=True)
        for point in points[:40]:
            assert frontier.tolerates(point)
            for i, most in enumerate(frontier.places):
                more = (*point[:i], point[i] + 1, *point[i + 1 :])
                assert point[i] == most or not frontier.tolerates(more)
        for i, most in enumerate(frontier.alone):
            assert most >= max(point[i] for point in points)


@pytest.mark.parametrize("by", ["fep", "fep_capped", "influence", "rowwise", "hybrid"])
def test_anywhere_is_the_largest_total_within_the_budget(by: By) -> None:
    net = network(3, 5, 4, 2, phi="tanh")
    values = [bounds(net, Crash(), total=n, at_most=True)[by] for n in range(10)]
    for n, value in enumerate(values):
        found = tolerance(net, Crash(), value * (1 + 1e-9), by=by)
        assert found.anywhere == max(m for m, v in enumerate(values) if v <= value * (1 + 1e-9)) >= n


def test_tolerance_of_one_hidden_layer_is_the_closed_form() -> None:
    # f <= tau / (w_2 D): 0.7 / (0.25 * 1) = 2.8
    net = Network.dense([[[1.0]] * 4, [[0.25] * 4]], None, ["identity", "identity"], (1.0, 1.0))
    frontier = tolerance(net, Crash(), 0.7)
    assert list(frontier) == [(2,)]
    assert frontier.to_dict()["points"] == [[2]]
    assert list(tolerance(net, Crash(), 0.0)) == [(0,)]
    assert list(tolerance(net, Crash(), 100.0)) == [(4,)]


@pytest.mark.parametrize("share", [0.0213, 0.31, 0.87])
def test_the_frontier_of_wide_layers_is_that_of_the_recursion(share: float) -> None:
    # T1 by hand: a constant neuron of value 1 is D = 1, and e_{l+1} = w (f max(1, e) + (N - f) e).
    widths, w = (3, 150, 130), (0.010132, 0.0041853, 0.019897)  # no sums that meet the budget exactly
    sizes = [*pairwise((1, *widths, 1))]
    weights = [np.full((b, a), v) for (a, b), v in zip(sizes, (0.0, *w), strict=True)]
    net = Network.dense(weights, [*(np.ones(n) for n in widths), None], ["clip"] * 3 + ["identity"])
    e = np.zeros(1)
    for n, weight in zip(widths, w, strict=True):
        f = np.arange(n + 1)
        e = weight * (f * np.maximum(1.0, e[..., None]) + (n - f) * e[..., None])
    budget = share * float(e.max())
    fits = e[0] <= budget
    beaten = np.zeros_like(fits)
    for axis in range(3):
        more = np.roll(fits, -1, axis)
        more[(slice(None),) * axis + (-1,)] = False
        beaten |= more
    assert list(tolerance(net, Crash(), budget)) == [tuple(f) for f in np.argwhere(fits & ~beaten)[::-1]]


@pytest.mark.parametrize("scale", [0.003, 0.02, 0.2])
def test_wide_networks_answer_at_once(scale: float) -> None:
    for widths in ([50] * 3, [1000] * 6):
        net = network(10, *widths, 3, scale=scale)
        for by in get_args(By):
            budget = 1.000001 * bounds(net, Crash(), [2] * net.depth, at_most=True)[by]
            start = time.perf_counter()
            frontier = tolerance(net, Crash(), budget, by=by)
            assert min(frontier.alone) >= 2
            assert len(frontier.first(1)) == 1
            assert time.perf_counter() - start < 10  # under one second on a quiet machine


def test_bad_budgets_are_refused() -> None:
    net = network(2, 3, 1)
    for budget, words in ((-1.0, "not negative"), (np.inf, "finite")):
        with pytest.raises(InputError, match=words):
            tolerance(net, Crash(), budget)
    with pytest.raises(InputError, match="finite"):
        tolerance(net, Crash(), 10**400)
    with pytest.raises(InputError, match="limit is -1"):
        tolerance(net, Crash(), 1.0).first(-1)
    with pytest.raises(InputError, match="one fault"):
        tolerance(net, [Crash()], 1.0)  # type: ignore[arg-type]  # the point
    with pytest.raises(InputError, match="must be one of"):
        tolerance(net, Crash(), 1.0, by="other")  # type: ignore[arg-type]  # the point
