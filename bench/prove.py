"""Proves that the regression checks notice: a deliberate slowdown is caught, unchanged code raises no alarm.

    python bench/prove.py                         # every C backend, ten runs; takes long
    python bench/prove.py --backend c/avx512 --runs 3

In a scratch copy of the repository: builds the kernel, writes a baseline, compares unchanged code with it
`--runs` times; then makes the kernel do 15 % of its configurations twice (their results are thrown away, so
that every answer stays right), rebuilds, and compares again. The same for the instruction counts. Exits 0
only if the slowdown was caught and nothing else raised an alarm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CALL = "    find(model->isa, model->bits)->evaluate("
SLOWER = """    int64_t again = (n * {percent} + 50) / 100;
    find(model->isa, model->bits)->evaluate(workspace, again, rows, levels, share, first, last, errors, sdc,
                                            due, NULL);
    memset(errors, 0, (size_t)again * sizeof *errors);
    memset(sdc, 0, (size_t)again * sizeof *sdc);
    memset(due, 0, (size_t)again * sizeof *due);
"""


def copied(scratch: Path) -> Path:
    """The repository without what is not tracked or built."""
    where = scratch / "neurofail"
    for part in ("src", "csrc", "bench"):
        shutil.copytree(ROOT / part, where / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, where)
    return where


def build(where: Path) -> None:
    """Builds the extension in place."""
    shutil.rmtree(where / "build", ignore_errors=True)
    subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"], cwd=where, check=True, capture_output=True
    )


def slow_down(where: Path, percent: int) -> None:
    """Makes the kernel run `percent` of its configurations twice."""
    source = where / "csrc" / "dispatch.c"
    text = source.read_text()
    assert text.count(CALL) == 1, "dispatch.c does not look as expected: adapt CALL"
    source.write_text(text.replace(CALL, SLOWER.format(percent=percent) + CALL))


def status(where: Path, *command: str) -> int:
    """Runs a check in the copy, shows what it says, and gives its exit status."""
    began = time.monotonic()
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run(
        [sys.executable, *command], cwd=where, env={**os.environ, "PYTHONPATH": str(where / "src")}
    )
    print(f"exit status {done.returncode}, {time.monotonic() - began:.0f} s\n", flush=True)
    return done.returncode


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backend", action="append", help="such as c/avx2, repeatable (default: every C one)"
    )
    parser.add_argument("--runs", type=int, default=10, help="of unchanged code (default 10)")
    parser.add_argument("--percent", type=int, default=15, help="of the slowdown (default 15)")
    asked = parser.parse_args()
    timed = ["bench/regress.py", *(word for name in asked.backend or [] for word in ("--backend", name))]
    with tempfile.TemporaryDirectory() as scratch:
        where = copied(Path(scratch))
        build(where)
        status(where, *timed, "--update")
        status(where, "bench/callgrind.py", "--update")
        alarms = sum(status(where, *timed) != 0 for _ in range(asked.runs))
        counted = status(where, "bench/callgrind.py")
        slow_down(where, asked.percent)
        build(where)
        caught = status(where, *timed)
        caught_counting = status(where, "bench/callgrind.py")
    print(f"unchanged code: {alarms} alarms in {asked.runs} runs, {counted} by instruction count")
    print(f"{asked.percent} % slower: {'caught' if caught == 1 else 'MISSED'} by the clock,", end=" ")
    print(f"{'caught' if caught_counting == 1 else 'MISSED'} by instruction count")
    return 0 if (alarms, counted, caught, caught_counting) == (0, 0, 1, 1) else 1


if __name__ == "__main__":
    sys.exit(main())
