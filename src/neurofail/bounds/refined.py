"""Bounds that read the weights (bounds.md, section 4).

Every bound here is a sum of non-negative terms that never falls when a count grows, so each holds for exactly
f failures and for at most f alike. Results have shape (n, P): inputs by rows of the readout.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from neurofail.bounds.rounding import dot, minus, plus, times, top, tops
from neurofail.bounds.terms import Terms
from neurofail.errors import UnsoundError
from neurofail.faults import Fault

Array = npt.NDArray[np.float64]
Counts = Sequence[Sequence[int]]

# How many numbers the largest intermediate array may hold: a few MB, inside a cache.
CELLS = 1 << 18

PASSES_ERROR = (
    "a failed place lets upstream error through (or is a synapse), and the row-wise recursion takes a failed "
    "neuron's deviation to be at most D"
)


def pooled(coefficient: Array, deviations: Sequence[Array], counts: Sequence[int]) -> Array:
    """The most that counts[k] failures of each kind k can add up to along the last axis.

    `coefficient` times each of `deviations` broadcasts. The smaller of two bounds: every kind takes its
    own largest terms; or, with the kinds in rising order of D, every failure of kind k or above adds
    (D_k - D_{k-1})_+, which for crash and Byzantine is top_{f^c + f^b}(r D^c) + C top_{f^b}(r).
    """
    present = [(d, n) for d, n in zip(deviations, counts, strict=True) if n]
    if not present:
        return np.zeros(np.broadcast_shapes(coefficient.shape, *(d.shape for d in deviations))[:-1])
    size = coefficient.shape[-1]
    apart = plus(*(top(times(coefficient, d), min(n, size)) for d, n in present))
    if len(present) == 1:
        return apart
    present.sort(key=lambda kind: float(np.max(kind[0])))
    left, below, layers = sum(n for _, n in present), np.zeros(1), []
    for d, n in present:
        layers.append(top(times(coefficient, minus(d, below)), min(left, size)))
        left, below = left - n, d
    return np.minimum(apart, plus(*layers))


def synapse_terms(terms: Terms, kind: int, layer: int, count: int) -> Array:
    """r_{k,i} K_i M_ij, (n, P, candidates): the largest of each receiver, as many as could all fail."""
    table = terms.deviation(kind, layer)
    keep = min(count, table.shape[-1])
    if keep < table.shape[-1]:
        table = np.partition(table, table.shape[-1] - keep, axis=-1)[..., table.shape[-1] - keep :]
    moved = times(terms.lipschitz(layer), table)
    reach = terms.influence[layer - 1]
    return times(reach[None, :, :, None], moved[:, None, :, :]).reshape(len(table), len(reach), -1)


def _deviations(terms: Terms, layer: int) -> list[Array]:
    """D of every neuron fault, (n, 1, N_l)."""
    return [terms.deviation(k, layer)[:, None, :] for k in terms.neuron_faults()]


def _neuron_counts(terms: Terms, failures: Counts, layer: int) -> list[int]:
    return [failures[k][layer - 1] for k in terms.neuron_faults()]


def _zero(terms: Terms) -> Array:
    return np.zeros((len(terms.nominal.low[0]), len(terms.readout)))


def influence(terms: Terms, failures: Counts) -> Array:
    """I1: sum over the layers of the f_l largest r^l_j D_{l,j}. Sound for every semantics and mixture."""
    parts = [_zero(terms)]
    for layer in range(1, terms.depth + 1):
        r = terms.influence[layer - 1]
        parts.append(pooled(r, _deviations(terms, layer), _neuron_counts(terms, failures, layer)))
    for k in terms.synapse_faults():
        for layer, count in enumerate(failures[k], start=1):
            if count:
                parts.append(top(synapse_terms(terms, k, layer, count), count))
    return plus(*parts)


def influence_anywhere(terms: Terms, totals: Sequence[int]) -> Array:
    """I1 for totals[fault] failures anywhere: the pooled largest over all layers."""
    hidden = range(1, terms.depth + 1)
    neurons = terms.neuron_faults()
    r = np.concatenate([terms.influence[layer - 1] for layer in hidden], axis=1)
    deviations = [
        np.concatenate([terms.deviation(k, layer)[:, None, :] for layer in hidden], axis=2) for k in neurons
    ]
    parts = [_zero(terms), pooled(r, deviations, [totals[k] for k in neurons])]
    for k in terms.synapse_faults():
        if not totals[k]:
            continue
        candidates = [synapse_terms(terms, k, layer, totals[k]) for layer in range(1, terms.depth + 2)]
        rows = max(len(c) for c in candidates)
        pool = np.concatenate([np.broadcast_to(c, (rows, *c.shape[1:])) for c in candidates], axis=2)
        parts.append(top(pool, min(totals[k], pool.shape[-1])))
    return plus(*parts)


def _struck(terms: Terms, layer: int, u: Array, failures: Counts) -> Array:
    """What the failures add to each receiver in layer + 1, (n, N_{l+1}), above what u carries there.

    A blocking neuron counts from u up to D, one that does not block adds its D, a synapse into layer + 1
    adds its M; kinds that differ in this are added up.
    """
    weight = terms.weight(layer + 1)
    parts = [np.zeros((len(u), len(weight)))]
    for blocking in (True, False):
        kinds = [k for k in terms.neuron_faults() if terms.faults[k].blocking is blocking] if layer else []
        kinds = [k for k in kinds if failures[k][layer - 1]]
        if not kinds:
            continue
        excesses = [terms.deviation(k, layer) for k in kinds]
        if blocking:
            excesses = [minus(d, u) for d in excesses]
        counts = [failures[k][layer - 1] for k in kinds]
        # Every input has a number for each weight here: a few MB at a time.
        size = max(1, CELLS // weight.size)
        for start in range(0, len(u), size):
            rows = slice(start, start + size)
            parts[0][rows] = plus(
                parts[0][rows], pooled(weight, [d[rows, None, :] for d in excesses], counts)
            )
    for k in terms.synapse_faults():
        table = terms.deviation(k, layer + 1)
        parts.append(top(table, min(failures[k][layer], table.shape[-1])))
    return plus(*parts)


def step(terms: Terms, layer: int, u: Array, extra: Array, capped: bool) -> Array:
    """u^{l+1} from u^l and what the failures add to each receiver."""
    return arrive(terms, layer, plus(dot(u, terms.weight(layer + 1).T), extra), capped)


def arrive(terms: Terms, layer: int, moved: Array, capped: bool) -> Array:
    """u^{l+1} from how far the pre-activations of layer l + 1 can move; the output layer has no K."""
    if layer == terms.depth:
        return moved
    moved = times(terms.lipschitz(layer + 1), moved)
    return np.minimum(moved, terms.reach(layer + 1)) if capped else moved


def row_deviations(terms: Terms, failures: Counts) -> list[Array]:
    """u^1 .. u^{L+1}: how far any correct neuron can deviate, (n, N_l); for every semantics and mixture.

    Where every failure blocks this is the recursion of I2. It is evaluated at upper bounds of u, which is
    sound because no step falls when u grows. Synapses into the output layer enter the last entry row by
    row, which is right for outputs but not for margins.
    """
    us = [np.zeros_like(terms.nominal.low[0])]
    for layer in range(terms.depth + 1):
        us.append(step(terms, layer, us[-1], _struck(terms, layer, us[-1], failures), capped=True))
    return us[1:]


def rowwise(terms: Terms, failures: Counts) -> tuple[Array, Array]:
    """I2, a recursion over every neuron's deviation, and I3; blocking failures of neurons only.

    I3 takes I2's recursion up to a cut m and I1 after it, the best cut for each row of the readout.
    """
    if not terms.blocking:
        raise UnsoundError(f"the row-wise bound does not hold here: {PASSES_ERROR}")
    us = row_deviations(terms, failures)
    best, tail = us[-1], _zero(terms)
    for layer in range(terms.depth, 0, -1):
        r, u = terms.influence[layer - 1], us[layer - 1]
        counts = [row[layer - 1] for row in failures]
        excesses = [minus(terms.deviation(k, layer), u)[:, None, :] for k in range(len(counts))]
        here = pooled(r, excesses, counts)
        best = np.minimum(best, plus(dot(u, r.T), here, tail))
        tail = plus(tail, pooled(r, _deviations(terms, layer), counts))
    return us[-1], best


def _rows_anywhere(terms: Terms, total: int) -> list[list[Array]]:
    """For each layer and each number q = 0..total of failures spent before it, the largest u.

    The largest is taken neuron by neuron, over all distributions: dynamic programming as in
    `topology.fep_anywhere`, sound because every step never falls when any u_j grows.
    """
    us = [[np.zeros_like(terms.nominal.low[1])] * (total + 1)]
    for layer in range(1, terms.depth + 1):
        weight, deviation = terms.weight(layer + 1), terms.deviation(0, layer)
        reached: list[Array] = []
        for spent, u in enumerate(us[-1]):
            extras = tops(times(weight, minus(deviation, u)[:, None, :]), total - spent)
            moved = plus(dot(u, weight.T), np.moveaxis(extras, -1, 0))
            for q, after in enumerate(arrive(terms, layer, moved, capped=True), start=spent):
                if q < len(reached):
                    reached[q] = np.maximum(reached[q], after)
                else:
                    reached.append(after)
        us.append(reached)
    return us


def rowwise_anywhere(terms: Terms, total: int) -> list[tuple[Array, Array]]:
    """I2 and I3 for 0, 1, .. total failures anywhere; one kind of blocking failure of neurons."""
    if not terms.blocking:
        raise UnsoundError(f"the row-wise bound does not hold here: {PASSES_ERROR}")
    if len(terms.faults) != 1:
        raise UnsoundError("the row-wise bound counts one kind of failure anywhere, not several")
    us = _rows_anywhere(terms, total)
    best = np.stack(us[-1])
    influences, deviations = terms.influence, [terms.deviation(0, i + 1) for i in range(terms.depth)]
    for cut in range(terms.depth, 0, -1):
        r = influences[cut - 1]
        after = [times(influences[i], deviations[i][:, None, :]) for i in range(cut, terms.depth)]
        here = np.zeros_like(best)
        for spent, u in enumerate(us[cut - 1]):
            pool = np.concatenate([times(r, minus(deviations[cut - 1], u)[:, None, :]), *after], axis=2)
            rest = plus(dot(u, r.T), np.moveaxis(tops(pool, total - spent), -1, 0))
            # Beyond all neurons that are left, a failure more adds nothing.
            left = np.minimum(np.arange(total + 1 - spent), len(rest) - 1)
            here[spent:] = np.maximum(here[spent:], rest[left])
        best = np.minimum(best, here)
    return list(zip(us[-1], best, strict=True))


def given_set(terms: Terms, failed: Sequence[Sequence[Sequence[int]]]) -> Array:
    """The bound for one set of failed places: failed[fault][layer - 1] lists them (section 4).

    dev_j = D_j where neuron j failed, else K (|W| dev)_j; a failure that does not block adds to that, and a
    failed synapse adds its M before K. Tighter than I1 and I2 for the counts of the set.
    """
    dev = np.zeros_like(terms.nominal.low[0])
    for layer in range(1, terms.depth + 2):
        senders = terms.net.widths[layer - 1]
        extra = np.zeros((len(dev), terms.net.widths[layer]))
        for k in terms.synapse_faults():
            table = terms.deviation(k, layer)
            for place in failed[k][layer - 1]:
                i, j = divmod(place, senders)
                extra[:, i] = plus(extra[:, i], table[:, i, j])
        if layer > terms.depth:
            break
        dev = times(terms.lipschitz(layer), plus(dot(dev, terms.weight(layer).T), extra))
        dev = np.minimum(dev, terms.reach(layer))
        for k in terms.neuron_faults():
            places = list(failed[k][layer - 1])
            struck = terms.deviation(k, layer)[:, places]
            dev[:, places] = struck if terms.faults[k].blocking else plus(dev[:, places], struck)
    return plus(dot(dev, terms.weight(layer).T), dot(extra, terms.readout.T))


def expected(terms: Terms, failures: Sequence[int]) -> Array:
    """A bound of the expected |error| of each row of the readout, every set of f_l neurons equally likely.

    u^{l+1} = K |W| (p D + (1 - p) u) with p = f_l / N_l, and u in place of (1 - p) u where the failure does
    not block. It holds for Bernoulli failures with that p as well.
    """
    fault: Fault = terms.faults[0]
    u = np.zeros_like(terms.nominal.low[1])
    for layer, f in enumerate(failures, start=1):
        width = terms.net.widths[layer]
        left = width - f if fault.blocking else width
        mixed = plus(times(f, terms.deviation(0, layer)), times(left, u))
        mixed = times(mixed, np.nextafter(1.0 / width, np.inf))
        u = step(terms, layer, mixed, np.zeros(1), capped=False)
    return u
