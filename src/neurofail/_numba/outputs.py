"""What a configuration's outputs come to on a block: its error, and how many lanes change their class."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofail._numba.lanes import (
    at,
    at_most,
    block,
    choose,
    equal,
    greater,
    higher,
    inner,
    largest,
    load,
    ones,
    plus,
)
from neurofail._numba.work import golden_at, inside_of


@inner
def count_lanes(work: Any, c: int, b: int, error: Any, delta: Any) -> None:
    """Counts the lanes whose class changed, or whose output is NaN or infinite; delta is (outputs, lanes)."""
    lanes = block(delta)
    gap = at(golden_at(work, b), work.gap)
    rival = plus(load(gap, 0), load(delta, 0))
    for k in range(1, work.neurons[work.layers]):
        rival = higher(rival, plus(load(gap, k * lanes), load(delta, k * lanes)))
    count(work, c, b, error, of_class(work, b, delta), rival)


@inner
def of_class(work: Any, b: int, delta: Any) -> Any:
    """The one of the outputs delta (outputs, lanes) that is each lane's golden class."""
    lanes = block(delta)
    category = load(golden_at(work, b), work.category)
    own = load(delta, 0)
    for k in range(1, work.neurons[work.layers]):
        own = choose(equal(category, float(k)), load(delta, k * lanes), own)
    return own


@inner
def count(work: Any, c: int, b: int, error: Any, own: Any, rival: Any) -> None:
    """Counts the lanes whose highest output, counted from the golden class, is above their class's own."""
    inside = inside_of(work, b)
    finite = at_most(error, work.most)
    work.due[c] += ones(~finite & inside)
    # A tie changes nothing.
    work.sdc[c] += ones(greater(rival, own) & finite & inside)


@inner
def take(work: Any, c: int, most: Any) -> None:
    """Raises the error of configuration c to the largest of all lanes; NaN counts as infinite."""
    worst = float(largest(most))
    work.errors[c] = max(work.errors[c], worst if worst == worst else np.inf)
