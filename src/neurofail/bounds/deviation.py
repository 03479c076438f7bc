"""How far a failed neuron or synapse can deviate: the D and M tables of bounds.md, section 2."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neurofail.bounds.intervals import Enclosure
from neurofail.bounds.rounding import minus, times
from neurofail.errors import UnsoundError
from neurofail.faults import Byzantine, Crash, Fault, StuckAt, SynapseByzantine, SynapseCrash
from neurofail.network import Network

Array = npt.NDArray[np.float64]


def neuron_deviation(fault: Fault, nominal: Enclosure, layer: int) -> Array:
    """D_{l,j}, a bound of a failed neuron's deviation from its nominal output, (n, N_l).

    Crash, stuck-at and Byzantine "value" transmit something in [v, v'] (a single number for the first two),
    so that D = max(v' - a, b - v); with [-C, C] that is C + S. For "own" it is the deviation on top of
    whatever arrives from upstream.
    """
    match fault:
        case Crash():
            return nominal.distance(layer, 0.0, 0.0)
        case StuckAt():
            return nominal.distance(layer, fault.value, fault.value)
        case Byzantine(semantics="value"):
            return nominal.distance(layer, *fault.ends)
        case Byzantine():
            return np.full_like(nominal.low[layer], fault.ends[1])
    raise UnsoundError(f"no bound is known for {fault.kind!r} failures of neurons")


def synapse_deviation(fault: Fault, net: Network, nominal: Enclosure, layer: int) -> Array:
    """M^l_ij, a bound of the deviation of a synapse's weighted contribution.

    Shape (n, N_l, N_{l-1}); n is 1 where the nominal signals do not matter. Upstream error is excluded.
    """
    weight = net.weights[layer - 1]
    match fault:
        case SynapseCrash():
            return times(np.abs(weight), nominal.distance(layer - 1, 0.0, 0.0)[:, None, :])
        case SynapseByzantine(semantics="value", weighted=True):
            return times(np.abs(weight), nominal.distance(layer - 1, *fault.ends)[:, None, :])
        case SynapseByzantine(semantics="value"):
            low, high = fault.ends
            with np.errstate(over="ignore", invalid="ignore"):
                ends = [weight * end[layer - 1][:, None, :] for end in (nominal.low, nominal.high)]
            # One unit outwards covers the rounding of the products, underflow included.
            least = np.nextafter(np.minimum(*ends), -np.inf)
            most = np.nextafter(np.maximum(*ends), np.inf)
            return np.maximum(minus(high, least), minus(most, low))
        case SynapseByzantine(weighted=True):
            return times(np.abs(weight), fault.ends[1])[None, :, :]
        case SynapseByzantine():
            return np.full((1, *weight.shape), fault.ends[1])
    raise UnsoundError(f"no bound is known for {fault.kind!r} failures of synapses")
