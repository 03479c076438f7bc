"""What the failures of neurons before the last hidden layer do to the outputs to first order:
csrc/slopes.inc.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neurofail import lowering
from neurofail._numba.lanes import aligned
from neurofail.activations import Activation

Reals = npt.NDArray[Any]

MOST = 16  # failures before the last hidden layer up to which bounds are looked for
# Outputs up to which, as in csrc, there are bounds.
_OUTPUTS = 12
_KINKED = tuple(Activation(name).code for name in lowering.KINKED)


class Slopes(NamedTuple):
    """By block: `effect` (sources, outputs, lanes), the `slope` of the last hidden layer's activation
    (neurons, lanes), its pre-activations `sums` and outputs `outs` lane by lane (lanes, pitch), the range of
    its second derivative and its `sizes` (pitch), and the range of the outputs of the layer before
    (sources). Then the last hidden layer's weights by source (sources, pitch), the output layer's (outputs,
    pitch) and their magnitudes the same way, their largest magnitudes (pitch), and for each source the sum of
    its weights' magnitudes times those; and by block how far an output's sum walks. `pitch` is a multiple of
    the lanes, or 0 where nothing is bounded. Where the activation has a kink (kinks.py), there are no
    derivatives.
    """

    bounded: bool
    kinked: bool
    pitch: int
    steepest: float
    third: float
    faint: float
    tame: float
    wild: float
    effect: Reals
    slope: Reals
    sums: Reals
    outs: Reals
    least: Reals
    most_bent: Reals
    sizes: Reals
    lowest: Reals
    highest: Reals
    wide: Reals
    outgoing: Reals
    heaviest: Reals
    mass: Reals
    walks: Reals

    @classmethod
    def of(cls, layers: list[lowering.Layer], blocks: int, lanes: int, wanted: bool, most: int) -> Slopes:
        """Room for the slopes of so many blocks, where they are wanted and can be; kinks are for up to `most`
        failures.
        """
        kind = layers[-1].weights.dtype
        single = kind.itemsize == 4
        hidden = layers[-2] if len(layers) > 1 else layers[-1]
        outputs, neurons = layers[-1].weights.shape
        sources = hidden.weights.shape[1]
        code = hidden.activation
        sigmoid, kinked = code == Activation("sigmoid").code, code in _KINKED
        steepest = 0.25 if sigmoid else max(1.0, abs(slope_below(hidden)))
        # Beyond this no weight or deviation is bounded: csrc/slopes.inc.
        tame = 2.0**10 if single else 2.0**64
        bounded = (
            wanted
            and len(layers) > 2
            and outputs <= _OUTPUTS
            and (sigmoid or (kinked and 0 < most <= MOST) or code == Activation("tanh").code)
            and max(steepest, *(float(np.abs(layer.weights).max()) for layer in layers[-2:])) <= tame
        )
        pitch = -(-neurons // lanes) * lanes if bounded else 0

        def room(*shape: int) -> Reals:
            return aligned(shape if bounded else (0,) * len(shape), kind)

        def slope_room(*shape: int) -> Reals:
            return room(*shape) if not kinked else np.zeros((0,) * len(shape), kind)

        wide, outgoing = room(sources, pitch), room(2 * outputs, pitch)
        if bounded:
            wide[:, :neurons] = hidden.weights.T
            outgoing[:outputs, :neurons] = layers[-1].weights
            outgoing[outputs:] = np.abs(outgoing[:outputs])
        heaviest = outgoing.max(axis=0, initial=0)
        return cls(
            bounded=bounded,
            kinked=bounded and kinked,
            pitch=pitch,
            steepest=steepest,
            third=0.125 if sigmoid else 2.0,
            faint=2.0**-60 if single else 2.0**-600,
            tame=tame,
            wild=2.0**124 if single else 2.0**1020,
            effect=slope_room(blocks, sources, outputs, lanes),
            slope=slope_room(blocks, neurons, lanes),
            sums=room(blocks, lanes, pitch),
            outs=room(blocks, lanes, pitch),
            least=slope_room(blocks, pitch),
            most_bent=slope_room(blocks, pitch),
            sizes=slope_room(blocks, pitch),
            lowest=slope_room(blocks, sources),
            highest=slope_room(blocks, sources),
            wide=wide,
            outgoing=outgoing,
            heaviest=heaviest,
            mass=np.abs(wide) @ heaviest,
            walks=slope_room(blocks),
        )

    def turn(self, b: int, s: Reals, y: Reals) -> None:
        """Of block b, what evaluations in lanes of their own start from: see `tabulate`."""
        self.sums[b, :, : len(s)], self.outs[b, :, : len(y)] = s.T, y.T

    def size(self, s: Reals, y: Reals) -> Reals:
        """|y| + steepest |s|, and more than a flush to zero costs an activation."""
        little = y.dtype.type(2.0**-100 if y.itemsize == 4 else 2.0**-900)
        size: Reals = np.abs(y) + y.dtype.type(self.steepest) * np.abs(s) + little
        return size

    def tabulate(self, b: int, before: Reals, s: Reals, y: Reals) -> None:
        """Of block b: from the outputs of the layer before, and the last hidden layer's s and y, each by
        lane.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            self._tabulate(b, before, s, y)

    def _tabulate(self, b: int, before: Reals, s: Reals, y: Reals) -> None:
        neurons = len(y)
        sigmoid = self.steepest < 1
        slope = y * (1 - y) if sigmoid else 1 - y * y
        bend = slope * (1 - 2 * y if sigmoid else -2 * y)
        self.slope[b] = slope
        self.turn(b, s, y)
        self.least[b, :neurons] = bend.min(axis=1)
        self.most_bent[b, :neurons] = bend.max(axis=1)
        self.sizes[b, :neurons] = self.size(s, y).max(axis=1)
        self.walks[b] = walk(self, y)
        self.lowest[b], self.highest[b] = before.min(axis=1), before.max(axis=1)
        for k, weights in enumerate(self.outgoing[: self.effect.shape[2], :neurons]):
            self.effect[b, :, k] = self.wide[:, :neurons] @ (weights[:, None] * slope)


def slope_below(layer: lowering.Layer) -> float:
    """The slope of a kinked activation below 0."""
    return layer.parameters[0] if layer.activation == Activation("leaky_relu").code else 0.0


def walk(slopes: Slopes, y: Reals) -> float:
    """The magnitudes of the partial sums that an output goes through, added up, where they are most; `y`
    are the last hidden layer's outputs (neurons, lanes). Beyond all bounds where one is NaN.
    """
    weights = slopes.outgoing[: len(slopes.outgoing) // 2, : len(y)]
    most = max(float(np.abs(np.cumsum(w[:, None] * y, axis=0)).sum(axis=0).max()) for w in weights)
    return most if most == most else np.inf
