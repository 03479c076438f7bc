"""Campaigns killed, cut, shared and joined: always the bytes of one run in memory."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from networks import random_network

import neurofail as nf
from neurofail import campaign, dyadic, kernel, statistics
from neurofail.claims import Claims
from neurofail.dyadic import Range
from neurofail.errors import CampaignError, InputError
from neurofail.executors import Executor, Outcome, Processes, Threads, work
from neurofail.folder import Folder
from neurofail.tally import Tally

NET = random_network((6, 24, 16, 3))
INPUTS = np.random.default_rng(1).random((40, 6))
PLAN = nf.Sampled(NET, nf.Crash(), (3, 2), count=30_000, seed=5)
WHOLE = nf.run(NET, INPUTS, PLAN, epsilon=0.3)


def run(out: Path, **options: object) -> Tally:
    options = {"shard_seconds": 0.1, **options}
    return campaign.run(NET, INPUTS, PLAN, out, epsilon=0.3, **options)  # type: ignore[arg-type]  # passed on


@pytest.mark.parametrize("executor", [Threads(1), Threads(3), Processes(2)])
def test_the_bytes_do_not_depend_on_who_ran_it(executor: Executor, tmp_path: Path) -> None:
    assert run(tmp_path, executor=executor).to_bytes() == WHOLE.to_bytes()


def fixed(size: int) -> type[campaign.Pace]:
    """A pace that cuts shards of one size."""

    class Fixed(campaign.Pace):
        def wanted(self, left: int, capacity: int) -> int:
            return size

    return Fixed


@pytest.mark.parametrize("size", [300, 4096, 10**6])
def test_the_bytes_do_not_depend_on_the_cuts(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "Pace", fixed(size))
    assert run(tmp_path).to_bytes() == WHOLE.to_bytes()


def slowly(out: Path, shard: tuple[int, int] = (1, 1)) -> None:
    """The campaign in another process, in many shards that each take a while."""
    real = kernel.run

    def run_and_wait(*arguments: object, **options: object) -> Tally:
        if options["stop"] != 0:  # 0 when arguments are only checked
            time.sleep(0.08)
        return real(*arguments, **options)  # type: ignore[arg-type]  # passed on

    kernel.run = run_and_wait
    campaign.Pace.wanted = lambda *_: 512  # type: ignore[method-assign,assignment]  # in this process alone
    run(out, executor=Threads(1), shard=shard)


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.BaseContext:
    """Processes that start at once: they are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_campaign"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        first = context.Process(target=print)
        first.start()
        first.join()
    return context


def begun(processes: multiprocessing.context.BaseContext, *arguments: object) -> multiprocessing.Process:
    process = processes.Process(target=slowly, args=arguments)  # type: ignore[attr-defined]  # contexts have it
    process.start()
    return process  # type: ignore[no-any-return]  # a Process


def test_killed_at_twenty_random_moments(
    processes: multiprocessing.context.BaseContext, tmp_path: Path
) -> None:
    moments = random.Random(17)
    held = [0]
    for _ in range(20):
        process = begun(processes, tmp_path)
        process.join(moments.uniform(0.01, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if (tmp_path / "shards").exists():
            held.append(len(list((tmp_path / "shards").glob("*.json"))))
    assert held == sorted(held)  # no finished shard was ever lost
    assert held[-1] > 5
    if (tmp_path / "inputs.npz").exists():
        assert Folder.open(tmp_path).load()[1] == []  # and none was torn
    assert run(tmp_path).to_bytes() == WHOLE.to_bytes()
    assert not list(tmp_path.rglob(".*.json.*"))


def test_two_processes_in_one_folder_share_the_work(
    processes: multiprocessing.context.BaseContext, tmp_path: Path
) -> None:
    began = time.monotonic()
    both = [begun(processes, tmp_path) for _ in range(2)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert Folder.open(tmp_path).load() == (WHOLE, [])
    assert len(Folder.open(tmp_path).blocks()) == 59
    # Each alone would have slept through 59 shards.
    assert time.monotonic() - began < 59 * 0.08


def test_one_of_two_is_killed_and_the_other_takes_over(
    processes: multiprocessing.context.BaseContext, tmp_path: Path
) -> None:
    one, two = begun(processes, tmp_path), begun(processes, tmp_path)
    time.sleep(0.5)
    one.kill()
    two.join()
    one.join()
    assert two.exitcode == 0
    assert Folder.open(tmp_path).load() == (WHOLE, [])


def test_an_array_job_in_one_folder_and_in_many(tmp_path: Path) -> None:
    for i in (3, 1, 2):
        run(tmp_path / "one", shard=(i, 3))
        run(tmp_path / str(i), shard=(i, 3))
    assert Folder.open(tmp_path / "one").load() == (WHOLE, [])
    joined = campaign.merge([tmp_path / str(i) for i in (1, 2, 3)], tmp_path / "joined")
    assert joined.load()[0].to_bytes() == WHOLE.to_bytes()
    assert campaign.merge([tmp_path / "2", tmp_path / "1", tmp_path / "3"]).path == tmp_path / "2"
    assert Folder.open(tmp_path / "2").load() == (WHOLE, [])


def test_a_part_says_what_is_left(tmp_path: Path) -> None:
    part = run(tmp_path, shard=(2, 3))
    start, stop = dyadic.part(2, 3, PLAN.count)
    assert part.ranges == ((start, stop),)
    assert part == nf.run(NET, INPUTS, PLAN, epsilon=0.3, start=start, stop=stop)


def test_folders_that_overlap_are_joined_without_counting_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, (size, shard) in enumerate([(512, (1, 2)), (4096, (1, 1)), (1000, (2, 3)), (200, (3, 7))]):
        monkeypatch.setattr(campaign, "Pace", fixed(size))
        run(tmp_path / str(i), shard=shard)
    for order in ([0, 1, 2, 3], [3, 2, 0], [3, 1]):
        joined = campaign.merge([tmp_path / str(i) for i in order], tmp_path / f"joined{order}")
        tally, damaged = joined.load()
        assert not damaged
        part = Tally.empty(tally.setup)
        for start, stop in tally.ranges:
            part = part.merge(nf.run(NET, INPUTS, PLAN, epsilon=0.3, start=start, stop=stop))
        assert tally == part
        assert run(tmp_path / f"joined{order}") == WHOLE


def test_folders_of_different_campaigns_are_not_joined(tmp_path: Path) -> None:
    run(tmp_path / "a", shard=(1, 9))
    campaign.run(NET, INPUTS, PLAN, tmp_path / "b", epsilon=0.2, shard=(1, 9))
    with pytest.raises(InputError, match=r"epsilon is 0\.2 there and 0\.3 here"):
        campaign.merge([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(InputError, match="at least one"):
        campaign.merge([])


class Broken:
    """A crew whose shards fail from the n-th on."""

    def __init__(self, task: object, after: int) -> None:
        self.task, self.after, self.out = task, after, []  # type: ignore[var-annotated]  # ranges

    def capacity(self) -> int:
        return 3

    def submit(self, blocks: list[Range]) -> None:
        self.out += blocks

    def results(self) -> list[Outcome]:
        block = self.out.pop(0)
        self.after -= 1
        if self.after < 0 and self.after > -2:
            return [Outcome(block, None, None, "Traceback: the reason", "node7", 0.1)]
        return [work(self.task, block, 1)]  # type: ignore[arg-type]  # a Task


class Breaking:
    def __init__(self, after: int) -> None:
        self.after = after

    @contextmanager
    def crew(self, task: object, progress: object) -> Iterator[Broken]:
        yield Broken(task, self.after)


def test_a_failing_shard_says_which_and_why_and_stops_the_rest(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=r"configurations 128 to 191 failed on node7(.|\n)*the reason"):
        run(tmp_path, executor=Breaking(2))
    held = Folder.open(tmp_path).blocks()
    # What was out when it failed is kept; its own range is not, and nothing new was begun.
    assert [b for b in held if b[0] < 128] == [(0, 64), (64, 128)]
    assert 3 <= len(held) <= 4
    assert run(tmp_path) == WHOLE


class Interrupting(Broken):
    def results(self) -> list[Outcome]:
        if self.after == 0:
            raise KeyboardInterrupt
        self.after -= 1
        return [work(self.task, self.out.pop(0), 1)]  # type: ignore[arg-type]  # a Task


def test_an_interrupted_campaign_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "Broken", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, executor=Breaking(4))
    assert len(Folder.open(tmp_path).blocks()) == 4
    assert run(tmp_path) == WHOLE


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("setup", "0" * 64, "of another campaign"),
        ("neurofail", "9.9", r"neurofail 9\.9 ran it, but this campaign is neurofail 0\.1\.0's"),
    ],
)
def test_a_worker_with_another_question_or_version_is_refused(
    name: str, value: str, says: str, tmp_path: Path
) -> None:
    class Wrong(Broken):
        def results(self) -> list[Outcome]:
            outcome = work(self.task, self.out.pop(0), 1)  # type: ignore[arg-type]  # a Task
            assert outcome.record is not None
            if outcome.block[0] == 64:
                outcome.record[name] = value
            return [outcome]

    class Elsewhere(Breaking):
        @contextmanager
        def crew(self, task: object, progress: object) -> Iterator[Broken]:
            yield Wrong(task, 0)

    with pytest.raises(CampaignError, match=rf"configurations 64 to 127 failed on (.|\n)*{says}"):
        run(tmp_path, executor=Elsewhere(0))
    # What others had out is waited for and kept.
    assert [b[0] for b in Folder.open(tmp_path).blocks()] == [0, 128, 192]
    assert run(tmp_path) == WHOLE


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = random.Random(3)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(-1e9, 1e10))
    assert run(tmp_path).to_bytes() == WHOLE.to_bytes()
    assert run(tmp_path).to_bytes() == WHOLE.to_bytes()


def test_a_sample_stops_where_its_interval_is_narrow(tmp_path: Path) -> None:
    one = run(tmp_path / "a", width=0.05, executor=Threads(1))
    two = run(tmp_path / "b", width=0.05, executor=Processes(2), shard_seconds=0.03)
    assert one.to_bytes() == two.to_bytes()
    assert one.count in list(statistics.looks(PLAN.count))
    assert one.count < PLAN.count
    assert statistics.narrow(one, 0.05)
    before = [n for n in statistics.looks(PLAN.count) if n < one.count][-1]
    assert not statistics.narrow(nf.run(NET, INPUTS, PLAN, epsilon=0.3, stop=before), 0.05)
    # And the same folder goes on to the end when asked without a width.
    assert run(tmp_path / "a") == WHOLE


def test_stopping_at_a_width_is_for_whole_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whole sampled plan"):
        run(tmp_path, width=0.1, shard=(1, 2))
    with pytest.raises(InputError, match="whole sampled plan"):
        campaign.run(NET, INPUTS, nf.Exhaustive(NET, nf.Crash(), (1, 0)), tmp_path, width=0.1)
    with pytest.raises(InputError, match="shard_seconds is 0"):
        run(tmp_path, shard_seconds=0)
    assert not (tmp_path / "manifest.json").exists()


def test_shards_grow_to_the_time_they_should_take() -> None:
    pace = campaign.Pace(5.0)
    left, sizes = 10**9, []
    for _ in range(12):
        start, stop = dyadic.at(0, pace.wanted(left, 4), left, left)
        size = stop - start
        sizes.append(size)
        pace.learn(Outcome((0, size), {}, None, "", "", 0.02 + size / 10_000))
        left -= size
    assert sizes[0] == 64
    assert all(b <= 8 * a for a, b in pairwise(sizes))
    # 5 s at 10,000 a second; a campaign of 10^9 takes 25,000 s on 4 workers, so 10,000 files do for it.
    # The power of two nearest to 50,000 is 65,536, from 46,341 on.
    assert sizes[-1] == 65_536
    near = 2**0.5
    assert pace.wanted(400_000, 4) == pytest.approx(near * 50_000, rel=0.01)
    assert pace.wanted(100_000, 4) == pytest.approx(near * 25_000, rel=0.01)
    assert pace.wanted(100, 4) == pytest.approx(near * 2000, rel=0.01)
    # A plan of weeks makes longer shards, growing step by step.
    assert pace.wanted(10**13, 4) == pytest.approx(near * 8 * max(sizes), rel=0.01)


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_workers_end_together(workers: int) -> None:
    # A queue on paper: each worker takes the next shard when it is done, 20 ms of every shard are overhead.
    count = workers * 30 * 12_500
    pace, capacity, rate = campaign.Pace(1.0), 2 * workers, 12_500
    at, left, free = 0, count, [0.0] * workers
    out: list[tuple[float, Range, float]] = []
    for _ in range(count):
        while at < count and len(out) < capacity:
            block = dyadic.at(at, pace.wanted(left, capacity), count, count)
            at, left = block[1], count - block[1]
            seconds = 0.02 + (block[1] - block[0]) / rate
            begins = free.index(min(free))
            free[begins] += seconds
            out.append((free[begins], block, seconds))
        if not out:
            break
        out.sort()
        _, block, seconds = out.pop(0)
        pace.learn(Outcome(block, {}, None, "", "", seconds))
    assert not out
    assert min(free) > max(free) - 0.3  # the last shard of the slowest is short
    assert max(free) < 30 / 0.97  # of 30 s that the work itself takes


def test_progress_tells_all_that_is_known(tmp_path: Path) -> None:
    seen: list[tuple[int, float, int]] = []
    run(tmp_path, progress=lambda done, total: seen.append((done, total.error, total.sdc)))
    assert WHOLE.worst is not None
    assert seen[-1] == (PLAN.count, WHOLE.worst.measured, WHOLE.sdc)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_claims_are_exclusive_between_processes_and_end_with_them(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims", 10**30)
    assert claims.take((0, 1 << 70))
    script = (
        "from pathlib import Path; from neurofail.claims import Claims; import sys\n"
        "c = Claims(Path(sys.argv[1]), 10**30)\n"
        "print(c.take((0, 1 << 70)), c.take((1 << 71, 1 << 72)))\n"
    )

    def elsewhere() -> str:
        source = str(Path(nf.__file__).parents[1])
        return subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "claims")],
            env={**os.environ, "PYTHONPATH": source},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert elsewhere() == "False True"
    claims.release((0, 1 << 70))
    assert elsewhere() == "True True"
    claims.close()


def test_pandas_reads_the_shards(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    run(tmp_path)
    table = campaign.frame(tmp_path)
    assert table["configurations"].sum() == PLAN.count
    assert table["sdc"].sum() == WHOLE.sdc
    assert set(table["backend"]) == {WHOLE.backend}


def test_every_record_is_kept_where_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    assert run(tmp_path, records=True, executor=Threads(2)) == WHOLE
    table = campaign.records(tmp_path)
    assert list(table["index"]) == list(range(PLAN.count))
    assert table["sdc"].sum() == WHOLE.sdc
    assert (table["error"] > 0.3).sum() == WHOLE.exceeded
    assert WHOLE.worst is not None
    worst = table.loc[WHOLE.worst.index]
    assert worst["error"] == WHOLE.worst.measured
    assert worst["input"] == WHOLE.worst.input
    # A shard whose records are gone is run again.
    next((tmp_path / "records").iterdir()).unlink()
    assert run(tmp_path, records=True) == WHOLE
    assert len(campaign.records(tmp_path)) == PLAN.count
    run(tmp_path / "without")
    with pytest.raises(InputError, match="without keeping records"):
        campaign.records(tmp_path / "without")


def test_a_damaged_file_of_records_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    run(tmp_path, records=True)
    whole = campaign.records(tmp_path)
    victim = sorted((tmp_path / "records").iterdir())[-1]
    good = victim.read_bytes()
    for at in (len(good) // 3, len(good) - 6):
        flipped = bytearray(good)
        flipped[at] ^= 1
        victim.write_bytes(bytes(flipped))
        with pytest.raises(InputError, match=rf"{victim.name}: damaged; remove it and run"):
            campaign.records(tmp_path)
    victim.unlink()
    run(tmp_path, records=True)
    assert campaign.records(tmp_path).equals(whole)


def test_what_pandas_is_needed_for_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for asked in (campaign.frame, campaign.records):
        with pytest.raises(InputError, match=r"needs pandas: python -m pip install 'neurofail\[parquet\]'"):
            asked(tmp_path)
    with pytest.raises(InputError, match=r"keeping records needs pyarrow"):
        run(tmp_path / "kept", records=True)


def test_records_go_along_when_folders_are_joined(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    for i in (1, 2):
        run(tmp_path / str(i), records=True, shard=(i, 2))
    campaign.merge([tmp_path / "1", tmp_path / "2"])
    assert len(campaign.records(tmp_path / "1")) == PLAN.count


def test_a_process_of_the_pool_dies_and_its_shard_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neurofail.executors import _Pool

    killed: list[int] = []
    real = _Pool.results

    def results(pool: _Pool) -> object:
        if len(killed) < 2:
            victim = next(iter(pool._pool._processes))
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        return real(pool)

    monkeypatch.setattr(_Pool, "results", results)
    assert run(tmp_path, executor=Processes(2)) == WHOLE
    assert len(killed) == 2


def test_a_shard_that_kills_every_process_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neurofail.executors import _Pool

    real = _Pool.results

    def results(pool: _Pool) -> object:
        for victim in list(pool._pool._processes):
            os.kill(victim, signal.SIGKILL)
        return real(pool)

    monkeypatch.setattr(_Pool, "results", results)
    with pytest.raises(CampaignError, match="died, 4 times in a row"):
        run(tmp_path, executor=Processes(1))
