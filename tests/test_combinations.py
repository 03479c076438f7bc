"""The combinatorial number system: lexicographic, and its own inverse at any size."""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofail.combinations import rank, unrank


@pytest.mark.parametrize(("n", "k"), [(n, k) for n in range(8) for k in range(n + 1)])
def test_every_subset_in_the_order_of_itertools(n: int, k: int) -> None:
    subsets = list(combinations(range(n), k))
    assert [unrank(r, n, k) for r in range(comb(n, k))] == subsets
    assert [rank(s, n) for s in subsets] == list(range(comb(n, k)))


@given(data=st.data(), n=st.integers(1, 3000))
def test_rank_undoes_unrank_far_out(data: st.DataObject, n: int) -> None:
    k = data.draw(st.integers(0, min(n, 60)))
    number = data.draw(st.integers(0, comb(n, k) - 1))
    members = unrank(number, n, k)
    assert len(members) == k
    assert list(members) == sorted(set(members))
    assert all(0 <= m < n for m in members)
    assert rank(members, n) == number


def test_the_ends_of_a_large_system() -> None:
    n, k = 4096, 40
    assert unrank(0, n, k) == tuple(range(k))
    assert unrank(comb(n, k) - 1, n, k) == tuple(range(n - k, n))
    assert rank(unrank(10**30, n, k), n) == 10**30


def test_a_number_by_hand() -> None:
    # Of the C(5, 3) = 10 subsets of {0..4}: 6 begin with 0, then (1,2,3), (1,2,4), (1,3,4), (2,3,4).
    assert unrank(6, 5, 3) == (1, 2, 3)
    assert unrank(8, 5, 3) == (1, 3, 4)
