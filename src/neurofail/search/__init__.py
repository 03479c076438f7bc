"""The exact worst case: relaxation, branch and bound, certificates."""

from neurofail.search.answer import WorstCase, WorstMargin
from neurofail.search.worst import worst_case, worst_margin

__all__ = ["WorstCase", "WorstMargin", "worst_case", "worst_margin"]
