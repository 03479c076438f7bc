"""A plan on its inputs, packed for the compiled functions; and what compiling them costs, said aloud."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from neurofail import lowering
from neurofail._numba import plans, work
from neurofail._numba.bounds import TILE
from neurofail._numba.kernel import run
from neurofail._numba.kinks import Kinks
from neurofail._numba.lanes import HEIGHT, aligned, block_size
from neurofail._numba.look import GLANCE
from neurofail._numba.slopes import Slopes
from neurofail._numba.spare import BATCH, TOGETHER
from neurofail._numba.sweeps import RUN, Sweeps
from neurofail.plans import Plan
from neurofail.records import Records, Totals
from neurofail.session import Rows
from neurofail.session import Session as AnySession
from neurofail.sources import sign

Array = npt.NDArray[np.float64]
Reals = npt.NDArray[Any]
Desk = tuple[work.Desk, Sweeps, work.Bounds]

# Bytes that a tile's working set may have: half a common second-level cache.
_WORKING = 1 << 19
# Blocks taken together where only the last hidden layer fails.
_LATE = 16
# Blocks whose inputs are ordered together.
_ALIKE = 64
_PATIENCE = 1.0  # seconds until a compilation is explained
_NOTICE = "neurofail: compiling the Numba kernel, once for this machine; this takes about a minute"


def _entry(function: Any) -> Any:
    """Compiles an entry point when it is first called, and keeps the code for later processes."""
    sign(function, __package__)
    try:
        return numba.njit(function, nogil=True, no_cfunc_wrapper=True, cache=True)
    except RuntimeError:  # nowhere to write: every process compiles for itself
        return numba.njit(function, nogil=True, no_cfunc_wrapper=True)


_run, _write_rows = _entry(run), _entry(plans.write_rows)


@contextmanager
def _explained() -> Iterator[None]:
    """Says that compiling takes its time, once it does; loading what was compiled is not worth a word."""

    def compiled() -> int:
        return sum(sum(entry.stats.cache_misses.values()) for entry in (_run, _write_rows))

    def explain() -> None:
        while not done.wait(_PATIENCE):
            if compiled() > before:
                print(_NOTICE, file=sys.stderr, flush=True)
                return

    before = compiled()
    done = threading.Event()
    threading.Thread(target=explain, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _panels(weights: npt.NDArray[Any], height: int) -> npt.NDArray[Any]:
    """The weights (neurons, inputs), `height` neurons at a time."""
    return np.concatenate([weights[top : top + height].T.ravel() for top in range(0, len(weights), height)])


class Session(AnySession):
    """A network, its inputs and a plan, packed for the Numba kernel."""

    def __init__(self, plan: Plan, inputs: Array, dtype: str) -> None:
        self._plan = plan
        self._inputs = inputs
        self._dtype = np.dtype(dtype)
        self._lanes = block_size(self._dtype.itemsize)
        self.inputs = len(inputs)
        self.blocks = -(-self.inputs // self._lanes)
        sites = lowering.SiteTable.of(plan)
        self._sites = work.Sites(*(getattr(sites, name) for name in work.Sites._fields))
        self._table = lowering.PlanTable.of(plan)
        self._plans = plans.table_of(self._table, sites.stage)
        layers = lowering.layers(plan.net, self._dtype)
        last_fail = (sites.stage == 2 * len(layers) - 2).any()
        self._arranged = self._table.seed is None and bool(last_fail) and len(layers[-1].biases) > 1
        self._model = self._pack(layers)
        most, wanted = lowering.most_before(plan), lowering.slopes_pay(plan, len(inputs))
        self._slopes = Slopes.of(layers, self.blocks, self._lanes, wanted, most)
        self._kinks = Kinks.of(layers, sites, self._slopes, most, lowering.sifts(plan))
        with _explained():
            # Nothing yet; but it compiles, or loads what was compiled before.
            self.golden(0, 0)
            rows, levels = self.rows(0, 1)
            self.evaluate(rows, levels, 0, 0, self.desk())

    def _pack(self, layers: list[lowering.Layer]) -> work.Model:
        lanes, outputs = self._lanes, len(layers[-1].biases)
        widths = [layers[0].weights.shape[1], *(len(layer.biases) for layer in layers)]
        heights = [1, *(-(-n // -(-n // HEIGHT)) for n in widths[1:])]
        weights = [np.zeros(outputs * lanes, self._dtype)]
        starts: list[list[int]] = [[0], [0], [0]]
        for layer, height in zip(layers, heights[1:], strict=True):
            for start, part in zip(
                starts, (layer.weights.T.ravel(), _panels(layer.weights, height), layer.biases), strict=True
            ):
                start.append(sum(map(len, weights)))
                weights.append(part)
        s, y, end = [0], [0], widths[0] * lanes
        for number, width in enumerate(widths[1:], start=1):
            s.append(end)
            y.append(end + (width * lanes if number < len(layers) else 0))
            end = y[-1] + width * lanes
        working = 3 * sum(widths[1:]) * lanes * self._dtype.itemsize
        stride = end + (2 + widths[-2]) * lanes
        # A block's worth of weights may be read from wherever a neuron's begin.
        packed = aligned(sum(map(len, weights)) + lanes, self._dtype)
        np.concatenate(weights, out=packed[:-lanes])
        limits = np.finfo(self._dtype)
        tile = min(max(1, min(32, _WORKING // working)), self.blocks)
        return work.Model(
            layers=len(layers),
            inputs=self.inputs,
            tile=tile,
            late_tile=max(tile, min(_LATE, self.blocks)),
            stride=stride,
            gap=y[-1],
            category=end,
            threshold=end + lanes,
            own=end + 2 * lanes,
            most=float(limits.max),
            unit=float(limits.eps),
            neurons=np.array(widths),
            activation=np.array([0, *(layer.activation for layer in layers)]),
            a=np.array([0.0, *(layer.parameters[0] for layer in layers)]),
            b=np.array([0.0, *(layer.parameters[1] for layer in layers)]),
            height=np.array(heights),
            columns=np.array(starts[0]),
            panels=np.array(starts[1]),
            biases=np.array(starts[2]),
            s=np.array(s),
            y=np.array(y),
            weights=packed,
            golden=aligned(self.blocks * stride, self._dtype),
            order=np.arange(self.blocks * lanes),
        )

    def golden(self, first: int, last: int) -> None:
        """The golden run of input blocks first .. last - 1."""
        lanes = self._lanes
        blocks = self._model.golden.reshape(self.blocks, -1)
        for b in range(first, last):
            # Lanes past the end repeat the last input: they can neither trap nor change a maximum.
            x = self._inputs[np.minimum(np.arange(b * lanes, (b + 1) * lanes), self.inputs - 1)]
            blocks[b, : x.size] = x.T.ravel()
        task = self._task(np.empty((0, self._table.slots), np.int32), None, Records.empty(0))
        _run(self._model, self._slopes, self._kinks, self._sites, *self.desk(), task, True, first, last)
        for b in range(first, last if self._arranged else first, _ALIKE):
            self._arrange(b, min(b + _ALIKE, last))
        for b in range(first, last if self._slopes.bounded else first):
            before, s, y, gaps, category = self._last_layers(blocks[b])
            if self._slopes.kinked:
                self._kinks.tabulate(self._slopes, b, before, s, y, gaps, category[0])
            else:
                self._slopes.tabulate(b, before, s, y)

    def _arrange(self, first: int, last: int) -> None:
        """Orders the inputs of blocks first .. last - 1 by golden class, and within it by safety: inputs of
        one block are then alike, so that most failures that change no class are seen to for the whole block.
        No result knows.
        """
        model, lanes = self._model, self._lanes
        blocks = model.golden.reshape(self.blocks, -1, lanes)[first:last]
        values = blocks.transpose(1, 0, 2).reshape(-1, (last - first) * lanes)
        count = min(values.shape[1], self.inputs - first * lanes)
        category, threshold = (
            values[model.category // lanes, :count],
            values[model.threshold // lanes, :count],
        )
        to = np.lexsort((threshold, category))
        # Lanes past the end repeat the last input.
        to = np.append(to, np.repeat(to[-1:], values.shape[1] - count))
        blocks[:] = values[:, to].reshape(-1, last - first, lanes).transpose(1, 0, 2)
        model.order[first * lanes : last * lanes] = first * lanes + to

    def _last_layers(self, block: Reals) -> Iterator[Reals]:
        """Of a block's golden run: the outputs of the layer before the last hidden one, that one's s and y,
        and the gaps and the class of the outputs.
        """
        model, hidden = self._model, self._model.layers - 1
        for start, size in (
            (model.y[hidden - 1], model.neurons[hidden - 1]),
            (model.s[hidden], model.neurons[hidden]),
            (model.y[hidden], model.neurons[hidden]),
            (model.gap, model.neurons[hidden + 1]),
            (model.category, 1),
        ):
            yield block[start : start + size * self._lanes].reshape(-1, self._lanes)

    def rows(self, start: int, count: int) -> tuple[Rows, Array | None]:
        """The site rows (count, slots) of successive configurations, and their levels where drawn."""
        table = self._table
        rows = np.empty((count, table.slots), np.int32)
        levels = np.zeros((count, table.slots)) if table.drawn else np.empty((0, table.slots))
        sampled = table.seed is not None
        if sampled:
            state = table.room()
        else:
            target, selections, _ = self._plan.select(start)
            state = table.state(target, selections)
        seed, first = np.uint64(table.seed or 0), np.uint64(start if sampled else 0)
        job = plans.Job(sampled, seed, first, count, state, plans.stream(), rows, levels)
        _write_rows(self._plans, job)
        return rows, levels if table.drawn else None

    def desk(self) -> Desk:
        """One thread's working memory."""
        slots, widths = self._table.slots, self._model.neurons.tolist()
        sweeps = Sweeps.of(widths, slots, self._model.late_tile, self._lanes, self._dtype)
        return self._desk(), sweeps, self._bounds()

    def _bounds(self) -> work.Bounds:
        slopes, lanes, slots = self._slopes, self._lanes, self._table.slots
        outputs, neurons, sources = (int(self._model.neurons[-i]) for i in (1, 2, 3 if slopes.bounded else 2))

        def room(size: int) -> Reals:
            return aligned(size if slopes.bounded else 0, self._dtype)

        exactly, mean, apart = (room(slots) for _ in range(3))
        middle, spread_of, size, centre, tilt, radius, weighted, product_of = (
            room(slopes.pitch) for _ in range(8)
        )
        failed, how = np.zeros((2, slots), np.int64)
        looked, together = (lanes, BATCH) if slopes.kinked else (0, TOGETHER)
        pair_of, pair_lane, pair_judged = np.zeros((3, lanes), np.int64)
        return work.Bounds(
            now_bounded=np.zeros(7, np.int64),
            scalars=np.zeros(4),
            failed=failed,
            how=how,
            exactly=exactly,
            mean=mean,
            apart=apart,
            middle=middle,
            spread_of=spread_of,
            size=size,
            centre=centre,
            tilt=tilt,
            radius=radius,
            weighted=weighted,
            product_of=product_of,
            mean_of=room(sources),
            reach_of=room(sources),
            shift=room(outputs),
            tilted=room(slots * outputs),
            d=room(slots * lanes),
            e=room(max(slots, 1) * lanes),
            move=room(outputs * lanes),
            upper=room(together * min(TILE, self.blocks) * lanes),
            pair_y=room(neurons * lanes),
            pair_of=pair_of,
            pair_lane=pair_lane,
            pair_judged=pair_judged,
            glance=np.zeros(GLANCE, np.int64),
            past=room(GLANCE * (slopes.pitch + lanes)),
            crossed=np.zeros(GLANCE * -(-slopes.pitch // 64), np.uint64),
            moved=room((outputs + 1) * looked),
            bent=room(outputs * looked),
            late=np.zeros(slots, np.int64),
            late_d=room(slots * looked),
            late_radius=room(looked),
            seen=room(looked),
        )

    def _desk(self) -> work.Desk:
        model, slots = self._model, self._table.slots
        widths = model.neurons.tolist()
        outputs, layers = widths[-1], model.layers
        tile, late = model.tile * self._lanes, model.late_tile * self._lanes
        capacity = work.FEW + slots
        used = 0

        def take(size: int) -> int:
            nonlocal used
            used += size
            return used - size

        vector = take((layers + 1) * capacity * late)
        delta, run = take(outputs * self._lanes), take(RUN * self._lanes)
        partial = np.zeros((layers + 1, work.CHAIN), np.int64)
        deviation, base_next, scratch = np.zeros((3, layers + 1), np.int64)
        for number in range(1, layers + 1):
            for t in range(min(work.CHAIN, slots - 1)):
                partial[number, t] = take(widths[number] * (tile if number < layers else late))
            scratch[number] = take(widths[number] * self._lanes)
            if number < layers:
                deviation[number] = take(widths[number] * tile)
                base_next[number] = take(widths[number + 1] * tile)
        entry, end = np.zeros((2, capacity), np.int64)
        stamp, base, length, dense_stamp, dense_rows = np.zeros((5, layers + 1), np.int64)
        return work.Desk(
            capacity=capacity,
            vector=vector,
            delta=delta,
            run=run,
            now=np.zeros(4, np.int64),
            entry=entry,
            end=end,
            stamp=stamp,
            base=base,
            length=length,
            ends=np.zeros((layers + 1) * work.CHAIN, np.int64),
            dense_stamp=dense_stamp,
            dense_rows=dense_rows,
            partial=partial.ravel(),
            deviation=deviation,
            base_next=base_next,
            scratch=scratch,
            room=aligned(used, self._dtype),
        )

    def _task(self, rows: Rows, levels: Array | None, records: Records) -> work.Task:
        none = np.empty((0, 0))
        return work.Task(
            self._table.slots,
            self._table.seed is None,
            levels is not None,
            records.each is not None,
            rows,
            none if levels is None else levels,
            records.errors,
            records.sdc,
            records.due,
            none if records.each is None else records.each,
        )

    def evaluate(
        self, rows: Rows, levels: Array | None, first: int, last: int, desk: Desk, each: bool = False
    ) -> Records:
        """The worst error and the outcomes of each configuration on input blocks first .. last - 1."""
        records = Records.empty(len(rows), self.inputs if each else None)
        task = self._task(rows, levels, records)
        _run(self._model, self._slopes, self._kinks, self._sites, *desk, task, False, first, last)
        return records

    def tally(self, records: Records, epsilon: float) -> Totals:
        """The totals of evaluated configurations; `worst` counts from the first of them."""
        return Totals.of(records, epsilon)
