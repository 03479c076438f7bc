"""The exact worst case: relaxation, branch and bound, certificates."""

from neurofail.search.worst import WorstCase, worst_case

__all__ = ["WorstCase", "worst_case"]
