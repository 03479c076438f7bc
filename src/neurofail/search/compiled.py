"""How the search's functions are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba as nb

Function = TypeVar("Function", bound=Callable[..., Any])


def inner(function: Function) -> Function:
    """Compile for callers that are compiled too.

    Without the wrappers for Python and C, which double the time that compilation takes. Calling such a
    function from Python crashes.
    """
    compile_ = nb.njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    return compile_(function)  # type: ignore[no-any-return]  # see above


def outer(function: Function) -> Function:
    """Compile for callers in Python."""
    compile_ = nb.njit(cache=True, nogil=True, no_cfunc_wrapper=True)
    return compile_(function)  # type: ignore[no-any-return]  # see above
