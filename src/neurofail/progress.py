"""How far a campaign is: a bar on a terminal, a line now and then elsewhere, nothing where quiet is asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neurofail.kernel import Progress
from neurofail.tally import Sum

if TYPE_CHECKING:
    from neurofail.search.rounds import Snapshot

# Logs of batch jobs are read by people: a line every ten seconds at first, more seldom as the job gets long.
_FIRST_LINE_SECONDS = 10.0
_LAST_LINE_SECONDS = 600.0


@contextmanager
def bar(count: int, unit: str, label: str = "", *, quiet: bool = False) -> Iterator[Progress]:
    """A progress callback for `neurofail.run` that writes to standard error while the block lasts."""
    if quiet:
        yield lambda done, total: None
    elif not sys.stderr.isatty():
        yield _Lines(count, unit, label)
    else:
        from tqdm import tqdm

        with tqdm(total=count, unit=f" {unit}", desc=label or None, unit_scale=True, leave=False) as drawn:

            def update(done: int, total: Sum) -> None:
                drawn.set_postfix_str(so_far(total), refresh=False)
                drawn.update(done - drawn.n)

            yield update


@contextmanager
def closing(*, quiet: bool = False) -> Iterator[Callable[[Snapshot], None]]:
    """A progress callback for `neurofail.worst_case`: one line that shows the gap close."""
    from tqdm import tqdm

    disable = True if quiet else None
    with tqdm(unit=" nodes", unit_scale=True, disable=disable, leave=False) as drawn:

        def update(at: Snapshot) -> None:
            drawn.set_postfix_str(
                f"best {at.best:.6g}, limit {at.upper:.6g}, {at.inputs_left} inputs left", refresh=False
            )
            drawn.update(at.nodes - drawn.n)

        yield update


def so_far(total: Sum) -> str:
    """The worst error and the SDC evaluations seen.

    >>> so_far(Sum(error=0.25, sdc=1200))
    'worst 0.25, SDC 1,200'
    """
    worst = f"worst {total.error:.4g}" if total.error >= 0 else "nothing yet"
    return f"{worst}, SDC {total.sdc:,}"


class _Lines:
    """A line when there has been none for a while. A clock that is set changes nothing: it is not asked."""

    def __init__(self, count: int, unit: str, label: str) -> None:
        self._count = count
        self._what = f"{label}: " if label else ""
        self._unit = unit
        self._began = self._last = time.monotonic()
        self._wait = _FIRST_LINE_SECONDS
        self._before: int | None = None

    def __call__(self, done: int, total: Sum) -> None:
        now = time.monotonic()
        if self._before is None:
            self._before = done  # what was there at the start says nothing about the speed
        if now - self._last < self._wait:
            return
        rate = (done - self._before) / (now - self._last)
        left = f"{_clock((self._count - done) / rate)} left" if rate > 0 else "time left unknown"
        print(
            f"{self._what}{done / self._count:.1%} ({done:,} of {self._count:,} {self._unit}), "
            f"{rate:,.0f}/s, {left}, {so_far(total)}",
            file=sys.stderr,
            flush=True,
        )
        self._last, self._before = now, done
        self._wait = min(_LAST_LINE_SECONDS, max(_FIRST_LINE_SECONDS, (now - self._began) / 20))


def _clock(seconds: float) -> str:
    """Hours and minutes, as in 1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
