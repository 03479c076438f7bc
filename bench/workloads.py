"""The workloads that are timed, and the check that each answers right before it is.

Every workload has random weights (Xavier-uniform), no biases, inputs uniform in [0, 1] and fixed seeds. One
evaluation is one configuration on one input, reduced to its worst output error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

import neurofail as nf
from neurofail.kernel import Session, open_session
from neurofail.plans import Plan

Array = npt.NDArray[np.float64]

ACTIVATIONS = ("sigmoid", "relu")
_VERIFIED_MULTIPLIES = 1e9  # of the run whose witness is checked: a second even without vector units


@dataclass(frozen=True)
class Cost:
    """What one evaluation cannot do without, once prefixes are shared: the counting rule of the limits.

    `multiplies` multiply-adds and `activations`; where only the last hidden layer fails, `reductions`
    instead: a multiply-add, a magnitude and a maximum for each output. `dense` are the multiply-adds that
    belong to whole layers.
    """

    multiplies: float = 0.0
    activations: float = 0.0
    reductions: float = 0.0
    dense: float = 0.0


@dataclass(frozen=True)
class Workload:
    """A network shape, the failures, and how many inputs.

    Attributes
    ----------
    failures : how many crash in each hidden layer, or `total` : how many anywhere, at most
    sampled : how many configurations are drawn; None enumerates them all
    start : the first configuration that counts (1 leaves out "none at all")
    goals : by activation, million evaluations a second on two cores with AVX-512, where one is set
    shares : by activation, the share of the machine's limit that is aimed at
    """

    name: str
    widths: tuple[int, ...]
    inputs: int
    cost: Cost
    failures: tuple[int, ...] | None = None
    total: int | None = None
    sampled: int | None = None
    start: int = 0
    goals: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    def network(self, activation: str) -> nf.Network:
        """The network, the same one every time."""
        rng = np.random.default_rng(20261122)
        weights = []
        for inputs, neurons in zip(self.widths, self.widths[1:], strict=False):
            limit = np.sqrt(6 / (inputs + neurons))
            weights.append(rng.uniform(-limit, limit, (neurons, inputs)).astype(np.float32))
        return nf.Network.dense(weights, None, [activation] * (len(weights) - 1) + ["identity"])

    def draw_inputs(self) -> Array:
        """The inputs (inputs, N_0), exact in float32."""
        rng = np.random.default_rng(20261123)
        return rng.random((self.inputs, self.widths[0]), dtype=np.float32).astype(np.float64)

    def plan(self, net: nf.Network) -> Plan:
        """The configurations."""
        if self.total is not None:
            return nf.Exhaustive(net, nf.Crash(), total=self.total, at_most=True)
        if self.sampled is not None:
            return nf.Sampled(net, nf.Crash(), failures=self.failures, count=self.sampled, seed=1)
        return nf.Exhaustive(net, nf.Crash(), failures=self.failures)


# Of the 2,324 configurations of W1, 2,026 strike the first hidden layer; the others only the last.
_W1_FIRST = 2026 / 2324

WORKLOADS = {
    w.name: w
    for w in (
        Workload(
            "W1",
            (8, 12, 12, 1),
            1024,
            Cost(_W1_FIRST * 24 + (1 - _W1_FIRST), _W1_FIRST * 12),
            total=3,
            start=1,
            goals={"sigmoid": 700, "relu": 1500},
            shares={"sigmoid": 0.6, "relu": 0.35},
        ),
        Workload(
            "W2a",
            (64, 128, 128, 10),
            256,
            Cost(128 + 1280, 128),
            failures=(2, 0),
            goals={"sigmoid": 50, "relu": 110},
            shares={"sigmoid": 0.8, "relu": 0.75},
        ),
        Workload(
            "W2b",
            (64, 128, 128, 10),
            256,
            Cost(reductions=10),
            failures=(0, 2),
            goals={"sigmoid": 3000, "relu": 3000},
            shares={"sigmoid": 0.75, "relu": 0.75},
        ),
        Workload(
            "W3",
            (784, 512, 256, 10),
            128,
            Cost(8 * 256 + 2560, 256),
            failures=(8, 4),
            sampled=10_000,
            goals={"sigmoid": 19, "relu": 32},
            shares={"sigmoid": 0.75, "relu": 0.65},
        ),
        # The first hidden layer fails: a rank-4 update of the second, then whole layers.
        Workload(
            "D",
            (784, 512, 512, 512, 512, 10),
            256,
            Cost(4 * 512 + 2 * 512 * 512 + 5120, 3 * 512, dense=2 * 512 * 512 + 5120),
            failures=(4, 0, 0, 0),
            sampled=1_000,
        ),
        Workload(
            "one-input",
            (64, 128, 128, 10),
            1,
            Cost(2 * 128 + 1280, 128),
            failures=(2, 0),
            sampled=1_000_000,
        ),
        Workload(
            "many-inputs",
            (64, 128, 128, 10),
            100_000,
            Cost(2 * 128 + 1280, 128),
            failures=(2, 0),
            sampled=10,
        ),
        # A pair in the first of three layers of 3: update 3, two activated layers of 3, one of 2 outputs.
        Workload(
            "three-wide",
            (4, 3, 3, 3, 2),
            4096,
            Cost(2 * 3 + 9 + 6, 6),
            failures=(2, 0, 0),
            sampled=1_000,
        ),
    )
}


@dataclass(frozen=True)
class Case:
    """A workload with one activation, made ready: what every implementation is given."""

    workload: Workload
    activation: str
    net: nf.Network
    inputs: Array
    plan: Plan

    @property
    def name(self) -> str:
        """Such as W2a/relu."""
        return f"{self.workload.name}/{self.activation}"

    @property
    def start(self) -> int:
        """The first configuration that is run."""
        return self.workload.start

    @property
    def configurations(self) -> int:
        """How many configurations are run."""
        return self.plan.count - self.start

    @property
    def evaluations(self) -> int:
        """Configurations times inputs."""
        return self.configurations * len(self.inputs)


@cache
def case(name: str, activation: str) -> Case:
    """The case of that name; made once."""
    workload = WORKLOADS[name]
    net = workload.network(activation)
    return Case(workload, activation, net, workload.draw_inputs(), workload.plan(net))


def opened(of: Case, backend: str, dtype: str = "float32") -> Session:
    """A session with its golden run made."""
    session = open_session(backend, of.plan, of.inputs, dtype)
    session.golden(0, session.blocks)
    return session


def slices(of: Case, count: int = 4) -> list[int]:
    """Where verification looks: `count` configurations from the start, the middle and the end."""
    count = min(count, of.configurations)
    last = of.plan.count - count
    return sorted({of.start, (of.start + last) // 2, last})


def reference(of: Case, start: int, count: int, inputs: int) -> Array:
    """The worst output error of every evaluation of a slice, in float64: (count, inputs)."""
    from neurofail import _reference

    x = of.inputs[:inputs]
    return np.stack(
        [
            np.abs(_reference.deviations(of.net, x, of.plan.operations(start + i))).max(axis=1)
            for i in range(count)
        ]
    )


def agree(of: Case, found: Array, right: Array, what: str) -> None:
    """Raises AssertionError unless single-precision errors agree with the right ones.

    Allowed: 2e-5 of the largest error, and 4e-6 (some 64 units of 2^-24) of the largest golden output, for
    an error may be computed as the difference of two outputs.
    """
    worst = float(np.max(np.abs(found - right)))
    allowed = 2e-5 * float(right.max()) + 4e-6 * float(np.abs(of.net(of.inputs[:512])).max())
    assert worst <= allowed, f"{of.name} by {what}: off by {worst:.3g} of {right.max():.3g}"


@cache
def verify(name: str, activation: str, backend: str) -> str:
    """Holds a backend to the float64 reference on a case; the sentence says what was compared.

    Every evaluation of slices of the plan, what a campaign keeps of these (it may know that without running
    each), and the witness of a whole run: the replayed error against the measured one, and against the
    largest error of its own slice.

    Raises AssertionError where they differ.
    """
    of = case(name, activation)
    session = opened(of, backend)
    inputs = min(len(of.inputs), 512)
    compared = 0
    for start in slices(of):
        count = min(4, of.plan.count - start)
        rows, levels = session.rows(start, count)
        every = session.evaluate(rows, levels, 0, session.blocks, session.desk(), each=True)
        kept = session.evaluate(rows, levels, 0, session.blocks, session.desk())
        each = every.each
        assert each is not None
        assert kept.errors.tobytes() == each.max(axis=1).tobytes(), f"{backend}, configurations from {start}"
        assert kept.sdc.tolist() == every.sdc.tolist(), f"{backend}, configurations from {start}"
        right = reference(of, start, count, inputs)
        agree(of, each[:, :inputs], right, f"{backend}, configurations from {start}")
        compared += right.size
    few = max(1, int(_VERIFIED_MULTIPLIES / (len(of.inputs) * max(of.workload.cost.multiplies, 1000))))
    stop = min(of.plan.count, of.start + few)
    worst = nf.run(of.net, of.inputs, of.plan, backend=backend, start=of.start, stop=stop).worst
    assert worst is not None
    agree(of, np.array(worst.measured), np.array(worst.error), f"{backend}, the witness")
    return f"{compared} evaluations and the witness (configuration {worst.index}) agree with the reference"
