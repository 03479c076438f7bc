"""Which shards are being run right now, so that processes in one folder share the work.

A claim is a byte-range lock on one file: the operating system gives it back when its holder ends, however it
ends, so that nothing goes stale and no clock is asked. Claims only save work: where a file system has no
locks, or another process ignores them, two shards of the same range are written, which join as one.
"""

from __future__ import annotations

import os
from pathlib import Path

from neurofail.dyadic import Range

# File offsets are signed 64-bit numbers; of longer plans neighbouring shards share a byte.
_BITS = 62


class Claims:
    """The claims of one process on the shards of a plan with `count` configurations."""

    def __init__(self, path: Path, count: int) -> None:
        self._shift = max(0, count.bit_length() - _BITS)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def take(self, block: Range) -> bool:
        """Whether the block is now claimed by this process; False if another one has it."""
        try:
            import fcntl
        except ImportError:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, *self._bytes(block))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True  # no locks on this file system
        return True

    def release(self, block: Range) -> None:
        """Gives a block back."""
        try:
            import fcntl

            fcntl.lockf(self._file, fcntl.LOCK_UN, *self._bytes(block))
        except (ImportError, OSError):
            return

    def close(self) -> None:
        """Gives everything back."""
        os.close(self._file)

    def _bytes(self, block: Range) -> tuple[int, int]:
        start, stop = (end >> self._shift for end in block)
        return max(1, stop - start), start
