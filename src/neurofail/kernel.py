"""Run a range of a plan on a backend: the campaign on one machine, in memory."""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from neurofail.errors import BackendError, FallbackWarning, InputError
from neurofail.network import Network, positive, whole
from neurofail.plans import Plan
from neurofail.records import Records, Totals
from neurofail.session import Session
from neurofail.tally import Setup, Sum, Tally, replay

Array = npt.NDArray[np.float64]
Progress = Callable[[int, "Sum"], None]
Keep = Callable[[int, Records], None]

# A unit of work: long enough that Python's part vanishes, short enough that Ctrl-C is answered at once.
_UNIT_SECONDS = 0.05
# A shorter one would cost more than the work that it leaves to another thread.
_LEAST_SECONDS = 0.25e-3
_MOST_CONFIGURATIONS = 1 << 16
# A pessimistic first guess at the rate, in multiply-adds per second; measured from the first unit on.
_FIRST_RATE = 2e9
# Inputs whose golden run is checked at once: a few tens of megabytes in the widest networks.
_GOLDEN_ROWS = 4096


def backends() -> list[str]:
    """The backends that this installation and this machine have, the best first."""
    found = []
    try:
        from neurofail import _native

        found += [f"c/{isa}" for isa in _native.supported()]
    except ImportError:
        pass
    return [*found, "numba", "numpy"]


def choose(backend: str = "auto") -> str:
    """The backend to run on: the one named, else NEUROFAIL_BACKEND, else the best there is.

    Raises BackendError if it is missing: a fallback is never silent.
    """
    forced = os.environ.get("NEUROFAIL_BACKEND", "")
    wanted, whence = (forced, " (from NEUROFAIL_BACKEND)") if backend == "auto" and forced else (backend, "")
    found = backends()
    if wanted == "auto":
        if not found[0].startswith("c/"):
            warnings.warn(
                f"this installation has no C kernel (no compiler when it was made), so {found[0]} does the "
                "work; install gcc or clang and reinstall neurofail for full speed",
                FallbackWarning,
                stacklevel=3,
            )
        return found[0]
    if wanted == "c" and found[0].startswith("c/"):
        return found[0]
    if wanted not in found:
        raise BackendError(
            f"backend {wanted!r}{whence} is not available here; available are {', '.join(found)}"
        )
    return wanted


def open_session(backend: str, plan: Plan, inputs: Array, dtype: str) -> Session:
    """A session on a backend that `choose` returned."""
    if backend.startswith("c/"):
        from neurofail import _native

        return _native.open_session(backend.removeprefix("c/"), plan, inputs, dtype)
    if backend == "numba":
        from neurofail._numba import Session as NumbaSession

        return NumbaSession(plan, inputs, dtype)
    from neurofail import _numpy

    return _numpy.Session(plan, inputs)


@dataclass(frozen=True)
class _Unit:
    """Configurations start .. start + count - 1 on blocks first .. last - 1."""

    start: int
    count: int
    first: int
    last: int


@dataclass(frozen=True)
class _Done:
    """A unit's records where others run its other blocks, else its totals."""

    unit: _Unit
    seconds: float
    records: Records | None
    totals: Totals | None


class _Crew:
    """Threads that share out the units of one session, each with a desk of its own."""

    def __init__(self, session: Session, threads: int, epsilon: float, keep: Keep | None) -> None:
        self._session = session
        self._threads = threads
        self._epsilon = epsilon
        self._keep = keep
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        # After an error or Ctrl-C only the units in flight are waited for.
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def work(self, unit: _Unit) -> _Done:
        """Runs one unit."""
        if not hasattr(self._local, "desk"):
            self._local.desk = self._session.desk()
        session, desk = self._session, self._local.desk
        whole_inputs = unit.last - unit.first == session.blocks
        began = time.perf_counter()
        if whole_inputs and self._keep is None:
            totals = session.totals(unit.start, unit.count, self._epsilon, desk)
            return _Done(unit, time.perf_counter() - began, None, totals)
        rows, levels = session.rows(unit.start, unit.count)
        records = session.evaluate(rows, levels, unit.first, unit.last, desk, each=self._keep is not None)
        if self._keep is None:
            return _Done(unit, time.perf_counter() - began, records, None)
        self._keep(unit.start, records)
        totals = session.tally(records, self._epsilon)
        return _Done(unit, time.perf_counter() - began, None, totals)

    def map(self, work: Callable[[Any], Any], units: Iterator[Any]) -> Iterator[Any]:
        """The results of `work` on every unit, in whatever order they are done."""
        if self._pool is None:
            for unit in units:
                yield work(unit)
            return
        pending: set[Future[Any]] = set()
        for unit in units:
            pending.add(self._pool.submit(work, unit))
            if len(pending) >= 2 * self._threads:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


class _Pace:
    """How many configurations make a unit, learnt while they run. It changes no result."""

    def __init__(self, net: Network, inputs: int, kept: int) -> None:
        work = sum(w.size for w in net.weights[1:]) + 1
        self._rate = _FIRST_RATE / work  # evaluations per second
        self._inputs = inputs
        # Rows, levels and records of all units in flight stay within tens of megabytes.
        self._most = max(1, min(_MOST_CONFIGURATIONS, (1 << 21) // (kept + 1)))
        self._last = 64

    def parts(self, blocks: int, configurations: int, threads: int) -> int:
        """Into how many ranges the blocks are cut, so that one unit is short and no thread starves."""
        seconds = self._inputs / self._rate
        wanted = max(1, math.ceil(seconds / _UNIT_SECONDS))
        if configurations < 4 * threads:
            wanted = max(wanted, threads)
        return min(blocks, wanted)

    def size(self, left: int, threads: int) -> int:
        """Configurations of the next unit of those `left`: near the end, few enough for every thread."""
        each_second = self._rate / self._inputs
        self._last = max(1, min(int(each_second * _UNIT_SECONDS), 8 * self._last, self._most))
        share = max(-(-left // threads), int(each_second * _LEAST_SECONDS))
        return min(self._last, share, left)

    def learn(self, done: _Done) -> None:
        """Takes a unit's speed into account."""
        if done.seconds > 0:
            self._rate = done.unit.count * self._inputs / done.seconds


def _ranges(blocks: int, parts: int) -> list[tuple[int, int]]:
    """0 .. blocks cut into equal parts."""
    cuts = [blocks * i // parts for i in range(parts + 1)]
    return list(pairwise(cuts))


def run(
    net: Network,
    inputs: npt.ArrayLike,
    plan: Plan,
    backend: str = "auto",
    dtype: str = "float32",
    threads: int | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    epsilon: float = math.inf,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> Tally:
    """Runs every configuration of a plan (or of a part of it) on every input.

    Parameters
    ----------
    net : the network; the plan must have been made for it
    inputs : (n, N_0), inside the network's input range
    plan : `Exhaustive` or `Sampled`
    backend : "auto" (the best, or what NEUROFAIL_BACKEND says), "c", "c/avx512", "c/avx2", "c/portable",
        "numba" or "numpy" (the float64 oracle itself)
    dtype : "float32" for campaigns, "float64" for certainty
    threads : how many; all cores by default. The result does not depend on it.
    start, stop : the part of the plan to run
    epsilon : configurations with a worst error above it are counted
    progress : called now and then with the configurations done and the `Sum` so far
    keep : called with the first index and the `Records` (each input's error included) of successive
        configurations, in no order and from several threads

    Raises
    ------
    InputError : a bad argument; BackendError : a backend that is not there.

    >>> import neurofail as nf
    >>> net = nf.Network.dense([[[1.0], [2.0]], [[1.0, -3.0]]], None, ["relu", "identity"])
    >>> tally = nf.run(net, [[0.5], [1.0]], nf.Exhaustive(net, nf.Crash(), failures=(1,)))
    >>> tally.count, tally.worst.error, tally.worst.input
    (2, 6.0, 1)
    """
    if not isinstance(plan, Plan):
        raise InputError(f"plan is {plan!r}; it must be Exhaustive(...) or Sampled(...)")
    if plan.net is not net and plan.net != net:
        raise InputError("this plan was made for another network; make it with the network that is run")
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype is {dtype!r}; it must be 'float32' or 'float64'")
    if not (isinstance(epsilon, (int, float)) and epsilon >= 0):
        raise InputError(f"epsilon is {epsilon!r}; it must be a number, 0 or more")
    x = net.check_inputs(inputs)
    stop = plan.count if stop is None else whole(stop, "stop")
    if not whole(start, "start") <= stop <= plan.count:
        raise InputError(f"range {start} to {stop} is outside this plan's 0 to {plan.count}")
    chosen = choose(backend)
    crew_size = (os.cpu_count() or 1) if threads is None else positive(threads, "threads")
    setup = Setup(plan, x, "float64" if chosen == "numpy" else dtype, float(epsilon))
    if start == stop:
        return Tally.empty(setup)
    session = open_session(chosen, plan, x, setup.dtype)
    _refuse_overflow(net, x, setup.dtype)
    with _Crew(session, crew_size, setup.epsilon, keep) as crew:
        for _ in crew.map(lambda part: session.golden(*part), iter(_golden_parts(session, crew_size))):
            pass
        whole_inputs = keep is not None
        total = _campaign(session, crew, setup, start, stop, crew_size, progress, whole_inputs)
    row = _worst_input(session, total.worst)
    worst = replay(plan, x, total.worst, row, total.error)
    return Tally(
        setup,
        (chosen,),
        ((start, stop),),
        worst,
        total.sdc,
        total.due,
        total.exceeded,
        total.histogram,
    )


def _refuse_overflow(net: Network, inputs: Array, dtype: str) -> None:
    """Raises InputError where the golden run leaves the number format: deviations mean nothing there."""
    most = float(np.finfo(dtype).max)
    if _largest_output(net, inputs) <= most:
        return  # without a run: the threads of NumPy's matrix products stay busy for a while after one
    for first in range(0, len(inputs), _GOLDEN_ROWS):
        with np.errstate(all="ignore"):
            fits = (np.abs(net(inputs[first : first + _GOLDEN_ROWS])) <= most).all(axis=1)
        if not fits.all():
            raise InputError(
                f"inputs[{first + int(fits.argmin())}]: the network's own output does not fit {dtype}; scale "
                "the weights, or run with dtype='float64'"
            )


def _largest_output(net: Network, inputs: Array) -> float:
    """What no output's magnitude exceeds, from sizes alone: |phi(s)| <= |phi(0)| + K |s|, and phi's range."""
    size = float(np.abs(inputs).max())
    with np.errstate(all="ignore"):
        for weight, bias, phi in zip(net.weights, net.biases, net.activations, strict=True):
            size = float(np.abs(weight).sum(axis=1).max() * size + np.abs(bias).max())
            steep = abs(float(phi(np.zeros(1))[0])) + phi.lipschitz * size
            size = min(steep, max(abs(end) for end in phi.range))
    # Rounding cannot bridge the gap between this and a number format's end.
    return 2 * size


def _golden_parts(session: Session, threads: int) -> list[tuple[int, int]]:
    return _ranges(session.blocks, min(session.blocks, max(threads, session.blocks // 64)))


def _campaign(
    session: Session,
    crew: _Crew,
    setup: Setup,
    start: int,
    stop: int,
    threads: int,
    progress: Progress | None,
    whole_inputs: bool,
) -> Sum:
    plan = setup.plan
    pace = _Pace(plan.net, session.inputs, plan.slots + (session.inputs if whole_inputs else 0))
    cuts = 1 if whole_inputs else pace.parts(session.blocks, stop - start, threads)
    parts = _ranges(session.blocks, cuts)

    def units() -> Iterator[_Unit]:
        at = start
        while at < stop:
            size = pace.size(stop - at, threads)
            for first, last in parts:
                yield _Unit(at, size, first, last)
            at += size

    total = Sum()
    finished = 0
    open_: dict[int, tuple[int, Records]] = {}
    for done in crew.map(crew.work, units()):
        totals = done.totals
        if totals is None:
            seen, records = open_.pop(done.unit.start, (0, None))
            records = done.records if records is None else records.joined(done.records)
            if seen + 1 < len(parts):
                open_[done.unit.start] = (seen + 1, records)
                continue
            totals = session.tally(records, setup.epsilon)
        else:
            pace.learn(done)
        total.add(done.unit.start, totals)
        finished += done.unit.count
        if progress is not None:
            progress(finished, total)
    return total


def _worst_input(session: Session, index: int) -> int:
    """The first input on which configuration `index` has its worst error."""
    rows, levels = session.rows(index, 1)
    each = session.evaluate(rows, levels, 0, session.blocks, session.desk(), each=True).each
    assert each is not None  # it was asked for
    return int(np.where(np.isnan(each[0]), np.inf, each[0]).argmax())
