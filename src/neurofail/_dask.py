"""The only file that touches Dask."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from traceback import format_exception
from typing import Any
from uuid import uuid4

from distributed import Client, Security, WorkerPlugin, as_completed, get_worker
from distributed.comm import connect
from distributed.scheduler import KilledWorker

from neurofail import __version__
from neurofail.dyadic import Range
from neurofail.errors import CampaignError, InputError
from neurofail.executors import Outcome, Task, work

# How long, in seconds, a count of the cluster's threads is believed.
_RECOUNT = 2.0
_GONE = "the scheduler is gone; every finished shard is kept: run the same again"


def reach(address: str, seconds: float) -> Client:
    """A client of the scheduler at an address; OSError or ValueError where none answers in time."""

    async def greet() -> None:
        # A client waits for ever for the first word of something that listens, but is no scheduler; and one
        # of no valid address would stay behind, half made.
        options = Security().get_connection_args("client")
        comm = await asyncio.wait_for(connect(address, timeout=seconds, **options), seconds + 1)
        await comm.close()

    with ThreadPoolExecutor(1) as apart:  # whoever calls may have an event loop of their own
        try:
            apart.submit(asyncio.run, greet()).result()
        except TimeoutError:
            raise OSError("what listens there does not answer as a Dask scheduler does") from None
    return Client(address, timeout=seconds, set_as_default=False)


@contextmanager
def _in_touch() -> Iterator[None]:
    """Says in words that the scheduler has gone."""
    try:
        yield
    except (OSError, CancelledError, asyncio.CancelledError):
        raise CampaignError(_GONE) from None


class _Briefing(WorkerPlugin):  # type: ignore[misc]  # distributed's class is untyped
    """The task, as the scheduler hands it to every worker when it starts or joins."""

    def __init__(self, task: Task) -> None:
        self.task = task


def _on_worker(name: str, block: Range) -> Outcome:
    return work(get_worker().plugins[name].task, block, 1)


class Cluster:
    """A crew on a cluster; see `executors.Crew`."""

    def __init__(self, client: Client, task: Task) -> None:
        self._client = client
        self._name = f"neurofail-{uuid4().hex}"
        try:
            self._client.register_plugin(_Briefing(task), name=self._name)
        except Exception as error:  # whatever a worker said, Dask raises it as no kind in particular
            why = (str(error).splitlines() or ["no reason given"])[-1]
            raise InputError(
                f"a worker cannot take the task: {why}; scheduler and workers need neurofail {__version__}"
            ) from None
        self._out: dict[Any, tuple[Range, Any]] = {}
        self._completed = as_completed(loop=client.loop)
        self._threads, self._counted, self._alone = 0, -_RECOUNT, False

    def capacity(self) -> int:
        """Two shards for every thread: one runs while the next waits beside it."""
        if time.monotonic() - self._counted > _RECOUNT:
            with _in_touch():
                self._threads = sum(self._client.nthreads().values())
            self._counted = time.monotonic()
            if not self._threads and not self._alone:
                warnings.warn("the cluster has no workers; waiting for some to join", stacklevel=2)
            self._alone = not self._threads
        return 2 * max(1, self._threads)

    def submit(self, blocks: Sequence[Range]) -> None:
        """Gives out shards in one message."""
        keys = [(self._name, *block) for block in blocks]
        with _in_touch():
            futures = self._client.map(_on_worker, [self._name] * len(blocks), blocks, key=keys, pure=False)
        for future, block in zip(futures, blocks, strict=True):
            self._out[future.key] = block, future
        self._completed.update(futures)

    def results(self) -> Sequence[Outcome]:
        """What has come back; the cluster has by then run a lost worker's shards again."""
        outcomes: list[Outcome] = []
        while not outcomes:
            batch = self._completed.next_batch()
            done = [future for future in batch if future.status == "finished"]
            with _in_touch():
                outcomes += self._client.gather(done, errors="skip")
            home = {outcome.block for outcome in outcomes}
            for future in batch:
                block, status = self._out[future.key][0], future.status
                if block in home:
                    pass
                elif status == "error":
                    outcomes.append(Outcome(block, None, None, _reason(future.exception()), "", 0.0))
                elif status == "cancelled":
                    raise CampaignError(_GONE)
                else:
                    # The result died with its worker before it was fetched: it will come again.
                    self._completed.add(future)
                    continue
                del self._out[future.key]
        return outcomes

    def close(self) -> None:
        """Drops what is still out, and takes the task off the workers."""
        if self._client.status == "running":
            self._client.cancel([future for _, future in self._out.values()], force=True)
            self._client.unregister_worker_plugin(self._name)


def _reason(error: BaseException) -> str:
    if isinstance(error, KilledWorker):
        return f"every worker that ran it died: {error}"
    return "".join(format_exception(error))
