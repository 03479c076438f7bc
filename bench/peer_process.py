"""One peer in a process of its own, timed on demand: else one library's threads would slow another's.

bench_peers.py starts it and speaks to it in lines: it says what it is once it is ready, and then, for every
empty line that it reads, one rate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import limits
from peers import PEERS, Crashes, Missing, Peer, steady_allocator
from workloads import Case, agree, case, reference, slices

_CONFIGURATIONS = 2048  # of the plan, spread over it in runs of neighbours; a slow peer is timed on fewer
_RUNS = 8
_CHECKED = 8


class PeerProcess:
    """A peer's process, seen from the one that started it.

    Attributes
    ----------
    missing : why the peer cannot run here, or None
    chunk : how many configurations it takes at once, 1 where it takes them one by one
    """

    def __init__(self, name: str, activation: str, peer: type[Peer], threads: int, seconds: float) -> None:
        fixed = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
        fixed["OPENBLAS_CORETYPE"] = limits.product(1).core
        if threads == 1:
            fixed["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__)),
                name,
                activation,
                peer.__name__,
                str(threads),
                str(seconds),
            ],
            env={**os.environ, **{key: value for key, value in fixed.items() if value}},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = peer.name
        said = self._said()
        self.missing: str | None = said.get("missing")
        self.chunk: int = said.get("chunk", 1)

    def _said(self) -> dict[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self.name}: its process failed"
        return json.loads(line)

    def rate(self) -> float:
        """Evaluations a second, once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._said()["rate"]

    def close(self) -> None:
        """Lets the process go."""
        self._process.communicate()


def chosen(of: Case) -> Crashes:
    """Configurations from the whole plan, as index arrays."""
    count = min(_CONFIGURATIONS, of.configurations) // _RUNS
    starts = [of.start + (of.configurations - count) * i // (_RUNS - 1) for i in range(_RUNS)]
    return Crashes.of(of.plan, [i for start in starts for i in range(start, start + count)])


def check(of: Case, peer: Peer) -> None:
    """Raises AssertionError unless the peer's answers are the reference's."""
    for start in slices(of, _CHECKED):
        right = reference(of, start, _CHECKED, len(of.inputs)).max(axis=1)
        crashes = Crashes.of(of.plan, range(start, start + _CHECKED))
        agree(of, peer.run(crashes), right, peer.name)


class Timed:
    """A peer with its best chunk, and as many configurations as it does in a round."""

    def __init__(self, of: Case, peer: Peer, seconds: float, clock: Callable[[], float]) -> None:
        self._of = of
        self._peer = peer
        self._clock = clock
        crashes = chosen(of)
        if peer.batched:
            rates = {}
            for chunk in peer.chunks():
                peer.chunk = chunk
                self._crashes = crashes.part(0, max(chunk, 64))
                self.rate()
                rates[chunk] = max(self.rate() for _ in range(3))
            peer.chunk = max(rates, key=rates.__getitem__)
            rate = rates[peer.chunk]
        else:
            self._crashes = crashes.part(0, 2)
            self.rate()
            rate = self.rate()
        whole = int(rate / len(of.inputs) * seconds) // peer.chunk * peer.chunk
        self._crashes = crashes.part(0, min(len(crashes), max(whole, peer.chunk)))

    def rate(self) -> float:
        """Evaluations a second, once."""
        began = self._clock()
        self._peer.run(self._crashes)
        return len(self._crashes) * len(self._of.inputs) / max(self._clock() - began, 1e-9)


def main() -> None:
    """What runs in the process."""
    name, activation, wanted, threads, seconds = sys.argv[1:]
    warnings.simplefilter("ignore")  # the peers' own
    steady_allocator()
    of = case(name, activation)
    kind = next(kind for kind in PEERS if kind.__name__ == wanted)
    try:
        peer = kind(of, int(threads))
    except Missing as why:
        print(json.dumps({"missing": str(why)}), flush=True)
        return
    check(of, peer)
    timed = Timed(of, peer, float(seconds), time.process_time if threads == "1" else time.perf_counter)
    print(json.dumps({"chunk": peer.chunk}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"rate": timed.rate()}), flush=True)


if __name__ == "__main__":
    main()
