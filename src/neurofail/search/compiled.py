"""How the search's functions are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba as nb

from neurofail.sources import sign

Function = TypeVar("Function", bound=Callable[..., Any])


# Nothing is allocated and nothing owned in compiled code, so that Numba need not count references to each
# array of each argument (`_nrt`); no divisor is ever zero, so that none need be checked (`error_model`). Both
# shorten compilation.
_OPTIONS = {"nogil": True, "no_cfunc_wrapper": True, "error_model": "numpy", "_nrt": False}


def inner(function: Function) -> Function:
    """Compile for callers that are compiled too.

    Without the wrappers for Python and C, which double the time that compilation takes. Calling such a
    function from Python crashes.
    """
    return _compiled(function, no_cpython_wrapper=True)


def outer(function: Function) -> Function:
    """Compile for callers in Python."""
    return _compiled(function)


def _compiled(function: Function, **options: bool) -> Function:
    sign(function, __package__)
    try:
        return nb.njit(cache=True, **options, **_OPTIONS)(function)  # type: ignore[no-any-return]  # Numba's decorator has no types
    except RuntimeError:  # nowhere to write: every process compiles for itself
        return nb.njit(**options, **_OPTIONS)(function)  # type: ignore[no-any-return]  # see above
