"""What is kept of a campaign, and how two are merged.

A tally is a sum: merging is exact and does not depend on the order. Maxima break ties by the smallest
index; everything else is whole numbers. The same campaign gives the same bytes however it was cut.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from neurofail import _reference
from neurofail.configuration import Configuration
from neurofail.errors import InputError
from neurofail.faults import from_dict as fault_of
from neurofail.network import Network, whole
from neurofail.plain import plain
from neurofail.plans import Exhaustive, Plan, Sampled
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

    @classmethod
    def from_dict(cls, net: Network, inputs: Array, record: Mapping[str, object]) -> Setup:
        """The question that `describe` described, put to this network and these inputs.

        Raises InputError where the record is damaged, or was made for another network or other inputs.
        """
        try:
            faults = [fault_of(fault) for fault in record["faults"]]  # type: ignore[attr-defined]  # caught below
            asked = {"failures": record["failures"], "total": record["totals"], "at_most": record["at_most"]}
            plan: Plan
            if record["plan"] == "sampled":
                drawn = {"count": record["count"], "seed": record["seed"]}
                plan = Sampled(net, faults, **asked, **drawn)  # type: ignore[arg-type]  # the plan checks them
            else:
                plan = Exhaustive(net, faults, **asked)  # type: ignore[arg-type]  # the plan checks them
            epsilon = math.inf if record["epsilon"] is None else float(record["epsilon"])  # type: ignore[arg-type]  # caught
            setup = cls(plan, inputs, str(record["dtype"]), epsilon)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the description of the campaign is damaged ({error})") from None
        # JSON has lists where the description has tuples.
        told, found = dict(record), json.loads(json.dumps(setup.describe()))
        if told != found:
            raise InputError(f"{differing(told, found)} differ from what the description says")
        return setup


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
            "error": plain(self.error),
            "index": self.index,
            "configuration": self.configuration.to_dict(),
            "input": self.input,
            "output": self.output,
            "measured": plain(self.measured),
        }


def differing(a: Mapping[str, object], b: Mapping[str, object]) -> str:
    """The names under which two records hold different values."""
    return ", ".join(sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k)))


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
    sdc : evaluations (a configuration on an input) in which another output exceeds the golden class's own; a
        tie leaves it on top and does not count
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
            names = differing(self.setup.describe(), other.setup.describe())
            raise InputError(f"these tallies belong to different campaigns: {names} differ")
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

    @classmethod
    def from_dict(cls, setup: Setup, record: Mapping[str, object]) -> Tally:
        """The tally that `to_dict` wrote, for a setup known beforehand; `record["setup"]` is not read.

        Nothing is believed that can be checked: counts must fit together, the witness must lie in the ranges
        and be the plan's. Whether its error is right, `replay` tells. Raises InputError.
        """
        try:
            ranges = union((), [(whole(a, "range"), whole(b, "range")) for a, b in record["ranges"]])  # type: ignore[attr-defined]  # caught
            histogram = np.zeros(BINS, np.int64)
            for key, number in record["histogram"].items():  # type: ignore[attr-defined]  # caught below
                if not 0 <= int(key) < BINS:
                    raise InputError(f"histogram entry {key} is not one of {BINS}")
                histogram[int(key)] = whole(number, "a histogram entry")
            sdc, due, exceeded = (whole(record[k], k) for k in ("sdc", "due", "exceeded"))
            worst = None if record["worst"] is None else _witness(setup, record["worst"])  # type: ignore[arg-type]  # caught
            backends = tuple(str(record["backend"]).split("+")) if ranges else ()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"the tally is damaged ({error})") from None
        tally = cls(setup, backends, ranges, worst, sdc, due, exceeded, histogram)
        if ranges and not (ranges[0][0] < ranges[0][1] and ranges[-1][1] <= setup.plan.count):
            raise InputError(f"the tally is damaged: its ranges {ranges} are not in the plan")
        if int(histogram.sum()) != tally.count or max(sdc + due, exceeded * tally.inputs) > tally.evaluations:
            raise InputError("the tally is damaged: its counts do not fit together")
        inside = worst is not None and any(a <= worst.index < b for a, b in ranges)
        if inside != bool(ranges):
            raise InputError("the tally is damaged: its witness was not run")
        return tally

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same bytes for the same outcome."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())


def _witness(setup: Setup, record: Mapping[str, object]) -> Worst:
    """The witness in a record, its configuration taken from the plan."""
    index = whole(record["index"], "the witness's index")
    row, output = whole(record["input"], "the witness's input"), whole(record["output"], "its output")
    error, measured = (float(record[k]) for k in ("error", "measured"))  # type: ignore[arg-type]  # the caller catches
    if row >= len(setup.inputs) or output >= setup.plan.net.widths[-1] or not (error >= 0 and measured >= 0):
        raise ValueError("the witness is not of this campaign")
    configuration = setup.plan[index]
    if record["configuration"] != configuration.to_dict():
        raise ValueError(f"configuration {index} is another one in the plan")
    return Worst(error, index, configuration, row, output, measured)


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
