"""What is kept of a campaign, and how two are merged.

A tally is a sum: merging is exact and does not depend on the order. Maxima break ties by the smallest
index; everything else is whole numbers. The same campaign gives the same bytes however it was cut.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from neurofail import _reference
from neurofail.configuration import Configuration
from neurofail.errors import InputError
from neurofail.plans import Plan
from neurofail.records import BINS, Totals

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Setup:
    """What was asked: which plan on which inputs, in which number format, against which epsilon."""

    plan: Plan
    inputs: Array
    dtype: str
    epsilon: float

    def describe(self) -> dict[str, object]:
        """The question as plain JSON values: equal descriptions have equal answers."""
        return {
            "network": self.plan.net.digest,
            "inputs": sha256(
                json.dumps(list(self.inputs.shape)).encode() + self.inputs.astype("<f8").tobytes()
            ).hexdigest(),
            "dtype": self.dtype,
            "epsilon": None if math.isinf(self.epsilon) else self.epsilon,
            **self.plan.describe(),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `describe`."""
        return sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Worst:
    """The worst evaluation seen, replayed by the float64 reference.

    Attributes
    ----------
    error : |F_faulty - F| at `output`, by the reference
    index : the configuration's number in the plan
    configuration : which places failed
    input : the row of the inputs
    output : the output with the largest deviation, from 0
    measured : the error as the backend measured it, by which configurations were compared
    """

    error: float
    index: int
    configuration: Configuration
    input: int
    output: int
    measured: float

    def to_dict(self) -> dict[str, object]:
        """The witness as plain JSON values."""
        return {
            "error": _plain(self.error),
            "index": self.index,
            "configuration": self.configuration.to_dict(),
            "input": self.input,
            "output": self.output,
            "measured": _plain(self.measured),
        }


def _plain(number: float) -> float | str:
    """JSON has no infinity; a string says it."""
    return number if math.isfinite(number) else str(number)


def replay(plan: Plan, inputs: Array, index: int, row: int, measured: float) -> Worst:
    """The worst output of configuration `index` on inputs[row], by the reference."""
    deviation = np.abs(_reference.deviations(plan.net, inputs[row : row + 1], plan.operations(index))[0])
    deviation = np.where(np.isnan(deviation), np.inf, deviation)
    output = int(deviation.argmax())
    return Worst(float(deviation[output]), index, plan[index], row, output, measured)


@dataclass(frozen=True, eq=False)
class Tally:
    """The outcome of a campaign, or of a part of one.

    Attributes
    ----------
    setup : what was asked
    backends : what ran it, such as ("c/avx2",)
    ranges : the parts [start, stop) of the plan that were run, ascending and apart
    worst : the worst evaluation, or None where nothing was run
    sdc : evaluations (a configuration on an input) whose top-1 class differs from the golden one
    due : evaluations with a NaN or infinite output
    exceeded : configurations whose worst error is above the setup's epsilon
    histogram : (514,) configurations by worst error; see `records.Totals`
    """

    setup: Setup
    backends: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]
    worst: Worst | None
    sdc: int
    due: int
    exceeded: int
    histogram: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, setup: Setup) -> Tally:
        """The neutral element: nothing run."""
        return cls(setup, (), (), None, 0, 0, 0, np.zeros(BINS, np.int64))

    @property
    def plan(self) -> Plan:
        """The plan that was run."""
        return self.setup.plan

    @property
    def count(self) -> int:
        """How many configurations were run."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def inputs(self) -> int:
        """How many inputs each configuration was run on."""
        return len(self.setup.inputs)

    @property
    def evaluations(self) -> int:
        """Configurations times inputs."""
        return self.count * self.inputs

    @property
    def backend(self) -> str:
        """What ran the campaign, as one word."""
        return "+".join(self.backends) or "none"

    @property
    def complete(self) -> bool:
        """Whether the whole plan was run."""
        return self.count == self.plan.count

    def merge(self, other: Tally) -> Tally:
        """Both parts of one campaign together.

        Raises InputError if they answer different questions, or if a configuration is in both.
        """
        if self.setup.digest != other.setup.digest:
            mine, theirs = self.setup.describe(), other.setup.describe()
            differing = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
            raise InputError(f"these tallies belong to different campaigns: {', '.join(differing)} differ")
        return replace(
            self,
            backends=tuple(sorted({*self.backends, *other.backends})),
            ranges=union(self.ranges, other.ranges),
            worst=_worse(self.worst, other.worst),
            sdc=self.sdc + other.sdc,
            due=self.due + other.due,
            exceeded=self.exceeded + other.exceeded,
            histogram=self.histogram + other.histogram,
        )

    def to_dict(self) -> dict[str, object]:
        """The tally as plain JSON values; equal campaigns give equal ones."""
        occupied = np.flatnonzero(self.histogram)
        return {
            "setup": self.setup.describe(),
            "backend": self.backend,
            "ranges": [list(r) for r in self.ranges],
            "count": self.count,
            "inputs": self.inputs,
            "evaluations": self.evaluations,
            "worst": None if self.worst is None else self.worst.to_dict(),
            "sdc": self.sdc,
            "due": self.due,
            "exceeded": self.exceeded,
            "histogram": {str(int(i)): int(self.histogram[i]) for i in occupied},
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same bytes for the same outcome."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())


def _worse(a: Worst | None, b: Worst | None) -> Worst | None:
    """The larger measured error; of equal ones the smaller index."""
    if a is None or b is None:
        return a or b
    return max(a, b, key=lambda w: (w.measured, -w.index))


def union(a: Sequence[tuple[int, int]], b: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The ranges of both, joined where they touch; InputError where they overlap.

    >>> union([(0, 3), (7, 9)], [(3, 7)])
    ((0, 9),)
    """
    joined: list[tuple[int, int]] = []
    for start, stop in sorted([*a, *b]):
        if joined and start < joined[-1][1]:
            raise InputError(f"configurations {start} to {min(stop, joined[-1][1]) - 1} are in both tallies")
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


@dataclass
class Sum:
    """Totals added up while a range runs: the one place where the order of arrival could matter."""

    worst: int = -1
    error: float = -1.0
    sdc: int = 0
    due: int = 0
    exceeded: int = 0

    def __post_init__(self) -> None:
        self.histogram = np.zeros(BINS, np.int64)

    def add(self, start: int, totals: Totals) -> None:
        """Takes in the totals of configurations from `start` on."""
        index = start + totals.worst
        if totals.error > self.error or (totals.error == self.error and index < self.worst):
            self.worst, self.error = index, totals.error
        self.sdc += totals.sdc
        self.due += totals.due
        self.exceeded += totals.exceeded
        self.histogram += totals.histogram
