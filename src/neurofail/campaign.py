"""A campaign in a folder: shards cut, run, kept, resumed and joined."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from neurofail import dyadic, kernel, statistics
from neurofail.claims import Claims
from neurofail.dyadic import Range
from neurofail.errors import CampaignError, InputError
from neurofail.executors import Crew, Executor, Kept, Outcome, Task, Threads
from neurofail.folder import Folder, Shard, storage_error
from neurofail.network import Network
from neurofail.plans import Plan, Sampled
from neurofail.tally import Sum, Tally

if TYPE_CHECKING:
    import pandas

# The first shard of a campaign; each later one is at most eight times the largest before it.
_FIRST = 64
_GROWTH = 8
# A long campaign makes its shards longer, for the sake of the number of files, but not without end.
_FILES = 10_000
_LONGEST_SECONDS = 600.0
_LEAST_SECONDS = 0.2
# The grid takes the power of two below what is wanted: asked for this much more, it takes the nearest one.
_NEAREST = math.sqrt(2)
_PAUSE_SECONDS = 0.2

Notice = Callable[[str], None]


class Pace:
    """How many configurations the next shard holds, learnt from those before. It changes no result."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._rate = 0.0
        self._largest = 0

    def wanted(self, left: int, capacity: int) -> int:
        """The size of the next shard, with `left` configurations to run and `capacity` shards out at once."""
        if not self._largest:
            return min(_FIRST, max(1, left // capacity))
        target = max(self._seconds, left / (self._rate * capacity * _FILES))
        size = min(target, _LONGEST_SECONDS) * self._rate
        # Towards the end the shards get smaller, so that all workers finish together; but not so small that
        # their overhead outweighs it.
        fair = max(left / capacity, min(_LEAST_SECONDS, self._seconds) * self._rate)
        return max(1, int(_NEAREST * min(size, _GROWTH * self._largest, fair)))

    def learn(self, outcome: Outcome) -> None:
        """Takes a shard's speed, in configurations per second, into account."""
        size = outcome.block[1] - outcome.block[0]
        self._largest = max(self._largest, size)
        self._rate = size / max(outcome.seconds, 1e-6)


def run(
    net: Network,
    inputs: npt.ArrayLike,
    plan: Plan,
    out: str | Path,
    *,
    backend: str = "auto",
    dtype: str = "float32",
    epsilon: float = math.inf,
    executor: Executor | None = None,
    shard: tuple[int, int] = (1, 1),
    width: float | None = None,
    records: bool = False,
    shard_seconds: float = 5.0,
    progress: kernel.Progress | None = None,
    notice: Notice = lambda _: None,
) -> Tally:
    """Runs a campaign in the folder `out`, or what is left of it.

    Parameters
    ----------
    net, inputs, plan, backend, dtype, epsilon, progress : as for `neurofail.run`
    out : the campaign's folder, made where there is none; any number of processes may share it
    executor : `Threads()` (this process, the default), `Processes()` or `Dask(client or address)`
    shard : (i, n) runs the i-th of n parts, from 1, for array jobs
    width : of a sample: stop as soon as the 95 % intervals of its rates are no wider
    records : keep every configuration's record as Parquet (needs the extra `parquet`)
    shard_seconds : what a shard should take on one worker
    notice : told in one line about each damaged shard file

    Returns what the folder holds at the end: equal bytes however it came about.

    Raises
    ------
    InputError : as `neurofail.run`; and for the folder of another campaign, or one that cannot be written.
    CampaignError : a failing shard (with its range and traceback), a full disk, a lost cluster. Whatever was
        finished is kept.

    >>> import neurofail as nf, tempfile
    >>> net = nf.Network.dense([[[1.0], [2.0]], [[1.0, -3.0]]], None, ["relu", "identity"])
    >>> plan = nf.Exhaustive(net, nf.Crash(), failures=(1,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run(net, [[0.5], [1.0]], plan, folder) == nf.run(net, [[0.5], [1.0]], plan)
    True
    """
    if not shard_seconds > 0:
        raise InputError(f"shard_seconds is {shard_seconds}; it must be above 0")
    if width is not None and (not isinstance(plan, Sampled) or not 0 < width < 1 or shard != (1, 1)):
        raise InputError("stopping at an interval's width takes a whole sampled plan and a width in (0, 1)")
    if records:
        _extra("pyarrow", "keeping records")
    # An empty range: nothing runs, but every argument is checked.
    setup = kernel.run(net, inputs, plan, backend, dtype, stop=0, epsilon=epsilon).setup
    folder = Folder.create(out, setup, records=records)
    folder.sweep()
    total, damaged = folder.load(mend=True)
    for line in damaged:
        notice(line)
    start, stop = dyadic.part(*shard, plan.count)
    if not dyadic.gaps(total.ranges, start, stop):
        return total
    worker = _Worker(folder, total, Pace(shard_seconds), notice, progress)
    task = Task(net, setup.inputs, setup.describe(), backend, records)
    with (executor or Threads()).crew(task, worker.within) as crew, worker:
        if width is None:
            worker.finish(crew, start, stop)
        else:
            for look in statistics.looks(stop):
                worker.finish(crew, start, look)
                if statistics.narrow(worker.total, width):
                    break
    return worker.total


class _Worker:
    """One process at work in a folder; `total` is what the folder is known to hold."""

    def __init__(
        self, folder: Folder, total: Tally, pace: Pace, notice: Notice, progress: kernel.Progress | None
    ) -> None:
        self.total = total
        self._folder = folder
        self._pace = pace
        self._notice = notice
        self._progress = progress

    def __enter__(self) -> _Worker:
        try:
            self._claims = Claims(self._folder.path / "claims", self._folder.count)
        except OSError as error:
            raise storage_error(self._folder.path, error) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._claims.close()

    def finish(self, crew: Crew, start: int, stop: int) -> None:
        """Sees to it that start .. stop - 1 are all run: by this process, or by others in the same folder."""
        while gaps := dyadic.gaps(self.total.ranges, start, stop):
            before = self.total.count
            self._run(crew, gaps)
            if dyadic.gaps(self.total.ranges, start, stop):
                # The rest is, or was, in the hands of other processes.
                self._reload()
                if self.total.count == before:
                    time.sleep(_PAUSE_SECONDS)

    def _reload(self) -> None:
        self.total, damaged = self._folder.load(mend=True)
        for line in damaged:
            self._notice(line)

    def _run(self, crew: Crew, gaps: Sequence[Range]) -> None:
        """Runs what nobody else has claimed or finished of the gaps."""
        feed = self._feed(crew, gaps)
        out = 0
        failed: Outcome | None = None
        while True:
            # After a failure nothing new goes out, but what is out is waited for and kept.
            fresh = [] if failed else list(islice(feed, max(0, crew.capacity() - out)))
            if fresh:
                crew.submit(fresh)
                out += len(fresh)
            if not out:
                break
            for outcome in crew.results():
                out -= 1
                if reason := outcome.failure or self._stranger(outcome):
                    failed = failed or replace(outcome, failure=reason)
                else:
                    self._keep(outcome)
                self._claims.release(outcome.block)
        if failed:
            raise CampaignError(
                f"the shard of configurations {failed.block[0]} to {failed.block[1] - 1} failed"
                f"{' on ' + failed.machine if failed.machine else ''}; every finished shard is kept\n"
                f"{failed.failure.rstrip()}"
            )

    def _feed(self, crew: Crew, gaps: Sequence[Range]) -> Iterator[Range]:
        left = sum(stop - start for start, stop in gaps)
        for start, stop in gaps:
            at = start
            while at < stop:
                block = dyadic.at(at, self._pace.wanted(left, crew.capacity()), stop, self._folder.count)
                end = block[1]
                if self._claims.take(block):
                    # Another process may have finished it since the folder was read.
                    held = self._folder.has(block)
                    if held is None:
                        yield block
                    else:
                        self._claims.release(block)
                        end = held[1]
                left -= end - at
                at = end

    def _stranger(self, outcome: Outcome) -> str:
        """Why a shard cannot be of this campaign; nothing where it can."""
        assert outcome.record is not None  # it did not fail
        if outcome.record.get("setup") != self._folder.setup.digest:
            return "it is a shard of another campaign"
        if outcome.record.get("neurofail") != self._folder.version:
            return (
                f"neurofail {outcome.record.get('neurofail')} ran it, but this campaign is neurofail "
                f"{self._folder.version}'s: install the same version there"
            )
        return ""

    def _keep(self, outcome: Outcome) -> None:
        assert outcome.record is not None  # it did not fail
        tally = Tally.from_dict(self._folder.setup, outcome.record)
        if outcome.kept is not None:
            self._folder.put_records(outcome.block, _parquet(outcome.block[0], outcome.kept))
        self._folder.put(Shard(tally, outcome.machine, outcome.seconds))
        self.total = self.total.merge(tally)
        self._pace.learn(outcome)
        self.within(0, Sum())

    def within(self, done: int, part: Sum) -> None:
        """Tells the progress, with `done` configurations of a shard that is still running."""
        if self._progress is None:
            return
        worst = -1.0 if self.total.worst is None else self.total.worst.measured
        so_far = Sum(error=max(worst, part.error), sdc=self.total.sdc + part.sdc)
        self._progress(self.total.count + done, so_far)


def merge(
    paths: Sequence[str | Path], out: str | Path | None = None, *, notice: Notice = lambda _: None
) -> Folder:
    """Joins folders of one campaign into `out`, or into the first of them.

    Shards that lie inside larger ones are left out, so nothing is counted twice; `notice` is told in one line
    about each damaged one. Raises InputError for folders of different campaigns, naming what differs.
    """
    if not paths:
        raise InputError("name at least one campaign folder")
    folders = [Folder.open(path) for path in paths]
    first = folders[0]
    target = first if out is None else Folder.create(out, first.setup, records=first.records)
    # A damaged shard of the target must not stand in the way of a good one.
    said = target.load(mend=True)[1]
    for folder in folders:
        if folder.path != target.path:
            said += target.adopt(folder)
    for line in said:
        notice(line)
    return target


def frame(path: str | Path) -> pandas.DataFrame:
    """The shards of a campaign, a row each: range, counts, worst error, backend, machine, seconds."""
    pd = _extra("pandas", "a table")
    folder = Folder.open(path)
    rows = []
    for shard in folder.shards():
        tally, worst = shard.tally, shard.tally.worst
        assert worst is not None  # no shard is empty
        rows.append(
            {
                "start": shard.range[0],
                "stop": shard.range[1],
                "configurations": tally.count,
                "evaluations": tally.evaluations,
                "sdc": tally.sdc,
                "due": tally.due,
                "exceeded": tally.exceeded,
                "worst": worst.error,
                "index": worst.index,
                "input": worst.input,
                "output": worst.output,
                "backend": tally.backend,
                "machine": shard.machine,
                "seconds": shard.seconds,
            }
        )
    return pd.DataFrame(rows)


def records(path: str | Path) -> pandas.DataFrame:
    """Every configuration's record: index, worst error, its input, on how many inputs it caused SDC or DUE.

    Raises InputError for a campaign that was run without `records=True`, or a damaged file.
    """
    pd = _extra("pandas", "a table")
    folder = Folder.open(path)
    if not folder.records:
        raise InputError(f"{path}: this campaign was run without keeping records")
    _extra("pyarrow", "reading records")
    tables = []
    for shard in folder.shards():
        file = folder.records_path(shard.range)
        try:
            tables.append(pd.read_parquet(file, page_checksum_verification=True))
        except (OSError, ValueError):  # Arrow's errors are these, in several lines
            raise InputError(f"{file}: damaged; remove it and run the campaign again") from None
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _extra(module: str, what: str) -> Any:
    """A module of the extra `parquet`."""
    try:
        return import_module(module)
    except ImportError:
        raise InputError(f"{what} needs {module}: python -m pip install 'neurofail[parquet]'") from None


def _parquet(start: int, kept: Kept) -> bytes:
    """The records of a shard as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stop = start + len(kept.errors)
    # An enumeration can outgrow every integer type that Parquet has; its numbers are then text.
    index = pa.array(np.arange(start, stop)) if stop < 1 << 63 else pa.array(map(str, range(start, stop)))
    table = pa.table(
        {"index": index, "error": kept.errors, "input": kept.inputs, "sdc": kept.sdc, "due": kept.due}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()
