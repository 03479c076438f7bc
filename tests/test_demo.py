"""The demonstration, end to end: quick enough, and every number it prints is a recomputed truth."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest

import neurofail as nf
from neurofail._reference import deviations
from neurofail.data import digits, digits_test


@pytest.fixture(scope="module")
def shown() -> tuple[str, float]:
    """What the demonstration prints, and the seconds of processor time that it took."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("NEUROFAIL_BACKEND", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "neurofail", "demo"], capture_output=True, text=True, env=environment
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, took


def part(shown: tuple[str, float], name: str) -> str:
    return shown[0].split(f"== {name} ==")[1].split("\n== ")[0]


NAMES = pytest.mark.parametrize("name", ["sigmoid", "relu"])


def test_it_takes_less_than_twenty_seconds(shown: tuple[str, float]) -> None:
    """On two cores those are 40 s of processor time, which other work on the machine does not move."""
    assert shown[1] < 40


@NAMES
def test_it_counts_what_it_injected(shown: tuple[str, float], name: str) -> None:
    """Up to two of each layer's neurons, but for none at all: the product of 1 + N + C(N, 2), less 1."""
    net, (inputs, _) = digits(name), digits_test()  # type: ignore[arg-type]  # one of the names
    configurations = int(np.prod([1 + n + n * (n - 1) // 2 for n in net.widths[1:-1]])) - 1
    product = f"{len(inputs)} images = {configurations * len(inputs):,} evaluations"
    assert f"{configurations:,} configurations x {product}" in part(shown, name)


@NAMES
def test_its_accuracy_is_that_of_the_network(shown: tuple[str, float], name: str) -> None:
    net, (inputs, labels) = digits(name), digits_test()  # type: ignore[arg-type]  # one of the names
    right = float(np.mean(net(inputs).argmax(axis=1) == labels))
    assert right >= 0.95
    assert f"{100 * right:.1f} % of {len(labels)} held-out images right" in part(shown, name)


@NAMES
def test_its_witness_replays_to_the_error_it_prints(shown: tuple[str, float], name: str) -> None:
    net, (inputs, _) = digits(name), digits_test()  # type: ignore[arg-type]  # one of the names
    text = part(shown, name)
    error = re.search(r"worst error (\S+), replayed", text)
    where = re.search(r"image (\d+), output (\d+); number (\d+) of \(([\d, ]+)\)", text)
    assert error
    assert where
    row, output, index = (int(where[i]) for i in (1, 2, 3))
    plan = nf.Exhaustive(net, nf.Crash(), tuple(int(n) for n in where[4].split(",")))
    assert str(plan[index]) in text
    moved = np.abs(deviations(net, inputs[row : row + 1], plan.operations(index)))[0]
    assert f"{moved[output]:.6g}" == error[1]
    assert moved.argmax() == output


@NAMES
def test_its_bounds_and_ratios_are_recomputed_truths(shown: tuple[str, float], name: str) -> None:
    net, (inputs, _) = digits(name), digits_test()  # type: ignore[arg-type]  # one of the names
    text = part(shown, name)
    most = (2,) * net.depth
    seen = float(re.search(r"worst error (\S+),", text)[1])  # type: ignore[index]  # it is printed
    fep = nf.fep(net, nf.Crash(), most, at_most=True)
    assert f"Fep {fep:.6g}, {fep / seen:.1f} x the worst observed" in text
    best = nf.bounds(net, nf.Crash(), most, at_most=True, inputs=inputs)
    assert f"best bound on these images {best['best']:.6g} ({best.best_name})" in text
    assert seen <= best["best"] <= fep


@NAMES
def test_each_line_of_its_table_is_in_order(shown: tuple[str, float], name: str) -> None:
    net, (inputs, _) = digits(name), digits_test()  # type: ignore[arg-type]  # one of the names
    rows = re.findall(
        r"^\s*((?:\d, )*\d)\s+([\d,]+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)   (.*)$", part(shown, name), re.M
    )
    assert len(rows) == 3**net.depth - 1
    for counts, configurations, observed, best, fep, ratio, says in rows:
        failures = tuple(int(n) for n in counts.split(", "))
        plan = nf.Exhaustive(net, nf.Crash(), failures)
        assert plan.count == int(configurations.replace(",", ""))
        assert float(observed) <= float(best) * 1.001
        assert float(best) <= float(fep) * 1.001
        assert float(ratio) == pytest.approx(float(fep) / float(observed), rel=2e-2)
        assert float(fep) == pytest.approx(nf.fep(net, nf.Crash(), failures), rel=1e-3)
        promised, survived = "not promised" not in says, "survived" in says
        assert survived or not promised
    few = [row for row in rows if sum(int(n) for n in row[0].split(", ")) == 1]
    for counts, _, observed, *_ in few:  # single crashes, by the oracle
        layer = [int(n) for n in counts.split(", ")].index(1) + 1
        plan = nf.Exhaustive(net, nf.Crash(), tuple(int(n) for n in counts.split(", ")))
        worst = max(
            float(np.abs(deviations(net, inputs, plan.operations(i))).max()) for i in range(net.widths[layer])
        )
        assert f"{worst:.4g}" == observed


@NAMES
def test_what_it_says_to_survive_is_what_its_table_says(shown: tuple[str, float], name: str) -> None:
    text = part(shown, name)
    said = re.search(r"any (\d) crash\(es\) promised to be survived, any (\d) survived when tried", text)
    assert said
    lines = re.findall(
        r"^\s*((?:\d, )*\d)\s+[\d,]+.*   (promised|not promised), (survived|exceeded) when", text, re.M
    )
    for column, good, number in ((1, "promised", said[1]), (2, "survived", said[2])):
        bad = [sum(map(int, line[0].split(", "))) for line in lines if line[column] != good]
        assert int(number) == min([3, *bad]) - 1


def test_both_networks_are_shown(shown: tuple[str, float]) -> None:
    assert re.findall(r"^== (\S+) ==$", shown[0], re.M) == ["sigmoid", "relu"]
