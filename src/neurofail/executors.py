"""Where shards run: in this process, in others on this machine, or on a Dask cluster.

Whatever runs them, only ranges of indices go out and only tallies come back.
"""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from neurofail import __version__, kernel
from neurofail.dyadic import Range
from neurofail.errors import InputError
from neurofail.network import Network
from neurofail.records import Records
from neurofail.tally import Array, Setup

if TYPE_CHECKING:
    from distributed import Client

# How often a range is given to a new process after the one that ran it died.
_DEATHS = 3
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Kept:
    """Every configuration of a shard: its worst error, on which input, and how many inputs went wrong."""

    errors: npt.NDArray[np.float64]
    inputs: npt.NDArray[np.int32]
    sdc: npt.NDArray[np.int32]
    due: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: a tally's record, or the traceback of what went wrong."""

    block: Range
    record: dict[str, Any] | None
    kept: Kept | None
    failure: str
    machine: str
    seconds: float


@dataclass(frozen=True)
class Task:
    """All that a worker must know besides the range; it reaches each worker once.

    Attributes
    ----------
    net, inputs : the network and its inputs
    asked : the setup's description, from which the worker makes the plan and which it checks
    backend : what is to run it
    keep : whether every configuration's record is wanted
    """

    net: Network
    inputs: Array
    asked: dict[str, object]
    backend: str
    keep: bool

    @cached_property
    def setup(self) -> Setup:
        """The question; InputError if the network or the inputs are not those described."""
        return Setup.from_dict(self.net, self.inputs, self.asked)

    def __reduce__(self) -> tuple[type[Task], tuple[object, ...]]:
        # The plan's tables can be large and are made again in no time: they do not travel.
        return Task, (self.net, self.inputs, self.asked, self.backend, self.keep)


def work(task: Task, block: Range, threads: int | None, progress: kernel.Progress | None = None) -> Outcome:
    """Runs one shard; an exception becomes an outcome, so that it is never taken for a lost worker."""
    machine = platform.node() or "unknown"
    began = time.perf_counter()
    kept: list[tuple[int, Kept]] = []

    def keep(start: int, records: Records) -> None:
        assert records.each is not None  # the kernel gives it to whoever keeps
        each = np.where(np.isnan(records.each), np.inf, records.each)
        counts = records.sdc.astype(np.int32), records.due.astype(np.int32)
        kept.append((start, Kept(records.errors.copy(), each.argmax(axis=1).astype(np.int32), *counts)))

    try:
        setup = task.setup
        tally = kernel.run(
            task.net,
            task.inputs,
            setup.plan,
            task.backend,
            setup.dtype,
            threads,
            start=block[0],
            stop=block[1],
            epsilon=setup.epsilon,
            progress=progress,
            keep=keep if task.keep else None,
        )
    except Exception:
        return Outcome(block, None, None, traceback.format_exc(), machine, time.perf_counter() - began)
    record = tally.to_dict()
    # The setup is known at the other end; its digest is enough to tell another one.
    record["setup"] = tally.setup.digest
    record["neurofail"] = __version__
    return Outcome(block, record, _joined(kept), "", machine, time.perf_counter() - began)


def _joined(kept: list[tuple[int, Kept]]) -> Kept | None:
    if not kept:
        return None
    parts = [part for _, part in sorted(kept, key=lambda pair: pair[0])]
    return Kept(
        np.concatenate([part.errors for part in parts]),
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.sdc for part in parts]),
        np.concatenate([part.due for part in parts]),
    )


class Crew(Protocol):
    """Workers that have been given their task."""

    def capacity(self) -> int:
        """How many shards it is worth having out at once."""

    def submit(self, blocks: Sequence[Range]) -> None:
        """Gives out shards."""

    def results(self) -> Sequence[Outcome]:
        """What has come back; waits for at least one. Only called with shards out."""


class Executor(Protocol):
    """Something that can raise a crew for a task."""

    def crew(self, task: Task, progress: kernel.Progress | None) -> Any:
        """A context manager that gives a `Crew`; shards still out at its end are dropped."""


@dataclass(frozen=True)
class Threads:
    """One shard at a time in this process, with `threads` of its own (all cores by default)."""

    threads: int | None = None

    @contextmanager
    def crew(self, task: Task, progress: kernel.Progress | None) -> Iterator[Crew]:
        yield _Here(task, self.threads, progress)


class _Here:
    def __init__(self, task: Task, threads: int | None, progress: kernel.Progress | None) -> None:
        self._run: Callable[[Range], Outcome] = lambda block: work(task, block, threads, progress)
        self._blocks: list[Range] = []

    def capacity(self) -> int:
        return 1

    def submit(self, blocks: Sequence[Range]) -> None:
        self._blocks += blocks

    def results(self) -> Sequence[Outcome]:
        return [self._run(self._blocks.pop())]


@dataclass(frozen=True)
class Processes:
    """Processes of one thread each on this machine: for backends that Python's lock holds up."""

    processes: int | None = None

    @contextmanager
    def crew(self, task: Task, progress: kernel.Progress | None) -> Iterator[Crew]:
        crew = _Pool(task, self.processes or os.cpu_count() or 1)
        try:
            yield crew
        finally:
            crew.close()


_task: Task | None = None


def _begin(task: Task) -> None:
    """Makes a new process ready; Ctrl-C is the parent's business."""
    import signal

    global _task
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _task = task


def _in_process(block: Range) -> Outcome:
    assert _task is not None  # set when the process began
    return work(_task, block, 1)


class _Pool:
    def __init__(self, task: Task, processes: int) -> None:
        self._task = task
        self._processes = processes
        self._out: dict[Future[Outcome], Range] = {}
        self._deaths: dict[Range, int] = {}
        self._pool = self._fresh()

    def _fresh(self) -> ProcessPoolExecutor:
        import multiprocessing

        return ProcessPoolExecutor(
            self._processes, multiprocessing.get_context("spawn"), _begin, (self._task,)
        )

    def capacity(self) -> int:
        return 2 * self._processes

    def submit(self, blocks: Sequence[Range]) -> None:
        for block in blocks:
            self._out[self._pool.submit(_in_process, block)] = block

    def results(self) -> Sequence[Outcome]:
        done, _ = wait(self._out, return_when=FIRST_COMPLETED)
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            return self._again()
        for future in done:
            self._deaths.pop(self._out.pop(future), None)
        return [future.result() for future in done]

    def _again(self) -> Sequence[Outcome]:
        """A process has died and taken the pool with it: whatever was out goes to a new one."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        lost, self._out, self._pool = list(self._out.values()), {}, self._fresh()
        for block in lost:
            self._deaths[block] = self._deaths.get(block, 0) + 1
        dead = [block for block in lost if self._deaths[block] > _DEATHS]
        self.submit([block for block in lost if block not in dead])
        return [_died(block, _DEATHS + 1) for block in dead] or self.results()

    def close(self) -> None:
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _died(block: Range, times: int) -> Outcome:
    return Outcome(block, None, None, f"the worker that ran it died, {times} times in a row", "", 0.0)


@dataclass(frozen=True)
class Dask:
    """A Dask cluster: a `distributed.Client`, or the address of a scheduler.

    The network and the inputs go to each worker once, those that join later included; the cluster's own
    bookkeeping runs a lost worker's ranges again. Scheduler and workers need neurofail installed.
    """

    scheduler: Client | str

    @contextmanager
    def crew(self, task: Task, progress: kernel.Progress | None) -> Iterator[Crew]:
        try:
            import distributed  # noqa: F401  # only whether it is there
        except ImportError:
            raise InputError("a scheduler needs Dask: python -m pip install 'neurofail[dask]'") from None
        from neurofail._dask import Cluster, reach

        client = self.scheduler
        mine = isinstance(client, str)
        if isinstance(client, str):
            try:
                client = reach(client, _CONNECT_SECONDS)
            except (OSError, ValueError) as error:
                raise InputError(f"scheduler {self.scheduler}: {error}") from None
        try:
            cluster = Cluster(client, task)
            try:
                yield cluster
            finally:
                cluster.close()
        finally:
            if mine:
                client.close()
