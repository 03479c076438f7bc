"""The counter-based generator behind sampled plans: Philox 4x32-10, keyed by (seed, index).

J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
Every number is a pure function of (seed, index, position): no state, no order, nothing to share.
"""

from __future__ import annotations

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def block(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox 4x32: four 32-bit words.

    >>> [hex(word) for word in block((0, 0, 0, 0), (0, 0))]  # known answer of the authors' library
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


class Stream:
    """The words that belong to one (seed, index), in order."""

    def __init__(self, seed: int, index: int) -> None:
        self._key = (seed & _WORD, seed >> 32)
        self._index = index
        self._block = 0
        self._words: list[int] = []

    def word(self) -> int:
        """The next 32-bit word."""
        if not self._words:
            counter = (self._index & _WORD, self._index >> 32, self._block, 0)
            self._words = list(reversed(block(counter, self._key)))
            self._block += 1
        return self._words.pop()

    def below(self, bound: int) -> int:
        """A number in [0, bound), 1 <= bound <= 2^32, every one equally likely.

        D. Lemire, "Fast random integer generation in an interval", ACM TOMACS 29(1), 2019: the high half of
        word * bound, with the few words rejected that would favour some results.
        """
        product = self.word() * bound
        if (product & _WORD) < bound:
            threshold = (1 << 32) % bound
            while (product & _WORD) < threshold:
                product = self.word() * bound
        return product >> 32

    def wide(self) -> int:
        """A 128-bit number: four words, the first the most significant."""
        value = 0
        for _ in range(4):
            value = value << 32 | self.word()
        return value

    def unit(self) -> float:
        """A float64 in [0, 1): 53 bits of two words."""
        high, low = self.word(), self.word()
        return ((high << 21) | (low >> 11)) * 2.0**-53
