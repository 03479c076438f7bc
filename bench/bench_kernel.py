"""The kernel's rate on every workload, against its goal and this machine's limit.

    python -m pytest bench/bench_kernel.py
    python -m pytest bench/bench_kernel.py --backend c/avx2 -k "W2a or W3" --seconds 0.5

Each answer is verified against the float64 reference before it is timed. One thread is timed in CPU time,
two in wall-clock time; figures are medians over rounds, with the quartiles' distance as the spread.
"""

from __future__ import annotations

import statistics
import time

import limits
import pytest
from conftest import Ledger
from drive import Drive, Unit
from workloads import ACTIVATIONS, WORKLOADS, case, verify

import neurofail as nf

CASES = [pytest.param(w, a, id=f"{w}-{a}") for w in WORKLOADS for a in ACTIVATIONS]
SCALED = ("W2a", "W2b", "W3")
TABLE = "Rates (million evaluations a second)"


def _measure(
    benchmark,
    name: str,
    activation: str,
    backend: str,
    threads: int,
    machine: limits.Machine | None,
    ledger: Ledger,
    config: pytest.Config,
) -> None:
    of = case(name, activation)
    checked = verify(name, activation, backend)
    drive = Drive(of, backend, threads)
    if threads == 1:
        drive.check()
    units = drive.round(config.getoption("--seconds"))
    by_cpu = threads * statistics.median(rate_of(drive, units)[1] for _ in range(3))
    benchmark.pedantic(drive.run, args=(units,), rounds=config.getoption("--rounds"), warmup_rounds=1)
    drive.close()
    stats = benchmark.stats.stats
    rate = drive.evaluations(units) / stats.median
    goal, limit = (
        of.workload.goals.get(activation),
        machine and machine.limit(of.workload, activation, threads),
    )
    line = f"{of.name:20} {backend:10} {threads} thread(s) {rate / 1e6:10.4g}"
    line += f" (by CPU time {by_cpu / 1e6:.4g})" if threads > 1 else ""
    line += f"  spread {stats.iqr / stats.median:4.0%}"
    line += f"  goal on two AVX-512 cores {goal:6g}" if goal else ""
    if limit:
        share = of.workload.shares.get(activation)
        line += f"  limit here {limit / 1e6:8.4g}, share {rate / limit:4.0%}" + (
            f" of {share:.0%}" if share else ""
        )
    if of.workload.cost.dense:
        product = limits.product(1)
        ledger.note("The machine", f"matrix product, one core: {product}")
        share = rate * 2 * of.workload.cost.dense / (threads * product.rate)
        line += f"  dense part at {share:.0%} of the best matrix product's rate (goal 85%)"
    ledger.note(TABLE, line)
    ledger.note("Verified", f"{of.name} on {backend}: {checked}")
    benchmark.extra_info.update(
        workload=name, activation=activation, backend=backend, threads=threads, rate=rate, limit=limit
    )


@pytest.mark.benchmark(group="one thread, CPU time", timer=time.process_time)
@pytest.mark.parametrize(("name", "activation"), CASES)
def test_one_thread(benchmark, name, activation, backend, machine, ledger, pytestconfig):
    _measure(benchmark, name, activation, backend, 1, machine, ledger, pytestconfig)


@pytest.mark.benchmark(group="two threads, wall clock", timer=time.perf_counter)
@pytest.mark.parametrize(("name", "activation"), CASES)
def test_two_threads(benchmark, name, activation, backend, machine, ledger, pytestconfig):
    _measure(benchmark, name, activation, backend, 2, machine, ledger, pytestconfig)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SCALED)
def test_scaling(name, activation, backend, machine, ledger, pytestconfig):
    """Two threads over one, in rounds that alternate.

    By the wall clock it is what a user gets, and counts only on an idle machine. By CPU time (twice the
    work per CPU second of both threads, over that of one) it leaves out waiting, for the other programs of a
    busy machine as for one another. What the machine's two cores give at all is measured in between: with the
    plain trial kernel, whose threads share nothing.
    """
    of = case(name, activation)
    seconds = pytestconfig.getoption("--seconds")
    drives = [Drive(of, backend, threads) for threads in (1, 2)]
    units = [drive.round(seconds) for drive in drives]
    trial = machine and limits.trial(machine.isa, activation)
    ratios: dict[str, list[float]] = {"wall clock": [], "CPU time": []}
    if trial:
        ratios |= {"the machine itself": [], "share of the machine's": []}
    for _ in range(2 * pytestconfig.getoption("--rounds") + 1):
        rates = [rate_of(drive, some) for drive, some in zip(drives, units, strict=True)]
        ratios["wall clock"].append(rates[1][0] / rates[0][0])
        ratios["CPU time"].append(2 * rates[1][1] / rates[0][1])
        if trial:
            one, two = (trial.by_wall(cores, seconds) for cores in (1, 2))
            ratios["the machine itself"].append(two / one)
            ratios["share of the machine's"].append(ratios["wall clock"][-1] * one / two)
    for drive in drives:
        drive.close()
    said = "; ".join(
        f"{clock} {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
        for clock, each in ratios.items()
    )
    ledger.note("Two threads over one: median (range), goal 1.9", f"{of.name:20} {backend:10} {said}")


def rate_of(drive: Drive, units: list[Unit]) -> tuple[float, float]:
    """Evaluations per second of the wall clock, and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    drive.run(units)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return drive.evaluations(units) / wall, drive.evaluations(units) / cpu


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_whole_call(name, activation, backend, ledger):
    """`neurofail.run` from nothing, once warm, and how much of it is set-up: the run of one configuration."""
    of = case(name, activation)

    def seconds(stop: int | None) -> float:
        began = time.perf_counter()
        nf.run(of.net, of.inputs, of.plan, backend=backend, start=of.start, stop=stop)
        return time.perf_counter() - began

    setup = min(seconds(of.start + 1) for _ in range(3))
    whole = min(seconds(None) for _ in range(3))
    ledger.note(
        "neurofail.run as called, all cores (best of 3)",
        f"{of.name:20} {backend:10} {1e3 * whole:9.2f} ms for {of.evaluations:,} evaluations, "
        f"{of.evaluations / whole / 1e6:.4g} million a second; one configuration takes {1e3 * setup:.2f} ms",
    )
