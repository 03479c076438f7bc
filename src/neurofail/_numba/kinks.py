"""What the failures of neurons before a last hidden layer of relu or leaky_relu do to the outputs:
csrc/kinks.inc, which derives it, in words of 16 bits where here are reals.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neurofail import lowering
from neurofail._numba.lanes import aligned
from neurofail._numba.slopes import MOST, Slopes, slope_below, walk
from neurofail.sites import Action

Reals = npt.NDArray[Any]

# What a record has by output: how far it moves that up and down, ahead of the golden class and behind.
UP, DOWN, AHEAD, BEHIND, WAYS = range(5)
# Records tabulated together.
_CHUNK = 64


class Kinks(NamedTuple):
    """By site row, its record or -1 (`record_of`); by record the neuron that fails (`struck`), whether its
    output is set (`fixed`), and to what or by how much (`level`).

    By block and lane: `far` (records, WAYS, outputs, lanes), where configurations are to be sifted; how far
    outputs move where no kink is crossed, then roundings, `linear` (records, outputs + 1, lanes); `slack`
    (lanes); and the `gaps` to the golden class, which is itself out of reach (outputs, lanes). Then the
    output layer's weights, and none for one neuron more, `by_neuron` (pitch + 1, across), by whole vectors.
    """

    records: int
    sifts: bool
    most_failures: int
    across: int
    below: float
    record_of: npt.NDArray[np.int64]
    struck: npt.NDArray[np.int64]
    fixed: npt.NDArray[np.bool_]
    level: Reals
    far: Reals
    slack: Reals
    gaps: Reals
    linear: Reals
    by_neuron: Reals

    @classmethod
    def of(
        cls,
        layers: list[lowering.Layer],
        sites: lowering.SiteTable,
        slopes: Slopes,
        most: int,
        sifts: bool,
    ) -> Kinks:
        """Room for the kinks of the last hidden layer, where they are wanted; for up to `most` failures."""
        first = sites.first[:-1]
        recordable = slopes.kinked & (sites.stage == 2 * len(layers) - 4) & (sites.span[first] == 0)
        operations = first[recordable]
        lanes, blocks = slopes.sums.shape[1], slopes.sums.shape[0] if slopes.kinked else 0
        outputs, kind = len(layers[-1].weights), slopes.sums.dtype
        hidden = layers[-2] if len(layers) > 1 else layers[-1]
        across = -(-outputs // lanes) * lanes if slopes.kinked else 0
        by_neuron = aligned((slopes.pitch + 1, across), kind)
        if slopes.kinked:
            by_neuron[: layers[-1].weights.shape[1], :outputs] = layers[-1].weights.T
        return cls(
            records=len(operations),
            sifts=sifts,
            most_failures=most,
            across=across,
            below=slope_below(hidden),
            record_of=np.where(recordable, np.cumsum(recordable) - 1, -1),
            struck=sites.neuron[operations].astype(np.int64),
            fixed=sites.action[operations] == Action.SET,
            level=sites.value[operations].astype(kind),
            far=aligned((blocks if sifts else 0, len(operations), WAYS, outputs, lanes), kind),
            slack=aligned((blocks, lanes), kind),
            gaps=aligned((blocks, outputs, lanes), kind),
            linear=aligned((blocks, len(operations), outputs + 1, lanes), kind),
            by_neuron=by_neuron,
        )

    def tabulate(
        self, slopes: Slopes, b: int, before: Reals, s: Reals, y: Reals, gaps: Reals, classes: Reals
    ) -> None:
        """Of block b: from the outputs of the layer before, the last hidden layer's s and y, the outputs'
        gaps to the golden class, and this, each by lane.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            self._settle(slopes, b, s, y, gaps, classes)
            for top in range(0, self.records, _CHUNK):
                self._tabulate(slopes, b, slice(top, top + _CHUNK), before, s, classes)

    def _settle(self, slopes: Slopes, b: int, s: Reals, y: Reals, gaps: Reals, classes: Reals) -> None:
        neurons, outputs = len(y), len(gaps)
        slopes.turn(b, s, y)
        self.gaps[b] = np.where(np.arange(outputs)[:, None] == classes, -np.inf, gaps)
        magnitude = (slopes.outgoing[outputs:, :neurons] @ slopes.size(s, y)).max(axis=0)
        slack = np.finfo(y.dtype).eps * ((2 * MOST + 64) * magnitude + 2 * walk(slopes, y)) + slopes.faint
        # NaN is beyond all bounds.
        self.slack[b] = np.where((magnitude <= slopes.wild) & (slack < np.inf), slack, np.inf)

    def _tabulate(self, slopes: Slopes, b: int, part: slice, before: Reals, s: Reals, classes: Reals) -> None:
        neurons, outputs, kind = len(s), self.gaps.shape[1], s.dtype.type
        source = self.struck[part]
        columns, weights = slopes.wide[source, :neurons], slopes.outgoing[:outputs, :neurons]
        d = self.level[part, None] - np.where(self.fixed[part, None], before[source], kind(0))
        bent = np.where(np.signbit(s), kind(self.below), kind(1))
        many = np.finfo(s.dtype).eps * (4 * neurons + 4 * MOST + 128) * slopes.steepest
        rounding = kind(many) * slopes.mass[source, None] * np.abs(d)
        linear = np.stack([columns @ (w[:, None] * bent) for w in weights], axis=1) * d[:, None]
        wild = ~(np.abs(d) <= slopes.tame)
        here = self.linear[b, part]
        here[:, :outputs], here[:, outputs] = linear, np.where(wild, np.inf, rounding)
        if self.sifts:
            most, change = kind(self.most_failures), kind(1) - kind(self.below)
            towards = columns[:, :, None] * (-most * d)[:, None] * np.where(np.signbit(s), kind(-1), kind(1))
            h = np.maximum(towards - np.abs(s), kind(0)) * kind((1 + 2.0**-8) / self.most_failures)
            self._move_at_most(b, part, change * weights, h, linear, rounding[:, None], classes.astype(int))
            np.copyto(self.far[b, part], np.inf, where=wild[:, None, None])

    def _move_at_most(
        self,
        b: int,
        part: slice,
        bends: Reals,
        h: Reals,
        linear: Reals,
        rounding: Reals,
        classes: npt.NDArray[np.int64],
    ) -> None:
        """What records do at most, kinks and all: `h` (records, neurons, lanes) is how far they carry neurons
        past their kinks, and `bends` (outputs, neurons) what the outputs make of that.
        """
        far = self.far[b, part]
        far[:, UP] = np.maximum(bends, 0) @ h + linear + rounding
        far[:, DOWN] = np.maximum(-bends, 0) @ h - linear + rounding
        for own in np.unique(classes):
            lanes = classes == own
            lead, bend = linear - linear[:, own, None], bends - bends[own]
            far[:, AHEAD][..., lanes] = (np.maximum(bend, 0) @ h + lead + 2 * rounding)[..., lanes]
            far[:, BEHIND][..., lanes] = (np.maximum(-bend, 0) @ h - lead + 2 * rounding)[..., lanes]
