"""Failed synapses: the search equals enumeration there too, and its witnesses are the question's own."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import neurofail as nf
from neurofail.data import digits, digits_test
from neurofail.search.unfold import WIDEST, unfold

from .enumeration import random_network, rewired, synapse_sets


def places(net: nf.Network) -> list[int]:
    return [w.size for w in net.weights]


def random_counts(rng: np.random.Generator, net: nf.Network, most: int) -> dict[str, object]:
    """Up to `most` failures in all."""
    at_most, sizes = bool(rng.random() < 0.4), places(net)
    if rng.random() < 0.4:
        return {"total": int(rng.integers(0, min(most, sum(sizes)) + 1)), "at_most": at_most}
    failures = [0] * len(sizes)
    for layer in rng.integers(len(sizes), size=rng.integers(0, most + 1)):
        failures[layer] = min(failures[layer] + 1, sizes[layer])
    return {"failures": tuple(failures), "at_most": at_most}


def chosen(answer: nf.WorstCase | nf.WorstMargin) -> list[tuple[int, int, int | None]]:
    return [(f.layer, f.neuron, f.source) for f in answer.configuration]


def check_crash(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(1, 4)), width=4)
    inputs = rng.uniform(-1, 1, (int(rng.integers(1, 4)), net.widths[0]))
    fault = nf.SynapseCrash()
    counts = random_counts(rng, net, most=3 if sum(places(net)) < 20 else 2)
    rows = synapse_sets(net, **counts)
    outputs = rewired(net, inputs, fault, rows, [[0.0] * len(row) for row in rows])
    golden, about = net(inputs), f"seed {seed}: {net}, {counts}"
    truth = float(np.abs(outputs - golden).max())

    answer = nf.worst_case(net, inputs, fault, threads=1, **counts)
    assert answer.exact, about
    assert abs(answer.error - truth) <= answer.rounding, about
    assert truth <= answer.upper <= truth + 2 * answer.rounding, about
    assert answer.rounding <= 1e-7 * (1 + truth), about
    assert chosen(answer) in rows, about
    replayed = rewired(net, inputs[[answer.input]], fault, [chosen(answer)], [answer.values])
    assert abs(replayed[0, 0] - golden[answer.input])[answer.output] == pytest.approx(answer.error), about
    plan = nf.Exhaustive(net, fault, **counts)
    assert plan[plan.index(answer.configuration)] == answer.configuration, about

    if net.widths[-1] < 2:
        return
    label = np.argmax(golden, axis=1)
    each = np.arange(len(inputs))
    own = outputs[:, each, label].copy()
    outputs[:, each, label] = -np.inf
    least = float((own - outputs.max(axis=2)).min())
    margin = nf.worst_margin(net, inputs, fault, threads=1, **counts)
    assert margin.exact, about
    assert margin.margin == pytest.approx(least, abs=margin.rounding), about
    assert least - 2 * margin.rounding <= margin.lower <= least + margin.rounding, about
    assert chosen(margin) in rows, about


def check_byzantine(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(1, 4)), width=3, scale=1.0)
    inputs = rng.uniform(-1, 1, (2, net.widths[0]))
    semantics, weighted = ("value", "additive")[rng.integers(2)], bool(rng.random() < 0.5)
    capacity = float(rng.uniform(0.2, 1.5))
    ranged = semantics == "value" and rng.random() < 0.3
    fault = nf.SynapseByzantine((-0.1, capacity) if ranged else capacity, semantics, weighted)
    counts = random_counts(rng, net, most=2)
    answer = nf.worst_case(net, inputs, fault, threads=1, gap=1e-3, **counts)
    about = f"seed {seed}: {net}, {fault}, {counts}"
    low, high = fault.ends
    rows = synapse_sets(net, **counts)
    corners = [(row, signs) for row in rows for signs in itertools.product((low, high), repeat=len(row))]
    inside = [(row, rng.uniform(low, high, len(row))) for row in rows for _ in range(3)]
    errors = [
        float(np.abs(rewired(net, inputs, fault, *zip(*tried, strict=True)) - net(inputs)).max())
        for tried in (corners, inside)
    ]
    assert max(errors) <= answer.upper, about
    assert answer.error <= answer.upper <= answer.error * (1 + 1e-3) + answer.rounding, about
    assert chosen(answer) in rows, about
    assert all(low <= v <= high for v in answer.values), about
    replayed = rewired(net, inputs[[answer.input]], fault, [chosen(answer)], [answer.values])
    error = np.abs(replayed[0, 0] - net(inputs)[answer.input])[answer.output]
    assert error == pytest.approx(answer.error, rel=1e-9, abs=1e-12), about
    if net.depth == 1 and net.activations[0].turning is None:
        # Through one rising layer the error rises or falls with each value: an end of its range is worst.
        assert errors[0] == pytest.approx(answer.error, rel=1e-3, abs=answer.rounding), about
        assert answer.error <= errors[0] + answer.rounding, about


@pytest.mark.parametrize("block", range(3))
def test_crashes_equal_enumeration(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        check_crash(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(15))
def test_crashes_equal_enumeration_at_length(block: int) -> None:
    for seed in range(10_000 + 200 * block, 10_000 + 200 * (block + 1)):
        check_crash(seed)


@pytest.mark.parametrize("block", range(2))
def test_byzantine_values_are_contained(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        check_byzantine(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_byzantine_values_are_contained_at_length(block: int) -> None:
    for seed in range(20_000 + 200 * block, 20_000 + 200 * (block + 1)):
        check_byzantine(seed)


@pytest.mark.parametrize("fault", [nf.SynapseCrash(), nf.SynapseByzantine(0.5, weighted=False)])
@pytest.mark.parametrize("counts", [{"failures": (2, 0, 0)}, {"failures": (0, 1, 1)}, {"total": 2}])
@pytest.mark.parametrize("phi", ["relu", "gelu", "sigmoid"])
def test_wider_networks_against_a_campaign(fault: nf.Fault, counts: dict[str, object], phi: str) -> None:
    rng = np.random.default_rng(3)
    shapes = ((8, 6), (7, 8), (3, 7))
    net = nf.Network.dense([rng.normal(0, 0.6, s) for s in shapes], None, [phi, phi, "identity"])
    inputs = rng.random((3, 6))
    tally = nf.run(net, inputs, nf.Exhaustive(net, fault, **counts), dtype="float64")
    answer = nf.worst_case(net, inputs, fault, **counts)
    assert tally.worst is not None
    assert tally.worst.error <= answer.upper
    assert nf.compare(tally, exact=answer).exact is answer
    if isinstance(fault, nf.SynapseCrash):
        assert answer.exact
        assert answer.error == pytest.approx(tally.worst.error, rel=1e-12)
        again = nf.worst_case(
            net, inputs, fault, incumbent=(tally.worst.input, tally.worst.configuration), **counts
        )
        assert (again.error, again.exact) == (answer.error, True)


def check_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(1, 3)), width=3)
    faults = (
        nf.SynapseCrash(),
        nf.SynapseByzantine(0.5),
        nf.SynapseByzantine(0.5, "additive"),
        nf.SynapseByzantine(0.5, weighted=False),
    )
    fault = faults[rng.integers(len(faults))]
    counts = random_counts(rng, net, most=2)
    answer = nf.worst_in_box(net, fault, time_limit=0.1, starts=2, **counts)
    about = f"seed {seed}: {net}, {fault}, {counts}"
    rows = synapse_sets(net, **counts)
    inputs = np.vstack([rng.uniform(-1, 1, (60, net.widths[0])), rng.choice([-1.0, 1.0], (8, net.widths[0]))])
    ends = (0.0,) if isinstance(fault, nf.SynapseCrash) else fault.ends
    for value in (*ends, float(np.mean(ends))):
        outputs = rewired(net, inputs, fault, rows, [[value] * len(row) for row in rows])
        assert np.abs(outputs - net(inputs)).max() <= answer.upper * (1 + 1e-9), about
    assert answer.error <= answer.upper <= answer.bound * (1 + 1e-9), about
    assert [(f.layer, f.neuron, f.source) for f in answer.configuration] in rows, about


@pytest.mark.parametrize("block", range(2))
def test_over_a_box_everything_tried_is_below(block: int) -> None:
    for seed in range(30 * block, 30 * (block + 1)):
        check_box(seed)


def test_over_a_box_splitting_closes_the_gap() -> None:
    # F = 2 sigmoid(4 x - 2) on [0, 1], as in test_box: the synapse into the output loses at most
    # 2 sigmoid(2), the one into the hidden neuron 2 (sigmoid(2) - sigmoid(-2)).
    net = nf.Network.dense([[[4.0]], [[2.0]]], [[-2.0], None], ["sigmoid", "identity"])
    sigmoid = 1.0 / (1.0 + np.exp(np.array([-2.0, 2.0])))
    for counts, truth in (((0, 1), 2 * sigmoid[0]), ((1, 0), 2 * (sigmoid[0] - sigmoid[1]))):
        answer = nf.worst_in_box(net, nf.SynapseCrash(), counts)
        assert answer.error == pytest.approx(truth, rel=1e-12)
        assert truth <= answer.upper <= 1.01 * truth


# The neurons of the digits networks are 64 and 32, the outputs 10: 4,096, 2,048 and 320 synapses.
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("relu", {"failures": (1, 0, 0)}),
        ("relu", {"total": 1}),
        ("sigmoid", {"failures": (0, 1, 0)}),
        ("sigmoid", {"failures": (0, 0, 2)}),
    ],
)
def test_digits_networks_against_a_campaign(name: str, counts: dict[str, object]) -> None:
    net, inputs = digits(name), digits_test()[0][:3]
    tally = nf.run(net, inputs, nf.Exhaustive(net, nf.SynapseCrash(), **counts), dtype="float64")
    answer = nf.worst_case(net, inputs, nf.SynapseCrash(), **counts)
    assert tally.worst is not None
    assert answer.exact
    assert answer.error == pytest.approx(tally.worst.error, rel=1e-12)
    assert (answer.input, answer.configuration) == (tally.worst.input, tally.worst.configuration)


@pytest.mark.parametrize("fault", [nf.SynapseCrash(), nf.SynapseByzantine(1.0)], ids=lambda f: f.kind)
@pytest.mark.parametrize("name", ["relu", "sigmoid"])
def test_shares_settle_the_widest_layer_near_its_roots(name: str, fault: nf.Fault) -> None:
    """Of two failures among 4,096 synapses each moves one neuron; intervals would move all 64 at once."""
    net, inputs = digits(name), digits_test()[0][:3]
    answer = nf.worst_case(net, inputs, fault, (2, 0, 0))
    roots = len(inputs) * 2 * net.widths[-1]
    assert answer.upper <= answer.error * (1 + 1e-6) + answer.rounding
    assert roots <= answer.nodes <= 2 * roots


def test_one_synapse_by_hand() -> None:
    # x = 1, y = relu(2 x) = 2, outputs 3 y and -y. Into layer 1: a crash takes 2 from y, 6 from output 0; a
    # value v in [-1, 1] makes y relu(2 v), or relu(v) after the weighting: 0 at the least; 2 + 2 delta, or
    # 2 + delta, rises by 2 or 1. Into the outputs: 3 y = 6 becomes 0, 3 v, v, or moves by 3 or 1.
    net = nf.Network.dense([[[2.0]], [[3.0], [-1.0]]], None, ["relu", "identity"])
    byzantine = nf.SynapseByzantine
    for fault, first, last in (
        (nf.SynapseCrash(), 6.0, 6.0),
        (byzantine(1.0), 6.0, 9.0),
        (byzantine(1.0, weighted=False), 6.0, 7.0),
        (byzantine(1.0, "additive"), 6.0, 3.0),
        (byzantine(1.0, "additive", weighted=False), 3.0, 1.0),
        (byzantine((1.5, 2.5)), 9.0, 0.0),
    ):
        if fault == byzantine((1.5, 2.5)):  # y becomes 3 to 5; the outputs 4.5 to 7.5, 1.5 off at most
            last = 1.5
        for counts, error in (((1, 0), first), ((0, 1), last)):
            answer = nf.worst_case(net, [[1.0]], fault, counts)
            assert answer.error == pytest.approx(error, rel=1e-6), (fault, counts)
            assert answer.upper == pytest.approx(error, rel=1e-5), (fault, counts)
            assert str(answer.configuration).startswith(f"{fault.kind} of layer {1 + counts[1]} synapse 0->0")


def test_a_synapse_into_an_output_moves_that_output_alone() -> None:
    # Outputs (y, y / 2) with y = 1: the margin of class 0 is 1/2. Adding up to 1/4 to one output after the
    # weighting leaves 1/4; to both, nothing. Adding it to y itself would leave 3/8.
    net = nf.Network.dense([[[1.0]], [[1.0], [0.5]]], None, ["relu", "identity"])
    fault = nf.SynapseByzantine(0.25, "additive", weighted=False)
    for counts, margin in (((0, 1), 0.25), ((0, 2), 0.0), ((1, 0), 0.375)):
        answer = nf.worst_margin(net, [[1.0]], fault, counts)
        assert answer.margin == pytest.approx(margin, abs=1e-6), counts
        assert answer.lower == pytest.approx(margin, abs=1e-6), counts


def dense(seed: int) -> tuple[nf.Network, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = ((16, 10), (12, 16), (3, 12))
    weights = [rng.uniform(-1, 1, s) * np.sqrt(6 / sum(s)) for s in shapes]
    return nf.Network.dense(weights, None, ["relu", "relu", "identity"]), rng.random((70, 10))


@pytest.mark.parametrize(("fault", "gap"), [(nf.SynapseCrash(), 0.0), (nf.SynapseByzantine(0.5), 0.1)])
def test_interrupts_and_time_limits_resume_to_the_same_answer(
    fault: nf.Fault, gap: float, tmp_path: Path
) -> None:
    net, inputs = dense(1)
    counts = {"failures": (1, 1, 0), "gap": gap}
    whole = nf.worst_case(net, inputs, fault, **counts)
    path, calls = tmp_path / "search.npz", itertools.count()

    def interrupt(_: object) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    early = nf.worst_case(net, inputs, fault, checkpoint=path, progress=interrupt, **counts)
    assert path.exists()
    assert not early.exact
    assert early.error <= whole.error <= whole.upper <= early.upper
    late = nf.worst_case(net, inputs, fault, checkpoint=path, time_limit=0.0, **counts)
    assert early.interrupted
    assert late == replace(early, interrupted=False)
    with pytest.raises(nf.InputError, match="another"):
        nf.worst_case(net, inputs, fault, (1, 1, 1), gap=gap, checkpoint=path)
    assert nf.worst_case(net, inputs, fault, checkpoint=path, **counts) == whole
    assert not path.exists()


def test_threads_do_not_matter() -> None:
    net, inputs = dense(2)
    answers = [nf.worst_case(net, inputs[:5], nf.SynapseCrash(), total=2, threads=n) for n in (1, 3)]
    assert answers[0] == answers[1]


def test_a_total_falls_on_synapses_alone() -> None:
    net, _ = dense(3)
    question = unfold(net, nf.SynapseCrash(), nf.Exhaustive(net, nf.SynapseCrash(), total=2).budget)
    assert question.net.widths == (10, 160, 16, 192, 12, 36, 3)
    assert question.fallible == {1, 3, 5}
    one = unfold(net, nf.SynapseCrash(), nf.Exhaustive(net, nf.SynapseCrash(), (0, 1, 0)).budget)
    assert one.net.widths == (10, 16, 192, 12, 3)
    assert one.budget.failures == ((0, 1, 0),)


def test_no_failure_does_nothing() -> None:
    net, inputs = dense(4)
    for counts in ({"failures": (0, 0, 0)}, {"total": 0}):
        answer = nf.worst_case(net, inputs[:2], nf.SynapseCrash(), **counts)
        assert (answer.error, answer.exact, len(answer.configuration)) == (0.0, True, 0)


def test_what_is_refused() -> None:
    side = int(np.sqrt(WIDEST)) + 1
    wide = nf.Network.dense([np.ones((side, side)), np.ones((1, side))], None, ["relu", "identity"])
    x = np.ones((1, side))
    with pytest.raises(nf.InputError, match=f"{side * side:,} synapses enter layer 1.*{WIDEST:,} at most"):
        nf.worst_case(wide, x, nf.SynapseCrash(), (1, 0))
    assert nf.worst_case(wide, x, nf.SynapseCrash(), (0, 1)).error == side
    net, inputs = dense(5)
    with pytest.raises(nf.InputError, match="one fault, not a list"):
        nf.worst_case(net, inputs, [nf.Crash(), nf.SynapseCrash()], [(1, 0), (0, 0, 1)])
    with pytest.raises(nf.InputError, match="failed lists neurons"):
        nf.worst_in_box(net, nf.SynapseCrash(), failed=[[0], []])
    for failure in (
        nf.Failure(1, 0, None, "crash"),
        nf.Failure(1, 16, 0, "synapse-crash"),
        nf.Failure(2, 0, 0, "synapse-crash"),
    ):
        with pytest.raises(nf.InputError, match="does not allow"):
            nf.worst_case(
                net, inputs, nf.SynapseCrash(), (1, 0, 0), incumbent=(0, nf.Configuration((failure,)))
            )
