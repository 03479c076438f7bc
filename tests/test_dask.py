"""A real cluster of two worker processes: equal bytes, workers lost, workers that fail."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import random_network

import neurofail as nf
from neurofail import campaign, executors
from neurofail.errors import CampaignError, InputError
from neurofail.executors import Dask
from neurofail.folder import Folder
from neurofail.tally import Sum, Tally

distributed = pytest.importorskip("distributed")

NET = random_network((6, 24, 16, 3))
INPUTS = np.random.default_rng(1).random((40, 6))
PLAN = nf.Sampled(NET, nf.Crash(), (3, 2), count=30_000, seed=5)
WHOLE = nf.run(NET, INPUTS, PLAN, epsilon=0.3)

# What a cluster says when its workers are shot is not what these tests judge.
pytestmark = pytest.mark.filterwarnings("default")


def two_workers() -> Any:
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_workers() as running:
        yield running


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    with distributed.Client(cluster) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign.Pace, "wanted", lambda *_: 512)


def run(out: Path, scheduler: object, **options: object) -> Tally:
    return campaign.run(NET, INPUTS, PLAN, out, epsilon=0.3, executor=Dask(scheduler), **options)  # type: ignore[arg-type]  # passed on


def test_a_cluster_gives_the_bytes_of_one_thread(cluster: Any, client: Any, tmp_path: Path) -> None:
    assert run(tmp_path / "client", client).to_bytes() == WHOLE.to_bytes()
    assert run(tmp_path / "address", cluster.scheduler_address).to_bytes() == WHOLE.to_bytes()
    # Nothing is left behind on somebody else's cluster.
    left = client.run(lambda dask_worker: [n for n in dask_worker.plugins if n.startswith("neurofail")])
    assert list(left.values()) == [[], []]


def test_records_come_home_from_a_cluster(client: Any, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert run(tmp_path, client, records=True) == WHOLE
    assert campaign.records(tmp_path)["sdc"].sum() == WHOLE.sdc


def test_the_shards_of_a_killed_worker_are_run_again(client: Any, tmp_path: Path) -> None:
    victims = list(client.run(os.getpid).values())

    def kill(done: int, total: Sum) -> None:
        if victims and done > 3000:
            os.kill(victims.pop(), signal.SIGKILL)

    # Both workers are killed, one after the other: all that the cluster knew of the task dies with them.
    assert run(tmp_path, client, progress=kill).to_bytes() == WHOLE.to_bytes()
    assert not victims


def test_a_result_that_dies_with_its_worker_before_it_is_fetched_is_run_again(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victims = list(client.run(os.getpid).values())
    real = distributed.as_completed.next_batch

    def next_batch(completed: Any) -> Any:
        batch = real(completed)
        if victims:
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            victims.clear()
            until = time.monotonic() + 10
            while batch[0].status == "finished" and time.monotonic() < until:
                time.sleep(0.001)
            assert batch[0].status == "lost"
        return batch

    monkeypatch.setattr(distributed.as_completed, "next_batch", next_batch)
    assert run(tmp_path, client).to_bytes() == WHOLE.to_bytes()


class Unreadable:
    """A task that no worker can read."""

    def __init__(self, task: object) -> None:
        pass

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return importlib.import_module, ("no_such_module",)


def test_a_worker_that_cannot_take_the_task_is_one_line(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plugin(Unreadable, distributed.WorkerPlugin):  # type: ignore[misc]  # untyped
        pass

    monkeypatch.setattr("neurofail._dask._Briefing", Plugin)
    with pytest.raises(InputError, match=r"cannot take the task: ModuleNotFound.* need neurofail") as caught:
        run(tmp_path, client)
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_CONNECT_SECONDS", 1.0)
    with two_workers() as cluster:

        def leave(done: int, total: Sum) -> None:
            if done > 3000:
                cluster.close()

        with pytest.raises(CampaignError, match="the scheduler is gone; every finished shard is kept"):
            run(tmp_path, cluster.scheduler_address, progress=leave)
    assert campaign.run(NET, INPUTS, PLAN, tmp_path, epsilon=0.3) == WHOLE


class Failing(distributed.WorkerPlugin):  # type: ignore[misc]  # distributed's class is untyped
    """Makes one shard fail on every worker, those that are started again included."""

    def __init__(self, deadly: bool) -> None:
        self.deadly = deadly

    def setup(self, worker: object) -> None:
        from neurofail import kernel

        real, deadly = kernel.run, self.deadly

        def fail(*arguments: Any, **options: Any) -> Tally:
            if options["start"] == 512:
                if deadly:
                    os._exit(1)
                raise RuntimeError("the kernel has a bad day")
            return real(*arguments, **options)

        kernel.run = fail


def test_a_shard_that_raises_reports_its_traceback_and_range(tmp_path: Path) -> None:
    with two_workers() as cluster, distributed.Client(cluster) as client:
        client.register_plugin(Failing(deadly=False))
        with pytest.raises(CampaignError) as caught:
            run(tmp_path, client)
    says = str(caught.value)
    assert "the shard of configurations 512 to 1023 failed on" in says
    assert "RuntimeError: the kernel has a bad day" in says
    assert "Traceback" in says
    held = Folder.open(tmp_path).blocks()
    assert (512, 1024) not in held
    assert (0, 512) in held
    assert campaign.run(NET, INPUTS, PLAN, tmp_path, epsilon=0.3) == WHOLE


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_reported(tmp_path: Path) -> None:
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.register_plugin(Failing(deadly=True))
        with pytest.raises(CampaignError, match=r"512 to 1023 failed(.|\n)*every worker that ran it died"):
            run(tmp_path, client)
    assert campaign.run(NET, INPUTS, PLAN, tmp_path, epsilon=0.3) == WHOLE


def test_workers_that_join_later_know_what_to_do(tmp_path: Path) -> None:
    with (
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        later = threading.Timer(0.5, cluster.scale, [2])
        later.start()
        with pytest.warns(UserWarning, match="the cluster has no workers; waiting"):
            assert run(tmp_path, client) == WHOLE
        later.join()


def test_few_shards_are_out_at_once_and_none_is_remembered(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neurofail._dask import Cluster

    out: list[int] = []
    real = Cluster.submit

    def submit(cluster: Cluster, blocks: Any) -> None:
        real(cluster, blocks)
        out.append(len(cluster._out))

    monkeypatch.setattr(Cluster, "submit", submit)
    assert run(tmp_path, client) == WHOLE
    assert max(out) <= 4
    assert not client.futures


def test_no_scheduler_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(InputError, match=r"scheduler tcp://127\.0\.0\.1:1"):
        run(tmp_path, "tcp://127.0.0.1:1")
    for nowhere in ("nonsense://x", "nonsense", "", "tcp://no.such.host.invalid:1"):
        with pytest.raises(InputError, match=f"scheduler {nowhere}: "):
            run(tmp_path, nowhere)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"{address}: .* does not answer as a Dask scheduler"):
            run(tmp_path, address)
    # No client was made, so none is left half made that would complain when it is collected.
    gc.collect()
    assert not [o for o in gc.get_objects() if isinstance(o, distributed.Client) and o.status != "closed"]
