"""The oracle: one configuration, plain NumPy, float64. Short enough to proofread; decides disagreements."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from neurofail.network import Network
from neurofail.sites import Action, Operation

Array = npt.NDArray[np.float64]


def trace(
    net: Network, inputs: Array, operations: Iterable[Operation] = ()
) -> tuple[list[Array], list[Array]]:
    """Every layer's pre-activations s^1..s^{L+1} and outputs y^0..y^{L+1} under the given failures.

    inputs (n, N_0); each entry of the result (n, N_l).
    """
    failures = list(operations)
    golden = trace(net, inputs)[1] if failures else []
    pre, out = [], [np.asarray(inputs, dtype=np.float64)]
    layers = zip(net.weights, net.biases, net.activations, strict=True)
    for layer, (weight, bias, phi) in enumerate(layers, start=1):
        s = out[-1] @ weight.T + bias
        here = [f for f in failures if f.layer == layer]
        for f in here:
            if f.action is Action.SYNAPSE:
                s[:, f.neuron] += f.weight * out[-1][:, f.source] + f.value
        y = np.array(phi(s))
        for f in here:
            if f.action is Action.SET:
                y[:, f.neuron] = f.value
            elif f.action is Action.SHIFT:
                y[:, f.neuron] = golden[layer][:, f.neuron] + f.value
            elif f.action is Action.ADD:
                y[:, f.neuron] += f.value
        pre.append(s)
        out.append(y)
    return pre, out


def deviations(net: Network, inputs: Array, operations: Iterable[Operation]) -> Array:
    """F_faulty - F for every input and output, (n, N_{L+1})."""
    with np.errstate(all="ignore"):
        return trace(net, inputs, operations)[1][-1] - net(inputs)
