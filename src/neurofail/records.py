"""What a backend hands back: one record a configuration, and their totals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 514


@dataclass(frozen=True)
class Records:
    """Of each configuration, over the inputs that were run.

    Attributes
    ----------
    errors : (n,) worst error, infinite where an output was NaN or infinite
    sdc, due : (n,) inputs whose class changed, and inputs with a NaN or infinite output
    each : (n, inputs) every evaluation's error, where asked for
    """

    errors: npt.NDArray[np.float64]
    sdc: npt.NDArray[np.int64]
    due: npt.NDArray[np.int64]
    each: npt.NDArray[np.float64] | None = None

    @classmethod
    def empty(cls, count: int, inputs: int | None = None) -> Records:
        """Records of nothing yet, for `count` configurations."""
        each = None if inputs is None else np.zeros((count, inputs))
        return cls(np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.int64), each)

    def joined(self, other: Records) -> Records:
        """The same configurations over both sets of inputs."""
        return Records(np.maximum(self.errors, other.errors), self.sdc + other.sdc, self.due + other.due)


@dataclass(frozen=True)
class Totals:
    """Of successive configurations: the place and size of the first largest error, and counts.

    `histogram` (514,) counts configurations by worst error in quarter octaves from 2^-64 to 2^64; its first
    and last entries hold what lies outside.
    """

    worst: int
    error: float
    sdc: int
    due: int
    exceeded: int
    histogram: npt.NDArray[np.int64]

    @classmethod
    def of(cls, records: Records, epsilon: float) -> Totals:
        """The totals in NumPy: the definition that faster ones are held to."""
        worst = int(np.argmax(records.errors))
        bins = (records.errors.view(np.int64) >> 50) - (1023 - 64) * 4 + 1
        histogram = np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS).astype(np.int64)
        return cls(
            worst,
            float(records.errors[worst]),
            int(records.sdc.sum()),
            int(records.due.sum()),
            int((records.errors > epsilon).sum()),
            histogram,
        )


def edges() -> npt.NDArray[np.float64]:
    """The 513 limits between the histogram's entries."""
    quarters = np.arange(513)
    return np.ldexp(1.0 + (quarters % 4) / 4.0, quarters // 4 - 64)
