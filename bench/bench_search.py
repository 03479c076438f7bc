"""The exact search: time and nodes against the time that enumeration would take.

    python -m pytest bench/bench_search.py --benchmark-only --benchmark-columns=median,rounds

`extra_info` of each result: nodes, configurations times inputs, and the seconds that enumeration would take
at the rate that the kernel reaches on a part of the same question, measured in the same run. Set
NEUROFAIL_BENCH_LIMIT (seconds, 60) to let the hard ones run longer; a search that runs out of time reports
its gap instead of failing.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import neurofail as nf

LIMIT = float(os.environ.get("NEUROFAIL_BENCH_LIMIT", "60"))


def xavier(widths: tuple[int, ...], phi: str) -> nf.Network:
    rng = np.random.default_rng(0)
    weights = [rng.uniform(-1, 1, (b, a)) * np.sqrt(6 / (a + b)) for a, b in itertools.pairwise(widths)]
    return nf.Network.dense(weights, None, [phi] * (len(widths) - 2) + ["identity"])


def digits(name: str) -> tuple[nf.Network, np.ndarray]:
    data = files("neurofail") / "data"
    with np.load(str(data / "digits-test.npz")) as file:
        return nf.load(str(data / f"digits-{name}.npz")), file["inputs"]


def rate(net: nf.Network, inputs: np.ndarray, failures: tuple[int, ...]) -> float:
    """Evaluations a second of the kernel on a sample of the question."""
    few = inputs[:64]
    count = 2000
    plan = nf.Sampled(net, nf.Crash(), failures=failures, count=count, seed=0)
    nf.run(net, few, plan)
    begun = time.perf_counter()
    nf.run(net, few, plan)
    return count * len(few) / (time.perf_counter() - begun)


def settle(
    benchmark, net: nf.Network, inputs: np.ndarray, failures: tuple[int, ...], **options
) -> nf.WorstCase:
    nf.worst_case(net, inputs[:1], nf.Crash(), failures, time_limit=1.0)  # compile, or load what is compiled
    answer = benchmark.pedantic(
        nf.worst_case,
        (net, inputs, nf.Crash(), failures),
        {"time_limit": LIMIT, **options},
        rounds=3 if LIMIT <= 60 else 1,
    )
    evaluations = len(inputs) * math.prod(
        math.comb(n, f) for n, f in zip(net.widths[1:-1], failures, strict=True)
    )
    benchmark.extra_info.update(
        nodes=answer.nodes,
        error=answer.error,
        gap=answer.upper / answer.error - 1,
        evaluations=f"{evaluations:.3g}",
        enumeration_seconds=f"{evaluations / rate(net, inputs, failures):.3g}",
    )
    return answer


@pytest.mark.parametrize("failures", [(2, 0), (4, 0), (8, 0), (16, 0), (4, 4)], ids=str)
@pytest.mark.parametrize("phi", ["sigmoid", "relu"])
def test_random_64_128_128_10_on_256_inputs(benchmark, phi: str, failures: tuple[int, int]) -> None:
    inputs = np.random.default_rng(1).random((256, 64))
    settle(benchmark, xavier((64, 128, 128, 10), phi), inputs, failures)


@pytest.mark.parametrize("outputs", [1, 10])
@pytest.mark.parametrize("phi", ["sigmoid", "relu"])
def test_random_network_16_crashes_on_one_input(benchmark, phi: str, outputs: int) -> None:
    inputs = np.random.default_rng(1).random((1, 64))
    settle(benchmark, xavier((64, 128, 128, outputs), phi), inputs, (16, 0))


@pytest.mark.parametrize("failures", [*((f, 0) for f in range(1, 9)), (4, 4), (16, 0)], ids=str)
@pytest.mark.parametrize("phi", ["sigmoid", "relu"])
def test_digits_on_all_test_inputs(benchmark, phi: str, failures: tuple[int, int]) -> None:
    # 16 is a quarter of the first hidden layer.
    settle(benchmark, *digits(phi), failures)


@pytest.mark.parametrize("share", ["one layer", "all layers"])
def test_deep_digits_on_all_test_inputs(benchmark, share: str) -> None:
    net, inputs = digits("deep")
    failures = (2,) + (0,) * (net.depth - 1) if share == "one layer" else (1,) * net.depth
    settle(benchmark, net, inputs, failures)


@pytest.mark.parametrize("judge", ["search", "highs"])
def test_against_a_mixed_integer_program(benchmark, judge: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from search import milp

    rng = np.random.default_rng(0)
    net = nf.Network.dense(
        [rng.normal(size=s) for s in ((16, 4), (12, 16), (1, 12))], None, ["relu", "relu", "identity"]
    )
    x = rng.random((1, 4))
    truth = nf.worst_case(net, x, nf.Crash(), (5, 0))
    assert truth.exact
    if judge == "search":
        benchmark(nf.worst_case, net, x, nf.Crash(), (5, 0))
    else:
        assert benchmark.pedantic(milp.worst, (net, x[0], (5, 0)), rounds=1) == pytest.approx(
            truth.error, abs=1e-5
        )
