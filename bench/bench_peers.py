"""neurofail beside everything else that could run the same campaigns, in one run on one machine.

    python -m pip install ".[bench]"
    python -m pytest bench/bench_peers.py
    python -m pytest bench/bench_peers.py --threads 1 -k W3

Every peer's answers are verified against the float64 reference, its chunk size is tuned, and then all are
timed in turns; figures are medians over the rounds. A missing library is said and its peers are left out.
With one thread the clock is CPU time, with more it is the wall clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
from drive import Drive
from peers import PEERS, Crashes, Missing, Peer, steady_allocator
from workloads import ACTIVATIONS, Case, agree, case, reference, slices, verify

WORKLOADS = ("W1", "W2a", "W2b", "W3")
_CONFIGURATIONS = 2048  # of the plan, spread over it in runs of neighbours; a slow peer is timed on fewer
_RUNS = 8
_CHECKED = 8


def _crashes(of: Case) -> Crashes:
    """Configurations from the whole plan, as index arrays."""
    count = min(_CONFIGURATIONS, of.configurations) // _RUNS
    starts = [of.start + (of.configurations - count) * i // (_RUNS - 1) for i in range(_RUNS)]
    return Crashes.of(of.plan, [i for start in starts for i in range(start, start + count)])


def _checked(of: Case, peer: Peer) -> None:
    for start in slices(of, _CHECKED):
        right = reference(of, start, _CHECKED, len(of.inputs)).max(axis=1)
        crashes = Crashes.of(of.plan, range(start, start + _CHECKED))
        agree(of, peer.run(crashes), right, peer.name)


class _Timed:
    """A peer with as many configurations as it does in a round."""

    def __init__(self, peer: Peer, crashes: Crashes, seconds: float, clock: Callable[[], float]) -> None:
        self.peer = peer
        self.clock = clock
        self.crashes = crashes
        if peer.batched:
            rates = {}
            for chunk in peer.chunks():
                peer.chunk = chunk
                self.crashes = crashes.part(0, max(peer.chunk, 64))
                self.rate()
                rates[chunk] = max(self.rate(), self.rate())
            peer.chunk = max(rates, key=rates.__getitem__)
            count = int(rates[peer.chunk] * seconds) // peer.chunk * peer.chunk
        else:
            self.crashes = crashes.part(0, 2)
            self.rate()
            count = int(self.rate() * seconds)
        self.crashes = crashes.part(0, min(len(crashes), max(count, peer.chunk)))

    def rate(self) -> float:
        """Configurations a second."""
        began = self.clock()
        self.peer.run(self.crashes)
        return len(self.crashes) / max(self.clock() - began, 1e-9)


@pytest.mark.filterwarnings("ignore")  # the peers' own
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
    steady_allocator()
    crashes = _crashes(of)
    timed = []
    for kind in PEERS:
        try:
            peer = kind(of, threads)
        except Missing as why:
            ledger.note(heading, f"{kind.name:38} left out: {why}")
            continue
        _checked(of, peer)
        timed.append(_Timed(peer, crashes, seconds, clock))
    ours: list[float] = []
    theirs: dict[str, list[float]] = {t.peer.name: [] for t in timed}
    for _ in range(pytestconfig.getoption("--rounds")):
        began = clock()
        drive.run(units)
        ours.append(drive.evaluations(units) / (clock() - began))
        for t in timed:
            theirs[t.peer.name].append(t.rate() * len(of.inputs))
    drive.close()
    rate = statistics.median(ours)
    ledger.note(heading, f"{'neurofail ' + backend:38} {rate / 1e6:10.4g}  ({_spread(ours)})")
    for t in timed:
        each = theirs[t.peer.name]
        median = statistics.median(each)
        chunk = f", chunks of {t.peer.chunk}" if t.peer.batched else ""
        ledger.note(
            heading,
            f"{t.peer.name:38} {median / 1e6:10.4g}  ({_spread(each)})  {rate / median:10.1f} x{chunk}",
        )
        assert rate > median, f"{t.peer.name} is faster than neurofail"


def _spread(rates: list[float]) -> str:
    """The range, as shares of the median."""
    middle = statistics.median(rates)
    return f"{min(rates) / middle - 1:+.0%} to {max(rates) / middle - 1:+.0%}"
