"""What every backend offers to run a plan on its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from neurofail.records import Records, Totals

Rows = npt.NDArray[np.int32]


class Session(ABC):
    """A plan on its inputs, packed for a backend; safe to share between threads.

    Inputs are run in `blocks`; a range of configurations on a range of blocks gives `Records`.
    """

    blocks: int
    inputs: int

    @abstractmethod
    def golden(self, first: int, last: int) -> None:
        """The golden run of blocks first .. last - 1; it comes before any desk."""

    @abstractmethod
    def rows(self, start: int, count: int) -> tuple[Rows, Any]:
        """The site rows (count, slots) of successive configurations, and their levels where drawn."""

    @abstractmethod
    def desk(self) -> Any:
        """One thread's working memory."""

    @abstractmethod
    def evaluate(
        self, rows: Rows, levels: Any, first: int, last: int, desk: Any, each: bool = False
    ) -> Records:
        """The worst error and the outcomes of each configuration on blocks first .. last - 1."""

    @abstractmethod
    def tally(self, records: Records, epsilon: float) -> Totals:
        """The totals of evaluated configurations; `worst` counts from the first of them."""

    def totals(self, start: int, count: int, epsilon: float, desk: Any) -> Totals:
        """All of this for configurations start .. start + count - 1 on all inputs."""
        rows, levels = self.rows(start, count)
        return self.tally(self.evaluate(rows, levels, 0, self.blocks, desk), epsilon)
