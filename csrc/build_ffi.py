"""The cffi builder: the declarations are neurofail.h itself, so they cannot drift from it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
# Python's own flags promise that signed numbers wrap, which costs indices that here never do.
FLAGS = ["-O3", "-std=c17", "-ffp-contract=off", "-fno-wrapv", "-Wall", "-Wextra", "-fvisibility=hidden"]
SOURCES = ("dispatch.c", "plan.c", "kernel_portable.c", "kernel_avx2.c", "kernel_avx512.c")


def declarations() -> str:
    """The header without comments and preprocessor lines, which cffi does not read."""
    text = re.sub(r"/\*.*?\*/", "", (HERE / "neurofail.h").read_text(), flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def relative(name: str) -> str:
    """A source as setuptools wants it: relative to the project, with forward slashes."""
    return f"{HERE.name}/{name}"


ffi = FFI()
ffi.cdef(declarations())
ffi.set_source(
    "neurofail._kernel",
    '#include "neurofail.h"',
    sources=[relative(name) for name in SOURCES],
    depends=[relative(path.name) for path in sorted(HERE.glob("*.[hi]*"))],
    include_dirs=[HERE.name],
    extra_compile_args=[] if sys.platform == "win32" else FLAGS,
    # Without a C compiler the installation still succeeds, and Numba does the work.
    optional=True,
)
