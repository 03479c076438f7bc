"""The largest error found from below: moves along the axes of a box, from many starts."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Errors = Callable[[Array], Array]
_LEAST_SECONDS = 1.0


def starts(low: Array, high: Array, count: int, seed: int) -> Array:
    """`count` points of a box, (count, coordinates): corners and inner points, mixed."""
    rng = np.random.default_rng(seed)
    corners = rng.random((count, len(low))) < 0.5
    inside = rng.random((count, len(low)))
    shares = np.vstack([np.where(corners, 1.0, 0.0), inside])
    points = np.clip(low + shares * (high - low), low, high)
    return np.asarray(points[np.argsort(rng.random(len(points)))][:count])


def deadline(time_limit: float) -> float:
    """When a search from below that begins now ends: it may take what the one from above may, or a second."""
    return time.monotonic() + max(time_limit, _LEAST_SECONDS)


def climb(errors: Errors, low: Array, high: Array, start: Array, until: float = np.inf) -> Array:
    """A point of larger error, by moves along the axes of halving length; errors maps (n, ..) to (n,).

    until is the time (`time.monotonic`) after which no move begins.
    """
    x, share = start, 1.0
    moves = np.diag(high - low)[high > low]
    if not len(moves):
        return x
    error = float(errors(x[None])[0])
    while share > 1e-3 and time.monotonic() < until:
        steps = np.concatenate([moves, -moves]) * share
        trials = np.clip(x + steps, low, high)
        found = errors(trials)
        # All moves that help on their own, together, may help more than the best of them.
        joint = np.clip(x + steps[found > error].sum(axis=0), low, high)
        trials, found = np.vstack([trials, joint]), np.append(found, errors(joint[None]))
        best = int(np.argmax(found))
        if found[best] > error * (1 + 1e-12):
            x, error = trials[best], float(found[best])
        else:
            share /= 2
    return x
