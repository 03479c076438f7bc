"""Bounds from the topology alone: N, w, K, D, f (bounds.md, section 3).

One recursion covers them all. Let e_l bound the deviation that upstream error causes in any neuron of layer l
(e_1 = 0) and let S_l bound the sum of all deviations in layer l. Then e_{l+1} = K_{l+1} w_{l+1} S_l, and

- T0, exactly f blocking failures: S_l = f_l D_l + (N_l - f_l) e_l;
- T1, at most f: max(D_l, e_l) for D_l; several kinds of failure share the N_l neurons;
- TN, where failures do not block: S_l = f_l D_l + N_l e_l;
- synapses into layer l: they move their receivers by at most K_l f_l max(M^l) in sum, which is added to S_l,
  and the output by f_{L+1} max(M^{L+1});
- T2, the cap: e_l <- min(e_l, R_l), as phi's range limits what a correct neuron, or the own computation of
  one that fails without blocking, can deviate.

A mixture with any fault that does not block takes the TN form as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from neurofail.bounds.rounding import plus, times
from neurofail.bounds.terms import Terms
from neurofail.errors import InputError

Array = npt.NDArray[np.float64]
Count = int | npt.NDArray[np.int64]


def spread(terms: Terms, layer: int, e: Array, counts: Sequence[Count], at_most: bool) -> Array:
    """S_l, the sum of the deviations in hidden layer l, from e_l, any shape (.., n).

    `counts` per fault: a number, or an array that broadcasts against e_l.
    """
    width = terms.net.widths[layer]
    if not terms.blocking:
        struck = [times(counts[k], terms.worst_deviation(k, layer)) for k in terms.neuron_faults()]
        moved = [times(counts[k], terms.worst_deviation(k, layer)) for k in terms.synapse_faults()]
        return plus(times(width, e), *struck, *(times(terms.lipschitz(layer), m) for m in moved))
    failed = sum(counts)
    crowded = bool(np.any(np.greater(failed, width)))
    if crowded and not at_most:
        raise InputError(f"{failed} neuron failures in all, but layer {layer} has only {width} neurons")
    each = [terms.worst_deviation(k, layer) for k in range(len(counts))]
    if at_most:
        each = [np.maximum(d, e) for d in each]
    left = np.maximum(np.subtract(width, failed), 0)
    total = plus(times(left, e), *(times(n, d) for n, d in zip(counts, each, strict=True)))
    if crowded:  # more are allowed than there are neurons: none does worse than the worst kind
        total = np.minimum(total, times(width, np.max(each, axis=0)))
    return total


def onward(terms: Terms, layer: int, total: Array, capped: bool) -> Array:
    """e_{l+1} from S_l: K w S, capped by the range if asked; no K and no cap for the output."""
    e = times(times(terms.lipschitz(layer + 1), terms.greatest[layer]), total)
    if capped and layer < terms.depth:
        e = np.minimum(e, terms.reach(layer + 1).max(axis=1))
    return e


def output(terms: Terms, e: Array, counts: Sequence[Count]) -> Array:
    """The bound of the output error from e_{L+1} and the failures of synapses into the output layer."""
    last = terms.depth + 1
    return plus(e, *(times(counts[k], terms.worst_deviation(k, last)) for k in terms.synapse_faults()))


def fep(terms: Terms, failures: Sequence[Sequence[int]], at_most: bool, capped: bool) -> Array:
    """Fep for failures[fault][layer - 1] failures, (n,); T0, T1, TN or the synapse form, or their T2 caps."""
    e = np.zeros(len(terms.nominal.low[0]))
    for layer in range(1, terms.depth + 1):
        counts = [row[layer - 1] for row in failures]
        e = onward(terms, layer, spread(terms, layer, e, counts, at_most), capped)
    return output(terms, e, [row[-1] for row in failures])


def fep_anywhere(terms: Terms, totals: Sequence[int], at_most: bool, capped: bool) -> Array:
    """The maximum of `fep` over all ways to spread totals[fault] failures over the layers, (n,).

    Dynamic programming over the number of failures spent so far. It is exact, not a relaxation: what follows
    a layer never decreases in e, so for each number spent only the largest e matters.
    """
    shape = (*(n + 1 for n in totals), len(terms.nominal.low[0]))
    # e by the number of failures spent; -1 where no distribution spends exactly that many.
    e = np.zeros(shape) if at_most else np.full(shape, -1.0)
    e[(0,) * len(totals)] = 0.0
    for layer in range(1, terms.depth + 2):
        reached = np.full(shape, -1.0)
        for counts in _distributions(terms, layer, totals):
            source = e[tuple(slice(0, t + 1 - n) for t, n in zip(totals, counts, strict=True))]
            if layer <= terms.depth:
                value = onward(terms, layer, spread(terms, layer, source, counts, False), capped)
            else:
                value = output(terms, source, counts)
            target = reached[tuple(slice(n, None) for n in counts)]
            np.maximum(target, np.where(source >= 0, value, -1.0), out=target)
        e = reached
    final: Array = e[tuple(totals)]
    return final


def _distributions(terms: Terms, layer: int, totals: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every choice of counts in one layer that fits it and does not exceed the totals."""
    most = [
        min(total, fault.places(terms.net, layer)) if layer in fault.layers(terms.net) else 0
        for fault, total in zip(terms.faults, totals, strict=True)
    ]
    for counts in product(*(range(n + 1) for n in most)):
        if not terms.blocking or layer > terms.depth or sum(counts) <= terms.net.widths[layer]:
            yield counts
