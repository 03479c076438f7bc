"""A tally is a commutative monoid over disjoint ranges of one campaign."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import random_inputs, random_network

from neurofail.errors import InputError
from neurofail.faults import Crash, StuckAt
from neurofail.plans import Exhaustive, Sampled
from neurofail.records import BINS, Records, Totals, edges
from neurofail.tally import Setup, Sum, Tally, Worst, union

NET = random_network((2, 6, 5, 3))
PLAN = Exhaustive(NET, Crash(), (2, 2))
SETUP = Setup(PLAN, random_inputs(NET, 4), "float32", float("inf"))
COUNT = 60

# What configuration i has: from a table, so that equal errors abound.
errors = st.lists(st.sampled_from([0.0, 0.25, 0.5, np.inf]), min_size=COUNT, max_size=COUNT)
cuts = st.sets(st.integers(1, COUNT - 1), max_size=8)


def tally(table: list[float], start: int, stop: int) -> Tally:
    """What a run of start .. stop - 1 would keep, straight from the definition."""
    if start == stop:
        return Tally.empty(SETUP)
    index = min(range(start, stop), key=lambda i: (-table[i], i))
    histogram = np.zeros(BINS, np.int64)
    for i in range(start, stop):
        histogram[int(np.searchsorted(edges(), table[i], side="right"))] += 1
    worst = Worst(table[index], index, PLAN[index], index % 4, index % 3, table[index])
    sdc = sum(i % 5 for i in range(start, stop))
    due = sum(table[i] == np.inf for i in range(start, stop))
    return Tally(SETUP, ("c/avx2",), ((start, stop),), worst, sdc, due, 0, histogram)


@given(table=errors, at=cuts, order=st.randoms(use_true_random=False))
def test_any_cut_in_any_order_is_the_whole(table: list[float], at: set[int], order: object) -> None:
    limits = [0, *sorted(at), COUNT]
    parts = [tally(table, a, b) for a, b in pairwise(limits)]
    order.shuffle(parts)  # type: ignore[attr-defined]  # a random.Random
    merged = Tally.empty(SETUP)
    for part in parts:
        merged = merged.merge(part)
    assert merged.to_bytes() == tally(table, 0, COUNT).to_bytes()


@given(table=errors, at=st.tuples(*[st.integers(0, COUNT)] * 4))
def test_the_laws_of_a_commutative_monoid(table: list[float], at: tuple[int, ...]) -> None:
    i, j, k, m = sorted(at)
    a, b, c = tally(table, i, j), tally(table, j, k), tally(table, k, m)
    zero = Tally.empty(SETUP)
    assert a.merge(zero) == zero.merge(a) == a
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b).merge(c) == tally(table, i, m)


@given(table=errors, a=st.tuples(*[st.integers(0, COUNT)] * 2), b=st.tuples(*[st.integers(0, COUNT)] * 2))
def test_an_overlap_is_refused_and_nothing_else(
    table: list[float], a: tuple[int, int], b: tuple[int, int]
) -> None:
    one, two = tally(table, min(a), max(a)), tally(table, min(b), max(b))
    overlap = set(range(min(a), max(a))) & set(range(min(b), max(b)))
    if overlap:
        with pytest.raises(InputError, match=f"configurations {min(overlap)} to {max(overlap)} are in both"):
            one.merge(two)
    else:
        assert one.merge(two).count == one.count + two.count


def test_a_tally_does_not_merge_with_itself() -> None:
    one = tally([0.5] * COUNT, 3, 9)
    with pytest.raises(InputError, match="configurations 3 to 8 are in both tallies"):
        one.merge(one)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (replace(SETUP, dtype="float64"), "dtype"),
        (replace(SETUP, epsilon=1.0), "epsilon"),
        (replace(SETUP, inputs=random_inputs(NET, 4, seed=9)), "inputs"),
        (replace(SETUP, inputs=SETUP.inputs[:3]), "inputs"),
        (replace(SETUP, plan=Exhaustive(NET, Crash(), (2, 1))), "failures"),
        (replace(SETUP, plan=Exhaustive(NET, Crash(), (2, 2), at_most=True)), "at_most"),
        (replace(SETUP, plan=Exhaustive(NET, StuckAt(1.0), (2, 2))), "faults"),
        (replace(SETUP, plan=Sampled(NET, Crash(), (2, 2), count=9)), "count, plan, seed"),
        (replace(SETUP, plan=Exhaustive(random_network((2, 6, 5, 3), seed=1), Crash(), (2, 2))), "network"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_questions_do_not_merge_and_the_difference_is_named(other: Setup, differs: str) -> None:
    with pytest.raises(InputError, match=f"different campaigns: {differs} differ"):
        Tally.empty(SETUP).merge(Tally.empty(other))


def test_a_question_is_its_description() -> None:
    same = Setup(Exhaustive(NET, Crash(), [2, 2]), SETUP.inputs.copy(), "float32", float("inf"))
    assert same.digest == SETUP.digest
    flipped = replace(SETUP, inputs=np.asfortranarray(SETUP.inputs))
    assert flipped.digest == SETUP.digest


def test_backends_of_both_parts_are_named() -> None:
    a = tally([0.5] * COUNT, 0, 5)
    b = replace(tally([0.5] * COUNT, 5, 9), backends=("numba",))
    assert a.merge(b).backend == b.merge(a).backend == "c/avx2+numba"


@given(spans=st.sets(st.integers(0, 40), max_size=20), split=st.randoms(use_true_random=False))
def test_union_joins_exactly_what_touches(spans: set[int], split: object) -> None:
    mine = [(i, i + 1) for i in sorted(spans) if split.random() < 0.5]  # type: ignore[attr-defined]  # a Random
    others = [(i, i + 1) for i in sorted(spans) if (i, i + 1) not in mine]
    joined = union(mine, others)
    assert {i for a, b in joined for i in range(a, b)} == spans
    assert all(a < b < c for (a, b), (c, _) in pairwise(joined))


def test_ranges_beyond_64_bits() -> None:
    far = 10**30
    assert union([(0, far)], [(far, far + 1)]) == ((0, far + 1),)
    with pytest.raises(InputError, match=f"configurations {far - 1} to {far - 1}"):
        union([(0, far)], [(far - 1, far + 1)])


@given(table=errors, order=st.permutations(range(6)))
def test_a_sum_does_not_depend_on_the_order_of_arrival(table: list[float], order: list[int]) -> None:
    def of(part: int) -> Totals:
        some = np.array(table[part * 10 : part * 10 + 10])
        return Totals.of(Records(some, np.arange(10), np.arange(10) % 2), 0.25)

    total, straight = Sum(), Sum()
    for part in order:
        total.add(part * 10, of(part))
    straight.add(0, Totals.of(Records(np.array(table), np.tile(np.arange(10), 6), np.arange(60) % 2), 0.25))
    assert (total.worst, total.error) == (straight.worst, straight.error)
    assert (total.sdc, total.due, total.exceeded) == (straight.sdc, straight.due, straight.exceeded)
    assert total.histogram.tolist() == straight.histogram.tolist()


def test_the_edges_of_the_histogram() -> None:
    limits = edges()
    assert (limits[0], limits[-1]) == (2.0**-64, 2.0**64)
    assert limits[64 * 4 : 64 * 4 + 5].tolist() == [1.0, 1.25, 1.5, 1.75, 2.0]
    at = [0.0, 2.0**-65, 2.0**-64, 1.0, 1.2499999, 1.25, 2.0**64, np.inf]
    found = [
        int(Totals.of(Records(np.array([e]), np.zeros(1, int), np.zeros(1, int)), 0).histogram.argmax())
        for e in at
    ]
    assert found == [0, 0, 1, 257, 257, 258, 513, 513]


def test_infinity_is_kept_as_a_word_and_bytes_stay_json() -> None:
    one = tally([np.inf] * COUNT, 0, 2)
    assert b'"error":"inf"' in one.to_bytes()
