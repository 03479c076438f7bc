"""Numbers as JSON can hold them."""

from __future__ import annotations

import math


def plain(number: float) -> float | str:
    """The number, or its name where JSON has none for it.

    >>> plain(1.5), plain(math.inf)
    (1.5, 'inf')
    """
    return number if math.isfinite(number) else str(number)
