"""What compiled code was made from: the name under which Numba keeps a function's code tells."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any


@cache
def digest(package: str) -> str:
    """What a package's Python files contain, in 16 hexadecimal digits."""
    sources = [path for path in files(package).iterdir() if path.name.endswith(".py")]
    texts = b"".join(path.read_bytes() for path in sorted(sources, key=lambda path: path.name))
    return sha256(texts).hexdigest()[:16]


def sign(function: Callable[..., Any], package: str) -> None:
    """Give a function that is to be compiled a qualified name of its own for each state of its package.

    Numba looks for changes in the function's own file alone; the functions that it calls are often in others.
    """
    function.__qualname__ = f"{function.__name__}_{digest(package)}"
