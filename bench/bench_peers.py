"""neurofail beside everything else that could run the same campaigns, in one run on one machine.

    python -m pip install ".[bench]"
    python -m pytest bench/bench_peers.py
    python -m pytest bench/bench_peers.py --threads 1 -k W3

Every peer runs in a process of its own. Its answers are verified against the float64 reference, its chunk
size is tuned, and then all are timed in turns; figures are medians over the rounds. A missing library is said
and its peers are left out. With one thread the clock is CPU time, with more it is the wall clock.
"""

from __future__ import annotations

import statistics
import time

import pytest
from drive import Drive
from peer_process import PeerProcess
from peers import PEERS
from workloads import ACTIVATIONS, case, verify

WORKLOADS = ("W1", "W2a", "W2b", "W3")
_REST = 0.3  # seconds until a library's idle threads sleep: several spin for 0.2 before they do


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", WORKLOADS)
def test_peers(name, activation, backend, ledger, pytestconfig):
    threads, seconds = pytestconfig.getoption("--threads"), pytestconfig.getoption("--seconds")
    clock = time.process_time if threads == 1 else time.perf_counter
    of = case(name, activation)
    verify(name, activation, backend)
    drive = Drive(of, backend, threads)
    units = drive.round(seconds)
    heading = (
        f"{of.name}, {threads} thread(s): million evaluations a second (range), neurofail's multiple of it"
    )
    peers = []
    for kind in PEERS:
        peer = PeerProcess(name, activation, kind, threads, seconds)
        if peer.missing:
            ledger.note(heading, f"{peer.name:38} left out: {peer.missing}")
            peer.close()
        else:
            peers.append(peer)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer.name: [] for peer in peers}

    def timed() -> float:
        began = clock()
        drive.run(units)
        return drive.evaluations(units) / (clock() - began)

    for _ in range(pytestconfig.getoption("--rounds")):
        for rates, rate in [(ours, timed), *((theirs[peer.name], peer.rate) for peer in peers)]:
            time.sleep(_REST if threads > 1 else 0)
            rates.append(rate())
    drive.close()
    rate = statistics.median(ours)
    ledger.note(heading, f"{'neurofail ' + backend:38} {rate / 1e6:10.4g}  ({_spread(ours)})")
    for peer in peers:
        peer.close()
        each = theirs[peer.name]
        median = statistics.median(each)
        chunk = f", chunks of {peer.chunk}" if peer.chunk > 1 else ""
        ledger.note(
            heading,
            f"{peer.name:38} {median / 1e6:10.4g}  ({_spread(each)})  {rate / median:10.1f} x{chunk}",
        )
        assert rate > median, f"{peer.name} is faster than neurofail"


def _spread(rates: list[float]) -> str:
    """The range, as shares of the median."""
    middle = statistics.median(rates)
    return f"{min(rates) / middle - 1:+.0%} to {max(rates) / middle - 1:+.0%}"
