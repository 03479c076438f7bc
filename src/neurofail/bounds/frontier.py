"""How many failures a budget tolerates: the Pareto frontier of {f : bound(f) <= tau} (bounds.md, section 6).

Every bound used here never falls when a count grows (T1, not T0), so the tolerated counts are a down-set and
its maximal elements say it all. They are found depth first over all layers but the last two; a branch ends
where even no further failure exceeds tau. For the last two layers, a block of a row is solved at once: for
successive counts in the last layer but one, the largest count in the last. A row's entries are maximal where
no neighbour, one failure more in one earlier layer, reaches as far.

The frontier of a wide network can be astronomically large, so `Frontier` yields it lazily and keeps only the
blocks that the next ones are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from neurofail.bounds import refined, topology
from neurofail.bounds.intervals import domain, pointwise
from neurofail.bounds.rounding import dot, minus, plus, product_tops, times, tops
from neurofail.bounds.terms import Margin, Terms
from neurofail.budget import Budget
from neurofail.errors import InputError, UnsoundError
from neurofail.faults import Fault
from neurofail.network import Network, magnitude, whole

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
By = Literal["fep", "fep_capped", "influence", "rowwise", "hybrid"]
State = tuple[Array, ...]

# What a layer does to one state for every count: the row-wise bounds sort a product for each weight.
Struck = Callable[[Ints], State]

# Blocks and states kept for comparison with their neighbours, and layers kept open (8 MB each at 1000 wide).
_KEPT, _OPEN = 2048, 16
# Counts solved at once in a row, and tried at once in a search for the largest.
_BLOCK, _GRID = 64, 32
# Numbers that an open layer may hold; beyond it they are made anew, a part at a time, when asked for.
_CELLS = 1 << 24


class Scan(Protocol):
    """A bound, evaluated layer by layer for many counts at once.

    A state's arrays have a leading axis: one entry for each count, or a single one for all.

    Attributes
    ----------
    spread : by how much, relatively, two evaluations of the same counts may differ in their rounding
    """

    spread: float

    def start(self) -> State:
        """Before the first layer."""

    def open(self, layer: int, state: State) -> Struck:
        """The states after `layer` by counts, (m,), each from its own entry of `state` or all from one."""

    def value(self, state: State) -> Array:
        """The bound after the last layer, (m,)."""


class _Topological:
    """T1, TN or the synapse form, capped or not; the state is e, (m, n)."""

    spread = 0.0

    def __init__(self, terms: Terms, capped: bool) -> None:
        self.terms, self.capped = terms, capped

    def start(self) -> State:
        return (np.zeros((1, len(self.terms.nominal.low[0]))),)

    def open(self, layer: int, state: State) -> Struck:
        def struck(counts: Ints) -> State:
            column = counts[:, None]
            if layer > self.terms.depth:
                return (topology.output(self.terms, state[0], [column]),)
            total = topology.spread(self.terms, layer, state[0], [column], at_most=True)
            return (topology.onward(self.terms, layer, total, self.capped),)

        return struck

    def value(self, state: State) -> Array:
        return np.asarray(state[0].max(axis=1))


class _Influence:
    """I1: a sum over the layers of tabulated terms; the state is the sum so far, (m, n, P)."""

    spread = 0.0

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        (fault,) = terms.faults
        self._tables = {}
        for layer in fault.layers(terms.net):
            places = fault.places(terms.net, layer)
            if fault.place == "neuron":
                values = times(terms.influence[layer - 1], terms.deviation(0, layer)[:, None, :])
            else:
                values = refined.synapse_terms(terms, 0, layer, places)
            self._tables[layer] = np.moveaxis(tops(values, places), -1, 0)  # (places + 1, n, P)

    def start(self) -> State:
        return (np.zeros((1, 1, 1)),)

    def open(self, layer: int, state: State) -> Struck:
        return lambda counts: (plus(state[0], self._tables[layer][counts]),)

    def value(self, state: State) -> Array:
        return np.asarray(state[0].max(axis=(1, 2)))


class _Rowwise:
    """I2; the state is u, (m, n, N_l). With `cut` I3: and the best cut so far, (m, n, P)."""

    spread = 1e-9  # the matrix product adds up in an order that depends on the shape

    def __init__(self, terms: Terms, cut: bool) -> None:
        if not terms.blocking:
            raise UnsoundError(f"the row-wise bound does not hold here: {refined.PASSES_ERROR}")
        self.terms, self.cut = terms, cut

    def start(self) -> State:
        u = np.zeros_like(self.terms.nominal.low[1])[None]
        return (u, np.full((1, 1, 1), np.inf)) if self.cut else (u,)

    def open(self, layer: int, state: State) -> Struck:
        terms, u = self.terms, state[0]
        weight, r, deviation = terms.weight(layer + 1), terms.influence[layer - 1], terms.deviation(0, layer)
        excess = minus(deviation, u)
        carried, extra = dot(u, weight.T), _largest_terms(weight, excess)
        if self.cut:
            here, extra_here = dot(u, r.T), _largest_terms(r, excess)
            onward = _largest_terms(r, deviation[None])

        def struck(counts: Ints) -> State:
            moved = refined.arrive(terms, layer, plus(carried, extra(counts)), capped=True)
            if not self.cut:
                return (moved,)
            best = plus(state[1], onward(counts))
            return moved, np.minimum(best, plus(here, extra_here(counts)))

        return struck

    def value(self, state: State) -> Array:
        least = np.minimum(state[0], state[1]) if self.cut else state[0]
        return np.asarray(least.max(axis=(1, 2)))


def _largest_terms(coefficient: Array, factor: Array) -> Callable[[Ints], Array]:
    """counts (m,) -> (m, n, R): the counts[i] largest of coefficient (R, N) * factor (m|1, n, N), summed."""
    states, n, width = factor.shape
    kept = np.zeros((*factor.shape[:2], 0))

    def sums(part: Array, most: int) -> Array:
        return product_tops(coefficient, part[..., None, :], most)

    def largest(counts: Ints) -> Array:
        nonlocal kept
        counts = np.broadcast_to(counts, (max(states, len(counts)),))
        if not counts.any():
            return np.zeros((len(counts), n, len(coefficient)))
        if np.all(counts == width):
            return np.broadcast_to(dot(factor, coefficient.T), (len(counts), n, len(coefficient)))
        if factor.size * len(coefficient) > _CELLS:
            found = np.empty((len(counts), n, len(coefficient)))
            for i, state in enumerate(factor):
                mine = slice(i, i + 1) if states > 1 else slice(None)
                for j, row in enumerate(state):
                    found[mine, j] = sums(row, int(counts.max()))[:, counts[mine]].T
            return found
        if kept.shape[-1] <= counts.max():
            kept = sums(factor, int(counts.max()))
        if states == 1:
            return np.moveaxis(kept[0][..., counts], -1, 0)
        return np.take_along_axis(kept, counts[:, None, None, None], axis=-1)[..., 0]

    return largest


class Frontier:
    """The maximal tolerated failure counts, one count for each layer that the fault can strike.

    Iterating yields them in lexicographic order, the largest counts first, each when it is found; there may
    be more than anyone can list, so `first` and `to_dict` take a limit.

    Attributes
    ----------
    fault, budget, by : what fails, the error tau that is tolerated, and the bound that promises it
    places : how many places can fail in each layer
    """

    def __init__(self, fault: Fault, budget: float, by: str, terms: Terms, scan: Scan) -> None:
        self.fault, self.budget, self.by = fault, budget, by
        self._terms, self._scan = terms, scan
        self._layers = tuple(fault.layers(terms.net))
        self.places = tuple(fault.places(terms.net, layer) for layer in self._layers)
        self._state = lru_cache(_KEPT)(self._find_state)
        self._struck = lru_cache(_OPEN)(self._find_struck)
        self._most = lru_cache(_KEPT)(self._find_most)
        self._row = lru_cache(_KEPT)(self._find_row)
        self._rowwise: list[tuple[Array, Array]] = []

    def tolerates(self, failures: Sequence[int]) -> bool:
        """Whether at most these failures are promised to stay within the budget."""
        budget = Budget.of(self._terms.net, self.fault, failures)
        assert budget.failures is not None  # it was given counts per layer
        return bool(self._scan.value(self._find_state(budget.failures[0]))[0] <= self.budget)

    @cached_property
    def alone(self) -> tuple[int, ...]:
        """For each layer, the most failures tolerated if no other layer has any."""
        none = (0,) * len(self.places)
        return tuple(self._most(none[:i], none[i + 1 :], self.budget) for i in range(len(none)))

    @cached_property
    def anywhere(self) -> int:
        """The most failures tolerated wherever they fall, by the bound's own form for any n anywhere."""
        if self.tolerates(self.places):
            return sum(self.places)
        # They may all fall in one layer.
        short = [most for most, places in zip(self.alone, self.places, strict=True) if most < places]
        most = min(short, default=sum(self.places) - 1)
        limit = min(1, most)
        while limit < most and self._anywhere(limit) <= self.budget:
            limit = min(2 * limit, most)
        return int(
            _largest(lambda n: np.array([self._anywhere(int(n[0]))]), np.array([limit]), self.budget)[0]
        )

    def _anywhere(self, total: int) -> float:
        terms, totals = self._terms, (total,)
        match self.by:
            case "fep" | "fep_capped":
                value = topology.fep_anywhere(terms, totals, True, self.by == "fep_capped")
            case "influence":
                value = refined.influence_anywhere(terms, totals)
            case _:
                if total >= len(self._rowwise):
                    self._rowwise = refined.rowwise_anywhere(terms, total)
                value = self._rowwise[total][self.by == "hybrid"]
        return float(np.max(value))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        if len(self.places) == 1:
            yield self.alone
            return
        yield from self._descend(())

    def first(self, limit: int) -> list[tuple[int, ...]]:
        """The first `limit` maximal counts (all of them if there are no more)."""
        return list(islice(self, whole(limit, "limit")))

    def to_dict(self, limit: int = 1000) -> dict[str, object]:
        """The frontier as plain JSON values; `complete` says whether `points` holds all of it."""
        points = self.first(limit + 1)
        return {
            "fault": self.fault.describe(),
            "budget": self.budget,
            "by": self.by,
            "alone": list(self.alone),
            "anywhere": self.anywhere,
            "points": [list(point) for point in points[:limit]],
            "complete": len(points) <= limit,
        }

    def _find_state(self, prefix: tuple[int, ...]) -> State:
        """The state after the first layers with these counts."""
        return self._struck(prefix[:-1])(np.array(prefix[-1:])) if prefix else self._scan.start()

    def _find_struck(self, prefix: tuple[int, ...]) -> Struck:
        """The next layer, open to any count, after the first layers with these."""
        return self._scan.open(self._layers[len(prefix)], self._state(prefix))

    def _find_most(self, prefix: tuple[int, ...], after: tuple[int, ...], budget: float) -> int:
        """The most failures within `budget` in the next layer, given those before and after it; or -1."""
        position = len(prefix)
        if not position or not any((*prefix, *after)):
            high = self.places[position]
        else:
            high = self._most((0,) * position, (0,) * len(after), self.budget)
        # None and one first: they need no sorting, and often they are all there is.
        low, tried = -1, np.zeros(1, dtype=np.int64)
        while low < high:
            state = self._struck(prefix)(tried)
            for layer, count in zip(self._layers[position + 1 :], after, strict=True):
                state = self._scan.open(layer, state)(np.array([count]))
            fit = int(np.count_nonzero(self._scan.value(state) <= budget))
            if fit < len(tried):
                high = int(tried[fit]) - 1
            if fit:
                low = int(tried[fit - 1])
            tried = np.unique(np.linspace(low + 1, high, _GRID if low else 1).astype(np.int64))
        return low

    def _alone_after(self, prefix: tuple[int, ...]) -> int:
        """The most failures tolerated in the next layer if there are none after it; -1 if even 0 are not."""
        return self._most(prefix, (0,) * (len(self.places) - len(prefix) - 1), self.budget)

    def _find_row(self, prefix: tuple[int, ...], first: int) -> Ints:
        """For _BLOCK + 1 counts from `first` in the last layer but one, the largest in the last; or -1."""
        last = min(self._alone_after(prefix) + 1, self.places[-2])
        counts = np.arange(first, min(first + _BLOCK, last) + 1)
        if not len(counts):
            return counts
        struck = self._scan.open(self._layers[-1], self._struck(prefix)(counts))
        limits = np.full(len(counts), self.places[-1])
        return _largest(lambda f: self._scan.value(struck(f)), limits, self.budget)

    def _descend(self, prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(prefix) == len(self.places) - 2:
            yield from self._maximal(prefix)
            return
        if any(_costs_no_more(self._state(more), self._state(prefix)) for more in self._neighbours(prefix)):
            return
        # Below the largest count that clearly tolerates any failures after it, nothing is maximal.
        clear = self.budget * (1 - self._scan.spread)
        least = max(self._most(prefix, self.places[len(prefix) + 1 :], clear), 0)
        for count in self._counts(prefix, least):
            yield from self._descend((*prefix, count))

    def _neighbours(self, prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The prefixes with one failure more, if they are tolerated when nothing else fails."""
        for i, count in reversed(list(enumerate(prefix))):
            if count < self._alone_after(prefix[:i]):
                yield (*prefix[:i], count + 1, *prefix[i + 1 :])

    def _counts(self, prefix: tuple[int, ...], least: int) -> Iterator[int]:
        """The next layer's counts from the largest to `least`, without those that cost what one more does."""
        most, places = self._alone_after(prefix), self.places[len(prefix)]
        for first in reversed(range(least, most + 1, _BLOCK)):
            counts = np.arange(first, min(first + _BLOCK, most + 1))
            after = self._struck(prefix)(np.append(counts, min(counts[-1] + 1, places)))
            dearer = ~_costs_no_more(tuple(part[1:] for part in after), tuple(part[:-1] for part in after))
            yield from (int(count) for count in counts[dearer | (counts == places)][::-1])

    def _maximal(self, prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        neighbours = list(self._neighbours(prefix))
        for first in reversed(range(0, self._alone_after(prefix) + 1, _BLOCK)):
            row = self._row(prefix, first)
            here = row[:_BLOCK]
            # Nothing beyond the last count of the layer beats it.
            beaten = here <= np.append(row[1:], -1)[: len(here)]
            for other in neighbours:
                if not beaten.all():
                    reach = self._row(other, first)[: len(here)]
                    beaten[: len(reach)] |= here[: len(reach)] <= reach
            for maximal in np.flatnonzero(~beaten)[::-1]:
                yield (*prefix, first + int(maximal), int(here[maximal]))
            if here[0] == self.places[-1]:
                return


def _costs_no_more(state: State, other: State) -> npt.NDArray[np.bool_]:
    """For each entry, whether whatever follows is tolerated after `state` if it is after `other`, (m,)."""
    parts = [np.all(a <= b, axis=tuple(range(1, a.ndim))) for a, b in zip(state, other, strict=True)]
    return np.asarray(np.all(parts, axis=0))


def _largest(value: Callable[[Ints], Array], limits: Ints, budget: float) -> Ints:
    """For each entry, the largest count in 0..limit with value(count) <= budget, -1 if there is none.

    In the last layer this is the closed form of section 6, found by bisection so that it agrees with the
    rounded bound to the last bit.
    """
    low, high = np.full_like(limits, -1), limits.copy()
    while np.any(low < high):
        middle = (low + high + 1) // 2
        fits = value(middle) <= budget
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low


def tolerance(
    net: Network,
    fault: Fault,
    budget: float,
    *,
    by: By = "fep",
    inputs: npt.ArrayLike | None = None,
    margin: Margin = None,
) -> Frontier:
    """The Pareto frontier of the failure counts whose error is promised not to exceed `budget`.

    Parameters
    ----------
    net : the network
    fault : what fails; at most so many places in each layer
    budget : tau = eps - eps', the error that failures may add
    by : the bound that promises: "fep" (T1, TN or the synapse form), "fep_capped" (T2), "influence" (I1),
        "rowwise" (I2), "hybrid" (I3)
    inputs : (n, N_0); the promise then holds for these inputs only
    margin : promise for the margin F_c - F_k instead: (c, k), or c for all its margins

    Raises
    ------
    InputError : a budget that is negative or not finite, an unknown bound, a list of faults.
    UnsoundError : a row-wise bound for failures that let upstream error through.

    >>> from neurofail.faults import Byzantine
    >>> weights = [[[1.0]] * 3, [[0.5] * 3] * 3, [[1.0] * 3]]
    >>> net = Network.dense(weights, None, ["relu", "relu", "identity"])
    >>> list(tolerance(net, Byzantine(1.0, "nominal"), 2.2))
    [(1, 1), (0, 2)]
    """
    tau = magnitude(budget, "budget")
    if not isinstance(fault, Fault):
        raise InputError(f"fault is {fault!r}; tolerance takes one fault, such as Crash()")
    nominal = domain(net) if inputs is None else pointwise(net, net.check_inputs(inputs))
    terms = Terms(net, (fault,), nominal, margin)
    scans: dict[str, Callable[[], Scan]] = {
        "fep": lambda: _Topological(terms, capped=False),
        "fep_capped": lambda: _Topological(terms, capped=True),
        "influence": lambda: _Influence(terms),
        "rowwise": lambda: _Rowwise(terms, cut=False),
        "hybrid": lambda: _Rowwise(terms, cut=True),
    }
    if not isinstance(by, str) or by not in scans:
        raise InputError(f"by is {by!r}; it must be one of {', '.join(scans)}")
    return Frontier(fault, tau, by, terms, scans[by]())
