"""The combinatorial number system: subsets of {0..n-1} of size k, numbered in lexicographic order."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def unrank(rank: int, n: int, k: int) -> tuple[int, ...]:
    """The k-subset of {0..n-1} with this rank, ascending; 0 <= rank < C(n, k).

    >>> [unrank(r, 4, 2) for r in range(6)]
    [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    """
    # Lexicographic order is the colexicographic one of the mirrored set, read backwards; there the greedy
    # choice of the largest m with C(m, i) <= rest is the subset's next member.
    rest = comb(n, k) - 1 - rank
    members = []
    above = n
    for i in range(k, 0, -1):
        low, high = i - 1, above - 1
        while low < high:
            middle = (low + high + 1) // 2
            if comb(middle, i) <= rest:
                low = middle
            else:
                high = middle - 1
        rest -= comb(low, i)
        members.append(n - 1 - low)
        above = low
    return tuple(members)


def rank(members: Sequence[int], n: int) -> int:
    """The number of an ascending subset of {0..n-1}; the inverse of `unrank`.

    >>> rank((1, 3), 4)
    4
    """
    k = len(members)
    return comb(n, k) - 1 - sum(comb(n - 1 - c, k - i) for i, c in enumerate(members))
