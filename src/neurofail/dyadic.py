"""The grid that every shard lies on: [k 2^m, (k + 1) 2^m), cut off at the plan's end.

Two such ranges are apart, or one holds the other: they never overlap in part. So shards of any sizes, cut by
any number of processes that know nothing of each other, join without counting a configuration twice and
without running one again: what lies inside a larger shard is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from neurofail.errors import InputError

Range = tuple[int, int]


def at(position: int, wanted: int, stop: int, count: int) -> Range:
    """The largest range of the grid that starts at `position`, holds at most `wanted`, and ends by `stop`.

    >>> at(0, 100, 1000, 1000), at(64, 1000, 1000, 1000), at(960, 64, 1000, 1000), at(96, 64, 1000, 1000)
    ((0, 64), (64, 128), (960, 1000), (96, 128))
    """
    size = 1 << (max(1, wanted).bit_length() - 1)
    if position:
        size = min(size, position & -position)
    while min(position + size, count) > stop:
        size //= 2
    return position, min(position + size, count)


def valid(start: int, stop: int, count: int) -> bool:
    """Whether [start, stop) is a range of the grid over 0 .. count."""
    size = stop - start
    if not 0 <= start < stop <= count:
        return False
    room = start & -start if start else count
    if stop == count:
        return size <= room
    return size & (size - 1) == 0 and size <= room


def holders(start: int, stop: int, count: int) -> Iterable[Range]:
    """The range itself and every range of the grid that holds it, the smallest first."""
    size = 1
    while True:
        first = start // size * size
        last = min(first + size, count)
        if last >= stop:
            yield first, last
            if (first, last) == (0, count):
                return
        size *= 2


def outermost(ranges: Iterable[Range]) -> list[Range]:
    """Those that no other one holds, ascending.

    >>> outermost([(0, 4), (4, 8), (0, 8), (12, 16)])
    [(0, 8), (12, 16)]
    """
    kept: list[Range] = []
    for start, stop in sorted(ranges, key=lambda r: (r[0], -r[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, stop))
    return kept


def gaps(ranges: Sequence[Range], start: int, stop: int) -> list[Range]:
    """What of [start, stop) the ranges (ascending and apart) leave.

    >>> gaps([(2, 4), (6, 9)], 0, 8)
    [(0, 2), (4, 6)]
    """
    left = []
    for first, last in ranges:
        if first > start:
            left.append((start, min(first, stop)))
        start = max(start, last)
        if start >= stop:
            break
    if start < stop:
        left.append((start, stop))
    return [gap for gap in left if gap[0] < gap[1]]


def part(number: int, of: int, count: int) -> Range:
    """The part that job `number` of `of` (from 1) runs: equal to a 64th or so, its ends on a coarse grid.

    Raises InputError unless 1 <= number <= of.

    >>> part(1, 3, 10), part(2, 3, 10), part(3, 3, 10)
    ((0, 3), (3, 6), (6, 10))
    """
    if not 1 <= number <= of:
        raise InputError(f"shard {number}/{of}: shards are numbered 1 to {of}")
    grain = 1 << max(0, (count // (64 * of)).bit_length() - 1)
    cells = count // grain
    first, last = (cells * n // of * grain for n in (number - 1, number))
    return first, count if number == of else last
