"""Successive configurations of an exhaustive plan, and any of a sampled one, compiled by Numba.

plans.py is the definition; a test holds the two together. The state is that of lowering.PlanTable.state.
Words of the generator are uint64 throughout, for Numba takes uint32 to int64.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np

from neurofail._numba.lanes import at, gather, inner
from neurofail.lowering import PlanTable

# By block: places, kinds that choose from them, strata; where its kinds, sizes, state and thresholds begin.
_PLACES, _CHOICES, _STRATA, _CHOICE, _SIZE, _STATE, _THRESHOLD, _BLOCK_FIELDS = range(8)
# By kind: first row, variants, whether all share one, whether levels are drawn, most failures; its state.
_FIRST_ROW, _VARIANTS, _JOINT, _DRAWN, _MOST, _POSITIONS, _CHOICE_FIELDS = range(7)

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ONE = np.uint64(1)
# A stream: key, counter (index and block), the words at hand, how many of them are used.
_KEY, _INDEX, _BLOCK, _WORDS, _USED, _STREAM = 0, 2, 4, 5, 9, 10


class Table(NamedTuple):
    """lowering.PlanTable with the places of everything in it; stage is the site table's. `taken` is where the
    room at the end of the state begins.
    """

    slots: int
    targets: int
    blocks: int
    drawn: bool
    taken: int
    block: Any
    choice: Any
    size: Any
    threshold: Any
    stage: Any


def table_of(plan: PlanTable, stage: Any) -> Table:
    """The table of a plan."""
    blocks: list[tuple[int, ...]] = []
    choices: list[tuple[int, ...]] = []
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
        len(blocks),
        plan.drawn,
        state,
        np.array(blocks, np.int64).ravel(),
        np.array(choices, np.int64).ravel(),
        plan.size,
        plan.threshold,
        stage,
    )


class Job(NamedTuple):
    """The rows wanted: of an exhaustive plan from `state` on, of a sampled one from index `first` on."""

    sampled: bool
    seed: Any
    first: Any
    wanted: int
    state: Any
    stream: Any
    rows: Any
    levels: Any


# Both, with pointers for arrays.
_FIELDS = (*Table._fields, *Job._fields)
Work: Any = namedtuple("Work", _FIELDS)  # type: ignore[misc]  # mypy wants the names spelt out
_work = gather(Work)


# ---- Random numbers: Philox 4x32-10 (philox.py says from where) ----


def stream() -> Any:
    """Room for a stream of random numbers."""
    return np.zeros(_STREAM, np.uint64)


@inner
def _seek(stream: Any, seed: Any, index: Any) -> None:
    stream[_KEY], stream[_KEY + 1] = seed & _WORD, seed >> _HALF
    stream[_INDEX], stream[_INDEX + 1] = index & _WORD, index >> _HALF
    stream[_BLOCK] = np.uint64(0)
    stream[_USED] = np.uint64(4)


@inner
def _next_word(stream: Any) -> Any:
    used: Any = np.int64(stream[_USED])
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
def _below(stream: Any, bound: int) -> Any:
    """Below `bound`, each number equally likely (Lemire's rejection)."""
    limit = np.uint64(bound)
    product = _next_word(stream) * limit
    if (product & _WORD) < limit:
        threshold = (_ONE << _HALF) % limit
        while (product & _WORD) < threshold:
            product = _next_word(stream) * limit
    return np.int64(product >> _HALF)


@inner
def _unit(stream: Any) -> Any:
    high = _next_word(stream)
    low = _next_word(stream)
    return np.float64((high << np.uint64(21)) | (low >> np.uint64(11))) * 2.0**-53


@inner
def _stratum(stream: Any, threshold: Any, strata: int) -> Any:
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
def _insert(stage: Any, row: int, level: float, rows: Any, levels: Any, drawn: bool, count: int) -> None:
    """Writes a row in its place among those written: by stage, then by number."""
    i = count
    while i > 0 and (
        stage[rows[i - 1]] > stage[row] or (stage[rows[i - 1]] == stage[row] and rows[i - 1] > row)
    ):
        rows[i] = rows[i - 1]
        if drawn:
            levels[i] = levels[i - 1]
        i -= 1
    rows[i] = row
    if drawn:
        levels[i] = level


@inner
def _sizes(work: Any, b: int) -> Any:
    """How many places each kind takes in block b's stratum."""
    here = at(work.block, b * _BLOCK_FIELDS)
    return at(work.size, here[_SIZE] + work.state[here[_STATE]] * here[_CHOICES])


@inner
def _choice(work: Any, b: int, k: int) -> Any:
    """Kind k of block b."""
    return at(work.choice, (work.block[b * _BLOCK_FIELDS + _CHOICE] + k) * _CHOICE_FIELDS)


@inner
def _write(work: Any, b: int, rows: Any, levels: Any, count: int) -> Any:
    """Writes the rows of block b's selection. Places that earlier kinds took are kept, ascending, at the end
    of the state.
    """
    taken = at(work.state, work.taken)
    held = 0
    sizes = _sizes(work, b)
    for k in range(work.block[b * _BLOCK_FIELDS + _CHOICES]):
        choice = _choice(work, b, k)
        positions = at(work.state, choice[_POSITIONS])
        before = held
        for i in range(sizes[k]):
            place = np.int64(positions[i])
            for t in range(before):
                if taken[t] > place:
                    break
                place += 1
            variant = work.state[0] if choice[_JOINT] else positions[choice[_MOST] + i]
            level = _unit(work.stream) if choice[_DRAWN] else 0.0
            row = choice[_FIRST_ROW] + place * choice[_VARIANTS] + variant
            _insert(work.stage, row, level, rows, levels, work.drawn, count)
            count += 1
            taken[held] = place
            held += 1
        # Ascending again, for the next kind: both halves are.
        for i in range(before, held):
            j = i
            while j > 0 and taken[j - 1] > taken[j]:
                swap = taken[j]
                taken[j] = taken[j - 1]
                taken[j - 1] = swap
                j -= 1
    return count


@inner
def _free(work: Any, b: int, k: int) -> Any:
    """Places that the kinds before k leave free."""
    left = work.block[b * _BLOCK_FIELDS + _PLACES]
    for i in range(k):
        left -= _sizes(work, b)[i]
    return left


# ---- Enumeration ----


@inner
def _first_of(work: Any, b: int, k: int) -> None:
    choice = _choice(work, b, k)
    positions = at(work.state, choice[_POSITIONS])
    for i in range(_sizes(work, b)[k]):
        positions[i] = i
        positions[choice[_MOST] + i] = 0


@inner
def _next_of(work: Any, b: int, k: int) -> Any:
    """The next variants, or the next combination with the first variants; False when there is none."""
    choice = _choice(work, b, k)
    size = _sizes(work, b)[k]
    positions = at(work.state, choice[_POSITIONS])
    variants = at(positions, choice[_MOST])
    if not choice[_JOINT]:
        for i in range(size - 1, -1, -1):
            if variants[i] + 1 < choice[_VARIANTS]:
                variants[i] += 1
                return True
            variants[i] = 0
    places = _free(work, b, k)
    for i in range(size - 1, -1, -1):
        if positions[i] < places - size + i:
            first = positions[i] + 1
            for j in range(i, size):
                positions[j] = first + j - i
            return True
    return False


@inner
def _next_block(work: Any, b: int) -> Any:
    here = at(work.block, b * _BLOCK_FIELDS)
    first, more = 0, False
    for k in range(here[_CHOICES] - 1, -1, -1):
        if _next_of(work, b, k):
            first, more = k + 1, True
            break
    if not more:
        more = work.state[here[_STATE]] + 1 < here[_STRATA]
        work.state[here[_STATE]] = work.state[here[_STATE]] + 1 if more else 0
    for k in range(first, here[_CHOICES]):
        _first_of(work, b, k)
    return more


@inner
def _plain(work: Any) -> Any:
    """Whether the last block's last row is simply the last written, and all that most steps change."""
    b = work.blocks - 1
    if b < 0:
        return False
    choice = _choice(work, b, 0)
    if work.block[b * _BLOCK_FIELDS + _CHOICES] != 1 or (choice[_VARIANTS] > 1 and not choice[_JOINT]):
        return False
    first = work.stage[choice[_FIRST_ROW]]
    for i in range(b):
        other = _choice(work, i, 0)
        rows = work.block[i * _BLOCK_FIELDS + _PLACES] * other[_VARIANTS]
        if work.stage[other[_FIRST_ROW] + rows - 1] > first:
            return False
    return True


@inner
def _repeat(work: Any, rows: Any, count: int, left: int) -> Any:
    """Of a plain plan, the rows of up to `left` configurations that differ from this one, `rows`, in the last
    place alone; returns how many.
    """
    b = work.blocks - 1
    size = _sizes(work, b)[0]
    if size == 0:
        return 0
    choice = _choice(work, b, 0)
    positions = at(work.state, choice[_POSITIONS])
    more = min(work.block[b * _BLOCK_FIELDS + _PLACES] - 1 - positions[size - 1], left)
    for slot in range(work.slots):
        row, step = rows[slot], choice[_VARIANTS] if slot == count - 1 else 0
        for i in range(1, more + 1):
            rows[i * work.slots + slot] = row + i * step
    positions[size - 1] += more
    return more


# ---- Sampling ----


@inner
def _draw(work: Any, b: int) -> None:
    here = at(work.block, b * _BLOCK_FIELDS)
    threshold = at(work.threshold, here[_THRESHOLD])
    strata = here[_STRATA]
    work.state[here[_STATE]] = _stratum(work.stream, threshold, strata) if strata > 1 else 0
    for k in range(here[_CHOICES]):
        choice = _choice(work, b, k)
        positions = at(work.state, choice[_POSITIONS])
        size = _sizes(work, b)[k]
        _subset(work.stream, _free(work, b, k), size, positions)
        for i in range(size):
            free = choice[_VARIANTS] > 1 and not choice[_JOINT]
            positions[choice[_MOST] + i] = _below(work.stream, choice[_VARIANTS]) if free else 0


def write_rows(table: Any, job: Any) -> None:
    """Writes the rows of successive configurations, and their levels where they are drawn."""
    work = _work((table, job))
    plain = not job.sampled and _plain(work)
    c = 0
    while c < job.wanted:
        if job.sampled:
            _seek(work.stream, job.seed, job.first + np.uint64(c))
            work.state[0] = _below(work.stream, work.targets) if work.targets > 1 else 0
            for b in range(work.blocks):
                _draw(work, b)
        rows, levels = at(work.rows, c * work.slots), at(work.levels, c * work.slots)
        count = 0
        for b in range(work.blocks):
            count = _write(work, b, rows, levels, count)
        for i in range(count, work.slots):
            rows[i] = -1
        c += 1
        if plain:
            c += _repeat(work, rows, count, job.wanted - c)
        if not job.sampled:
            b = work.blocks - 1
            while b >= 0 and not _next_block(work, b):
                b -= 1
            if b < 0:
                work.state[0] += 1
