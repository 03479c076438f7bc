"""The largest sum that a linear bound allows, and what it decides."""

from __future__ import annotations

import numpy as np

from neurofail.search.circuit import FAILED, FREE, HERE, PICK, SOUND, WORTH, Array, Circuit, Desk, copy
from neurofail.search.compiled import inner


@inner
def largest(terms: Array, size: int, wanted: int, forced: bool) -> float:
    """The sum of the `wanted` largest of terms[:size] (if positive, unless forced); reorders them."""
    total = 0.0
    for k in range(min(wanted, size)):
        best = k
        for x in range(k + 1, size):
            if terms[x] > terms[best]:
                best = x
        terms[k], terms[best] = terms[best], terms[k]
        if terms[k] <= 0.0 and not forced:
            break
        total += terms[k]
    return total


@inner
def select(circuit: Circuit, desk: Desk) -> float:
    """Mark the largest gains of each stage's free neurons (of all, if pooled); their sum, -inf if too few."""
    total = 0.0
    stages = len(circuit.width)
    copy(desk.state[PICK], desk.state[HERE])
    for group in range(1 if circuit.pooled else stages):
        first, last = (0, stages) if circuit.pooled else (group, group + 1)
        for _ in range(desk.left[group]):
            best, at_k, at_j = -np.inf, -1, -1
            for k in range(first, last):
                for j in range(circuit.width[k]):
                    if desk.of[WORTH, k, j] > best and desk.state[PICK, k, j] == FREE:
                        best, at_k, at_j = desk.of[WORTH, k, j], k, j
            if at_k < 0 and circuit.forced:
                return -np.inf  # fewer free neurons than failures to place
            if at_k < 0 or (best <= 0.0 and not circuit.forced):
                break
            desk.state[PICK, at_k, at_j] = FAILED
            total += best
    return total


@inner
def decide(circuit: Circuit, limit: float, cut: float, desk: Desk) -> tuple[bool, float]:
    """Decide the free neurons whose other choice the bound rules out: (any at all, the highest limit there).

    limit is the linear bound, which `select` has just reached; what cannot exceed `cut` is ruled out.
    """
    any_, closed = False, -np.inf
    stages = len(circuit.width)
    for group in range(1 if circuit.pooled else stages):
        first, last = (0, stages) if circuit.pooled else (group, group + 1)
        left, least, most = desk.left[group], np.inf, -np.inf if circuit.forced else 0.0
        if left == 0:
            continue
        for k in range(first, last):
            for j in range(circuit.width[k]):
                if desk.state[HERE, k, j] == FREE:
                    if desk.state[PICK, k, j] == FAILED:
                        least = min(least, desk.of[WORTH, k, j])
                        left -= 1
                    else:
                        most = max(most, desk.of[WORTH, k, j])
        # One failure more replaces the least of those selected, or takes a place that they left.
        least = least if left == 0 else 0.0
        for k in range(first, last):
            for j in range(circuit.width[k]):
                if desk.state[HERE, k, j] == FREE:
                    gain = desk.of[WORTH, k, j]
                    picked = desk.state[PICK, k, j] == FAILED
                    other = limit - gain + most if picked else limit + gain - least
                    if other <= cut:
                        desk.state[HERE, k, j] = FAILED if picked else SOUND
                        any_, closed = True, max(closed, other)
    return any_, closed


@inner
def branching(circuit: Circuit, desk: Desk) -> tuple[int, int]:
    """The free neuron whose failure is worth most, the candidate's own first; (-1, -1) if none may fail."""
    at_k, at_j, gain, picked = -1, -1, -np.inf, False
    for k in range(len(circuit.width)):
        if desk.left[k] == 0:
            continue
        for j in range(circuit.width[k]):
            if desk.state[HERE, k, j] == FREE:
                mine = desk.state[PICK, k, j] == FAILED
                if (mine and not picked) or (mine == picked and desk.of[WORTH, k, j] > gain):
                    at_k, at_j, gain, picked = k, j, desk.of[WORTH, k, j], mine
    return at_k, at_j
