"""Every failure set of a small network, by brute force: plain NumPy, independent of plans and kernel.

The error of many configurations at once: arrays (configurations, inputs, neurons).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, product

import numpy as np

from neurofail.activations import NAMES, Activation
from neurofail.faults import Byzantine, Crash, Fault, StuckAt, SynapseByzantine, SynapseCrash
from neurofail.network import Network


def random_network(rng: np.random.Generator) -> Network:
    """1 to 4 hidden layers of 1 to 4 neurons, 1 to 3 outputs, any activation, biases, sparse weights."""
    depth = int(rng.integers(1, 5))
    widths = [int(n) for n in rng.integers(1, 5 if depth < 3 else 4, size=depth + 2)]
    widths[-1] = int(rng.integers(1, 4))
    scale, keep = 2.0 ** rng.integers(-2, 3), rng.uniform(0.4, 1.3)
    weights = [
        rng.normal(size=(b, a)) * scale * (rng.uniform(size=(b, a)) < keep) for a, b in pairwise(widths)
    ]
    biases = [rng.normal(size=b) * rng.choice([0.0, 1.0]) for b in widths[1:]]
    return Network.dense(
        weights, biases, [random_activation(rng) for _ in range(depth)] + ["identity"], (-1.0, 1.0)
    )


def random_activation(rng: np.random.Generator) -> Activation:
    name = str(rng.choice(NAMES))
    options = {}
    if rng.uniform() < 0.4:
        options["lipschitz"] = float(rng.choice([0.3, 0.7, 1.0, 3.0]))
    if name == "leaky_relu" and rng.uniform() < 0.5:
        options["alpha"] = float(rng.choice([-2.0, -0.5, 0.0, 2.0]))
    if name == "elu" and rng.uniform() < 0.5:
        options["alpha"] = float(rng.choice([0.5, 2.0]))
    if name == "clip":
        options["low"], options["high"] = -0.5, 1.5
    return Activation(name, **options)


def every_fault(rng: np.random.Generator) -> list[Fault]:
    """Every kind and semantics, with one random capacity."""
    c = float(rng.choice([0.3, 1.0, 4.0]))
    return [
        Crash(),
        StuckAt(float(rng.normal())),
        Byzantine(c),
        Byzantine((-0.5 * c, c)),
        Byzantine(c, "nominal"),
        Byzantine(c, "own"),
        Byzantine(c, draw="guided", equivocate=True),
        SynapseCrash(),
        SynapseByzantine(c),
        SynapseByzantine((-c, 0.5 * c)),
        SynapseByzantine(c, weighted=False),
        SynapseByzantine((0.0, c), weighted=False),
        SynapseByzantine(c, "additive"),
        SynapseByzantine(c, "additive", weighted=False),
    ]


def _values(fault: Fault) -> list[float]:
    match fault:
        case StuckAt():
            return [fault.value]
        case Byzantine() | SynapseByzantine():
            low, high = fault.ends
            return [low, high, 0.25 * low + 0.75 * high]
    return [0.0]


Configuration = tuple[tuple[tuple[int, float], ...], ...]  # per layer: (place, value) of each failed place


def configurations(net: Network, fault: Fault, failures: Sequence[int]) -> Iterator[Configuration]:
    """Every set of failed places with these counts, with every choice of the trial values."""
    per_layer = []
    for layer, count in zip(fault.layers(net), failures, strict=True):
        choices = product(
            combinations(range(fault.places(net, layer)), count), product(_values(fault), repeat=count)
        )
        per_layer.append([tuple(zip(places, values, strict=True)) for places, values in choices])
    return product(*per_layer)


def errors(
    net: Network,
    inputs: np.ndarray,
    faults: Sequence[Fault],
    cases: Sequence[Sequence[Configuration]],
    rng: np.random.Generator,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """max over outputs of |F_faulty - F|, (configurations, inputs); cases[c][fault] is a Configuration."""
    golden = [inputs]
    for weight, bias, phi in zip(net.weights, net.biases, net.activations, strict=True):
        golden.append(phi(golden[-1] @ weight.T + bias))
    count = len(cases)
    y = np.broadcast_to(inputs, (count, *inputs.shape)).copy()
    lies: list[tuple[int, int, float]] = []  # equivocating neurons: case, neuron, capacity
    for layer, (weight, bias, phi) in enumerate(
        zip(net.weights, net.biases, net.activations, strict=True), 1
    ):
        s = y @ weight.T + bias
        for case, neuron, capacity in lies:
            sent = rng.choice([-capacity, capacity], size=len(weight))
            s[case] += weight[:, neuron] * (sent - y[case][:, neuron : neuron + 1])
        lies = []
        for k, fault in enumerate(faults):
            if fault.place != "synapse":
                continue
            for case in range(count):
                for place, v in cases[case][k][layer - 1]:
                    i, j = divmod(place, weight.shape[1])
                    own, scale = weight[i, j] * y[case, :, j], weight[i, j]
                    weighted = getattr(fault, "weighted", True)
                    value = scale * v if weighted else v
                    s[case, :, i] += value - (0.0 if getattr(fault, "semantics", "") == "additive" else own)
        y = phi(s)
        if layer > net.depth:
            break
        for k, fault in enumerate(faults):
            if fault.place != "neuron":
                continue
            for case in range(count):
                for j, v in cases[case][k][layer - 1]:
                    if getattr(fault, "equivocate", False):
                        lies.append((case, j, abs(v)))
                        continue
                    base = {"nominal": golden[layer][:, j], "own": y[case, :, j].copy()}
                    y[case, :, j] = base.get(getattr(fault, "semantics", "value"), 0.0) + v
    difference = y - golden[-1]
    if rows is not None:
        difference = difference @ rows.T
    return np.asarray(np.abs(difference).max(axis=2))
