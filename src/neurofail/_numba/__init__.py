"""The Numba backend: the C kernel's algorithm and interface, where no C compiler was at hand."""

from neurofail._numba.session import Session

__all__ = ["Session"]
