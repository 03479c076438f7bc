"""The search as a whole: rounds of blocks with a shared incumbent that is frozen while a round lasts.

A block is a set of open nodes of one input. What a round explores depends on the nodes alone, never on the
number of threads that share it; so the answer, the witness and even the number of nodes do not either.
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from neurofail.configuration import Configuration
from neurofail.errors import InputError
from neurofail.search.circuit import (
    FAILED,
    FREE,
    LEAST,
    MOST,
    SLACK,
    SOUND,
    Array,
    Case,
    Ints,
    Singles,
    States,
)
from neurofail.search.incumbent import improve
from neurofail.search.problem import Problem
from neurofail.search.tree import explore, threshold

_ROUND = 16  # blocks explored at once
_ROOTS = 64  # inputs begun at once, fewer in wide networks:
_BEGUN = 1 << 25  # steps that their nodes may take, a second's work or so; a time limit waits for a round
_PIECE = 64  # open nodes kept together
_POLISHED = 8  # roots on which the incumbent is improved by swaps
_SWAPPED = 1 << 28  # steps that one round of swaps may take
_CASES = 256 << 20  # bytes of golden runs kept
_KEPT = 60.0  # seconds between checkpoints


@dataclass(frozen=True)
class Block:
    """Open nodes of one input, in little room even where neurons are many.

    rows, limits (n,): their objectives and upper limits; tuned (n, 2, P): as in `tree.Nodes`; sound (n,
    bytes): a bit for each of the S N neurons, stage by stage; node, place (m,): at which node which neuron
    has failed; low, high: the deviations that it may cause there, (m,) too where failures have a range, else
    empty. With equivocation, low and high are the levels of what a neuron is told, and neurons whose levels
    have been halved are listed too; a failed one has all of them, 0 to 1.
    """

    input: int
    rows: Ints
    limits: Array
    tuned: Singles
    sound: npt.NDArray[np.uint8]
    node: Ints
    place: Ints
    low: Array
    high: Array

    @classmethod
    def of(
        cls,
        index: int,
        rows: Ints,
        limits: Array,
        states: States,
        lows: Array,
        highs: Array,
        tuned: Singles,
        split: bool,
    ) -> Block:
        """The nodes as `explore` has them, states, lows, highs (n, S, N); split: neurons equivocate."""
        flat = states.reshape(len(rows), int(np.prod(states.shape[1:])))
        kept = flat == FAILED
        if split and len(lows):
            kept |= ((lows > 0.0) | (highs < 1.0)).reshape(flat.shape)
        node, place = np.nonzero(kept)
        low, high = (
            ends.reshape(flat.shape)[node, place] if len(ends) else np.zeros(0) for ends in (lows, highs)
        )
        return cls(index, rows, limits, tuned, np.packbits(flat == SOUND, axis=1), node, place, low, high)

    def nodes(self, problem: Problem, case: Case) -> tuple[States, Array, Array]:
        """states, lows, highs (n, S, N), as `explore` takes them."""
        size, ranged = len(self.rows), len(self.rows) if problem.circuit.ranged else 0
        sound = np.unpackbits(self.sound, axis=1, count=problem.root.size)
        states = np.where(sound, SOUND, FREE).astype(np.int8)
        failed = slice(None)
        ends = case.of[LEAST], case.of[MOST]
        if problem.circuit.split:
            failed = (self.low == 0.0) & (self.high == 1.0)
            ends = np.zeros(problem.shape), np.ones(problem.shape)
        states[self.node[failed], self.place[failed]] = FAILED
        lows, highs = (np.repeat(end[None], ranged, axis=0) for end in ends)
        if ranged:
            lows.reshape(size, -1)[self.node, self.place] = self.low
            highs.reshape(size, -1)[self.node, self.place] = self.high
        return states.reshape(size, *problem.shape), lows, highs

    def part(self, chosen: Ints) -> Block:
        """The chosen nodes."""
        number = np.full(len(self.rows), -1)
        number[chosen] = np.arange(len(chosen))
        mine = number[self.node] >= 0
        ranged = mine if len(self.low) else slice(0)
        return Block(
            self.input,
            self.rows[chosen],
            self.limits[chosen],
            self.tuned[chosen],
            self.sound[chosen],
            number[self.node[mine]],
            self.place[mine],
            self.low[ranged],
            self.high[ranged],
        )


@dataclass(frozen=True)
class Best:
    """The best configuration so far: its value by the compiled search, and where it was reached."""

    value: float
    input: int
    row: int
    pick: States
    choice: Array


@dataclass(frozen=True)
class Snapshot:
    """Where a search stands: what a person at a terminal wants to see.

    best and upper are objectives; open is the number of open nodes; inputs_left those not closed yet.
    """

    best: float
    upper: float
    nodes: int
    open: int
    inputs_left: int
    seconds: float


@dataclass
class Search:
    """A search under way. `run` moves it on until it is done, out of time, or interrupted."""

    problem: Problem
    gap: float
    threads: int
    best: Best | None = None
    blocks: list[tuple[float, int, Block]] = field(default_factory=list)
    taken: list[Block] = field(default_factory=list)  # being explored
    fresh: int = 0  # the first input whose root has not been visited
    polished: bool = False
    nodes: int = 0
    serial: int = 0
    slack: float = 0.0  # the largest rounding slack seen
    interrupted: bool = False
    closed: float = -np.inf  # the highest limit among the closed nodes
    cases: OrderedDict[int, Case] = field(default_factory=OrderedDict)

    @property
    def value(self) -> float:
        """The incumbent's value, -inf before there is one."""
        return -np.inf if self.best is None else self.best.value

    @property
    def open(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.blocks) or self.fresh < len(self.problem.inputs)

    @property
    def upper(self) -> float:
        """The certified upper limit: no configuration's objective exceeds it, rounding included."""
        if self.fresh < len(self.problem.inputs):
            return float(np.inf)
        return max(self.value, self.closed, -self.blocks[0][0] if self.blocks else -np.inf) + self.slack

    def start_from(self, index: int, configuration: Configuration) -> None:
        """Take a configuration found elsewhere, on input `index`, as the incumbent if it is better."""
        problem = self.problem
        if not 0 <= index < len(problem.inputs):
            raise InputError(f"incumbent input is {index}; there are {len(problem.inputs)} inputs")
        pick = np.zeros(problem.shape, dtype=np.int8)
        for failure in configuration:
            k = failure.layer - problem.start
            if failure.source is not None or not 0 <= k < problem.shape[0]:
                raise InputError(f"incumbent holds {failure}, which this question does not allow")
            if failure.neuron >= problem.circuit.width[k] or problem.root[k, failure.neuron] != FREE:
                raise InputError(f"incumbent holds {failure}, which this question does not allow")
            pick[k, failure.neuron] = FAILED
        if not problem.allows(pick):
            raise InputError(f"incumbent has {len(configuration)} failures, not the number asked for")
        case = self._case(index)
        fixed = np.where(pick == FAILED, FREE, SOUND).astype(np.int8)
        for row in np.flatnonzero(problem.asked[index]):
            # Of a range, the ends that this objective asks for: whose they were does not matter.
            upward = problem.influence(int(row)) >= 0.0
            choice = np.where(upward, case.of[MOST], case.of[LEAST])
            if problem.circuit.split:
                choice = upward.astype(np.float64)
            value = float(improve(problem.circuit, case, int(row), fixed, pick, choice))
            if value > self.value:
                self.best = Best(value, index, int(row), pick, choice)

    def run(
        self,
        time_limit: float | None,
        progress: Callable[[Snapshot], object] | None,
        keep: Callable[[], object],
    ) -> bool:
        """Go on until done (True), or until the time is up or an interrupt comes (False).

        keep is called about once a minute, and when the search stops before it is done.
        """
        started = kept = time.monotonic()
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                while self.open:
                    now = time.monotonic()
                    if time_limit is not None and now - started >= time_limit and self.fresh:
                        break
                    if now - kept > _KEPT:
                        keep()
                        kept = now
                    self._take()
                    self._explore(pool)
                    if progress is not None:
                        progress(self.snapshot(time.monotonic() - started))
            except KeyboardInterrupt:
                self.interrupted = True
                # What was taken may have been explored in part, or twice: the limits hold all the same.
                for block in self.taken:
                    self.push(block)
                self.taken = []
                if self.best is None:
                    raise
        if self.open:
            keep()
        return not self.open

    def snapshot(self, seconds: float) -> Snapshot:
        """The state of the search, `seconds` into it."""
        return Snapshot(
            self.value,
            self.upper,
            self.nodes,
            sum(len(block.rows) for _, _, block in self.blocks),
            len({block.input for _, _, block in self.blocks}) + len(self.problem.inputs) - self.fresh,
            seconds,
        )

    def _take(self) -> None:
        """Take the blocks of the next round: roots first, then the highest limits.

        A block is added to those taken before it leaves its place, so that an interrupt loses none.
        """
        if self.fresh < len(self.problem.inputs):
            rows = int(self.problem.asked[self.fresh].sum())
            most = max(2, min(_ROOTS, _BEGUN // (max(rows, 1) * self._work)))
            stop = min(self.fresh + most, len(self.problem.inputs))
            self.taken = [self._root(index) for index in range(self.fresh, stop)]
            self.fresh = stop
            return
        if not self.polished:
            self._polish()
            self.polished = True
        while self.blocks and len(self.taken) < _ROUND:
            self.taken.append(self.blocks[0][2])
            heapq.heappop(self.blocks)

    def _root(self, index: int) -> Block:
        rows = np.flatnonzero(self.problem.asked[index])
        states = np.repeat(self.problem.root[None], len(rows), axis=0)
        none = np.zeros((0, *self.problem.shape))
        tuned = np.zeros((len(rows), 2, self.problem.circuit.side), np.float32)
        return Block.of(index, rows, np.full(len(rows), np.inf), states, none, none, tuned, split=False)

    def _case(self, index: int) -> Case:
        """An input's golden run, kept while there is room."""
        if index in self.cases:
            self.cases.move_to_end(index)
            return self.cases[index]
        case = self.problem.case(index)
        self.slack = max(self.slack, float(case.objective[SLACK, self.problem.asked[index]].max()))
        self.cases[index] = case
        size = sum(array.nbytes for array in case)
        while len(self.cases) > max(_ROOTS, _CASES // size):
            self.cases.popitem(last=False)
        return case

    @cached_property
    def _work(self) -> int:
        """What a node takes, in steps: the links between its stages."""
        width = self.problem.circuit.width
        return 1 + int(np.sum(width[:-1] * width[1:]))

    def _budget(self, blocks: list[Block]) -> int:
        """Nodes to visit in a block: about a tenth of a second's work; fewer while few blocks share it."""
        moments = self.problem.circuit.side**3 // 64
        budget = max(8, min(256, (1 << 22) // (self._work + moments)))
        return budget if len(blocks) == _ROUND else max(8, budget // 4)

    def _explore(self, pool: ThreadPoolExecutor) -> None:
        """Explore the blocks taken with the incumbent as it stands; then take in their findings, in order."""
        blocks, problem = self.taken, self.problem
        budget, value = self._budget(blocks), self.value
        cases = [self._case(block.input) for block in blocks]

        def visit(block: Block, case: Case) -> tuple[float, int, States, Array, int, float, Block]:
            wanted = len(block.rows) if np.isinf(block.limits[0]) else budget
            nodes = (block.rows, block.limits, *block.nodes(problem, case), block.tuned)
            found = explore(problem.circuit, case, *nodes, value, self.gap, wanted)
            return *found[:6], Block.of(block.input, *found[6:], split=problem.circuit.split)

        results = list(pool.map(visit, blocks, cases))
        best = self.best
        for block, (found, row, pick, choice, nodes, closed, _) in zip(blocks, results, strict=True):
            self.nodes += nodes
            self.closed = max(self.closed, closed)
            if found > (-np.inf if best is None else best.value):
                best = Best(float(found), block.input, int(row), pick, choice)
        if best is not None and best is not self.best:
            self.best = self._improved(best)
        for case, (*_, rest) in zip(cases, results, strict=True):
            limits, slacks = rest.limits, case.objective[SLACK, rest.rows]
            keep = limits > [threshold(self.value, slack, self.gap) for slack in slacks]
            self.closed = max(self.closed, limits[~keep].max(initial=-np.inf))
            order = np.flatnonzero(keep)[np.argsort(-limits[keep], kind="stable")]
            for first in range(0, len(order), _PIECE):
                self.push(rest.part(order[first : first + _PIECE]))
        self.taken = []

    def push(self, block: Block) -> None:
        self.serial += 1
        heapq.heappush(self.blocks, (-float(block.limits[0]), self.serial, block))

    def _polish(self) -> None:
        """Improve what the incumbent would be on the inputs and objectives whose roots are highest."""
        if self.best is None or not self.blocks:
            return
        highest = heapq.nsmallest(4 * _POLISHED, self.blocks)
        limits = {
            (block.input, int(row)): -limit
            for _, _, block in highest
            for row, limit in zip(block.rows, block.limits, strict=True)
        }
        for index, row in heapq.nsmallest(_POLISHED, limits, key=lambda pair: limits[pair]):
            # A deviation is relative to an input's own golden run: bring it into that input's range.
            of = self._case(index).of
            choice = self.best.choice.copy()
            if not self.problem.circuit.split:
                choice = np.clip(choice, of[LEAST], of[MOST])
            found = self._improved(Best(-np.inf, index, row, self.best.pick.copy(), choice))
            if found.value > self.value:
                self.best = found

    def _improved(self, found: Best) -> Best:
        """A configuration, improved by swaps where trying them all takes less than about a second."""
        problem = self.problem
        width = problem.circuit.width
        swaps = int((found.pick == FAILED).sum()) * int((problem.root == FREE).sum())
        work = int(width.sum() + np.sum(width[1:-1] * width[2:]))  # of measuring one
        if swaps * work > _SWAPPED:
            return found
        case = self._case(found.input)
        value = improve(problem.circuit, case, found.row, problem.root, found.pick, found.choice)
        return replace(found, value=max(found.value, float(value)))
