"""The ladder holds on every network, is tight where the theory says so, and an inversion is never hidden."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import ENUMERABLE, eighths, exact_networks, random_inputs, random_network

import neurofail as nf
from neurofail.activations import NAMES
from neurofail.bounds.arithmetic import rounding_budget
from neurofail.errors import InputError, InversionError
from neurofail.faults import Byzantine, Crash, Fault, StuckAt
from neurofail.network import Network
from neurofail.plans import Exhaustive, Sampled


def corners(net: Network) -> np.ndarray:
    """Inputs where a domain is widest: every corner of it (of the first four inputs), and the middle."""
    width = net.widths[0]
    signs = np.array(np.meshgrid(*[[0, 1]] * min(width, 4))).reshape(min(width, 4), -1).T
    rest = np.zeros((len(signs), width - signs.shape[1]))
    ends = np.hstack([signs, rest])
    return np.vstack([net.low + ends * (net.high - net.low), (net.low + net.high) / 2])


def in_order(net: Network, fault: Fault, counts: list[int], at_most: bool, exact: bool) -> None:
    """Every bound, over the domain and on the inputs, is no less than what is observed.

    Where float64 rounds (`exact` is false) the oracle's own rounding, proven from its format, is taken off:
    on a tight network the observed error can lie one rounding above a bound that is attained.
    """
    x = corners(net)
    plan = Exhaustive(net, fault, counts, at_most=at_most)
    tally = nf.run(net, x, plan, dtype="float64", threads=1, stop=min(plan.count, 3000))
    assert tally.worst is not None
    budget = tally.plan.budget
    least = tally.worst.error - (0.0 if exact else rounding_budget(net, "float64", budget, x))
    for found in (
        nf.bounds(net, fault, counts, at_most=at_most, inputs=x),
        nf.bounds(net, fault, counts, at_most=at_most),
    ):
        for name, value in found.items():
            assert least <= value, name


def counts_for(data: st.DataObject, net: Network, fault: Fault, most: int = 2) -> list[int]:
    return [data.draw(st.integers(0, min(most, fault.places(net, layer)))) for layer in fault.layers(net)]


def _exact_law(data: st.DataObject) -> None:
    net = data.draw(exact_networks())
    fault = data.draw(
        st.one_of(
            st.just(Crash()),
            eighths.map(StuckAt),
            st.sampled_from([f for f in ENUMERABLE if f.kind != "stuck-at"]),
        )
    )
    in_order(net, fault, counts_for(data, net, fault), data.draw(st.booleans()), exact=True)


def _smooth_law(data: st.DataObject) -> None:
    depth = data.draw(st.integers(1, 4))
    widths = data.draw(st.lists(st.integers(1, 5), min_size=depth + 2, max_size=depth + 2))
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=depth, max_size=depth))
    net = random_network(widths, names, data.draw(st.integers(0, 10**6)))
    fault = data.draw(st.sampled_from(ENUMERABLE))
    in_order(net, fault, counts_for(data, net, fault), data.draw(st.booleans()), exact=False)


@pytest.mark.parametrize("fault", ENUMERABLE, ids=str)
def test_fep_is_the_bound_of_that_name(fault: Fault) -> None:
    net = random_network((3, 4, 3, 2), "tanh")
    counts = [1] * len(fault.layers(net))
    assert nf.fep(net, fault, counts) == nf.bounds(net, fault, counts)["fep"]


@given(data=st.data())
@settings(max_examples=300)
def test_no_bound_is_below_what_is_observed(data: st.DataObject) -> None:
    """Numbers of which float64 rounds none, so that nothing but the theorems is judged."""
    _exact_law(data)


@given(data=st.data())
@settings(max_examples=200)
def test_no_bound_is_below_what_is_observed_whatever_the_activation(data: st.DataObject) -> None:
    _smooth_law(data)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=10_000)
def test_no_bound_is_below_what_is_observed_on_ten_thousand(data: st.DataObject) -> None:
    _exact_law(data)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=10_000)
def test_no_bound_is_below_what_is_observed_on_ten_thousand_of_any_activation(data: st.DataObject) -> None:
    _smooth_law(data)


# ---- Equality: the witness family of bounds.md, section 6, for a single layer ----


@pytest.mark.parametrize(("neurons", "failures"), [(1, 1), (5, 1), (5, 3), (5, 5), (33, 7)])
@pytest.mark.parametrize("weight", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("steepness", [0.5, 1.0, 4.0])
def test_the_single_layer_witness_attains_fep(
    neurons: int, failures: int, weight: float, steepness: float
) -> None:
    """phi = clip(K s + 1/2, 0, 1) held at Y = 1, W_2 = w ones: a crash of f neurons moves F by exactly f w.

    D = S = 1 (the output is 1 on the whole domain), so Fep = w_2 f D = f w too. The project's clip is
    clip(K s, 0, 1): the half that bounds.md adds inside is part of the bias, and s = 1 / K gives Y = 1.
    """
    phi = nf.Activation("clip", lipschitz=steepness)
    net = Network.dense(
        [np.zeros((neurons, 2)), np.full((1, neurons), weight)],
        [np.full(neurons, 1 / steepness), None],
        [phi, "identity"],
    )
    plan = Exhaustive(net, Crash(), (failures,))
    tally = nf.run(net, [[0.0, 1.0]], plan, dtype="float64", stop=min(plan.count, 100))
    assert tally.worst is not None
    assert tally.worst.error == failures * weight
    promised = nf.fep(net, Crash(), (failures,))
    assert failures * weight <= promised <= failures * weight * (1 + 1e-12)
    for value in nf.bounds(net, Crash(), (failures,)).values():
        assert failures * weight <= value <= failures * weight * (1 + 1e-12)


@pytest.mark.parametrize("failures", [1, 4])
def test_the_single_layer_witness_attains_the_byzantine_fep(failures: int) -> None:
    """v = -C on Y = 1: D = C + 1, the paper's D = C would be wrong (trap 1)."""
    net = Network.dense(
        [np.zeros((4, 1)), np.full((1, 4), 0.5)], [np.ones(4), None], ["clip", "identity"], (0.0, 1.0)
    )
    plan = Exhaustive(net, Byzantine(2.0), (failures,))
    tally = nf.run(net, [[0.5]], plan, dtype="float64")
    assert tally.worst is not None
    assert tally.worst.error == failures * 0.5 * 3
    assert tally.worst.error <= nf.fep(net, Byzantine(2.0), (failures,)) <= tally.worst.error * (1 + 1e-12)


def test_the_relu_witness_attains_fep_through_two_layers() -> None:
    """Section 6.3: ReLU, every Y > 0, nominal + C: e_2 = w_2 f_1 C, S_2 = f_2 C + (N_2 - f_2) e_2.

    Fep = w_3 S_2. N = (3, 4), w = (., 2, 0.5), C = 0.25, f = (2, 1): e_2 = 2 * 2 * 0.25 = 1;
    S_2 = 0.25 + 3 = 3.25; Fep = 1.625.
    """
    net = Network.dense(
        [np.ones((3, 1)), np.full((4, 3), 2.0), np.full((1, 4), 0.5)],
        None,
        ["relu", "relu", "identity"],
        (1.0, 1.0),
    )
    fault = Byzantine(0.25, "nominal")
    tally = nf.run(net, [[1.0]], Exhaustive(net, fault, (2, 1)), dtype="float64")
    assert tally.worst is not None
    assert tally.worst.error == 1.625
    assert 1.625 <= nf.fep(net, fault, (2, 1)) <= 1.625 * (1 + 1e-12)


# ---- The verdict ----

NET = random_network((3, 6, 2), "relu", seed=2)
X = random_inputs(NET, 30)


def tally_of(**options: object) -> nf.Tally:
    return nf.run(NET, X, Exhaustive(NET, Crash(), (2,)), **options)  # type: ignore[arg-type]  # run's own


def test_verdicts_at_each_rung() -> None:
    tally = tally_of()
    ladder = nf.compare(tally)
    assert ladder.verdict is None
    assert ladder.holds
    observed, here, anywhere = ladder.observed, ladder.inputs["best"], ladder.domain["best"]
    assert observed <= here < anywhere
    for epsilon, outcome, holds in [
        (anywhere, "promised", True),
        (here, "promised", True),
        (observed, "not exceeded" if observed < here else "promised", True),
        (math.nextafter(observed, 0), "exceeded", False),
        (0.0, "exceeded", False),
        (math.inf, "promised", True),
    ]:
        found = nf.compare(tally, epsilon)
        assert found.verdict is not None
        assert (found.verdict.outcome, found.holds) == (outcome, holds), epsilon
        json.dumps(found.to_dict(), allow_nan=False)
    assert "over the whole input range" in str(nf.compare(tally, anywhere).verdict)
    assert "on these inputs" in str(nf.compare(tally, here).verdict)
    assert f"configuration {tally.worst.index} on input" in str(nf.compare(tally, 0.0).verdict)  # type: ignore[union-attr]  # ran


@pytest.mark.parametrize("epsilon", [-1.0, math.nan, "1", None.__class__], ids=str)
def test_an_epsilon_that_is_no_error_is_refused(epsilon: object) -> None:
    with pytest.raises(InputError, match="epsilon is"):
        nf.compare(tally_of(), epsilon)  # type: ignore[arg-type]  # wrong on purpose


def test_a_part_of_a_campaign_and_nothing_at_all_compare_too() -> None:
    assert nf.compare(tally_of(stop=3)).observed <= nf.compare(tally_of()).observed
    nothing = nf.compare(tally_of(stop=0), 0.0)
    assert nothing.observed == 0.0
    assert nothing.ratio(1.0) == math.inf
    assert "nothing was run" in str(nothing)
    json.dumps(nothing.to_dict(), allow_nan=False)


@pytest.mark.parametrize("where", ["domain", "inputs"])
def test_an_inversion_is_raised_with_its_witness(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    from neurofail import compare as room  # the function shadows the module's name

    module = __import__("sys").modules["neurofail.compare"]
    assert room is not module
    sound = module.bounds_of
    tally = tally_of()

    def unsound(net: Network, budget: object, inputs: object = None, margin: object = None) -> object:
        found = sound(net, budget, inputs, margin)
        if (inputs is None) == (where == "domain"):
            found._values["influence"] = tally.worst.error * 0.99  # type: ignore[union-attr]  # it ran
        return found

    monkeypatch.setattr(module, "bounds_of", unsound)
    with pytest.raises(InversionError, match="exceeds bound influence") as caught:
        nf.compare(tally)
    assert caught.value.witness == tally.worst
    assert "\n" not in str(caught.value)
    # It is not the user's mistake, so it is no InputError.
    assert not isinstance(caught.value, InputError)


def test_the_text_names_what_was_injected_and_the_witness() -> None:
    tally = tally_of(backend="numpy")
    text = str(nf.compare(tally, 0.5))
    worst = tally.worst
    assert worst is not None
    for part in (
        "crash: exactly 2 in layers 1",
        "15 configurations (enumerated) x 30 inputs = 450 evaluations",
        "numpy, float64",
        f"{worst.error:.6g}",
        str(worst.configuration),
        f"input {worst.input}, output {worst.output}",
    ):
        assert part in text
    sampled = nf.run(NET, X, Sampled(NET, Crash(), (2,), count=9, seed=3))
    assert "sampled with seed 3" in str(nf.compare(sampled))
    assert "the worst case can be larger" in str(nf.compare(sampled))


def test_an_error_that_overflows_every_bound_is_reported_not_raised() -> None:
    """An infinite error under infinite bounds: the ladder is in order, and its JSON has words for it."""
    net = Network.dense([[[1.0]], [[1e300]], [[1e300]]], None, ["relu"] * 2 + ["identity"], (0.0, 0.0))
    tally = nf.run(net, [[0.0]], Exhaustive(net, StuckAt(1e300), (1, 0)), dtype="float64")
    ladder = nf.compare(tally, 1.0)
    assert ladder.observed == math.inf
    assert not ladder.holds
    json.dumps(ladder.to_dict(), allow_nan=False)
