"""The grid of shards: ranges are apart or nested, and everything is covered once."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofail import dyadic
from neurofail.errors import InputError

counts = st.one_of(st.integers(1, 300), st.integers(1, 10**30))


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, list[dyadic.Range]]:
    """A plan's size, and how a process with changing wishes cuts a part of it."""
    count = draw(st.integers(1, 300))
    stop = draw(st.integers(1, count))
    at = draw(st.integers(0, stop - 1))
    blocks = []
    while at < stop:
        block = dyadic.at(at, draw(st.integers(1, 100)), stop, count)
        blocks.append(block)
        at = block[1]
    return count, blocks


@given(cuts())
def test_a_process_cuts_its_part_without_gap_or_overlap(cut: tuple[int, list[dyadic.Range]]) -> None:
    count, blocks = cut
    assert all(dyadic.valid(*block, count) for block in blocks)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(blocks))


@given(st.data(), counts)
def test_two_ranges_of_the_grid_are_apart_or_nested(data: st.DataObject, count: int) -> None:
    blocks = []
    for _ in range(2):
        at = data.draw(st.integers(0, count - 1))
        blocks.append(dyadic.at(at, data.draw(st.integers(1, count)), count, count))
    (a, b), (c, d) = blocks
    assert b <= c or d <= a or (a <= c and d <= b) or (c <= a and b <= d)


@given(st.data(), st.integers(1, 200))
def test_what_is_left_out_is_held_by_what_is_kept(data: st.DataObject, count: int) -> None:
    starts = data.draw(st.lists(st.integers(0, count - 1), max_size=20))
    blocks = [dyadic.at(s, data.draw(st.integers(1, count)), count, count) for s in starts]
    kept = dyadic.outermost(blocks)
    covered = {i for a, b in blocks for i in range(a, b)}
    assert sum(b - a for a, b in kept) == len(covered)
    assert {i for a, b in kept for i in range(a, b)} == covered
    assert {i for a, b in dyadic.gaps(kept, 0, count) for i in range(a, b)} == set(range(count)) - covered


@given(st.data(), counts)
def test_the_holders_of_a_range_are_the_ranges_of_the_grid_that_contain_it(
    data: st.DataObject, count: int
) -> None:
    at = data.draw(st.integers(0, count - 1))
    block = dyadic.at(at, data.draw(st.integers(1, count)), count, count)
    holders = list(dyadic.holders(*block, count))
    assert block in holders
    assert (0, count) in holders
    for first, last in holders:
        assert first <= block[0] < block[1] <= last
        assert dyadic.valid(first, last, count)


def test_the_holders_are_all_of_them() -> None:
    every = [(a, b) for a in range(23) for b in range(a + 1, 24) if dyadic.valid(a, b, 23)]
    for block in every:
        holders = set(dyadic.holders(*block, 23))
        assert holders == {other for other in every if other[0] <= block[0] and block[1] <= other[1]}


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (1, 3), (2, 6), (5, 5), (-1, 0), (8, 12), (4, 11)])
def test_a_range_off_the_grid_is_known(start: int, stop: int) -> None:
    assert not dyadic.valid(start, stop, 10)


def test_a_long_enumeration_has_a_grid_too() -> None:
    count = 10**30
    at = 3 << 80
    assert dyadic.at(at, 10**29, count, count) == (at, at + (1 << 80))


@given(counts, st.integers(1, 40))
def test_the_parts_of_an_array_job_cover_the_plan(count: int, of: int) -> None:
    parts = [dyadic.part(i, of, count) for i in range(1, of + 1)]
    assert parts[0][0] == 0
    assert parts[-1][1] == count
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    if count >= 64 * of:
        sizes = [b - a for a, b in parts]
        assert max(sizes) <= 1.1 * min(sizes)


def test_a_part_of_a_large_plan_is_cut_into_few_shards() -> None:
    start, stop = dyadic.part(3, 7, 10**9)
    blocks = 0
    while start < stop:
        start = dyadic.at(start, 1 << 20, stop, 10**9)[1]
        blocks += 1
    assert blocks < 1.1 * 10**9 / 7 / (1 << 20) + 8


@pytest.mark.parametrize(("number", "of"), [(0, 3), (4, 3), (1, 0)])
def test_a_part_that_is_none_is_refused(number: int, of: int) -> None:
    with pytest.raises(InputError, match="numbered 1 to"):
        dyadic.part(number, of, 100)


def test_shards_found_in_any_order_give_the_same_ranges() -> None:
    blocks = [(0, 64), (64, 128), (0, 256), (512, 513), (256, 512)]
    for seed in range(5):
        random.Random(seed).shuffle(blocks)
        assert dyadic.outermost(blocks) == [(0, 256), (256, 512), (512, 513)]
