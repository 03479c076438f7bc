"""Where the nominal signals lie: over the whole input domain, or on given inputs.

Both are outward interval arithmetic, so what is computed from them is a certificate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neurofail.activations import Activation
from neurofail.bounds.rounding import EPS, dot, minus, plus, times
from neurofail.network import Network

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Enclosure:
    """Intervals [low, high] that hold every nominal y^l_j, layer by layer.

    Attributes
    ----------
    low, high : for l = 0..L an (n, N_l) array; a row for each input, or the one row of the whole domain
    """

    low: tuple[Array, ...]
    high: tuple[Array, ...]

    def magnitude(self, layer: int) -> Array:
        """S_{l,j} = sup |y^l_j|, (n, N_l)."""
        return np.maximum(np.abs(self.low[layer]), np.abs(self.high[layer]))

    def distance(self, layer: int, low: float, high: float) -> Array:
        """sup |v - y^l_j| over v in [low, high], rounded up, (n, N_l)."""
        return np.maximum(minus(high, self.low[layer]), minus(self.high[layer], low))


def domain(net: Network) -> Enclosure:
    """The intervals over the whole input domain of `net` (one row).

    >>> net = Network.dense([[[1.0, -1.0]], [[2.0]]], None, ["relu", "identity"])
    >>> intervals = domain(net)
    >>> float(intervals.low[1][0, 0]), round(float(intervals.high[1][0, 0]), 12)
    (0.0, 1.0)
    """
    return _forward(net, net.low[None, :], net.high[None, :])


def pointwise(net: Network, inputs: Array) -> Enclosure:
    """Tiny intervals around the exact y^l_j(x) of each of the given (checked) inputs, a row each."""
    return _forward(net, inputs, inputs)


def blocks(net: Network, inputs: Array | None, size: int) -> Iterator[Enclosure]:
    """The enclosures to take the maximum over: the domain's, or the inputs' in blocks of `size`."""
    if inputs is None:
        yield domain(net)
        return
    checked = net.check_inputs(inputs)
    for start in range(0, len(checked), size):
        yield pointwise(net, checked[start : start + size])


def _forward(net: Network, low: Array, high: Array) -> Enclosure:
    lows, highs = [low], [high]
    for weight, bias, phi in zip(net.weights[:-1], net.biases, net.activations, strict=False):
        low, high = _image(phi, *_affine(weight, bias, low, high))
        lows.append(low)
        highs.append(high)
    return Enclosure(tuple(lows), tuple(highs))


@np.errstate(over="ignore", invalid="ignore")
def _affine(weight: Array, bias: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """An enclosure of W [low, high] + b as centre and radius.

    The computed centre W m + b is within gamma_{n+1} (|W| |m| + |b|) of the exact one, for any order of
    summation (gamma_k = k u / (1 - k u) <= (k + 1) 2 u), and that goes into the radius with |W| times the
    radius of the input.
    """
    middle = np.clip(low + (high - low) / 2, low, high)
    radius = np.maximum(minus(high, middle), minus(middle, low))
    gamma = (weight.shape[1] + 2) * EPS
    centre = middle @ weight.T + bias
    spread = plus(
        dot(plus(radius, times(gamma, np.abs(middle))), np.abs(weight.T)), times(gamma, np.abs(bias))
    )
    bottom, top = np.nextafter(centre - spread, -np.inf), np.nextafter(centre + spread, np.inf)
    return np.where(np.isnan(bottom), -np.inf, bottom), np.where(np.isnan(top), np.inf, top)


def _image(phi: Activation, low: Array, high: Array) -> tuple[Array, Array]:
    """phi's enclosure of the image.

    A steepness of its own, and GELU's x / sqrt 2, round the argument before phi sees it, and a steep tail
    amplifies that beyond what `Activation.image` allows for; so the argument is widened first.
    """
    if phi.piecewise_linear:
        return phi.image(low, high)
    return phi.image(low - 4 * EPS * np.abs(low), high + 4 * EPS * np.abs(high))
