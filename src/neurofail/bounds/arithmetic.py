"""What rounding can add to a simulated error: the precision bound of section 5 with the format's own lam.

A campaign computes F_faulty - F in float32 or float64; the theorems speak of real numbers. The difference
is bounded here, so that "observed <= bound" is decided without a tolerance from the air.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neurofail.bounds.intervals import Enclosure, domain, pointwise
from neurofail.bounds.refined import Counts, pooled, row_deviations
from neurofail.bounds.rounding import dot, plus, times, top
from neurofail.bounds.terms import Terms
from neurofail.budget import Budget
from neurofail.errors import InputError
from neurofail.network import Network

Array = npt.NDArray[np.float64]

# The largest error of any backend's activation, in units in the last place of its result.
ACTIVATION_ULPS = 8

# Roundings that a term of a sum can meet besides one for each summand: its weight, a steepness folded into
# the weight, its product, a difference of signals, the bias, a value put on a synapse; with room to spare.
_SPARE = 16

# Unit roundoff, and what is lost where results vanish below the smallest normal number (far above it).
_FORMATS = {"float32": (2.0**-24, 2.0**-100), "float64": (2.0**-53, 2.0**-960)}


def rounding_budget(
    net: Network,
    dtype: str,
    budget: Budget,
    inputs: npt.ArrayLike | None = None,
    *,
    ulps: float = ACTIVATION_ULPS,
) -> float:
    """How far a computed |F_faulty - F| can be from the exact one, for any configuration of the budget.

    computed - result <= exact <= computed + result, for the kernel in `dtype` (whatever the order of its
    sums, with or without fused multiply-add, dense or updating golden pre-activations in place), and with
    "float64" for the reference as well. Signals that overflow the format are not covered; they show as DUE.

    Parameters
    ----------
    net : the network
    dtype : "float32" or "float64"; with the former, weights and inputs are rounded to it too
    budget : the failures of the campaign (`Budget.of`), for they decide how large signals can become
    inputs : (n, N_0), the inputs of the campaign; without them, the whole input domain
    ulps : the error of a computed activation, in units in the last place of the result

    Raises
    ------
    InputError : an unknown dtype, or a layer so wide that the format cannot bound its sums.

    Notes
    -----
    With q^l a bound of the error of any computed signal of layer l, golden or faulty, m the roundings that a
    term of a sum can meet (fan-in + 2 f + a constant), and gamma = m u / (1 - m u):

        error of s <= (1 + gamma) (|W| q + 2 top_f(|W| q)) + gamma A
        q^l        <= K (error of s + 4 u A) + 2 ulps u (|y| + K error of s) + 8 u |failed values|

    A bounds the sum of the magnitudes of all terms: |W| |y| + |b|, and for the f failures a golden term taken
    out and a faulty one put in. |y| <= S + u, with u how far a signal can deviate (`row_deviations`), D more
    where it failed. The term 4 u A is the argument's rounding where a steepness, or an activation's own
    scaling, multiplies it. The result is twice the last error (faulty and golden) and the subtraction's own.

    >>> from neurofail.faults import Crash
    >>> net = Network.dense([[[0.5, 0.25]], [[1.0]]], None, ["sigmoid", "identity"])
    >>> one = Budget.of(net, Crash(), (1,))
    >>> 0 < rounding_budget(net, "float64", one) < 1e-13 < rounding_budget(net, "float32", one) < 1e-4
    True
    """
    if dtype not in _FORMATS:
        raise InputError(f"dtype is {dtype!r}; it must be 'float32' or 'float64'")
    unit, vanish = _FORMATS[dtype]
    terms = Terms(net, budget.faults, _hull(net, inputs))
    failures = _counts(terms, budget)
    deviations = row_deviations(terms, failures)
    size = terms.nominal.magnitude(0)
    carried = times(unit, size) if dtype == "float32" else np.zeros_like(size)
    struck: list[Array] = []  # the deviations of neurons that failed in the layer before, with their counts
    counts: list[int] = []
    for layer in range(1, terms.depth + 2):
        weight, bias = np.abs(net.weights[layer - 1]), np.abs(net.biases[layer - 1])
        synapses = [failures[k][layer - 1] for k in terms.synapse_faults()]
        roundings = weight.shape[1] + 2 * (sum(counts) + sum(synapses)) + _SPARE
        if roundings * unit > 0.5:
            raise InputError(f"layer {layer} is too wide for {dtype}: its sums can lose every digit")
        gamma = roundings * unit / (1 - roundings * unit) * (1 + 1e-12)
        magnitude = plus(
            dot(size, weight.T),
            bias,
            pooled(weight, [plus(times(2, size), d)[:, None, :] for d in struck], counts),
            *(
                top(
                    plus(times(2, times(weight, size[:, None, :])), terms.deviation(k, layer)),
                    min(n, weight.shape[1]),
                )
                for k, n in zip(terms.synapse_faults(), synapses, strict=True)
            ),
        )
        changed = min(sum(counts) + sum(synapses), weight.shape[1])
        passed = plus(dot(carried, weight.T), times(2, top(times(weight, carried[:, None, :]), changed)))
        error = plus(times(1 + gamma, passed), times(gamma, magnitude), roundings * vanish)
        if layer > terms.depth:
            break
        phi, steep, moved = net.activations[layer - 1], terms.lipschitz(layer), deviations[layer - 1]
        argument = 0.0 if phi.piecewise_linear else times(4 * unit, magnitude)
        size = plus(terms.nominal.magnitude(layer), moved)
        counts = [failures[k][layer - 1] for k in terms.neuron_faults()]
        struck = [terms.deviation(k, layer) for k in terms.neuron_faults()]
        carried = plus(
            times(steep, plus(error, argument)),
            times(2 * ulps * unit, plus(size, times(steep, error))),
            *(times(8 * unit, plus(size, d)) for d, n in zip(struck, counts, strict=True) if n),
            vanish,
        )
    return float(np.max(plus(times(2, error), times(4 * unit, deviations[-1]))))


def _hull(net: Network, inputs: npt.ArrayLike | None) -> Enclosure:
    """One row of intervals that holds the nominal signals of all the inputs."""
    if inputs is None:
        return domain(net)
    points = pointwise(net, net.check_inputs(inputs))
    return Enclosure(
        tuple(low.min(axis=0, keepdims=True) for low in points.low),
        tuple(high.max(axis=0, keepdims=True) for high in points.high),
    )


def _counts(terms: Terms, budget: Budget) -> Counts:
    """Failures per layer; where they are counted anywhere, as many as could fall in each layer."""
    if budget.totals is None:
        return budget.failures or ()
    return [
        [min(total, fault.places(terms.net, layer)) for layer in fault.layers(terms.net)]
        for fault, total in zip(budget.faults, budget.totals, strict=True)
    ]
