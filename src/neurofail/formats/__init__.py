"""Files in, networks and inputs out. Nothing here unpickles, executes, or trusts a header."""

from __future__ import annotations

from pathlib import Path

from neurofail.errors import InputError
from neurofail.network import Network


def load(path: str | Path) -> Network:
    """The network stored at `path` (an npz written by `Network.save`).

    Raises
    ------
    InputError : no such file, another kind of file, or one that is damaged or hostile.
    """
    from neurofail.formats import npz

    if Path(path).suffix != ".npz":
        raise InputError(f"{path}: unknown kind of network file; known is .npz")
    return npz.load(path)
