"""Philox 4x32-10 against the authors' known answers, and what is drawn from it against exact shares."""

from __future__ import annotations

from collections import Counter

import pytest

from neurofail.philox import Stream, block

# Random123's kat_vectors, the lines for philox4x32 with 10 rounds: counter, key, answer.
KNOWN = """
00000000 00000000 00000000 00000000  00000000 00000000  6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff  ffffffff ffffffff  408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344  a4093822 299f31d0  d16cfe09 94fdcceb 5001e420 24126ea1
"""


@pytest.mark.parametrize("line", KNOWN.strip().splitlines(), ids=("zeros", "ones", "pi"))
def test_known_answers_of_the_authors(line: str) -> None:
    words = [int(word, 16) for word in line.split()]
    assert block(tuple(words[:4]), tuple(words[4:6])) == tuple(words[6:])  # type: ignore[arg-type]  # 4 and 2


def test_a_stream_is_the_blocks_of_its_index_under_the_key_of_its_seed() -> None:
    seed, index = 0x299F31D0A4093822, 0x85A308D3243F6A88
    words = [
        *block((0x243F6A88, 0x85A308D3, 0, 0), (0xA4093822, 0x299F31D0)),
        *block((0x243F6A88, 0x85A308D3, 1, 0), (0xA4093822, 0x299F31D0)),
    ]
    stream = Stream(seed, index)
    assert [stream.word() for _ in range(8)] == words


def test_streams_of_other_seeds_and_indices_differ() -> None:
    firsts = {Stream(seed, index).word() for seed in (0, 1, 1 << 32, 1 << 63) for index in (0, 1, 1 << 32)}
    assert len(firsts) == 12


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 3 << 30, (1 << 32) - 1, 1 << 32])
def test_below_stays_below(bound: int) -> None:
    stream = Stream(1, 2)
    drawn = [stream.below(bound) for _ in range(2000)]
    assert min(drawn) >= 0
    assert max(drawn) < bound
    assert max(drawn) >= 0.9 * (bound - 1)


def test_below_rejects_what_would_favour_some_numbers() -> None:
    """Of 2^32 words a bound of 3 * 2^30 takes 3 * 2^30; taking all would hit each third twice as often."""
    counts = Counter(Stream(0, i).below(3 << 30) % 3 for i in range(9000))
    # Without rejection, multiples of 3 would come with probability 1/2. Five deviations of a fair draw.
    assert all(abs(counts[i] - 3000) < 5 * (9000 * 2 / 9) ** 0.5 for i in range(3))


def test_unit_is_a_double_in_the_unit_interval() -> None:
    drawn = [Stream(5, i).unit() for i in range(4000)]
    assert 0 <= min(drawn) < 0.01
    assert 0.99 < max(drawn) < 1
    assert abs(sum(drawn) / 4000 - 0.5) < 5 * (1 / 12 / 4000) ** 0.5
    assert any(x * 2**52 % 1 for x in drawn)  # all 53 bits are used


def test_wide_is_four_words_the_first_foremost() -> None:
    a, b, c, d = block((9, 0, 0, 0), (7, 0))
    assert Stream(7, 9).wide() == (a << 96) | (b << 64) | (c << 32) | d
