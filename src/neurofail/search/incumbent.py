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
from neurofail.search.compiled import outer
from neurofail.search.relaxation import measure


def improve(circuit: Circuit, case: Case, row: int, root: States, pick: States, choice: Array) -> float:
    """Swap failed neurons for sound ones, and ends of a range, while the objective grows; its final value.

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
                        for end in range(2 if circuit.ranged else 1):
                            kept = choice[k, i]
                            pick[k, i] = SOUND
                            pick[m, j] = FAILED
                            before = choice[m, j]
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


def value_of(circuit: Circuit, case: Case, row: int, pick: States, choice: Array) -> float:
    """The objective of one configuration."""
    return measure(circuit, case, row, pick, choice, desk(pick.shape))
