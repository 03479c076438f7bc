"""A good configuration early: swaps from the best candidate that the root bounds came with."""

from __future__ import annotations

from neurofail.search.circuit import (
    FAILED,
    FREE,
    LEAST,
    MOST,
    SLACK,
    SOUND,
    Array,
    Case,
    Circuit,
    Desk,
    States,
    desk,
)
from neurofail.search.compiled import inner, outer
from neurofail.search.relaxation import measure


def improve(circuit: Circuit, case: Case, row: int, root: States, pick: States, choice: Array) -> float:
    """Swap failed neurons for sound ones, and ends of a range or of levels, while the objective grows.

    Returns its final value.

    root (S, N) tells which neurons may fail at all. Changes pick and choice in place.
    """
    return _improve(circuit, case, row, root, pick, choice, desk(pick.shape))


@outer
def _improve(
    circuit: Circuit, case: Case, row: int, root: States, pick: States, choice: Array, work: Desk
) -> float:
    stages = len(circuit.width)
    best = measure(circuit, case, row, pick, choice, work)
    again = True
    while again:
        again = False
        if circuit.split:
            told = _told_worse(circuit, case, row, pick, choice, best, work)
            best, again = told, told > best
        for k in range(stages):
            for i in range(circuit.width[k]):
                if pick[k, i] != FAILED:
                    continue
                for m in range(stages):
                    if m != k and not circuit.pooled:
                        continue
                    for j in range(circuit.width[m]):
                        if root[m, j] != FREE or (pick[m, j] == FAILED and (m != k or i != j)):
                            continue
                        for end in range(2 if circuit.ranged and not circuit.split else 1):
                            kept = choice[k, i]
                            pick[k, i] = SOUND
                            pick[m, j] = FAILED
                            before = choice[m, j]
                            if not circuit.split:
                                choice[m, j] = case.of[LEAST, m, j] if end == 0 else case.of[MOST, m, j]
                            trial = measure(circuit, case, row, pick, choice, work)
                            if trial > best + case.objective[SLACK, row]:
                                best, again = trial, True
                                break
                            choice[m, j] = before
                            pick[m, j] = SOUND
                            pick[k, i] = FAILED
                            choice[k, i] = kept
                        if pick[k, i] != FAILED:
                            break
                    if pick[k, i] != FAILED:
                        break
    return best


@inner
def _told_worse(
    circuit: Circuit, case: Case, row: int, pick: States, choice: Array, best: float, work: Desk
) -> float:
    """Put each receiver's level at the end that makes the objective grow; its value, `best` before."""
    for k in range(1, len(circuit.width)):
        for j in range(circuit.width[k]):
            kept = choice[k, j]
            for end in range(2):
                choice[k, j] = float(end)
                trial = measure(circuit, case, row, pick, choice, work)
                if trial > best + case.objective[SLACK, row]:
                    best, kept = trial, float(end)
                choice[k, j] = kept
    return best
