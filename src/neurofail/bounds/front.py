"""Every bound that is sound for what was asked, why it applies, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from neurofail.bounds import refined, topology
from neurofail.bounds.intervals import blocks
from neurofail.bounds.terms import Margin, Terms
from neurofail.budget import Budget
from neurofail.errors import InputError, UnsoundError
from neurofail.faults import Fault
from neurofail.network import Network
from neurofail.plain import plain

Array = npt.NDArray[np.float64]
Faults = Fault | Sequence[Fault]
Counts = Sequence[int] | Sequence[Sequence[int]] | None
Totals = int | Sequence[int] | None
Places = Sequence[int]


class _Refused(UnsoundError, KeyError):
    """A bound that does not hold was looked up; to `in` and `get` it is a missing key."""

    __str__ = Exception.__str__  # a KeyError would print its message quoted


class Bounds(Mapping[str, float]):
    """The bounds of one question by name, each rounded up; "best" is the smallest.

    Asking for a bound that is not sound here raises UnsoundError; `in`, `get` and iteration pass over it.

    Attributes
    ----------
    why : for each bound offered, the reason why it holds
    refused : for each bound not offered, the reason why it would not hold
    best_name : the name of the smallest
    """

    def __init__(
        self, values: Mapping[str, float], why: Mapping[str, str], refused: Mapping[str, str]
    ) -> None:
        self.best_name = min(values, key=lambda name: values[name])
        self._values = {**values, "best": values[self.best_name]}
        self.why = {**why, "best": f"the smallest of those offered: {self.best_name}"}
        self.refused = dict(refused)

    def __getitem__(self, name: str) -> float:
        if name in self.refused:
            raise _Refused(f"bound {name!r} is not offered: {self.refused[name]}")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Bounds({self._values})"

    def to_dict(self) -> dict[str, object]:
        """The bounds, the reasons and the refusals as plain JSON values."""
        return {
            # JSON has no infinity; a string says it.
            "values": {k: plain(v) for k, v in self._values.items()},
            "best_name": self.best_name,
            "why": dict(self.why),
            "refused": dict(self.refused),
        }


def bounds(
    net: Network,
    fault: Faults,
    failures: Counts = None,
    *,
    total: Totals = None,
    at_most: bool = False,
    inputs: npt.ArrayLike | None = None,
    margin: Margin = None,
) -> Bounds:
    """Every sound bound of the largest |F_faulty - F| over outputs, inputs and the failures asked for.

    Parameters
    ----------
    net : the network
    fault : one fault, or a list of faults for mixtures
    failures : one count for each layer that the fault can strike; a list of such tuples for a list of faults
    total : instead, the number of failures anywhere; a list of numbers for a list of faults
    at_most : whether the counts are upper limits, every smaller count included
    inputs : (n, N_0); the bounds then hold for these inputs alone and are tighter. Without them, they hold
        for the whole `input_range` of the network.
    margin : bound the change of F_c - F_k instead: (c, k), or c for its margins over all other classes

    Returns
    -------
    Bounds : a mapping with, where sound, "fep" (T0, T1, TN, synapse or mixed form), "fep_capped" (T2),
        "influence" (I1), "rowwise" (I2), "hybrid" (I3), and always "best" (bounds.md, sections 3 and 4)

    Raises
    ------
    InputError : counts that do not fit the network, inputs outside its domain, an impossible margin.
    UnsoundError : a fault for which no bound is known.

    >>> from neurofail.faults import Crash
    >>> net = Network.dense([[[1.0], [1.0]], [[2.0, -1.0]]], None, ["sigmoid", "identity"])
    >>> found = bounds(net, Crash(), failures=(2,))
    >>> {name: round(value, 4) for name, value in found.items() if name in ("fep", "influence")}
    {'fep': 2.9242, 'influence': 2.1932}
    >>> found.refused
    {}
    """
    return bounds_of(net, Budget.of(net, fault, failures, total=total, at_most=at_most), inputs, margin)


def bounds_of(
    net: Network, budget: Budget, inputs: npt.ArrayLike | None = None, margin: Margin = None
) -> Bounds:
    """`bounds` for counts that are a `Budget` already."""
    probe = Terms(net, budget.faults, next(blocks(net, None, 1)), margin)
    forms, why, refused = _forms(probe, budget)
    values: dict[str, float] = {}
    for nominal in blocks(net, _array(inputs), _block_size(probe, budget)):
        terms = probe if inputs is None else probe.at(nominal)
        for names, form in forms.items():
            for name, found in zip(names, form(terms), strict=True):
                values[name] = max(values.get(name, 0.0), float(np.max(found)))
    if "hybrid" in values:
        # I3 never exceeds I1 and I2 in exact arithmetic; computed, it may by a few units of rounding.
        values["hybrid"] = min(values[name] for name in ("influence", "rowwise", "hybrid"))
    return Bounds(values, why, refused)


def fep(
    net: Network,
    fault: Faults,
    failures: Counts = None,
    *,
    total: Totals = None,
    at_most: bool = False,
) -> float:
    """The Forward Error Propagation of the failures, rounded up (bounds.md, section 3).

    T0 for exactly these counts, T1 with `at_most`, TN where failures let upstream error through, and the
    synapse and mixed forms. With `total`, the largest over all ways to spread the failures.

    >>> from neurofail.faults import Byzantine
    >>> weights = [[[1.0]] * 3, [[2.0] * 3] * 3, [[1.0] * 3]]
    >>> net = Network.dense(weights, None, ["relu", "relu", "identity"])
    >>> unit = Byzantine(1.0, "nominal")
    >>> [round(fep(net, unit, failures=f), 9) for f in ((1, 0), (1, 3))]  # not monotone: see at_most
    [6.0, 3.0]
    >>> round(fep(net, unit, failures=(1, 3), at_most=True), 9)
    6.0
    """
    budget = Budget.of(net, fault, failures, total=total, at_most=at_most)
    terms = Terms(net, budget.faults, next(blocks(net, None, 1)))
    return float(np.max(_fep(terms, budget, capped=False)))


def given_set(
    net: Network,
    fault: Faults,
    failed: Sequence[Places] | Sequence[Sequence[Places]],
    *,
    inputs: npt.ArrayLike | None = None,
    margin: Margin = None,
) -> float:
    """A bound for one given set of failed places, rounded up (bounds.md, section 4).

    failed : the failed places of each layer the fault can strike, [[0, 3], []]; one such list for each fault
        if several are given. Synapse j -> i into a layer of N_{l-1} senders is place i N_{l-1} + j.
    """
    single = isinstance(fault, Fault)
    sets = cast(Sequence[Sequence[Places]], [failed] if single else failed)
    counts = [[len(set(places)) for places in one] for one in sets]
    budget = Budget.of(net, fault, counts[0] if single else counts)
    for kind, one in zip(budget.faults, sets, strict=True):
        for layer, places in zip(kind.layers(net), one, strict=True):
            wrong = [p for p in places if not 0 <= p < kind.places(net, layer)]
            if wrong:
                raise InputError(
                    f"place {wrong[0]} of layer {layer} does not exist; there are "
                    f"{kind.places(net, layer)} {kind.place}s, counted from 0"
                )
    return _largest(
        net,
        budget.faults,
        inputs,
        margin,
        lambda terms: refined.given_set(terms, sets),
    )


def expected_error(
    net: Network,
    fault: Fault,
    failures: Sequence[int],
    *,
    inputs: npt.ArrayLike | None = None,
    margin: Margin = None,
) -> float:
    """A bound of the expected |error| of any one output, every set of failures[l] neurons equally likely.

    It also holds when every neuron of layer l fails on its own with probability failures[l] / N_l
    (bounds.md, section 5); never above Fep. Rounded up.
    """
    budget = Budget.of(net, fault, failures)
    if not isinstance(fault, Fault) or fault.place != "neuron":
        raise UnsoundError(
            "the expected error is known for one kind of neuron failure, not for synapses or mixtures"
        )
    return _largest(
        net, budget.faults, inputs, margin, lambda terms: refined.expected(terms, tuple(failures))
    )


def _array(inputs: npt.ArrayLike | None) -> Array | None:
    return None if inputs is None else np.asarray(inputs)


def _largest(
    net: Network,
    faults: tuple[Fault, ...],
    inputs: npt.ArrayLike | None,
    margin: Margin,
    form: Callable[[Terms], Array],
) -> float:
    size = max(1, refined.CELLS // max(a * b for a, b in zip(net.widths, net.widths[1:], strict=False)))
    found = blocks(net, _array(inputs), size)
    return max(float(np.max(form(Terms(net, faults, nominal, margin)))) for nominal in found)


def _block_size(terms: Terms, budget: Budget) -> int:
    """How many inputs to take at once so that no intermediate array grows beyond a few MB."""
    widths, rows = terms.net.widths, len(terms.readout)
    if budget.totals is None and not terms.synapse_faults():
        return max(1, 16 * refined.CELLS // (max(widths) * rows))
    cells = [max(a, rows) * b for a, b in zip(widths[2:], widths[1:], strict=False)]
    for k in terms.synapse_faults():
        for layer in terms.faults[k].layers(terms.net):
            most = budget.count(k, layer) if budget.totals is None else budget.totals[k]
            cells.append(widths[layer] * max(widths[layer - 1], rows * min(most, widths[layer - 1])))
    return max(1, refined.CELLS // max(cells))


def _fep(terms: Terms, budget: Budget, capped: bool) -> Array:
    if budget.totals is not None:
        return topology.fep_anywhere(terms, budget.totals, budget.at_most, capped)
    assert budget.failures is not None  # Budget.of gives one of the two
    return topology.fep(terms, budget.failures, budget.at_most, capped)


def _forms(
    terms: Terms, budget: Budget
) -> tuple[dict[tuple[str, ...], Callable[[Terms], tuple[Array, ...]]], dict[str, str], dict[str, str]]:
    """The bounds that hold, how to compute them, why, and why the others do not."""
    counts, totals = budget.failures, budget.totals
    several = len(budget.faults) > 1
    if not terms.blocking:
        base = "TN: error passes through what failed (or a synapse fails), so N, not N - f, receives it"
    elif budget.at_most:
        base = "T1: failed neurons block upstream error; max(D, e) covers every smaller count"
    else:
        base = "T0: failed neurons block upstream error; holds for exactly these counts"
    if several:
        base += "; mixed form"
    if totals is not None:
        base += "; the largest over all distributions over the layers"
    forms: dict[tuple[str, ...], Callable[[Terms], tuple[Array, ...]]] = {
        ("fep",): lambda t: (_fep(t, budget, capped=False),),
        ("fep_capped",): lambda t: (_fep(t, budget, capped=True),),
        ("influence",): lambda t: (
            refined.influence_anywhere(t, totals)
            if totals is not None
            else refined.influence(t, counts or ()),
        ),
    }
    why = {
        "fep": base,
        "fep_capped": "T2: as fep, with every e_l capped by the range of the activation",
        "influence": "I1: r bounds each failure's effect on each output; sound for every semantics",
    }
    refused = {}
    if not terms.blocking:
        refused = dict.fromkeys(("rowwise", "hybrid"), refined.PASSES_ERROR)
    elif totals is not None and several:
        reason = (
            "failures of several kinds counted anywhere have no row-wise form here; give counts per layer"
        )
        refused = dict.fromkeys(("rowwise", "hybrid"), reason)
    else:
        forms["rowwise", "hybrid"] = lambda t: (
            refined.rowwise(t, counts or ()) if totals is None else refined.rowwise_anywhere(t, totals[0])[-1]
        )
        why["rowwise"] = (
            "I2: failed neurons block upstream error; the recursion keeps every neuron's deviation"
        )
        why["hybrid"] = "I3: I2 up to the best cut for each output, I1 after it"
    return forms, why, refused
