"""Every configuration of a small network at once, in plain NumPy: what the search must agree with."""

from __future__ import annotations

import itertools

import numpy as np

from neurofail import Activation, Network

PHIS = (
    *(
        "identity",
        "relu",
        "leaky_relu",
        "relu6",
        "sigmoid",
        "tanh",
        "hard_sigmoid",
        "clip",
        "softplus",
        "elu",
    ),
    *("gelu", "silu", "softsign"),
    Activation("leaky_relu", alpha=-0.5),
    Activation("leaky_relu", alpha=1.5),
    Activation("elu", alpha=2.0),
    Activation("clip", low=-0.5, high=0.5),
    Activation("sigmoid", lipschitz=2.0),
    Activation("gelu", lipschitz=3.0),
)


def random_network(rng: np.random.Generator, depth: int, width: int, scale: float = 1.5) -> Network:
    """Up to `width` neurons a layer, any activation, biases, a third of the weights zero now and then."""
    widths = [int(rng.integers(1, 3)), *rng.integers(1, width + 1, depth), int(rng.integers(1, 4))]
    weights = [rng.normal(0, scale, (b, a)) for a, b in itertools.pairwise(widths)]
    if rng.random() < 0.3:
        weights = [w * (rng.random(w.shape) > 0.3) for w in weights]
    biases = [rng.normal(0, 1, len(w)) for w in weights]
    phis = [PHIS[rng.integers(len(PHIS))] for _ in range(depth)]
    return Network.dense(weights, biases, [*phis, "identity"], (-1.0, 1.0))


def sets(net: Network, failures=None, total=None, at_most=False) -> list[list[tuple[int, ...]]]:
    """Every configuration as one tuple of failed neurons a hidden layer."""
    widths = net.widths[1:-1]
    each = [[s for size in range(n + 1) for s in itertools.combinations(range(n), size)] for n in widths]
    found = []
    for row in itertools.product(*each):
        sizes = [len(s) for s in row]
        if failures is not None:
            fits = all(a <= f if at_most else a == f for a, f in zip(sizes, failures, strict=True))
        else:
            fits = sum(sizes) <= total if at_most else sum(sizes) == total
        if fits:
            found.append(list(row))
    return found


def faulty(net: Network, inputs: np.ndarray, rows, values, action: str = "set") -> np.ndarray:
    """Outputs of every configuration, (configurations, n, N_{L+1}); values: one, or one each."""
    y = np.broadcast_to(inputs, (len(rows), *inputs.shape))
    golden = inputs
    value = np.broadcast_to(np.asarray(values, dtype=np.float64), (len(rows),))[:, None, None]
    for layer, (weight, bias, phi) in enumerate(zip(net.weights, net.biases, net.activations, strict=True)):
        y = phi(y @ weight.T + bias)
        golden = phi(golden @ weight.T + bias)
        if layer == net.depth:
            return y
        mask = np.zeros((len(rows), 1, y.shape[2]), dtype=bool)
        for c, row in enumerate(rows):
            mask[c, 0, list(row[layer])] = True
        failed = {"set": value, "shift": golden + value, "add": y + value}[action]
        y = np.where(mask, failed, y)
    raise AssertionError


def worst(net: Network, inputs: np.ndarray, rows, value: float) -> float:
    """The largest error of any configuration that sets failed neurons to `value`."""
    return float(np.abs(faulty(net, inputs, rows, value) - net(inputs)).max())


def synapse_sets(net: Network, failures=None, total=None, at_most=False) -> list[list[tuple[int, int, int]]]:
    """Every configuration of failed synapses, each (layer they enter, receiver, sender)."""
    layers = [
        [(layer, i, j) for i in range(w.shape[0]) for j in range(w.shape[1])]
        for layer, w in enumerate(net.weights, start=1)
    ]
    groups, counts = (layers, failures) if total is None else ([list(itertools.chain(*layers))], [total])
    each = [
        [s for size in range(0 if at_most else count, count + 1) for s in itertools.combinations(group, size)]
        for group, count in zip(groups, counts, strict=True)
    ]
    return [list(itertools.chain(*row)) for row in itertools.product(*each)]


def rewired(net: Network, inputs: np.ndarray, fault, rows, values) -> np.ndarray:
    """Outputs of every configuration of failed synapses, (configurations, n, N_{L+1}).

    A failed synapse is a change of the weights and biases: what it no longer carries has weight 0, and what
    it carries or adds instead, the constant values[c][k] of rows[c][k], is a bias of its receiver.
    """
    y = np.broadcast_to(inputs, (len(rows), *inputs.shape))
    for layer, (weight, bias, phi) in enumerate(
        zip(net.weights, net.biases, net.activations, strict=True), 1
    ):
        weights, biases = (np.repeat(a[None], len(rows), axis=0) for a in (weight, bias))
        for c, (row, value) in enumerate(zip(rows, values, strict=True)):
            for (into, i, j), v in zip(row, value, strict=True):
                if into == layer:
                    biases[c, i] += v * (weight[i, j] if getattr(fault, "weighted", True) else 1.0)
                    if getattr(fault, "semantics", "value") == "value":
                        weights[c, i, j] = 0.0
        y = phi(y @ weights.transpose(0, 2, 1) + biases[:, None, :])
    return y
