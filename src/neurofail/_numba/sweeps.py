"""A thread's tables of what failures of the last hidden layer's neurons do one by one, and its room for runs
along these neurons: see tables.py and runs.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neurofail._numba.lanes import aligned, block_size

Reals = npt.NDArray[Any]
Words = npt.NDArray[np.int16]

RUN = 256  # configurations of a run taken together
LEAST = 8  # neurons that a run needs to be tabulated, and fewer than the layer has to have
# These, with room for a vector of words before and after.
_SPAN = 512
# Outputs from which on it pays to find out which are not needed, and up to which there are tables.
_FEWEST, _OUTPUTS = 4, 12


class Sweeps(NamedTuple):
    """A thread's tables, of one tile, and what a run along successive neurons needs besides.

    swept: whether there are any. now_swept: the tile's first block and how many it has, none before there is
    a tile. By neuron, the row that is tabulated (`tabled_row`). By block of the tile: what makes reals words,
    0 before there are any (`scale`); the deviations (neurons, lanes); by groups of as many neurons as a
    vector has words, how far outputs are moved, `reaches` (groups, outputs, 2, words), up and down, and what
    they gain, `gains` (groups, outputs, lanes, words); the first neuron whose gains are not tabulated though
    its reaches are, and past the last (`stale`); the largest gain of any neuron, `peak` (outputs, lanes); the
    gaps to the golden class, which is itself out of reach, `rivals` (outputs, lanes), and the widest of them;
    the error below which no class can change (`safest`).

    Of a run, by block: how far what its configurations share moves the outputs up and down, `rises` and
    `falls` (outputs), and the largest of these (`shared_size`). Of a run and a block: the same in words
    (`rise`, `fall`); the leads on the golden class in words (outputs, lanes), the class's own output
    (`own_shared`), and the outputs for which some gain might be enough, as the sum of their bits, which is a
    real (`live`). By configuration from a multiple of a vector's words on: the error so far (`run_error`),
    the same in words, the output that can go furthest, how far the next one can go, which outputs are open,
    and how many lanes lose their golden class.
    """

    swept: bool
    groups: int
    least_normal: float
    now_swept: npt.NDArray[np.int64]
    tabled_row: npt.NDArray[np.int64]
    scale: Reals
    deviations: Reals
    reaches: Words
    gains: Words
    stale: npt.NDArray[np.int64]
    peak: Reals
    rivals: Reals
    widest: Reals
    safest: Reals
    rises: Reals
    falls: Reals
    shared_size: Reals
    rise: Words
    fall: Words
    lead: Words
    own_shared: Reals
    live: Reals
    run_error: Reals
    so_far: Words
    which: Words
    second: Words
    marks: Words
    lost: Words
    open: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, widths: list[int], slots: int, tile: int, lanes: int, kind: npt.DTypeLike) -> Sweeps:
        """Room for the tables of so many blocks, where they can pay: with neurons for more than a vector, and
        failures before the one that a run varies.
        """
        neurons, outputs = widths[-2:]
        swept = _FEWEST <= outputs <= _OUTPUTS and neurons > LEAST and slots > 1 and len(widths) > 2
        tile = tile if swept else 0
        many = block_size(2)
        groups = -(-neurons // many)

        def reals(*shape: int) -> Reals:
            return aligned(shape, kind)

        def short(*shape: int) -> Words:
            return aligned(shape, np.int16)

        return cls(
            swept=swept,
            groups=groups,
            least_normal=float(np.finfo(kind).smallest_normal),
            now_swept=np.zeros(2, np.int64),
            tabled_row=np.zeros(neurons, np.int64),
            scale=reals(tile),
            deviations=reals(tile, neurons, lanes),
            reaches=short(tile, groups, outputs, 2, many),
            gains=short(tile, groups, outputs, lanes, many),
            stale=np.zeros(2 * tile, np.int64),
            peak=reals(tile, outputs, lanes),
            rivals=reals(tile, outputs, lanes),
            widest=reals(tile),
            safest=reals(tile),
            rises=reals(tile, outputs),
            falls=reals(tile, outputs),
            shared_size=reals(tile),
            rise=short(outputs),
            fall=short(outputs),
            lead=short(outputs, lanes),
            own_shared=reals(lanes),
            live=reals(lanes),
            run_error=reals(_SPAN),
            so_far=short(_SPAN),
            which=short(_SPAN),
            second=short(_SPAN),
            marks=short(_SPAN),
            lost=short(_SPAN),
            open=np.zeros(_SPAN, np.uint64),
        )
