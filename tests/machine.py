"""What this installation and this machine can run."""

from __future__ import annotations

import importlib.util

from neurofail.kernel import backends

EVERY = ("c/avx512", "c/avx2", "c/portable", "numba", "numpy")


def present(backend: str) -> bool:
    """Whether a backend is there."""
    if backend == "numba":
        return importlib.util.find_spec("neurofail._numba") is not None
    return backend in backends()


# Those that are held to the oracle.
COMPILED = tuple(name for name in EVERY[:-1] if present(name))
