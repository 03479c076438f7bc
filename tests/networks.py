"""Networks and faults for tests: random ones from a seed, and small ones whose sums are exact."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from neurofail.activations import NAMES, Activation
from neurofail.faults import Byzantine, Crash, Fault, StuckAt, SynapseByzantine, SynapseCrash
from neurofail.network import Network

# Every activation at its own steepness, and each that has parameters or a steepness with others.
ACTIVATIONS = (
    *(Activation(name) for name in NAMES),
    Activation("sigmoid", lipschitz=1.5),
    Activation("gelu", lipschitz=0.5),
    Activation("hard_sigmoid", lipschitz=1.0),
    Activation("clip", lipschitz=2.0, low=-0.5, high=1.25),
    Activation("leaky_relu", alpha=-0.5),
    Activation("leaky_relu", alpha=2.0),
    Activation("elu", alpha=0.5),
    Activation("elu", alpha=2.0, lipschitz=1.0),
)

# Every fault that an exhaustive plan can hold.
ENUMERABLE: tuple[Fault, ...] = (
    Crash(),
    StuckAt(0.75),
    Byzantine(1.5),
    Byzantine((-0.5, 2.0)),
    Byzantine(0.5, "nominal"),
    Byzantine(0.5, "own"),
    Byzantine(1.0, draw="guided"),
    Byzantine(1.0, draw="guided", equivocate=True),
    SynapseCrash(),
    SynapseByzantine(0.75),
    SynapseByzantine(0.5, "additive"),
    SynapseByzantine(0.5, weighted=False),
    SynapseByzantine(0.5, "additive", weighted=False, draw="guided"),
)

# Those whose values only a sampled plan can draw.
DRAWN: tuple[Fault, ...] = (
    Byzantine((-0.5, 2.0), draw="uniform"),
    Byzantine(0.5, "nominal", draw="uniform"),
    Byzantine(0.5, "own", draw="uniform"),
    SynapseByzantine(0.75, draw="uniform"),
    SynapseByzantine(0.5, "additive", weighted=False, draw="uniform"),
)


def random_network(
    widths: Sequence[int],
    activations: str | Activation | Sequence[str | Activation] = "sigmoid",
    seed: int = 0,
) -> Network:
    """Xavier weights and small biases; one activation for all hidden layers, or one each."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(b, a)) * np.sqrt(2 / (a + b)) for a, b in pairwise(widths)]
    biases = [rng.normal(size=b) * 0.1 for b in widths[1:]]
    depth = len(widths) - 2
    phis = [activations] * depth if isinstance(activations, (str, Activation)) else list(activations)
    return Network.dense(weights, biases, [*phis, "identity"], (-1.0, 1.0))


def random_inputs(net: Network, count: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Inputs that float32 holds exactly, so that both formats see the same ones."""
    rng = np.random.default_rng(seed + 1)
    drawn = rng.uniform(net.low, net.high, size=(count, net.widths[0]))
    return drawn.astype(np.float32).astype(np.float64)


eighths = st.integers(-16, 16).map(lambda n: n / 8)


@st.composite
def exact_networks(draw: st.DrawFn, max_depth: int = 3, max_width: int = 4) -> Network:
    """Piecewise linear networks of multiples of 1/8, so small that float64 never rounds in them."""
    depth = draw(st.integers(1, max_depth))
    widths = [draw(st.integers(1, max_width)) for _ in range(depth + 2)]
    linear = st.sampled_from(["identity", "relu", "relu6", Activation("clip", low=-0.5, high=1.0)])

    def matrix(rows: int, columns: int) -> list[list[float]]:
        row = st.lists(eighths, min_size=columns, max_size=columns)
        return draw(st.lists(row, min_size=rows, max_size=rows))

    weights = [matrix(b, a) for a, b in pairwise(widths)]
    biases = [draw(st.lists(eighths, min_size=b, max_size=b)) for b in widths[1:]]
    return Network.dense(weights, biases, [*(draw(linear) for _ in range(depth)), "identity"], (-1.0, 1.0))
