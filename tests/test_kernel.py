"""A campaign does not depend on threads, cuts or order; it stops at once and its memory stays flat."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from machine import COMPILED, EVERY, present
from networks import random_inputs, random_network

import neurofail as nf
from neurofail.errors import BackendError, FallbackWarning, InputError
from neurofail.faults import Byzantine, Crash, SynapseCrash
from neurofail.kernel import backends, choose, open_session, run
from neurofail.plans import Exhaustive, Plan, Sampled
from neurofail.records import Records, Totals, edges

NET = random_network((6, 14, 12, 5), "sigmoid", seed=1)
X = random_inputs(NET, 70)
PLANS = {
    "pairs": Exhaustive(NET, Crash(), (2, 1)),
    "anywhere": Exhaustive(NET, Byzantine(0.5, "own"), total=2, at_most=True),
    "joint": Exhaustive(NET, Byzantine(0.5, draw="guided"), (1, 1)),
    "sampled": Sampled(NET, [Crash(), SynapseCrash()], [(2, 1), (2, 0, 1)], count=900, seed=4),
    "drawn": Sampled(NET, Byzantine(1.0, draw="uniform"), total=3, count=900, seed=4),
}
EACH = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


@EACH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_number_of_threads_changes_no_byte(compiled: str, plan: Plan, dtype: str) -> None:
    one, two, seven = (run(NET, X, plan, compiled, dtype, n, epsilon=0.1).to_bytes() for n in (1, 2, 7))
    assert one == two == seven


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_few_configurations_on_many_inputs_are_cut_by_inputs(compiled: str, threads: int) -> None:
    """Then a unit holds a part of the inputs, and its records wait for the others."""
    x = random_inputs(NET, 5000)
    plan = Exhaustive(NET, Crash(), (0, 1))
    expected = run(NET, x, plan, compiled, threads=1)
    assert run(NET, x, plan, compiled, threads=threads).to_bytes() == expected.to_bytes()
    pieces = [run(NET, x[i : i + 1], plan, compiled, threads=1) for i in (0, 17, 4999)]
    assert all(piece.worst.error <= expected.worst.error for piece in pieces)  # type: ignore[union-attr]  # ran


@EACH
def test_thirteen_uneven_ranges_in_any_order_are_the_whole(compiled: str, plan: Plan) -> None:
    whole = run(NET, X, plan, compiled, epsilon=0.1)
    chance = random.Random(13)
    for _ in range(2):
        cuts = [0, *sorted(chance.sample(range(1, plan.count), 12)), plan.count]
        parts = [
            run(NET, X, plan, compiled, start=a, stop=b, threads=chance.choice([1, 2]), epsilon=0.1)
            for a, b in pairwise(cuts)
        ]
        chance.shuffle(parts)
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merge(part)
        assert merged.to_bytes() == whole.to_bytes()
        assert merged.complete


@EACH
def test_every_backend_finds_what_the_oracle_finds(plan: Plan) -> None:
    """In float64 the backends agree on the whole campaign but for the last digits of the maximum."""
    count = min(plan.count, 300)
    oracle = run(NET, X, plan, "numpy", stop=count)
    for backend in COMPILED:
        tally = run(NET, X, plan, backend, "float64", stop=count)
        assert tally.worst is not None
        assert oracle.worst is not None
        assert tally.worst.error == pytest.approx(oracle.worst.error, rel=1e-12)
        assert (tally.sdc, tally.due) == (oracle.sdc, oracle.due)
        assert tally.count == oracle.count == count
        assert tally.histogram.sum() == count


def test_a_witness_replays_to_the_error_reported(backend: str) -> None:
    plan = PLANS["anywhere"]
    worst = run(NET, X, plan, backend, stop=200).worst
    assert worst is not None
    assert worst.configuration == plan[worst.index]
    from neurofail._reference import deviations

    moved = np.abs(deviations(NET, X[worst.input : worst.input + 1], plan.operations(worst.index)))[0]
    assert moved.max() == moved[worst.output] == worst.error
    assert worst.measured == pytest.approx(worst.error, rel=1e-5)


def test_ties_go_to_the_first_configuration(backend: str) -> None:
    """Four neurons alike: every crash has the same error, so the witness is number 0 however it is cut."""
    net = nf.Network.dense([[[1.0]] * 4, [[1.0] * 4]], None, ["relu", "identity"])
    plan = Exhaustive(net, Crash(), (1,))
    found = run(net, [[0.5], [0.5]], plan, backend, threads=2)
    assert found.worst is not None
    assert (found.worst.index, found.worst.input, found.worst.output) == (0, 0, 0)
    late = run(net, [[0.5]], plan, backend, start=2)
    early = run(net, [[0.5]], plan, backend, stop=2)
    assert late.merge(early).worst.index == early.merge(late).worst.index == 0  # type: ignore[union-attr]  # ran


def test_errors_above_epsilon_are_counted_and_equal_ones_are_not(backend: str) -> None:
    net = nf.Network.dense([[[1.0]] * 3, [[1.0, 2.0, 4.0]]], None, ["relu", "identity"])
    plan = Exhaustive(net, Crash(), (1,))
    # On x = 0.5 the crashes cost 0.5, 1 and 2.
    counts = {e: run(net, [[0.5]], plan, backend, epsilon=e).exceeded for e in (0.0, 0.5, 0.75, 1.0, 2.0)}
    assert counts == {0.0: 3, 0.5: 2, 0.75: 2, 1.0: 1, 2.0: 0}


def test_the_histogram_counts_worst_errors_between_its_edges(backend: str) -> None:
    plan = PLANS["pairs"]
    tally = run(NET, X, plan, backend, "float64", stop=150)
    from neurofail._reference import deviations

    errors = [np.abs(deviations(NET, X, plan.operations(i))).max() for i in range(150)]
    # No error is so near an edge that a rounding could move it across.
    assert np.abs(np.subtract.outer(errors, edges()) / np.array(errors)[:, None]).min() > 1e-9
    assert tally.histogram.tolist() == np.bincount(np.searchsorted(edges(), errors), minlength=514).tolist()


def test_totals_of_c_are_those_of_numpy(native: str) -> None:
    from neurofail import _native

    chance = np.random.default_rng(0)
    errors = np.concatenate(
        [
            10.0 ** chance.uniform(-30, 30, 500),
            edges(),
            np.nextafter(edges(), 0),
            [0.0, np.inf, 5e-324, 1.7e308],
        ]
    )
    chance.shuffle(errors)
    sdc, due = chance.integers(0, 9, (2, len(errors)))
    records = Records(errors, sdc, due)
    session = _native.open_session(native.removeprefix("c/"), PLANS["pairs"], X, "float64")
    for some in (records, Records(errors[:1], sdc[:1], due[:1])):
        ours, theirs = session.tally(some, 1.0), Totals.of(some, 1.0)
        assert (ours.worst, ours.error, ours.sdc, ours.due, ours.exceeded) == (
            theirs.worst,
            theirs.error,
            theirs.sdc,
            theirs.due,
            theirs.exceeded,
        )
        assert ours.histogram.tolist() == theirs.histogram.tolist()


@EACH
def test_a_unit_in_one_call_is_its_three_steps(compiled: str, plan: Plan) -> None:
    session = open_session(compiled, plan, X, "float32")
    session.golden(0, session.blocks)
    desk = session.desk()
    for start, count in ((5, 20), (0, 300), (100, 1), (2, 290)):
        steps = session.tally(session.evaluate(*session.rows(start, count), 0, session.blocks, desk), 0.1)
        once = session.totals(start, count, 0.1, desk)
        for of in fields(Totals):
            assert np.array_equal(getattr(once, of.name), getattr(steps, of.name)), of.name
        assert once.error


def test_progress_counts_up_to_the_end(backend: str) -> None:
    seen: list[int] = []
    run(NET, X, PLANS["pairs"], backend, stop=500, progress=lambda done, total: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == 500


def test_an_empty_range_is_an_empty_tally(backend: str) -> None:
    tally = run(NET, X, PLANS["pairs"], backend, start=7, stop=7)
    assert (tally.count, tally.worst, tally.backends) == (0, None, ())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start": -1}, "start is -1"),
        ({"start": 5, "stop": 4}, "range 5 to 4 is outside"),
        ({"stop": 10**30}, "is outside this plan's 0 to"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": -2}, "threads is -2"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"dtype": "float16"}, "it must be 'float32' or 'float64'"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"plan": 3}, "it must be Exhaustive"),
        ({"plan": Exhaustive(random_network((6, 14, 12, 5)), Crash(), (1, 0))}, "made for another network"),
        ({"inputs": np.zeros((0, 6))}, "inputs are empty"),
        ({"inputs": np.full((1, 6), 2.0)}, "outside the network's input_range"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options: dict[str, object], says: str) -> None:
    arguments: dict[str, object] = {"inputs": X, "plan": PLANS["pairs"], **options}
    with pytest.raises(InputError, match=says) as caught:
        run(NET, **arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert "\n" not in str(caught.value)


# ---- Which backend ----


def test_the_best_backend_is_chosen_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose() == choose("auto") == backends()[0]
    assert run(NET, X, PLANS["pairs"], stop=1).backend == backends()[0]
    assert backends()[-1] == "numpy"
    for name in [name for name in EVERY if present(name)]:
        monkeypatch.setenv("NEUROFAIL_BACKEND", name)
        assert choose() == name
        # What is asked for by name stands above the environment.
        assert choose("numpy") == "numpy"


def test_a_backend_that_is_missing_is_an_error_however_it_was_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="'c/neon' is not available here; available are"):
        choose("c/neon")
    monkeypatch.setenv("NEUROFAIL_BACKEND", "c/neon")
    with pytest.raises(BackendError, match=r"'c/neon' \(from NEUROFAIL_BACKEND\)"):
        run(NET, X, PLANS["pairs"])


def test_without_the_extension_c_is_an_error_and_auto_takes_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import neurofail

    monkeypatch.delattr(neurofail, "_native", raising=False)
    monkeypatch.setitem(sys.modules, "neurofail._native", None)
    assert "c/portable" not in backends()
    with pytest.warns(FallbackWarning, match="no C kernel"):
        assert choose() == "numba"
    for name in ("c", "c/avx2"):
        with pytest.raises(BackendError, match=f"'{name}' is not available"):
            choose(name)


# ---- A process of its own: interrupts and memory ----

LONG = """
import sys, numpy as np, neurofail as nf
rng = np.random.default_rng(0)
shape = (784, 512, 256, 10)
net = nf.Network.dense([rng.normal(size=(b, a)) / a**0.5 for a, b in zip(shape, shape[1:])], None,
                       ["sigmoid", "sigmoid", "identity"])
x = rng.uniform(size=(256, 784))
plan = nf.Exhaustive(net, nf.Crash(), (4, 4))
print("ready", flush=True)
try:
    nf.run(net, x, plan, {backend!r}, progress=lambda done, total: print(done, flush=True))
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_ctrl_c_stops_a_campaign_within_a_second(compiled: str) -> None:
    command = [sys.executable, "-c", LONG.format(backend=compiled)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        for line in process.stdout:  # running, and past its first unit
            if line.strip().isdigit():
                break
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        rest = process.stdout.read()
        process.wait(30)
        took = time.monotonic() - began
    assert "stopped" in rest
    assert process.returncode == 0
    # Of this, one second is the promise; the interpreter's own end and a loaded machine get the rest.
    assert took < 2


FLAT = """
import resource, sys, numpy as np, neurofail as nf
rng = np.random.default_rng(0)
net = nf.Network.dense([rng.normal(size=(40, 4)), rng.normal(size=(30, 40)), rng.normal(size=(3, 30))], None,
                       ["relu", "relu", "identity"])
x = rng.uniform(size=(16, 4))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for sampled in (False, True):
    for count in (10_000, 1_000_000):
        plan = (nf.Sampled(net, nf.Crash(), (2, 2), count=count) if sampled
                else nf.Exhaustive(net, nf.Crash(), (3, 3)))
        nf.run(net, x, plan, {backend!r}, threads=2, stop=count)
        print(peak())
"""


def test_memory_does_not_grow_with_the_number_of_configurations(compiled: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FLAT.format(backend=compiled)],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    enumerated_few, enumerated_many, sampled_few, sampled_many = map(int, done.stdout.split())
    # Kilobytes. Longer units are a few megabytes of rows and records; a million results kept would be 24.
    assert enumerated_many - enumerated_few < 16_000
    assert sampled_many - sampled_few < 16_000


def test_an_error_in_one_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(done: int, total: object) -> None:
        raise RuntimeError("the bar broke")

    with pytest.raises(RuntimeError, match="the bar broke"):
        run(NET, X, PLANS["pairs"], threads=3, progress=fail)


def test_bytes_are_canonical_json() -> None:
    tally = run(NET, X, PLANS["pairs"], stop=20)
    assert json.loads(tally.to_bytes()) == json.loads(json.dumps(tally.to_dict()))
