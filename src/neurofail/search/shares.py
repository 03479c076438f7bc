"""A second bound for a ReLU of stage 1: what its convexity makes of the failures one by one.

With r failures w_i still to come on top of a pre-activation a, phi(a + sum w_i) is at most the mean of the
phi(a + r w_i): a sum of one share for each failure, where fewer than r count as zeros. No interval enters, so
the sum is tighter than the line over the interval wherever the failures cannot all push the same way. The
leak of a leaky ReLU is at most 1 here, so that phi(x) = gain max(x, leak x).
"""

from __future__ import annotations

from neurofail.search.circuit import (
    FREE,
    FROM,
    GAIN,
    HERE,
    INTO,
    LOW,
    PULL,
    SHARE,
    SHARED,
    SOFT,
    SURE,
    Circuit,
    Desk,
)
from neurofail.search.compiled import inner


@inner
def mean_of_shares(circuit: Circuit, left: int, desk: Desk) -> None:
    """What `share` gives every receiver of stage 1, if stage 0 fails as softly as in SOFT; into SHARED.

    Receivers run innermost, so that no sum is over the fastest index: that would keep one addition waiting
    for another.
    """
    shared, sure = desk.of[SHARED, 1], desk.of[SURE, 1]
    gain, leak = circuit.phi[GAIN, 1], circuit.leak
    receivers = circuit.width[1]
    for j in range(receivers):
        shared[j] = 0.0
    placed, idle = 0.0, 0.0
    for i in range(circuit.width[0]):
        if desk.state[HERE, 0, i] != FREE:
            continue
        soft, step = desk.of[SOFT, 0, i], left * desk.of[LOW, 0, i]
        placed += soft
        if step == 0.0:
            idle += soft
            continue
        for j in range(receivers):
            x = sure[j] + step * circuit.link[FROM, 0, i, j]
            shared[j] += soft * max(x, leak * x)
    # Fewer failures than there could be leave the rest of the shares where they start.
    idle += left - placed
    scale = gain / left
    for j in range(receivers):
        shared[j] = scale * (shared[j] + idle * max(sure[j], leak * sure[j]))


@inner
def share(circuit: Circuit, j: int, left: int, desk: Desk) -> float:
    """Bound neuron j of stage 1: add the shares to SHARE, return what the bound is without failures."""
    gain, leak, sure = circuit.phi[GAIN, 1], circuit.leak, desk.of[SURE, 1, j]
    start = max(sure, leak * sure)
    pull, scale = desk.of[PULL, 1, j], desk.of[PULL, 1, j] * gain / left
    for i in range(circuit.width[0]):
        x = sure + left * desk.of[LOW, 0, i] * circuit.link[INTO, 0, j, i]
        desk.of[SHARE, 0, i] += scale * (max(x, leak * x) - start)
    alone: float = pull * gain * start
    return alone
