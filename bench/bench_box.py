"""How tight the certificates are, beside auto_LiRPA's CROWN: W1 with up to three crashes.

    python -m pytest bench/bench_box.py

Over the whole input box for each of the 2,324 crash sets, with the box whole and cut; over it, and on the
workload's 1,024 inputs, for at most so many crashes anywhere. A limit is told as its ratio to the largest
error found.
Without auto_LiRPA (`lirpa.py` says how to install it) its columns are left out, with the reason.
"""

from __future__ import annotations

import itertools
import statistics
import time
from functools import cache

import lirpa
import numpy as np
import pytest
from peers import Missing
from workloads import ACTIVATIONS, Array, case

import neurofail as nf
from neurofail.search import ascent
from neurofail.search.difference import Boxes, Difference
from neurofail.search.problem import Effect

pytestmark = pytest.mark.filterwarnings("ignore")  # auto_LiRPA's, of a torch that has moved on
_BATCH = 256  # sets bounded together
_CUT = 60  # sets whose box is cut
_LIMITS = (0.1, 1.0)  # seconds for each


@cache
def crash_sets() -> np.ndarray:
    """Every set of one to three of the 24 hidden neurons, (2324, 24)."""
    sets = [chosen for size in (1, 2, 3) for chosen in itertools.combinations(range(24), size)]
    return np.array([[neuron in chosen for neuron in range(24)] for chosen in sets])


def observed(of: Difference, failed: np.ndarray, points: Array) -> float:
    """The largest error of a crash set that an ascent from the best of the points finds."""

    def errors(some: Array) -> Array:
        return of.errors(some, failed[None]).max(axis=1)

    box = Boxes.whole(of.net, of.effect, failed[None])
    best = points[np.argmax(errors(points))]
    return float(errors(ascent.climb(errors, box.low[0], box.high[0], best)[None])[0])


def told(ratios: Array, limits: Array, found: Array) -> str:
    """The ratios of limits to errors found, in one phrase."""
    return (
        f"largest limit {limits.max() / found.max():.3f} x largest error; set by set "
        f"{np.median(ratios):.3f} x in the median, {ratios.max():.2f} x at most"
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_crash_set_over_the_box(activation, ledger):
    net, failed = case("W1", activation).net, crash_sets()
    of = Difference(net, Effect.of(nf.Crash()))
    boxes = Boxes.whole(net, of.effect, failed)
    of.limits(boxes[np.arange(2)])  # compile, or load what is compiled
    begun = time.perf_counter()
    parts = [of.limits(boxes[rows]) for rows in np.array_split(np.arange(len(boxes)), len(boxes) // _BATCH)]
    seconds = time.perf_counter() - begun
    upper, reached = (np.concatenate([getattr(p, name) for p in parts]) for name in ("upper", "point"))
    rng = np.random.default_rng(0)
    inputs = np.vstack([rng.random((256, 8)), rng.integers(0, 2, (768, 8))])
    tried = np.hstack([inputs, np.zeros((len(inputs), 24))])
    found = np.array(
        [observed(of, one, np.vstack([tried, point])) for one, point in zip(failed, reached, strict=True)]
    )
    heading = f"W1/{activation}: each of {len(failed):,} crash sets over the whole input box"
    ledger.note(heading, f"neurofail, box whole  {told(upper / found, upper, found)}; {seconds * 1e3:.0f} ms")
    assert np.all(found <= upper * (1 + 1e-9))
    try:
        crown, seconds = lirpa.over_box(list(map(np.array, net.weights)), activation, failed)
    except Missing as why:
        ledger.note(heading, f"CROWN left out: {why}")
        return
    ledger.note(heading, f"auto_LiRPA's CROWN    {told(crown / found, crown, found)}; {seconds * 1e3:.0f} ms")
    ratios = upper / crown
    ledger.note(
        heading,
        f"neurofail over CROWN  {ratios.min():.3f} to {ratios.max():.4f}, median {np.median(ratios):.3f}",
    )
    assert np.all(ratios <= 1 + 1e-9), "a set has a looser limit than CROWN's"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_cutting_the_box(activation, ledger):
    net, failed = case("W1", activation).net, crash_sets()
    chosen = failed[np.random.default_rng(1).choice(len(failed), _CUT, replace=False)]
    heading = f"W1/{activation}: {_CUT} of the crash sets, the box cut until the limit is within 1 %"
    for limit in _LIMITS:
        ratios, seconds = [], []
        for one in chosen:
            layers = [np.flatnonzero(part).tolist() for part in np.split(one, 2)]
            begun = time.perf_counter()
            answer = nf.worst_in_box(net, nf.Crash(), failed=layers, time_limit=limit, gap=0.01)
            seconds.append(time.perf_counter() - begun)
            ratios.append(answer.upper / answer.error)
        settled = sum(ratio <= 1.01 + 1e-9 for ratio in ratios)
        ledger.note(
            heading,
            f"in {limit:g} s at most: {statistics.median(ratios):.3f} x in the median, {max(ratios):.2f} x "
            f"at most, {settled} of {_CUT} settled; {statistics.median(seconds) * 1e3:.0f} ms in the median",
        )


@pytest.mark.parametrize("crashes", [1, 2, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_any_crashes_over_the_box(activation, crashes, ledger):
    net = case("W1", activation).net
    nf.worst_in_box(net, nf.Crash(), total=1, time_limit=0.1)
    begun = time.perf_counter()
    answer = nf.worst_in_box(net, nf.Crash(), total=crashes, at_most=True, gap=0.01)
    seconds = time.perf_counter() - begun
    ledger.note(
        f"W1/{activation}: at most so many crashes anywhere over the whole input box, within 1 %",
        f"{crashes}: {answer.upper / answer.error:.3f} x, the closed-form bound "
        f"{answer.bound / answer.error:.2f} x; {answer.boxes:,} boxes, {seconds:.2f} s",
    )


@pytest.mark.parametrize("crashes", [1, 2, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_given_inputs(activation, crashes, ledger):
    of = case("W1", activation)
    question = (of.net, of.inputs, nf.Crash())
    nf.worst_case(of.net, of.inputs[:1], nf.Crash(), total=crashes, at_most=True, threads=1)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        answer = nf.worst_case(*question, total=crashes, at_most=True, threads=1)
        seconds.append(time.perf_counter() - begun)
    assert answer.exact
    heading = (
        f"W1/{activation}: at most so many crashes anywhere, on {len(of.inputs):,} given inputs, one thread"
    )
    line = f"{crashes}: neurofail exact, {answer.nodes:,} nodes, {statistics.median(seconds) * 1e3:.0f} ms"
    try:
        crown, spent = lirpa.on_inputs(list(map(np.array, of.net.weights)), activation, of.inputs, crashes)
    except Missing as why:
        ledger.note(heading, f"{line}; CROWN left out: {why}")
        return
    ratio = crown.max() / answer.error
    ledger.note(heading, f"{line}; CROWN {ratio:.3f} x the worst error, {spent * 1e3:.0f} ms")
    assert ratio >= 1 - 1e-9
