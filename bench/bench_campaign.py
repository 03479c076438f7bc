"""What a campaign costs besides its configurations: per shard, in the driver's memory, and in scaling.

    python bench/bench_campaign.py shards 100000     trivial shards through a real cluster
    python bench/bench_campaign.py store 10000       the same without a cluster: validate, write, flush, merge
    python bench/bench_campaign.py scaling           W3 in shards of a second over one and two workers

Needs the extra `dask`. Each prints one JSON object.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from workloads import WORKLOADS

import neurofail as nf
from neurofail import _dask, campaign, kernel
from neurofail.dyadic import Range
from neurofail.executors import Dask, Executor, Outcome, Task, work
from neurofail.tally import Sum

NET = nf.Network.dense([np.eye(4), np.ones((2, 4))], None, ["relu", "identity"])
INPUTS = np.full((1, 4), 0.5)


def answered(task: Task, block: Range) -> Outcome:
    """A shard's outcome without running it: every configuration has error 0.5."""
    record = {
        "setup": task.setup.digest,
        "neurofail": nf.__version__,
        "backend": "none",
        "ranges": [list(block)],
        "histogram": {"253": block[1] - block[0]},
        "sdc": 0,
        "due": 0,
        "exceeded": 0,
        "worst": {
            "error": 0.5,
            "measured": 0.5,
            "index": block[0],
            "input": 0,
            "output": 0,
            "configuration": task.setup.plan[block[0]].to_dict(),
        },
    }
    return Outcome(block, record, None, "", "nowhere", 1.0)


def on_worker(name: str, block: Range) -> Outcome:
    """`answered`, on a worker of a cluster."""
    return answered(_dask.get_worker().plugins[name].task, block)


class _Here:
    """A crew that costs nothing."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._out: list[Range] = []

    def capacity(self) -> int:
        return 4

    def submit(self, blocks: Sequence[Range]) -> None:
        self._out += blocks

    def results(self) -> list[Outcome]:
        return [answered(self._task, self._out.pop(0))]


class Nothing:
    """An executor without a cluster, without work."""

    @contextmanager
    def crew(self, task: Task, progress: kernel.Progress | None) -> Iterator[_Here]:
        yield _Here(task)


def resident() -> float:
    """The driver's memory, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def trivial(shards: int, executor: Executor) -> dict[str, object]:
    """Cost per shard of `shards` shards of one configuration each, and the driver's memory on the way."""
    plan = nf.Sampled(NET, nf.Crash(), (1,), count=shards, seed=1)
    campaign.Pace.wanted = lambda *_: 1  # type: ignore[method-assign,assignment]  # a shard a configuration
    memory: list[tuple[int, float, float]] = []
    began, spent = time.perf_counter(), time.process_time()

    def watch(done: int, total: Sum) -> None:
        if done % max(1, shards // 20) == 0:
            memory.append((done, round(resident(), 1), round(time.perf_counter() - began, 2)))

    with tempfile.TemporaryDirectory() as out:
        tally = campaign.run(NET, INPUTS, plan, out, executor=executor, progress=watch)
        seconds, cpu = time.perf_counter() - began, time.process_time() - spent
        began = time.perf_counter()
        campaign.Folder.open(out).load()
        loading = time.perf_counter() - began
    assert tally.complete
    return {
        "shards": shards,
        "seconds": seconds,
        "ms_per_shard": 1e3 * seconds / shards,
        "driver_cpu_ms_per_shard": 1e3 * cpu / shards,
        "load_ms_per_shard": 1e3 * loading / shards,
        "memory_mib": memory,
    }


# What Dask does beside the work, turned down as the README says.
_CALM = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "10s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
}
_CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(
        n_workers=int(sys.argv[1]), threads_per_worker=int(sys.argv[2]), dashboard_address=None
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@contextmanager
def cluster(workers: int, threads: int) -> Iterator[tuple[Client, int]]:
    """A client of a cluster whose scheduler is a process of its own, and that process."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(_CLUSTER)
        script.flush()
        process = subprocess.Popen(
            [sys.executable, script.name, str(workers), str(threads)],
            env={**os.environ, **_CALM},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process, Client(process.stdout.readline().strip()) as client:
            client.wait_for_workers(workers)
            yield client, process.pid


def cpu_of(pid: int) -> float:
    """The CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def clustered(shards: int, threads: int = 16) -> dict[str, object]:
    """`trivial` over a cluster of two worker processes."""
    _dask._on_worker = on_worker
    with cluster(2, threads) as (client, scheduler):
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        before = cpu_of(scheduler)
        found = trivial(shards, Dask(client))
        return {**found, "scheduler_cpu_ms_per_shard": 1e3 * (cpu_of(scheduler) - before) / shards}


def alone(task: Task, blocks: Sequence[Range]) -> float:
    """The seconds that a process takes for these shards, one after the other."""
    began = time.perf_counter()
    for block in blocks:
        assert not work(task, block, 1).failure
    return time.perf_counter() - began


def bare(processes: int, task: Task, blocks: Sequence[Range]) -> float:
    """Configurations per second of processes that run these shards each, with nothing to coordinate them."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        wait([pool.submit(alone, task, blocks[:1]) for _ in range(processes)])
        seconds = [pool.submit(alone, task, blocks) for _ in range(processes)]
        count = sum(stop - start for start, stop in blocks)
        return sum(count / each.result() for each in seconds)


def scaling(configurations: int = 1_000_000, rounds: int = 3) -> dict[str, object]:
    """W3 over one worker and over two, in shards of about a second; each round in both orders.

    `efficiency` is what the clock says of the whole; where driver, scheduler and workers share the cores, it
    falls with what the first two use (`overhead`, in cores) and with what two workers take from each other
    (`shard_rates`, configurations per second inside a shard). `busy` is the share of the workers' time that
    went into shards: what scheduling leaves idle. `bare` is the rate of as many processes that run such
    shards with nothing to coordinate them: their efficiency is the machine's, and two workers reach `of_bare`
    of their rate.
    """
    workload = WORKLOADS["W3"]
    net, inputs = workload.network("sigmoid"), workload.draw_inputs()
    names = ("rates", "busy", "overhead", "shard_rates", "bare")
    seen: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in names}

    def timed(workers: int, count: int) -> None:
        plan = nf.Sampled(net, nf.Crash(), workload.failures, count=count, seed=1)
        with (
            cluster(workers, 1) as (client, scheduler),
            tempfile.TemporaryDirectory() as out,
        ):
            campaign.run(net, inputs, plan, f"{out}/warm", executor=Dask(client), shard=(1, 50))
            began, spent = time.perf_counter(), time.process_time() + cpu_of(scheduler)
            tally = campaign.run(net, inputs, plan, f"{out}/run", executor=Dask(client), shard_seconds=1.0)
            seconds = time.perf_counter() - began
            seen["overhead"][workers].append((time.process_time() + cpu_of(scheduler) - spent) / seconds)
            assert tally.complete
            shards = list(campaign.Folder.open(f"{out}/run").shards())
        inside = sum(shard.seconds for shard in shards)
        seen["rates"][workers].append(count / seconds)
        seen["busy"][workers].append(inside / (workers * seconds))
        seen["shard_rates"][workers].append(count / inside)
        longest = max(shards, key=lambda shard: shard.tally.count).range
        task = Task(net, inputs, tally.setup.describe(), "auto", keep=False)
        seen["bare"][workers].append(bare(workers, task, [longest] * 5))

    for i in range(rounds):
        for workers in (1, 2) if i % 2 else (2, 1):
            timed(workers, configurations * workers)
    efficiencies = {
        name: [b / (2 * a) for a, b in zip(seen[name][1], seen[name][2], strict=True)]
        for name in ("rates", "bare")
    }
    of_bare = [b / a for a, b in zip(seen["bare"][2], seen["rates"][2], strict=True)]
    return {
        "efficiency": statistics.median(efficiencies["rates"]),
        "bare_efficiency": statistics.median(efficiencies["bare"]),
        "of_bare": statistics.median(of_bare),
        "efficiencies": efficiencies,
        **seen,
    }


def main(arguments: Sequence[str]) -> None:
    """Runs what is named."""
    what, size = arguments[0], [int(n) for n in arguments[1:]]
    run: dict[str, Any] = {
        "shards": clustered,
        "store": lambda shards: trivial(shards, Nothing()),
        "scaling": scaling,
    }
    print(json.dumps(run[what](*size)))


if __name__ == "__main__":
    main(sys.argv[1:])
