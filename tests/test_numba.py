"""The Numba backend against the float64 reference, and its plans against plans.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import random_inputs, random_network

import neurofail as nf
from neurofail import _numba, _numpy
from neurofail._numba.activations import COEFFICIENTS
from neurofail._numba.bounds import TILE
from neurofail._numba.lanes import block_size
from neurofail._numba.spare import BATCH, TOGETHER
from neurofail.activations import NAMES
from neurofail.plans import Plan

WIDTHS = (1, 3, 16, 127)
INPUTS = (1, 15, 16, 17, 251)
# Relative to 1 + the reference's error, over up to seven layers.
TOLERANCES = {"float32": 2e-4, "float64": 1e-11}

NEURON_FAULTS = [
    nf.Crash(),
    nf.StuckAt(0.7),
    nf.Byzantine(1.0),
    nf.Byzantine(0.5, semantics="own"),
    nf.Byzantine(0.5, semantics="nominal"),
    nf.Byzantine(1.0, draw="guided", equivocate=True),
    nf.Byzantine(1.0, draw="uniform"),
]
SYNAPSE_FAULTS = [
    nf.SynapseCrash(),
    nf.SynapseByzantine(1.0),
    nf.SynapseByzantine(0.3, semantics="additive"),
]
MIXED_FAULTS = [
    [nf.Crash(), nf.Byzantine(1.0)],
    [nf.SynapseCrash(), nf.Crash()],
    [nf.StuckAt(0.2), nf.SynapseByzantine(0.5), nf.Byzantine(0.5, semantics="own")],
]
FAULTS: list[Any] = [*NEURON_FAULTS, *SYNAPSE_FAULTS, *MIXED_FAULTS]


def network(
    random: np.random.Generator, depth: int, names: tuple[str, ...] = NAMES, widths: tuple[int, ...] = WIDTHS
) -> nf.Network:
    """A network with `depth` hidden layers of random widths and activations, none of them saturated."""
    sizes = [int(random.choice(widths)) for _ in range(depth + 1)] + [int(random.choice([1, 2, 3, 10, 15]))]
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    return nf.Network.dense(
        [random.normal(size=shape) / np.sqrt(shape[1]) for shape in shapes],
        [0.3 * random.normal(size=n) for n in sizes[1:]],
        [*(str(name) for name in random.choice(names, depth)), "identity"],
    )


def plan_of(random: np.random.Generator, net: nf.Network, fault: Any, case: int) -> Plan:
    """Sampled where values are drawn and in every other case; one or two failures, or one of each kind."""
    total: Any
    neurons = sum(net.widths[1:-1])
    if isinstance(fault, list):
        kinds, total = fault, [int(i < neurons) for i in range(len(fault))]
    else:
        kinds, total = [fault], min(int(random.integers(1, 3)), neurons)
    at_most = bool(random.integers(2))
    if case % 2 or any(kind.drawn for kind in kinds):
        return nf.Sampled(net, fault, total=total, at_most=at_most, count=60, seed=case)
    return nf.Exhaustive(net, fault, total=total, at_most=at_most)


def assert_agrees(plan: Plan, x: Any, dtype: str, count: int = 60) -> None:
    """Every evaluation of the plan's first and last configurations agrees with the reference."""
    session, oracle = _numba.Session(plan, x, dtype), _numpy.Session(plan, x)
    session.golden(0, session.blocks)
    for start in sorted({0, max(0, plan.count - count)}):
        rows, levels = session.rows(start, min(count, plan.count))
        desk = session.desk()
        got = session.evaluate(rows, levels, 0, session.blocks, desk)
        each = session.evaluate(rows, levels, 0, session.blocks, desk, each=True)
        right = oracle.evaluate(rows, levels, 0, oracle.blocks, None, each=True)
        assert each.each is not None
        assert right.each is not None
        allowed = TOLERANCES[dtype] * (1 + right.each)
        assert (np.abs(each.each - right.each) <= allowed).all()
        assert np.array_equal(got.errors, each.errors)
        assert np.array_equal(got.errors, each.each.max(axis=1))
        assert np.array_equal(got.sdc, each.sdc)
        assert not got.due.any()
        if dtype == "float64":
            assert np.array_equal(got.sdc, right.sdc)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_every_activation_agrees_with_the_reference(name: str, dtype: str) -> None:
    random = np.random.default_rng(NAMES.index(name))
    for depth, inputs in ((1, 17), (3, 33)):
        net = network(random, depth, (name,), (3, 16, 127))
        x = random.uniform(size=(inputs, net.widths[0]))
        assert_agrees(nf.Sampled(net, nf.Crash(), total=2, count=40, seed=1), x, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_every_fault_agrees_with_the_reference(number: int, dtype: str) -> None:
    random = np.random.default_rng(100 + number)
    for case in range(6):
        net = network(random, 1 + (number + case) % 6)
        x = random.uniform(size=(INPUTS[(number + case) % 5], net.widths[0]))
        assert_agrees(plan_of(random, net, FAULTS[number], case), x, dtype, 30)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("width", WIDTHS)
def test_awkward_sizes_agree_with_the_reference(width: int, inputs: int) -> None:
    random = np.random.default_rng(width * 1000 + inputs)
    net = network(random, 2, widths=(width,))
    x = random.uniform(size=(inputs, width))
    assert_agrees(nf.Exhaustive(net, nf.Crash(), total=2, at_most=True), x, "float64", 20)


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_rows_are_those_of_the_plan(number: int) -> None:
    random = np.random.default_rng(200 + number)
    for case in range(8):
        net = network(random, 1 + case % 3, widths=(3, 5, 16))
        plan = plan_of(random, net, FAULTS[number], case)
        session = _numba.Session(plan, np.full((1, net.widths[0]), 0.5), "float32")
        for start in (0, int(random.integers(plan.count)), plan.count - 1):
            count = min(40, plan.count - start)
            rows, levels = session.rows(start, count)
            for i in range(count):
                expected = plan.rows(start + i)
                assert rows[i].tolist() == [row for row, _ in expected] + [-1] * (plan.slots - len(expected))
                if levels is not None:
                    padding = [0.0] * (plan.slots - len(expected))
                    assert levels[i].tolist() == [level for _, level in expected] + padding


def test_rows_of_plans_by_layer_and_beyond_64_bits() -> None:
    random = np.random.default_rng(5)
    net = network(random, 3, widths=(127,))
    x = np.full((1, 127), 0.5)
    plans = [
        nf.Exhaustive(net, nf.Byzantine(1.0), failures=(20, 7, 9), at_most=True),
        nf.Exhaustive(net, nf.Byzantine(1.0, draw="guided"), failures=(1, 2, 1)),
        nf.Sampled(net, nf.Crash(), failures=(20, 7, 9), count=1 << 62, seed=(1 << 64) - 1),
        nf.Sampled(net, nf.Byzantine(1.0), failures=(20, 7, 9), at_most=True, count=1 << 62),
    ]
    for plan in plans:
        session = _numba.Session(plan, x, "float32")
        for start in (plan.count // 3, plan.count - 5):
            rows, _ = session.rows(start, 5)
            for i in range(5):
                expected = [row for row, _ in plan.rows(start + i)]
                assert rows[i].tolist() == expected + [-1] * (plan.slots - len(expected))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("failures", [(2, 0, 0), (0, 0, 2), (1, 1, 1)])
def test_same_bytes_for_any_threads_and_ranges(failures: tuple[int, ...], dtype: str) -> None:
    random = np.random.default_rng(7)
    net = network(random, 3, widths=(7, 12))
    x = random.uniform(size=(251, net.widths[0]))
    plan = nf.Exhaustive(net, nf.Crash(), failures=failures, at_most=True)
    whole = nf.run(net, x, plan, backend="numba", dtype=dtype, threads=1)
    for threads in (2, 7):
        assert nf.run(net, x, plan, backend="numba", dtype=dtype, threads=threads) == whole
    cuts = np.unique([0, plan.count, *random.integers(plan.count, size=12)]).tolist()
    parts = [
        nf.run(net, x, plan, backend="numba", dtype=dtype, threads=1, start=start, stop=stop)
        for start, stop in pairwise(cuts)
    ]
    random.shuffle(parts)  # type: ignore[arg-type]  # NumPy shuffles any sequence
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert merged == whole


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_may_be_shared_out(dtype: str) -> None:
    random = np.random.default_rng(8)
    net = network(random, 4, widths=(5, 16))
    x = random.uniform(size=(251, net.widths[0]))
    plan = nf.Sampled(net, nf.Crash(), total=3, count=50)
    session = _numba.Session(plan, x, dtype)
    session.golden(0, 3)
    session.golden(3, session.blocks)
    rows, levels = session.rows(0, 50)
    desk = session.desk()
    whole = session.evaluate(rows, levels, 0, session.blocks, desk)
    joined = session.evaluate(rows, levels, 0, 2, desk).joined(
        session.evaluate(rows, levels, 2, session.blocks, desk)
    )
    for name in ("errors", "sdc", "due"):
        assert np.array_equal(getattr(whole, name), getattr(joined, name))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinite_outputs_are_due(dtype: str) -> None:
    """A neuron stuck at the largest number times a weight of 2 is infinite, on every input; and the two
    infinities of the hidden layer make the output layer's sum NaN.
    """
    big = float(np.finfo(dtype).max)
    net = nf.Network.dense(
        [np.eye(2), [[2.0, 0.0], [-2.0, 0.0]], [[1.0, 1.0], [0.0, 1.0]]],
        None,
        ["identity", "identity", "identity"],
    )
    plan = nf.Exhaustive(net, nf.StuckAt(big), failures=(1, 0))
    tally = nf.run(net, np.full((19, 2), 0.5), plan, backend="numba", dtype=dtype)
    assert tally.due == 19  # of neuron 0; neuron 1 reaches no output
    assert tally.sdc == 0
    assert tally.worst is not None
    assert (tally.worst.measured, tally.worst.index) == (np.inf, 0)


def test_a_known_site_has_exactly_its_known_effect() -> None:
    """relu(x) and relu(2 x), outputs weighted 1 and -3: at x = 1 a crash of neuron 1 changes 1 - 6 to 1."""
    net = nf.Network.dense([[[1.0], [2.0]], [[1.0, -3.0]]], None, ["relu", "identity"])
    plan = nf.Exhaustive(net, nf.Crash(), failures=(1,))
    session = _numba.Session(plan, np.array([[0.5], [1.0]]), "float32")
    session.golden(0, session.blocks)
    records = session.evaluate(*session.rows(0, 2), 0, session.blocks, session.desk(), each=True)
    assert records.each is not None
    assert records.each.tolist() == [[0.5, 1.0], [3.0, 6.0]]


def test_coefficients_are_those_of_the_c_kernel() -> None:
    text = (Path(__file__).parents[1] / "csrc" / "activation.inc").read_text()
    tables = re.findall(r"FN\((\w+)\)\[\] = \{([^}]*)\}", text)
    assert len(tables) == 12
    for name, numbers in tables:
        values = tuple(float(n.strip().rstrip("f")) for n in numbers.split(",") if n.strip())
        assert values == COEFFICIENTS[name]["f" not in numbers]


@pytest.mark.slow
def test_compiling_is_explained_once_and_then_remembered(tmp_path: Path) -> None:
    code = (
        "import numpy as np, neurofail as nf\n"
        "net = nf.Network.dense([[[1.0], [2.0]], [[1.0, -3.0]]], None, ['relu', 'identity'])\n"
        "nf.run(net, [[0.5]], nf.Exhaustive(net, nf.Crash(), failures=(1,)), backend='numba')\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stderr
        for _ in range(2)
    )
    assert first.count("\n") == 1
    assert "compiling" in first
    assert second == ""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("fault", "failures"),
    [
        (nf.Crash(), (0, 1)),
        (nf.Crash(), (0, 3)),
        (nf.Byzantine(1.0), (0, 2)),
        (nf.StuckAt(0.3), (0, 2)),
        (nf.StuckAt(-1e30), (0, 2)),
        (nf.Crash(), (1, 1)),
    ],
    ids=str,
)
def test_outputs_that_bounds_spare_change_nothing(fault: Any, failures: tuple[int, int], dtype: str) -> None:
    random = np.random.default_rng(11)
    tables = 0
    for outputs in (1, 2, 7, 10, 17, 40):
        for gain in (0.01, 0.3, 3.0):
            hidden = random.normal(size=(17, 9))
            weights = [random.normal(size=(9, 4)), hidden, gain * random.normal(size=(outputs, 17)) / 4]
            # The classes lie apart, so that with small weights none changes.
            biases = [np.zeros(9), np.zeros(17), np.linspace(0, 1, outputs)]
            net = nf.Network.dense(weights, biases, ["relu", "sigmoid", "identity"])
            plan = nf.Exhaustive(net, fault, failures=failures, at_most=True)
            session = _numba.Session(plan, random.uniform(size=(101, 4)), dtype)
            session.golden(0, session.blocks)
            rows, levels = session.rows(0, plan.count)
            desk = session.desk()
            whole = session.evaluate(rows, levels, 0, session.blocks, desk)
            # Without runs, every output is computed.
            each = session.evaluate(rows, levels, 0, session.blocks, session.desk(), each=True)
            for name in ("errors", "sdc", "due"):
                assert np.array_equal(getattr(whole, name), getattr(each, name))
            tables += bool((desk[1].scale > 0).any())
    # There are none where runs share no failure of that layer, or have neurons that fail in two ways.
    assert bool(tables) == (failures[1] > 1 and not isinstance(fault, nf.Byzantine))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("phi", ["sigmoid", "tanh"])
@pytest.mark.parametrize("failures", [(2, 0), (3, 2)])
def test_no_error_exceeds_its_bound_and_most_need_not_be_run(
    phi: str, failures: tuple[int, int], dtype: str
) -> None:
    net = random_network((5, 60, 80, 10), phi, seed=1)
    lanes = block_size(np.dtype(dtype).itemsize)
    plan = nf.Sampled(net, nf.Crash(), failures=failures, count=300, seed=1)
    session = _numba.Session(plan, random_inputs(net, TILE * lanes), dtype)
    session.golden(0, session.blocks)
    rows, levels = session.rows(0, TOGETHER)
    desk = session.desk()
    session.evaluate(rows, levels, 0, session.blocks, desk)
    each = session.evaluate(rows, levels, 0, session.blocks, session.desk(), each=True).each
    assert each is not None
    # What no error exceeds, or -1 where it was run.
    upper = desk[2].upper.reshape(TOGETHER, -1)
    left = upper >= 0
    assert np.all(each[left] <= upper[left])
    assert left.mean() > (0.9 if phi == "sigmoid" else 0.2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_looked_at_need_not_be_run(dtype: str) -> None:
    net = random_network((5, 60, 128, 10), "relu", seed=1)
    lanes = block_size(np.dtype(dtype).itemsize)
    plan = nf.Exhaustive(net, nf.Crash(), failures=(2, 0))
    session = _numba.Session(plan, random_inputs(net, TILE * lanes), dtype)
    session.golden(0, session.blocks)
    rows, levels = session.rows(0, TOGETHER)
    desk = session.desk()
    found = session.evaluate(rows, levels, 0, session.blocks, desk)
    upper, ran = desk[2].upper.reshape(BATCH, -1)[:TOGETHER], desk[2].now_bounded[3]
    suspects = (upper > found.errors[:, None]).sum()
    # Each configuration's most promising input is run unseen.
    assert TOGETHER <= ran < TOGETHER + 0.25 * suspects
