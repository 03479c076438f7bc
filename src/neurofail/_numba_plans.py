"""Successive configurations of an exhaustive plan, and any of a sampled one, compiled by Numba.

plans.py is the definition; a test holds the two together. The state is that of lowering.PlanTable.state. Words
of the generator are uint64 throughout, for Numba takes uint32 to int64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from neurofail._numba_lanes import inner
from neurofail.lowering import PlanTable

# By block: places, kinds that choose from them, strata; where its kinds, sizes, state and thresholds begin.
_PLACES, _CHOICES, _STRATA, _CHOICE, _SIZE, _STATE, _THRESHOLD = range(7)
# By kind: first row, variants, whether all share one, whether levels are drawn, most failures; its state.
_FIRST_ROW, _VARIANTS, _JOINT, _DRAWN, _MOST, _POSITIONS = range(6)

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ONE = np.uint64(1)
# A stream: key, counter (index and block), the words at hand, how many of them are used.
_KEY, _INDEX, _BLOCK, _WORDS, _USED, _STREAM = 0, 2, 4, 5, 9, 10


class Table(NamedTuple):
    """lowering.PlanTable with the places of everything in it; stage is the site table's."""

    slots: int
    targets: int
    block: Any
    choice: Any
    size: Any
    threshold: Any
    stage: Any


def table_of(plan: PlanTable, stage: Any) -> Table:
    """The table of a plan."""
    blocks, choices = [], []
    state, size, threshold = 1, 0, 0
    kinds = plan.choice.reshape(-1, 5)
    for places, count, strata in plan.block.reshape(-1, 3).tolist():
        blocks.append((places, count, strata, len(choices), size, state, threshold))
        state += 1
        size += count * strata
        threshold += 2 * strata
        for kind in kinds[len(choices) : len(choices) + count].tolist():
            choices.append((*kind, state))
            state += 2 * kind[4]
    return Table(
        plan.slots,
        plan.targets,
        np.array(blocks, np.int64).reshape(-1, 7),
        np.array(choices, np.int64).reshape(-1, 6),
        plan.size,
        plan.threshold,
        stage,
    )


# ---- Random numbers: Philox 4x32-10 (philox.py says from where) ----


@inner
def _seek(stream: Any, seed: Any, index: Any) -> None:
    stream[_KEY], stream[_KEY + 1] = seed & _WORD, seed >> _HALF
    stream[_INDEX], stream[_INDEX + 1] = index & _WORD, index >> _HALF
    stream[_BLOCK] = np.uint64(0)
    stream[_USED] = np.uint64(4)


@inner
def _next_word(stream: Any) -> Any:
    used = np.int64(stream[_USED])
    if used == 4:
        c0, c1, c2, c3 = stream[_INDEX], stream[_INDEX + 1], stream[_BLOCK], np.uint64(0)
        k0, k1 = stream[_KEY], stream[_KEY + 1]
        for _ in range(10):
            p, q = _M0 * c0, _M1 * c2
            c0, c1, c2, c3 = (q >> _HALF) ^ c1 ^ k0, q & _WORD, (p >> _HALF) ^ c3 ^ k1, p & _WORD
            k0, k1 = (k0 + _W0) & _WORD, (k1 + _W1) & _WORD
        stream[_WORDS], stream[_WORDS + 1], stream[_WORDS + 2], stream[_WORDS + 3] = c0, c1, c2, c3
        stream[_BLOCK] += _ONE
        used = 0
    stream[_USED] = np.uint64(used + 1)
    return stream[_WORDS + used]


@inner
def _below(stream: Any, bound: int) -> int:
    """Below `bound`, each number equally likely (Lemire's rejection)."""
    limit = np.uint64(bound)
    product = _next_word(stream) * limit
    if (product & _WORD) < limit:
        threshold = (_ONE << _HALF) % limit
        while (product & _WORD) < threshold:
            product = _next_word(stream) * limit
    return np.int64(product >> _HALF)


@inner
def _unit(stream: Any) -> float:
    high = _next_word(stream)
    low = _next_word(stream)
    return np.float64((high << np.uint64(21)) | (low >> np.uint64(11))) * 2.0**-53


@inner
def _stratum(stream: Any, threshold: Any, strata: int) -> int:
    """The stratum whose cumulative share is the first above a 128-bit number."""
    high = _next_word(stream) << _HALF
    high |= _next_word(stream)
    low = _next_word(stream) << _HALF
    low |= _next_word(stream)
    first, last = 0, strata - 1
    while first < last:
        middle = (first + last) // 2
        above, below = threshold[2 * middle], threshold[2 * middle + 1]
        if high < above or (high == above and low < below):
            last = middle
        else:
            first = middle + 1
    return first


@inner
def _subset(stream: Any, places: int, size: int, members: Any) -> None:
    """Floyd's algorithm, its members kept ascending."""
    for count in range(size):
        last = places - size + count
        drawn = _below(stream, last + 1)
        i = count
        while i > 0 and members[i - 1] > drawn:
            i -= 1
        if i > 0 and members[i - 1] == drawn:
            members[count] = last
        else:
            for k in range(count, i, -1):
                members[k] = members[k - 1]
            members[i] = drawn


# ---- What a block chose, as rows ----


@inner
def _insert(stage: Any, row: int, level: float, rows: Any, levels: Any, count: int) -> None:
    """Writes a row in its place among those written: by stage, then by number."""
    i = count
    while i > 0 and (
        stage[rows[i - 1]] > stage[row] or (stage[rows[i - 1]] == stage[row] and rows[i - 1] > row)
    ):
        rows[i], levels[i] = rows[i - 1], levels[i - 1]
        i -= 1
    rows[i], levels[i] = row, level


@inner
def _write(table: Any, b: int, state: Any, stream: Any, rows: Any, levels: Any, count: int) -> int:
    """Writes the rows of block b's selection. Places that earlier kinds took are kept, ascending, at the end of
    the state.
    """
    here = table.block[b]
    taken = state[len(state) - table.slots :]
    held = 0
    for k in range(here[_CHOICES]):
        choice = table.choice[here[_CHOICE] + k]
        positions = state[choice[_POSITIONS] :]
        before = held
        for i in range(table.size[here[_SIZE] + state[here[_STATE]] * here[_CHOICES] + k]):
            place = np.int64(positions[i])
            for t in range(before):
                if taken[t] > place:
                    break
                place += 1
            variant = state[0] if choice[_JOINT] else positions[choice[_MOST] + i]
            level = _unit(stream) if choice[_DRAWN] else 0.0
            row = choice[_FIRST_ROW] + place * choice[_VARIANTS] + variant
            _insert(table.stage, row, level, rows, levels, count)
            count += 1
            taken[held] = place
            held += 1
        # Ascending again, for the next kind: both halves are.
        for i in range(before, held):
            j = i
            while j > 0 and taken[j - 1] > taken[j]:
                taken[j - 1], taken[j] = taken[j], taken[j - 1]
                j -= 1
    return count


@inner
def _size(table: Any, b: int, state: Any, k: int) -> int:
    here = table.block[b]
    return np.int64(table.size[here[_SIZE] + state[here[_STATE]] * here[_CHOICES] + k])


@inner
def _free(table: Any, b: int, state: Any, k: int) -> int:
    """Places that the kinds before k leave free."""
    left = table.block[b, _PLACES]
    for i in range(k):
        left -= _size(table, b, state, i)
    return left


# ---- Enumeration ----


@inner
def _first_of(table: Any, b: int, state: Any, k: int) -> None:
    choice = table.choice[table.block[b, _CHOICE] + k]
    for i in range(_size(table, b, state, k)):
        state[choice[_POSITIONS] + i] = i
        state[choice[_POSITIONS] + choice[_MOST] + i] = 0


@inner
def _next_of(table: Any, b: int, state: Any, k: int) -> bool:
    """The next variants, or the next combination with the first variants; False when there is none."""
    choice = table.choice[table.block[b, _CHOICE] + k]
    size = _size(table, b, state, k)
    positions = state[choice[_POSITIONS] :]
    variants = positions[choice[_MOST] :]
    if not choice[_JOINT]:
        for i in range(size - 1, -1, -1):
            variants[i] += 1
            if variants[i] < choice[_VARIANTS]:
                return True
            variants[i] = 0
    places = _free(table, b, state, k)
    for i in range(size - 1, -1, -1):
        if positions[i] < places - size + i:
            positions[i] += 1
            for j in range(i + 1, size):
                positions[j] = positions[j - 1] + 1
            return True
    return False


@inner
def _next_block(table: Any, b: int, state: Any) -> bool:
    here = table.block[b]
    for k in range(here[_CHOICES] - 1, -1, -1):
        if _next_of(table, b, state, k):
            for i in range(k + 1, here[_CHOICES]):
                _first_of(table, b, state, i)
            return True
    more = state[here[_STATE]] + 1 < here[_STRATA]
    state[here[_STATE]] = state[here[_STATE]] + 1 if more else 0
    for k in range(here[_CHOICES]):
        _first_of(table, b, state, k)
    return more


@inner
def _enumerate(table: Any, state: Any, stream: Any, rows: Any, levels: Any) -> None:
    for c in range(len(rows)):
        count = 0
        for b in range(len(table.block)):
            count = _write(table, b, state, stream, rows[c], levels[0], count)
        rows[c, count:] = -1
        b = len(table.block) - 1
        while b >= 0 and not _next_block(table, b, state):
            b -= 1
        if b < 0:
            state[0] += 1


# ---- Sampling ----


@inner
def _draw(table: Any, b: int, state: Any, stream: Any) -> None:
    here = table.block[b]
    strata = here[_STRATA]
    state[here[_STATE]] = (
        _stratum(stream, table.threshold[here[_THRESHOLD] :], strata) if strata > 1 else 0
    )
    for k in range(here[_CHOICES]):
        choice = table.choice[here[_CHOICE] + k]
        positions = state[choice[_POSITIONS] :]
        size = _size(table, b, state, k)
        _subset(stream, _free(table, b, state, k), size, positions)
        for i in range(size):
            free = choice[_VARIANTS] > 1 and not choice[_JOINT]
            positions[choice[_MOST] + i] = _below(stream, choice[_VARIANTS]) if free else 0


@inner
def _sample(table: Any, seed: Any, first: Any, state: Any, stream: Any, rows: Any, levels: Any) -> None:
    for c in range(len(rows)):
        _seek(stream, seed, first + np.uint64(c))
        state[0] = _below(stream, table.targets) if table.targets > 1 else 0
        for b in range(len(table.block)):
            _draw(table, b, state, stream)
        count = 0
        for b in range(len(table.block)):
            count = _write(table, b, state, stream, rows[c], levels[c % len(levels)], count)
        rows[c, count:] = -1
        levels[c % len(levels), count:] = 0.0


def write_rows(
    table: Any, sampled: bool, seed: Any, first: Any, state: Any, stream: Any, rows: Any, levels: Any
) -> None:
    """Writes the rows of successive configurations: of an exhaustive plan from `state` on, of a sampled plan
    from index `first` on. levels (n, slots), or (1, slots) where none are drawn.
    """
    if sampled:
        _sample(table, seed, first, state, stream, rows, levels)
    else:
        _enumerate(table, state, stream, rows, levels)


def stream() -> Any:
    """Room for a stream of random numbers."""
    return np.zeros(_STREAM, np.uint64)
