"""Runs a case over and over on an open session: the kernel proper, without the set-up of a campaign.

The work is cut about as `neurofail.run` cuts it (units of 50 ms at most, equally many for each thread), and
each unit does all that a campaign does with it: makes its configurations, evaluates them, tallies them.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from workloads import Case, opened

import neurofail as nf

_UNIT_SECONDS = 0.05
_MOST_CONFIGURATIONS = 1 << 16

Unit = tuple[int, int, int, int]


def _power(number: float) -> int:
    """The power of two nearest to a number, 1 or more."""
    return 1 << max(0, round(math.log2(max(number, 1.0))))


def _cuts(start: int, stop: int, pieces: int) -> list[tuple[int, int]]:
    """start .. stop cut into equal pieces, or into single ones."""
    pieces = min(pieces, stop - start)
    return list(pairwise(start + (stop - start) * i // pieces for i in range(pieces + 1)))


class Drive:
    """One case on one backend with so many threads.

    Attributes
    ----------
    units : (first configuration, how many, first block, last block) of one whole pass over the plan
    """

    def __init__(self, of: Case, backend: str, threads: int) -> None:
        self._case = of
        self._backend = backend
        self._threads = threads
        self._session = opened(of, backend)
        self._inputs = len(of.inputs)
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._rate = self._guess()
        self.units = self._cut()

    def _guess(self) -> float:
        """Evaluations per CPU second of one thread, from growing trials."""
        most = min(self._case.configurations, _MOST_CONFIGURATIONS)
        count = 1
        while True:
            seconds = min(self._trial(count) for _ in range(3))
            if seconds > _UNIT_SECONDS / 8 or count == most:
                return count * self._inputs / max(seconds, 1e-6)
            count = min(8 * count, most)

    def _trial(self, count: int) -> float:
        began = time.thread_time()
        self._do((self._case.start, count, 0, self._session.blocks))
        return time.thread_time() - began

    def _cut(self) -> list[Unit]:
        """Equal units, equally many for each thread, or the clock would show how uneven they are.

        Their number, for a thread a power of two, is the same for slightly different guesses. A pass that
        takes less than a unit should is one, however many threads: halves of pairs would not be equal.
        """
        of, blocks = self._case, self._session.blocks
        wanted = max(of.evaluations / (self._rate * _UNIT_SECONDS), of.configurations / _MOST_CONFIGURATIONS)
        pieces = self._threads * _power(wanted / self._threads) if wanted > 1 else 1
        if of.configurations < 4 * pieces:
            return [(of.start, of.configurations, first, last) for first, last in _cuts(0, blocks, pieces)]
        return [(start, stop - start, 0, blocks) for start, stop in _cuts(of.start, of.plan.count, pieces)]

    def _do(self, unit: Unit) -> tuple[float, int, int]:
        """Runs one unit; the largest error, and how many SDC and DUE."""
        start, count, first, last = unit
        if not hasattr(self._local, "desk"):
            self._local.desk = self._session.desk()
        session, desk = self._session, self._local.desk
        if last - first == session.blocks:
            totals = session.totals(start, count, float("inf"), desk)
        else:
            rows, levels = session.rows(start, count)
            totals = session.tally(session.evaluate(rows, levels, first, last, desk), float("inf"))
        return totals.error, totals.sdc, totals.due

    def round(self, seconds: float) -> list[Unit]:
        """Units for about so long: some of a pass, or several whole passes."""
        whole = self._rate * self._threads * seconds / self._case.evaluations
        if len(self.units) == 1:
            return self.units * self._threads * max(1, round(whole / self._threads))
        if whole >= 1:
            return self.units * round(whole)
        return self.units[: self._threads * max(1, round(whole * len(self.units) / self._threads))]

    def evaluations(self, units: list[Unit]) -> int:
        """How many evaluations these units make."""
        blocks = self._session.blocks
        return sum(count * self._inputs * (last - first) // blocks for _, count, first, last in units)

    def run(self, units: list[Unit]) -> None:
        """Runs the units; each thread takes the next one when it is free."""
        left = iter(units)

        def work() -> None:
            for unit in left:
                self._do(unit)

        if self._pool is None:
            work()
        else:
            for done in [self._pool.submit(work) for _ in range(self._threads)]:
                done.result()

    def check(self) -> None:
        """One pass gives what `neurofail.run` gives; AssertionError if not."""
        of = self._case
        found = [self._do(unit) for unit in self.units]
        tally = nf.run(of.net, of.inputs, of.plan, backend=self._backend, threads=1, start=of.start)
        assert tally.worst is not None
        right = (tally.worst.measured, tally.sdc, tally.due)
        errors, sdc, due = zip(*found, strict=True)
        assert (max(errors), sum(sdc), sum(due)) == right, f"{of.name}: a pass differs from neurofail.run"

    def close(self) -> None:
        """Lets the threads go."""
        if self._pool is not None:
            self._pool.shutdown()
