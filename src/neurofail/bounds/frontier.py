"""How many failures a budget tolerates: the Pareto frontier of {f : bound(f) <= tau} (bounds.md, section 6).

Every bound used here never falls when a count grows (T1, not T0), so the tolerated counts are a down-set and
its maximal elements say it all. They are found depth first over all layers but the last two; a branch ends
where even no further failure exceeds tau. For the last two layers, a whole row is solved at once: for
every count in the last layer but one, the largest count in the last. A row's entries are maximal where no
neighbour, one failure more in one earlier layer, reaches as far.

The frontier of a wide network can be astronomically large, so `Frontier` yields it lazily and keeps only the
rows that the next ones are compared with.
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
from neurofail.bounds.rounding import dot, minus, plus, times, tops
from neurofail.bounds.terms import Margin, Terms
from neurofail.budget import Budget
from neurofail.errors import InputError, UnsoundError
from neurofail.faults import Fault
from neurofail.network import Network, magnitude

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
By = Literal["fep", "fep_capped", "influence", "rowwise", "hybrid"]
State = tuple[Array, ...]

# Rows and states kept for comparison with their neighbours.
_KEPT = 2048


class Scan(Protocol):
    """A bound, evaluated layer by layer for many counts at once.

    A state's arrays have a leading axis: one entry for each count, or a single one for all.
    """

    def start(self) -> State:
        """Before the first layer."""

    def step(self, layer: int, state: State, counts: Ints) -> State:
        """After `layer` with these counts, (m,), each from its own entry of `state` (or all from one)."""

    def value(self, state: State) -> Array:
        """The bound after the last layer, (m,)."""


class _Topological:
    """T1, TN or the synapse form, capped or not; the state is e, (m, n)."""

    def __init__(self, terms: Terms, capped: bool) -> None:
        self.terms, self.capped = terms, capped

    def start(self) -> State:
        return (np.zeros((1, len(self.terms.nominal.low[0]))),)

    def step(self, layer: int, state: State, counts: Ints) -> State:
        column = counts[:, None]
        if layer > self.terms.depth:
            return (topology.output(self.terms, state[0], [column]),)
        total = topology.spread(self.terms, layer, state[0], [column], at_most=True)
        return (topology.onward(self.terms, layer, total, self.capped),)

    def value(self, state: State) -> Array:
        return np.asarray(state[0].max(axis=1))


class _Influence:
    """I1: a sum over the layers of tabulated terms; the state is the sum so far, (m, n, P)."""

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

    def step(self, layer: int, state: State, counts: Ints) -> State:
        return (plus(state[0], self._tables[layer][counts]),)

    def value(self, state: State) -> Array:
        return np.asarray(state[0].max(axis=(1, 2)))


class _Rowwise:
    """I2; the state is u, (m, n, N_l). With `cut` I3: and the best cut so far, (m, n, P)."""

    def __init__(self, terms: Terms, cut: bool) -> None:
        if not terms.blocking:
            raise UnsoundError(f"the row-wise bound does not hold here: {refined.PASSES_ERROR}")
        self.terms, self.cut = terms, cut

    def start(self) -> State:
        u = np.zeros_like(self.terms.nominal.low[1])[None]
        return (u, np.full((1, 1, 1), np.inf)) if self.cut else (u,)

    def step(self, layer: int, state: State, counts: Ints) -> State:
        terms, u = self.terms, state[0]
        excess = minus(terms.deviation(0, layer), u)[:, :, None, :]
        extra = _taken(times(terms.weight(layer + 1), excess), counts)
        moved = refined.step(terms, layer, u, extra, capped=True)
        if not self.cut:
            return (moved,)
        r = terms.influence[layer - 1]
        onward = _taken(times(r, terms.deviation(0, layer)[:, None, :])[None], counts)
        here = plus(dot(u, r.T), _taken(times(r, excess), counts))
        return moved, np.minimum(plus(state[1], onward), here)

    def value(self, state: State) -> Array:
        least = np.minimum(state[0], state[1]) if self.cut else state[0]
        return np.asarray(least.max(axis=(1, 2)))


def _taken(values: Array, counts: Ints) -> Array:
    """The sum of the counts[i] largest of values[i], or of values[0], along the last axis."""
    sums = tops(values, int(counts.max()))
    if len(sums) == 1:
        return np.moveaxis(sums[0][..., counts], -1, 0)
    index = np.broadcast_to(counts, (len(sums),)).reshape(-1, *(1,) * (sums.ndim - 1))
    return np.take_along_axis(sums, index, axis=-1)[..., 0]


class Frontier:
    """The maximal tolerated failure counts, one count for each layer that the fault can strike.

    Iterating yields them in lexicographic order, each when it is found; there may be more than anyone can
    list, so `first` and `to_dict` take a limit.

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
        self._row = lru_cache(_KEPT)(self._find_row)

    def tolerates(self, failures: Sequence[int]) -> bool:
        """Whether at most these failures are promised to stay within the budget."""
        budget = Budget.of(self._terms.net, self.fault, failures)
        assert budget.failures is not None  # it was given counts per layer
        return bool(self._scan.value(self._find_state(budget.failures[0]))[0] <= self.budget)

    @property
    def alone(self) -> tuple[int, ...]:
        """For each layer, the most failures tolerated if no other layer has any."""
        none = (0,) * len(self.places)
        return tuple(self._most(none[:i], none[i + 1 :]) for i in range(len(none)))

    @cached_property
    def anywhere(self) -> int:
        """The most failures tolerated wherever they fall, by the bound's own form for any n anywhere."""
        if self.tolerates(self.places):
            return sum(self.places)
        first_bad = 1
        while first_bad < sum(self.places) and self._anywhere(first_bad) <= self.budget:
            first_bad = min(2 * first_bad, sum(self.places))
        limit = np.array([first_bad - 1])
        return int(_largest(lambda n: np.array([self._anywhere(int(n[0]))]), limit, self.budget)[0])

    def _anywhere(self, total: int) -> float:
        terms, totals = self._terms, (total,)
        match self.by:
            case "fep" | "fep_capped":
                value = topology.fep_anywhere(terms, totals, True, self.by == "fep_capped")
            case "influence":
                value = refined.influence_anywhere(terms, totals)
            case _:
                value = refined.rowwise_anywhere(terms, total)[self.by == "hybrid"]
        return float(np.max(value))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        if len(self.places) == 1:
            yield self.alone
            return
        yield from self._descend(())

    def first(self, limit: int) -> list[tuple[int, ...]]:
        """The first `limit` maximal counts (all of them if there are no more)."""
        return list(islice(self, limit))

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
        if not prefix:
            return self._scan.start()
        layer = self._layers[len(prefix) - 1]
        return self._scan.step(layer, self._state(prefix[:-1]), np.array(prefix[-1:]))

    def _tail(self, position: int, state: State, counts: Ints, after: Sequence[int]) -> Array:
        """The bound with `counts` in the layer at `position` and the counts `after` in those after it."""
        state = self._scan.step(self._layers[position], state, counts)
        for layer, count in zip(self._layers[position + 1 :], after, strict=True):
            state = self._scan.step(layer, state, np.array([count]))
        return self._scan.value(state)

    def _most(self, prefix: tuple[int, ...], after: Sequence[int]) -> int:
        """The most failures tolerated in the next layer, given those before and after it; -1 if none are."""
        position, state = len(prefix), self._state(prefix)
        limit = np.array([self.places[position]])
        return int(_largest(lambda f: self._tail(position, state, f, after), limit, self.budget)[0])

    def _find_row(self, prefix: tuple[int, ...]) -> Ints:
        """For each tolerated count in the last layer but one, the largest count in the last."""
        counts = np.arange(self._most(prefix, (0,)) + 1)
        if not len(counts):
            return counts
        states = self._scan.step(self._layers[len(prefix)], self._state(prefix), counts)
        limits = np.full(len(counts), self.places[-1])
        return _largest(
            lambda f: self._scan.value(self._scan.step(self._layers[-1], states, f)), limits, self.budget
        )

    def _descend(self, prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(prefix) == len(self.places) - 2:
            yield from self._maximal(prefix)
            return
        later = self.places[len(prefix) + 1 :]
        most = self._most(prefix, (0,) * len(later))
        # Below the largest count that tolerates any failures after it, nothing is maximal.
        for count in range(max(self._most(prefix, later), 0), most + 1):
            yield from self._descend((*prefix, count))

    def _maximal(self, prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        row = self._row(prefix)
        beaten = np.append(row[:-1] <= row[1:], False)
        for i, count in enumerate(prefix):
            if count < self.places[i] and len(row):
                other = self._row((*prefix[:i], count + 1, *prefix[i + 1 :]))
                beaten[: len(other)] |= row[: len(other)] <= other
        for maximal in np.flatnonzero(~beaten[: len(row)]):
            yield (*prefix, int(maximal), int(row[maximal]))


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
    [(0, 2), (1, 1)]
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
    if by not in scans:
        raise InputError(f"by is {by!r}; it must be one of {', '.join(scans)}")
    return Frontier(fault, tau, by, terms, scans[by]())
