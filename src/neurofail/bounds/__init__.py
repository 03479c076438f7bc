"""Bounds of the output error in closed form: what is promised before anything is run.

The specification is bounds.md. `rounding` is outward arithmetic, `intervals` says where nominal signals lie,
`deviation` what a failed place can do (section 2), `terms` gathers both, `topology` is section 3, `refined`
section 4, `frontier` the tolerated region of section 6, `arithmetic` what rounding adds to a simulation.
Nothing here has ever seen a simulation.
"""

from __future__ import annotations

from neurofail.bounds.arithmetic import rounding_budget
from neurofail.bounds.front import Bounds, bounds, bounds_of, expected_error, fep, given_set
from neurofail.bounds.frontier import Frontier, tolerance

__all__ = [
    "Bounds",
    "Frontier",
    "bounds",
    "bounds_of",
    "expected_error",
    "fep",
    "given_set",
    "rounding_budget",
    "tolerance",
]
