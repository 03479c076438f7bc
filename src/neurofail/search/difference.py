"""Known failures over boxes of inputs: lines backwards through the golden and the faulty network at once.

Both networks read the same input. With s, y the golden pre-activations and outputs and e, d what the failures
add to them, y = phi(s) and d = phi(s + e) - phi(s). Backwards through a layer, a sum a . y + b . d becomes
one over s and e, each neuron by the tighter of two relaxations: a line for phi over s and one over s + e
(CROWN, of the two networks as one), or a line for d over e, whose slopes are those of phi within reach. A
failed neuron's value, where it has a choice, is a coordinate of the box, like an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from neurofail.bounds.intervals import domain
from neurofail.network import Network
from neurofail.search.problem import Effect
from neurofail.sites import Action

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]
_UNIT = 2.0**-53


@dataclass(frozen=True)
class Boxes:
    """Boxes of points: an input, then a value for every hidden neuron, of which those of the failed matter.

    low, high (n, N_0 + N_1 + .. + N_L); failed (n, N_1 + .. + N_L)
    """

    low: Array
    high: Array
    failed: Mask

    @classmethod
    def whole(cls, net: Network, effect: Effect, failed: Mask) -> Boxes:
        """The domain of `net`, with every value that each of the failed neurons (n, hidden) may take."""
        low, high = (
            np.hstack([np.broadcast_to(end, (len(failed), len(end))), np.where(failed, value, 0.0)])
            for end, value in ((net.low, effect.low), (net.high, effect.high))
        )
        return cls(low, high, failed)

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, chosen: Rows) -> Boxes:
        return Boxes(self.low[chosen], self.high[chosen], self.failed[chosen])

    def halved(self, axes: Rows) -> Boxes:
        """Each box cut in two across its axis: the lower halves, then the upper ones."""
        rows, both = np.arange(len(self)), self[np.tile(np.arange(len(self)), 2)]
        middle = self.low[rows, axes] + (self.high[rows, axes] - self.low[rows, axes]) / 2
        both.high[rows, axes] = both.low[rows + len(self), axes] = middle
        return both


@dataclass(frozen=True)
class Limits:
    """What is known of each of n boxes.

    upper (n,): no error in the box exceeds it; point (n, coordinates): where the linear bound is largest;
    error (n,): the error there, not a certificate; axis (n,): the coordinate along which to cut the box
    """

    upper: Array
    point: Array
    error: Array
    axis: Rows


@dataclass(frozen=True)
class _Layer:
    """A hidden layer over n boxes, see `enclosing`.

    over (6, n, N): intervals of s, of t = s + e, of e; near (3, n, N): where its lines are tight; lines
    (3, 2, 2, n, N); out (6, n, N): intervals of what it transmits, y and y + d, and of d
    """

    over: Array
    near: Array
    lines: Array
    out: Array


@dataclass(frozen=True)
class _Step:
    """A bound a . y + b . d of a layer, turned into on_s . s + on_e . e + the sum of base; (n, R, N) each."""

    a: Array
    b: Array
    on_s: Array
    on_e: Array
    base: Array


@dataclass(frozen=True)
class _Run:
    """A layer at n points: s, s + e, phi of the one and of the other, and what the faulty run transmits."""

    s: Array
    t: Array
    golden: Array
    sound: Array
    faulty: Array


class Difference:
    """The error of a network with known failures, bounded over boxes."""

    def __init__(self, net: Network, effect: Effect) -> None:
        self.net = net
        self.effect = effect
        self.starts = np.cumsum(net.widths[:-1]).tolist()

    @property
    def rounding(self) -> float:
        """What rounding can move a limit by."""
        return float(self._slack[-1].max())

    def errors(self, points: Array, failed: Mask) -> Array:
        """|F_faulty - F| at points (n, coordinates), (n, N_{L+1}); in float64, not a certificate."""
        with np.errstate(all="ignore"):
            last = self._run(points, failed)[-1]
            return np.abs(last.faulty - last.golden)

    def limits(self, boxes: Boxes) -> Limits:
        """What is known of each box; rounding included (see `_slack`)."""
        rows = np.vstack([self.net.weights[-1], -self.net.weights[-1]])
        none, slack = np.zeros_like(rows), self._slack[-1]
        with np.errstate(all="ignore"):
            layers: list[_Layer] = []
            for layer in range(1, self.net.depth + 1):
                layers.append(self._layer(boxes, layers, layer))
            upper = np.hstack(self._above(boxes, layers, none, rows, slack))
            # The highest row once more, with lines that are tight nearer to where it is reached.
            each, worst = np.arange(len(boxes)), np.argmax(upper, axis=1)
            row = rows[worst][:, None]
            _, point, _ = self._descend(boxes, layers, none[:1], row, fans=True)
            moved = self._tightened(boxes, layers, self._run(point, boxes.failed))
            again, point, steps = self._descend(boxes, moved, none[:1], row, fans=True)
            upper[each, worst] = np.minimum(upper[each, worst], again[:, 0] + np.tile(slack, 2)[worst])
            run = self._run(point, boxes.failed)
            axis = self._axis(boxes, run, steps)
        sound = np.all([np.isfinite(layer.over).all(axis=(0, 2)) for layer in layers], axis=0)
        limit = np.where(sound & ~np.isnan(upper).any(axis=1), upper.max(axis=1), np.inf)
        return Limits(limit, point, np.abs(run[-1].faulty - run[-1].golden).max(axis=1), axis)

    def _run(self, points: Array, failed: Mask) -> list[_Run]:
        """The golden and the faulty run, layers 1..L+1."""
        golden = faulty = points[:, : self.net.widths[0]]
        found = []
        for layer, phi in enumerate(self.net.activations, start=1):
            weight, bias = self.net.weights[layer - 1], self.net.biases[layer - 1]
            s, t = golden @ weight.T + bias, faulty @ weight.T + bias
            golden, sound = phi(s), phi(t)
            faulty = sound
            if layer <= self.net.depth:
                value = points[:, self._values(layer)]
                if self.effect.action is not Action.SET:
                    value = value + (golden if self.effect.action is Action.SHIFT else sound)
                faulty = np.where(failed[:, self._neurons(layer)], value, sound)
            found.append(_Run(s, t, golden, sound, faulty))
        return found

    def _values(self, layer: int) -> slice:
        """The coordinates of a layer's values."""
        first = self.starts[layer - 1]
        return slice(first, first + self.net.widths[layer])

    def _ends(self, boxes: Boxes, layer: int) -> Array:
        """The least and the greatest values of a layer's neurons, (2, n, N)."""
        values = self._values(layer)
        return np.stack([boxes.low[:, values], boxes.high[:, values]])

    def _neurons(self, layer: int) -> slice:
        """A layer's neurons among all hidden ones."""
        first = self.starts[layer - 1] - self.net.widths[0]
        return slice(first, first + self.net.widths[layer])

    def _layer(self, boxes: Boxes, layers: Sequence[_Layer], layer: int) -> _Layer:
        """The intervals and lines of the layer that follows."""
        weight, bias = self.net.weights[layer - 1], self.net.biases[layer - 1]
        signed, slack = np.vstack([weight, -weight]), self._slack[layer - 1]
        none = np.zeros_like(signed)
        up, down = self._above(boxes, layers, signed, none, slack)
        over = self._spread(boxes, layers, layer)
        s_low, s_high = np.maximum(bias - down, over[0]), np.minimum(bias + up, over[1])
        t_low, t_high, e_low, e_high = s_low, s_high, np.zeros_like(s_low), np.zeros_like(s_low)
        hit: Mask = np.any(boxes.failed[:, : self._neurons(layer).start], axis=1, keepdims=True)
        if hit.any():
            up, down = self._above(boxes, layers, none, signed, slack)
            e_low = np.where(hit, np.maximum(-down, over[4]), 0.0)
            e_high = np.where(hit, np.minimum(up, over[5]), 0.0)
            up, down = self._above(boxes, layers, signed, signed, slack)
            # The three intervals of s, t = s + e and e narrow each other.
            t_low = np.where(hit, np.maximum(np.maximum(bias - down, over[2]), s_low + e_low), s_low)
            t_high = np.where(hit, np.minimum(np.minimum(bias + up, over[3]), s_high + e_high), s_high)
            e_low = np.where(hit, np.maximum(e_low, t_low - s_high), 0.0)
            e_high = np.where(hit, np.minimum(e_high, t_high - s_low), 0.0)
        over = np.stack([s_low, s_high, t_low, t_high, e_low, e_high])
        return self._enclosed(boxes, layer, over, (over[::2] + over[1::2]) / 2)

    def _enclosed(self, boxes: Boxes, layer: int, over: Array, near: Array) -> _Layer:
        """A layer's lines and what it transmits; near (3, n, N): where the lines should be tight."""
        from neurofail.search.enclosing import enclose

        phi = self.net.activations[layer - 1]
        first, second = (*phi.parameters, 0.0, 0.0)[:2]
        shape = (phi.gain, first, second, np.nan if phi.turning is None else phi.turning)
        lines, out = np.empty((3, 2, 2, near[0].size)), np.empty((6, near[0].size))
        enclose(phi.code, shape, over.reshape(6, -1), near.reshape(3, -1), lines, out)
        out = self._struck(boxes, layer, out.reshape(over.shape))
        return _Layer(over, near, lines.reshape(3, 2, 2, *near.shape[1:]), out)

    def _spread(self, boxes: Boxes, layers: Sequence[_Layer], layer: int) -> Array:
        """The intervals of s, t and e of the layer that follows, by those that it receives; (6, n, N)."""
        weight, slack = self.net.weights[layer - 1].T, self._slack[layer - 1]
        if layers:
            low, high = layers[-1].out[::2], layers[-1].out[1::2]
        else:
            inputs = slice(0, self.net.widths[0])
            low, high = boxes.low[None, :, inputs], boxes.high[None, :, inputs]
        rising, falling = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
        least, most = low @ rising + high @ falling - slack, high @ rising + low @ falling + slack
        over = np.stack([least, most], axis=1)
        if not layers:
            over = np.concatenate([over, over, 0.0 * over])
        over[:2] += self.net.biases[layer - 1]
        return over.reshape(6, *least.shape[1:])

    def _struck(self, boxes: Boxes, layer: int, out: Array) -> Array:
        """The intervals that a layer transmits, (6, n, N), its failures included."""
        failed, (low, high) = boxes.failed[:, self._neurons(layer)], self._ends(boxes, layer)
        y_low, y_high, t_low, t_high, d_low, d_high = out
        if self.effect.action is Action.SET:
            new = low, high, low - y_high, high - y_low
        elif self.effect.action is Action.SHIFT:
            new = y_low + low, y_high + high, low, high
        else:
            new = t_low + low, t_high + high, d_low + low, d_high + high
        return np.stack([y_low, y_high, *(np.where(failed, a, b) for a, b in zip(new, out[2:], strict=True))])

    def _above(
        self, boxes: Boxes, layers: Sequence[_Layer], a: Array, b: Array, slack: Array
    ) -> tuple[Array, Array]:
        """Upper limits of a . y + b . d of the last of the layers over every box, those of rounding included.

        a, b (2 M, N), slack (M,): the limits of the first M rows and of the others, (n, M) each.
        """
        above = self._descend(boxes, layers, a, b, fans=True)[0]
        if b.any():
            above = np.minimum(above, self._descend(boxes, layers, a, b, fans=False)[0])
        first, second = np.split(above, 2, axis=1)
        return first + slack, second + slack

    def _descend(
        self, boxes: Boxes, layers: Sequence[_Layer], a: Array, b: Array, fans: bool
    ) -> tuple[Array, Array, list[_Step]]:
        """One bound backwards: upper limits (n, R), where row 0 reaches its own, the steps, last first."""
        from neurofail.search.enclosing import descend, release

        a, b = (np.array(np.broadcast_to(part, (len(boxes), *part.shape[-2:]))) for part in (a, b))
        total, pulls, steps = np.zeros(a.shape[:2]), [], []
        action = self.effect.action
        for layer in range(len(layers), 0, -1):
            here, failed = layers[layer - 1], boxes.failed[:, self._neurons(layer)]
            own, base = np.empty_like(a), np.empty_like(a)
            ends = self._ends(boxes, layer)
            release(failed, ends, action is Action.SET, action is not Action.ADD, a, b, own, total)
            pulls.append(own)
            before = a.copy(), b.copy()
            descend(here.over, here.near, here.lines, fans, a, b, base)
            steps.append(_Step(*before, a, b, base))
            weight, bias = self.net.weights[layer - 1], self.net.biases[layer - 1]
            total += base.sum(axis=2) + a @ bias
            a, b = a @ weight, b @ weight
        width = self.net.widths[0]
        low, high = boxes.low[:, None, :width], boxes.high[:, None, :width]
        total += np.maximum(a * low, a * high).sum(axis=2)
        pull = np.concatenate([part[:, 0] for part in (a, *reversed(pulls))], axis=1)
        size = pull.shape[1]
        return total, np.where(pull > 0.0, boxes.high[:, :size], boxes.low[:, :size]), steps

    def _tightened(self, boxes: Boxes, layers: Sequence[_Layer], run: Sequence[_Run]) -> list[_Layer]:
        """The same layers, their lines tight half way between where they were and the points of a run."""
        moved = []
        for number, (layer, at) in enumerate(zip(layers, run, strict=False), start=1):
            near = (layer.near + np.stack([at.s, at.t, at.t - at.s])) / 2
            near = np.clip(near, layer.over[::2], layer.over[1::2])
            moved.append(self._enclosed(boxes, number, layer.over, near))
        return moved

    def _axis(self, boxes: Boxes, run: Sequence[_Run], steps: Sequence[_Step]) -> Rows:
        """The coordinate along which to cut each box.

        The bound exceeds the error at its own maximiser by what each neuron's lines lose there; each loss is
        laid to the coordinates by their shares in the width of the neuron's interval.
        """
        width = boxes.high - boxes.low
        score = np.zeros_like(width)
        for at, step, reach in zip(run, reversed(steps), self._reach, strict=False):
            line = step.on_s[:, 0] * at.s + step.on_e[:, 0] * (at.t - at.s) + step.base[:, 0]
            loss = np.maximum(line - step.a[:, 0] * at.golden - step.b[:, 0] * (at.sound - at.golden), 0.0)
            whole = width @ reach.T
            score += width * (np.where(whole > 0.0, loss / whole, 0.0) @ reach)
        # Where nothing is lost any more, or what is cannot be told, the widest.
        score = np.where(np.isfinite(score).all(axis=1, keepdims=True) & (score > 0.0), score, 0.0)
        settled = ~score.any(axis=1, keepdims=True)
        axis: Rows = np.argmax(np.where(settled, width, score), axis=1)
        return axis

    @cached_property
    def _reach(self) -> list[Array]:
        """How far each coordinate moves each pre-activation, by |W| and K: (N_l, coordinates) each."""
        found, size = [], self.starts[-1]
        reach = np.eye(self.net.widths[0], size)
        for layer in range(1, self.net.depth + 1):
            found.append(np.abs(self.net.weights[layer - 1]) @ reach)
            reach = self.net.activations[layer - 1].lipschitz * found[-1]
            reach[:, self._values(layer)] += np.eye(self.net.widths[layer])
        return found

    @cached_property
    @np.errstate(all="ignore")
    def _slack(self) -> list[Array]:
        """What rounding can move a limit by: of each pre-activation of layers 1..L, and of each output.

        Like `Problem.rounding`: a limit is a sum of lines, products and values, and each costs at most
        (n + 32) units of rounding of the magnitudes that it adds up, n the longer side of the weights. All
        coefficients are products of weights and slopes: of t = s + e at most the influence r (bounds.md,
        section 4), of s no more than twice that for each layer passed.
        """
        net, golden = self.net, domain(self.net)
        sizes = [golden.magnitude(layer)[0] for layer in range(net.depth + 1)]
        value = max(abs(self.effect.low), abs(self.effect.high))
        deviation = np.zeros_like(sizes[0])
        local: list[Array] = []
        found: list[Array] = []
        for layer in range(1, net.depth + 2):
            weight, phi = np.abs(net.weights[layer - 1]), net.activations[layer - 1]
            size = weight @ (sizes[layer - 1] + deviation) + np.abs(net.biases[layer - 1])
            units = 8.0 * (2 * net.depth + 2) * _UNIT * (max(weight.shape) + 32)
            influence, total = np.eye(len(weight)), units * size
            for below in range(layer - 1, 0, -1):
                influence = influence @ np.abs(net.weights[below])
                total = total + influence @ local[below - 1]
                influence = influence * net.activations[below - 1].lipschitz
            found.append(np.where(np.isnan(total), np.inf, total))
            if layer <= net.depth:
                sound = np.minimum(phi.lipschitz * (weight @ deviation), phi.range[1] - phi.range[0])
                if self.effect.action is Action.ADD:
                    deviation = sound + value
                else:
                    deviation = np.maximum(sound, sizes[layer] + value)
                local.append(units * (phi.lipschitz * size + sizes[layer] + deviation))
        return found
