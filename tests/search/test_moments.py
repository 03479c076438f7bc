"""The bound by second moments holds at every node, whatever it starts from, and settles what lines do not."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numba as nb
import numpy as np
import pytest

import neurofail as nf
from neurofail.budget import Budget
from neurofail.search.circuit import FAILED, FREE, HERE, HIGH, LEAST, LOW, MOST, SLACK, SOUND, desk
from neurofail.search.moments import FORM, D, definite, moments, sharpen
from neurofail.search.relaxation import bound, spread, start
from neurofail.search.selection import select
from neurofail.search.unfold import unfold

from .enumeration import faulty, worst
from .test_worst import dense

PHIS = (
    *("relu", "leaky_relu", nf.Activation("leaky_relu", alpha=-0.5), nf.Activation("leaky_relu", alpha=1.5)),
    *(nf.Activation("leaky_relu", alpha=1.0), nf.Activation("relu", lipschitz=2.0)),
)


@nb.njit
def bounds(circuit, case, row, cut, work, second):
    """A node's bound by lines, and by moments."""
    spread(circuit, case, None, work)
    start(circuit, work)
    mean, _, above = bound(circuit, case, row, None, 1.0, 0.0, work)
    lines = mean + select(circuit, work)
    mean = sharpen(circuit, case, above, cut, work, second)
    return lines, mean + select(circuit, work)


@nb.njit
def certain(n, m, second):
    return definite(n, m, second)


def choices(net: nf.Network, failures: tuple[int, ...], at_most: bool) -> list[tuple[tuple[int, ...], ...]]:
    """`enumeration.sets`, for wider layers."""
    each = [
        [s for f in range(0 if at_most else most, most + 1) for s in itertools.combinations(range(n), f)]
        for n, most in zip(net.widths[1:-1], failures, strict=True)
    ]
    return list(itertools.product(*each))


def random_relu(rng: np.random.Generator, width: int, sizes: float = 3.0) -> nf.Network:
    """A ReLU, leaky or not, in layer 2; weights of any size, some of them 0."""
    depth = int(rng.integers(2, 4))
    widths = [2, *rng.integers(width // 2, width + 1, depth), int(rng.integers(1, 3))]
    scale = 10.0 ** rng.uniform(-sizes, sizes)
    weights = [rng.normal(0, scale, (b, a)) for a, b in itertools.pairwise(widths)]
    if rng.random() < 0.3:
        weights = [w * (rng.random(w.shape) > 0.4) for w in weights]
    biases = [rng.normal(0, scale, len(w)) for w in weights]
    others = ("relu", "sigmoid", "tanh")
    phis = [str(rng.choice(others)), PHIS[rng.integers(len(PHIS))], str(rng.choice(others))][:depth]
    return nf.Network.dense(weights, biases, [*phis, "identity"], (-1.0, 1.0))


def check_node(seed: int) -> None:
    """The largest objective among a random node's completions is below the bound."""
    rng = np.random.default_rng(seed)
    net = random_relu(rng, 7)
    widths, at_most = net.widths[1:-1], bool(rng.random() < 0.5)
    counts = [int(rng.integers(1, min(5, widths[0]) + 1)), int(rng.integers(0, 3)) // 2, 0][: net.depth]
    fault = nf.Crash() if rng.random() < 0.5 else nf.StuckAt(float(rng.normal()))
    question = unfold(net, fault, Budget.of(net, fault, tuple(counts), at_most=at_most))
    inputs = rng.uniform(-1, 1, (1, 2))
    rows = np.vstack([net.weights[-1], -net.weights[-1]])
    problem = question.problem(inputs, rows, np.zeros((1, len(rows))), np.ones((1, len(rows)), np.bool_))
    case, work, second = problem.case(0), desk(problem.shape), moments(problem.shape[1])
    completions = choices(net, tuple(counts), at_most)
    reached = (faulty(net, inputs, completions, getattr(fault, "value", 0.0)) - net(inputs))[:, 0]
    values = np.hstack([reached, -reached])
    decided = dict.fromkeys([(k, int(j)) for k in range(2) for j in rng.permutation(widths[k])[:3]])
    work.of[LOW], work.of[HIGH] = case.of[LEAST], case.of[MOST]
    # Whatever it starts from: as the search does, and from numbers that mean nothing.
    second.tuning[:] = rng.choice([0.0, 1.0]) * 10.0 ** rng.uniform(-6, 6, second.tuning.shape)
    for place in [None, *decided]:
        if place is not None:
            k, j = place
            work.state[HERE] = problem.root if not any(decided.values()) else work.state[HERE]
            if work.state[HERE, k, j] != FREE:
                continue
            decided[place] = state = FAILED if rng.random() < 0.5 else SOUND
            work.state[HERE, k, j] = state
            completions_here = [(j in row[k]) == (state == FAILED) for row in completions]
            completions = list(itertools.compress(completions, completions_here))
            values = values[completions_here]
            if not len(completions):
                return
        else:
            work.state[HERE] = problem.root
        work.left[:] = problem.circuit.allowed - (work.state[HERE] == FAILED).sum(axis=1)
        for row in range(len(rows)):
            cut = float(rng.choice([-np.inf, values[:, row].max()]))
            _, limit = bounds(problem.circuit, case, row, cut, work, second)
            about = f"seed {seed}: {net}, {fault}, {counts}, {decided}"
            assert values[:, row].max() <= limit + case.objective[SLACK, row], about


@pytest.mark.parametrize("block", range(4))
def test_no_completion_of_a_node_exceeds_its_bound(block: int) -> None:
    for seed in range(250 * block, 250 * (block + 1)):
        check_node(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_no_completion_of_a_node_exceeds_its_bound_at_length(block: int) -> None:
    for seed in range(10_000 + 1000 * block, 10_000 + 1000 * (block + 1)):
        check_node(seed)


def check_answer(seed: int) -> None:
    """The search, with failures enough for moments to be looked at, equals enumeration."""
    rng = np.random.default_rng(seed)
    net = random_relu(rng, 10, sizes=0.5)
    most = net.widths[1]
    fault = nf.Crash() if rng.random() < 0.5 else nf.StuckAt(float(rng.normal()))
    at_most = bool(rng.random() < 0.3)
    failures = (min(most, int(rng.integers(6, 9))), int(rng.integers(0, 2)), 0)[: net.depth]
    inputs = rng.uniform(-1, 1, (2, 2))
    answer = nf.worst_case(net, inputs, fault, failures, at_most=at_most, threads=1)
    truth = worst(net, inputs, choices(net, failures, at_most), getattr(fault, "value", 0.0))
    about = f"seed {seed}: {net}, {fault}, {failures}"
    assert answer.exact, about
    assert abs(answer.error - truth) <= answer.rounding, about
    assert truth <= answer.upper + answer.rounding, about


def test_equals_enumeration() -> None:
    for seed in range(60):
        check_answer(seed)


def test_only_what_is_positive_definite_is_called_so() -> None:
    """Against exact arithmetic, of matrices within a few units of rounding of being singular."""
    found = set()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        n, second = int(rng.integers(1, 7)), moments(8)
        half = rng.normal(size=(n, n))
        form = half @ half.T
        second.square[FORM, :n, :n] = (form + form.T) / 2
        d = np.full(n, np.linalg.eigvalsh(form)[-1] * (1.0 + rng.choice([-1, 0, 1, 60, 4000]) * 2.0**-52))
        second.of[D, :n] = d
        exact = [
            [
                (Fraction(d[i]) if i == j else 0) - Fraction(second.square[FORM, min(i, j), max(i, j)])
                for j in range(n)
            ]
            for i in range(n)
        ]
        said = bool(certain(n, 0, second))
        assert not said or positive(exact), seed
        found.add((said, positive(exact)))
    assert found >= {(True, True), (False, False)}


def positive(matrix: list[list[Fraction]]) -> bool:
    """Whether a symmetric matrix is positive definite, by elimination."""
    rows = [list(row) for row in matrix]
    for k, row in enumerate(rows):
        if row[k] <= 0:
            return False
        for other in rows[k + 1 :]:
            times = other[k] / row[k]
            other[:] = [a - times * b for a, b in zip(other, row, strict=True)]
    return True


def test_orthogonal_weights_cannot_all_be_large() -> None:
    # F = sum |h_j y| over seven rows h_j of a Hadamard matrix, y = 1: with four of eight failed, each h_j z
    # ranges over [-4, 4], and lines bound F by 28. But sum (h_j z)^2 = 8 * 4 - 4^2, so F <= sqrt(7 * 16).
    two = np.array([[1.0, 1.0], [1.0, -1.0]])
    rows = np.kron(np.kron(two, two), two)[1:]
    net = nf.Network.dense(
        [np.zeros((8, 1)), np.vstack([rows, -rows]), np.ones((1, 14))],
        [np.ones(8), None, None],
        ["relu", "relu", "identity"],
    )
    one = np.ones((1, 1))
    budget = Budget.of(net, nf.Crash(), (4, 0))
    problem = unfold(net, nf.Crash(), budget).problem(one, net.weights[-1], 0.0 * one, one > 0)
    work, case = desk(problem.shape), problem.case(0)
    work.state[HERE], work.left[:] = problem.root, problem.circuit.allowed
    work.of[LOW], work.of[HIGH] = case.of[LEAST], case.of[MOST]
    truth = worst(net, one, choices(net, (4, 0), at_most=False), 0.0)
    lines, limit = bounds(problem.circuit, case, 0, -np.inf, work, moments(14))
    assert truth <= np.sqrt(7 * 16) <= limit <= 1.1 * np.sqrt(7 * 16)
    assert lines >= 20.0


WIDE = dense((64, 128, 128, 10), "relu", 0)
INPUT = np.random.default_rng(1).random((1, 64))


def test_sixteen_crashes_of_a_wide_relu_network_are_settled() -> None:
    # By lines and shares the limit is 1.45 after a hundred thousand nodes.
    answer = nf.worst_case(WIDE, INPUT, nf.Crash(), (16, 0), threads=1, time_limit=60.0)
    assert answer.exact
    assert answer.error == pytest.approx(0.974246, abs=1e-6)
    assert answer.nodes < 5_000


def test_neither_threads_nor_checkpoints_change_the_course(tmp_path: Path) -> None:
    whole = nf.worst_case(WIDE, INPUT, nf.Crash(), (12, 0), threads=1)
    assert nf.worst_case(WIDE, INPUT, nf.Crash(), (12, 0), threads=3) == whole
    path, runs = tmp_path / "search.npz", 0
    while path.exists() or runs == 0:
        limit = 0.02 if runs else 0.0
        answer = nf.worst_case(WIDE, INPUT, nf.Crash(), (12, 0), threads=1, checkpoint=path, time_limit=limit)
        runs += 1
    assert runs > 2
    assert answer == whole
