"""What the Numba kernel works on: the network, the places that fail, a thread's memory, the task at hand."""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np

from neurofail._numba.kinks import Kinks
from neurofail._numba.lanes import at, block, gather, inner, minus
from neurofail._numba.slopes import Slopes
from neurofail._numba.sweeps import Sweeps

# What an operation does: sites.Action.
SET, ADD = 0, 2

CHAIN = 4  # partial updates kept at each layer
FEW = 64  # operations on pre-activations that are still worth treating one by one

# Where a thread stands: entries of Desk.now.
FIRST, BLOCKS, ROW, ENTRIES = range(4)


class Model(NamedTuple):
    """A network in reals of one type, and its golden run. Offsets count reals.

    By layer, from 0 for the inputs: neurons, activation and its parameters a and b, the height of the panels
    of weights; in `weights`, the columns (inputs, neurons), the panels (inputs, height) and the biases; in a
    block of `golden`, the pre-activations s and the outputs y. For the output layer `gap` holds F_k -
    F_class; then come the class, the error below which it cannot change, and the class's own weights.
    `weights` begins with zeros. A tile has so many blocks, or `late_tile`, which is no fewer, where only the
    last hidden layer fails. `order` tells of each lane which input it holds.
    """

    layers: int
    inputs: int
    tile: int
    late_tile: int
    stride: int
    gap: int
    category: int
    threshold: int
    own: int
    most: float
    unit: float
    neurons: Any
    activation: Any
    a: Any
    b: Any
    height: Any
    columns: Any
    panels: Any
    biases: Any
    s: Any
    y: Any
    weights: Any
    golden: Any
    order: Any


class Sites(NamedTuple):
    """The columns of lowering.SiteTable."""

    first: Any
    stage: Any
    action: Any
    neuron: Any
    source: Any
    weight: Any
    value: Any
    span: Any


class Desk(NamedTuple):
    """One thread's working memory.

    now: the tile's first block and how many it has, the first row of the configuration at hand, its entries.
    An entry is a deviation that enters the next layer: of one neuron, caused by the rows up to `end`.
    By layer: the configuration that its chain is valid for (stamp), what it starts from (0 the golden run,
    else 1 + the rows behind it), how many partial updates are valid and where each ends; the same for the
    dense deviations. In `room`, offsets of the partial updates, of the layer's deviations, of the next
    layer's pre-activations from those, and of a scratch area; of the entries' deviations, and of what the
    outputs are made in.
    """

    capacity: int
    vector: int
    delta: int
    run: int
    now: Any
    entry: Any
    end: Any
    stamp: Any
    base: Any
    length: Any
    ends: Any
    dense_stamp: Any
    dense_rows: Any
    partial: Any
    deviation: Any
    base_next: Any
    scratch: Any
    room: Any


class Bounds(NamedTuple):
    """What a thread knows of a tile's inputs together, and room for one configuration: see
    csrc/kernel_body.inc.

    now_bounded: of the configuration at hand the failures before the last hidden layer, and all;
    evaluations that wait; those that were run; configurations to run without bounds, for they did not pay;
    the tile's first block and the one past its last. scalars: the magnitude of the outputs' terms together;
    of the configuration at hand, its radius and the factor of |e|^2; how far the outputs' sums walk.
    """

    now_bounded: Any
    scalars: Any
    failed: Any
    how: Any
    exactly: Any
    mean: Any
    apart: Any
    middle: Any
    spread_of: Any
    size: Any
    centre: Any
    tilt: Any
    radius: Any
    weighted: Any
    product_of: Any
    mean_of: Any
    reach_of: Any
    shift: Any
    tilted: Any
    d: Any
    e: Any
    move: Any
    upper: Any
    pair_y: Any
    pair_of: Any
    pair_lane: Any
    pair_judged: Any
    glance: Any
    past: Any
    crossed: Any
    moved: Any
    bent: Any
    late: Any
    late_d: Any
    late_radius: Any
    seen: Any


class Task(NamedTuple):
    """What is to be evaluated, and the records to raise.

    share: whether neighbours tend to agree in their leading rows; drawn: whether there are levels; wanted:
    whether `each` is. rows, levels (n, slots); each (n, inputs).
    """

    slots: int
    share: bool
    drawn: bool
    wanted: bool
    rows: Any
    levels: Any
    errors: Any
    sdc: Any
    due: Any
    each: Any


# All of the above, with pointers for arrays.
_PARTS = (Model, Slopes, Kinks, Sites, Desk, Sweeps, Bounds, Task)
_FIELDS = [field for part in _PARTS for field in part._fields]
Work: Any = namedtuple("Work", _FIELDS)  # type: ignore[misc]  # mypy wants the names spelt out
work_of = gather(Work)


@inner
def golden_at(work: Any, b: int) -> Any:
    """The golden values of block b of the tile."""
    return at(work.golden, (work.now[FIRST] + b) * work.stride)


@inner
def inside_of(work: Any, b: int) -> Any:
    """The lanes of block b of the tile that hold an input, as bits."""
    lanes = block(work.room)
    return np.uint64((1 << min(work.inputs - (work.now[FIRST] + b) * lanes, lanes)) - 1)


@inner
def vector_at(work: Any, layer: int, entry: int, b: int) -> Any:
    """A deviation that leaves the layer; it outlives the configuration, as the chain does."""
    lanes = block(work.room)
    return at(work.room, work.vector + ((layer * work.capacity + entry) * work.late_tile + b) * lanes)


@inner
def deviation_at(work: Any, layer: int, b: int) -> Any:
    """The deviations of all of the layer."""
    return at(work.room, work.deviation[layer] + b * work.neurons[layer] * block(work.room))


@inner
def start_at(work: Any, layer: int, dense: bool, b: int) -> Any:
    """What the pre-activations of the layer start from: the golden run, or what came from upstream.
    Deviations of the outputs start from 0.
    """
    if dense:
        return at(work.room, work.base_next[layer - 1] + b * work.neurons[layer] * block(work.room))
    if layer == work.layers:
        return work.weights
    return at(golden_at(work, b), work.s[layer])


@inner
def updated_at(work: Any, layer: int, kept: int, dense: bool, b: int) -> Any:
    """Where the update of the layer stands after `kept` columns."""
    if kept:
        area = work.neurons[layer] * block(work.room)
        return at(work.room, work.partial[layer * CHAIN + kept - 1] + b * area)
    return start_at(work, layer, dense, b)


@inner
def length_of(work: Any, row: int) -> Any:
    """How many rows a configuration has."""
    length = 0
    while length < work.slots and work.rows[row + length] >= 0:
        length += 1
    return length


@inner
def value_of(work: Any, slot: int, operation: int) -> Any:
    """The number that an operation uses."""
    level = work.levels[work.now[ROW] + slot] if work.drawn else 0.0
    return work.value[operation] + level * work.span[operation]


@inner
def departure(action: int, value: Any, golden: Any, before: Any) -> Any:
    """What a neuron's own failure adds to its deviation `before`, which is on its way downstream already."""
    if action == ADD:
        return value
    if action == SET:
        value = minus(value, golden)
    return minus(value, before)
