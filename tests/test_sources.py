"""What is compiled is kept under a name that tells of every file it was made from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from room import outer
from neurofail.sources import sign

sign(outer.run, "room")
print(outer.run.__qualname__)
"""


def name(folder: Path) -> str:
    """The name that a new process gives `outer.run`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_change_in_a_neighbouring_file_changes_the_name(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    for file in ("__init__", "inner"):
        (room / f"{file}.py").touch()
    (room / "outer.py").write_text("def run(): ...\n")
    before = name(tmp_path)
    assert before.startswith("run_")
    assert name(tmp_path) == before
    (room / "inner.py").write_text("changed = True\n")
    assert name(tmp_path) != before
