"""The exact worst case: relaxation, branch and bound, certificates."""

from neurofail.search.answer import WorstCase, WorstMargin
from neurofail.search.box import WorstInBox, worst_in_box
from neurofail.search.worst import worst_case, worst_margin

__all__ = ["WorstCase", "WorstInBox", "WorstMargin", "worst_case", "worst_in_box", "worst_margin"]
