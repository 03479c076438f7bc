"""A search under way, as a file: what `rounds.Search` needs to go on exactly where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from neurofail.errors import InputError
from neurofail.search.problem import Problem
from neurofail.search.rounds import Best, Block, Search
from neurofail.sources import digest


def identity(problem: Problem, gap: float) -> str:
    """SHA-256 of everything that the search's course depends on, its own code included."""
    sha = hashlib.sha256((problem.net.digest + digest(__package__)).encode())
    sha.update(json.dumps([problem.budget.describe(), problem.counts, gap], sort_keys=True).encode())
    for array in (problem.inputs, problem.rows, problem.offsets, problem.asked):
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _draft(path: Path) -> Path:
    """Where this process writes before it replaces `path`: two searches may share one."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def prepare(path: Path) -> None:
    """InputError for a path where nothing can be kept: better before a long search than after it."""
    try:
        with _draft(path).open("wb"):
            pass
        _draft(path).unlink()
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
    except OSError as error:
        raise InputError(
            f"checkpoint {path} cannot be written ({error.strerror}); name a file in a folder of yours"
        ) from None


def keep(search: Search, path: Path) -> None:
    """`save`, if the disk lets it: what was found so far is worth more than the file."""
    try:
        save(search, path)
    except OSError as error:
        _draft(path).unlink(missing_ok=True)
        warnings.warn(f"checkpoint {path} was not written ({error.strerror})", stacklevel=2)


def save(search: Search, path: Path) -> None:
    """Write the search to `path`; a torn write leaves the previous file."""
    blocks = [block for _, _, block in sorted(search.blocks, key=lambda entry: entry[:2])]
    none, size = np.zeros(0), search.problem.root.size
    columns = {
        "input": np.array([block.input for block in blocks], dtype=np.int64),
        "rows": np.concatenate([none.astype(np.int64), *(b.rows for b in blocks)]),
        "limits": np.concatenate([none, *(b.limits for b in blocks)]),
        "sound": np.concatenate(
            [np.packbits(np.zeros((0, size), np.bool_), axis=1), *(b.sound for b in blocks)]
        ),
        "node": np.concatenate([none.astype(np.int64), *(b.node for b in blocks)]),
        "place": np.concatenate([none.astype(np.int64), *(b.place for b in blocks)]),
        "low": np.concatenate([none, *(b.low for b in blocks)]),
        "high": np.concatenate([none, *(b.high for b in blocks)]),
        "tuned": np.concatenate(
            [np.zeros((0, 2, search.problem.circuit.side), np.float32), *(b.tuned for b in blocks)]
        ),
    }
    best = search.best
    draft = _draft(path)
    with draft.open("wb") as file:
        np.savez(
            file,
            identity=np.array(identity(search.problem, search.gap)),
            sizes=np.array([len(block.rows) for block in blocks], dtype=np.int64),
            decided=np.array([len(block.node) for block in blocks], dtype=np.int64),
            course=np.array([search.fresh, search.polished, search.nodes], dtype=np.int64),
            limits_seen=np.array([search.slack, search.closed]),
            found=np.array([] if best is None else [best.value, best.input, best.row]),
            pick=np.zeros(search.problem.shape, np.int8) if best is None else best.pick,
            choice=np.zeros(search.problem.shape) if best is None else best.choice,
            **columns,  # type: ignore[arg-type]  # taken for one of its own options
        )
    os.replace(draft, path)


def load(search: Search, path: Path) -> None:
    """Put `search` where the file says it was.

    Raises InputError for a file that is none of ours, or of another question.
    """
    from neurofail.formats.arrays import read_npz

    try:
        kept: dict[str, npt.NDArray[Any]] = dict(read_npz(path))
        known = str(kept["identity"])
    except (InputError, KeyError) as error:
        raise InputError(f"checkpoint {path} cannot be read ({error}); delete it to start afresh") from None
    if known != identity(search.problem, search.gap):
        raise InputError(
            f"checkpoint {path} belongs to another network, input, fault, count or gap, or to another "
            "version of neurofail; name another file"
        )
    try:
        _restore(search, kept)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(f"checkpoint {path} is damaged ({error}); delete it to start afresh") from None


def _fit(search: Search, kept: Mapping[str, npt.NDArray[Any]]) -> None:
    """ValueError where the arrays are not of one search: a node that got lost would never be missed."""
    nodes, decided = int(kept["sizes"].sum()), int(kept["decided"].sum())
    ends = decided if search.problem.circuit.ranged else 0
    lengths = {
        "rows": nodes,
        "limits": nodes,
        "sound": nodes,
        "tuned": nodes,
        "node": decided,
        "place": decided,
        "low": ends,
        "high": ends,
    }
    for name, length in lengths.items():
        if len(kept[name]) != length:
            raise ValueError(f"{name} has {len(kept[name])} entries, not {length}")
    for name in ("pick", "choice"):
        if kept[name].shape != search.problem.shape:
            raise ValueError(f"{name} has the shape {kept[name].shape}, not {search.problem.shape}")


def _restore(search: Search, kept: Mapping[str, npt.NDArray[Any]]) -> None:
    _fit(search, kept)
    search.fresh, search.polished, search.nodes = (
        int(kept["course"][0]),
        bool(kept["course"][1]),
        int(kept["course"][2]),
    )
    search.slack, search.closed = (float(x) for x in kept["limits_seen"])
    if len(kept["found"]):
        value, index, row = kept["found"]
        search.best = Best(float(value), int(index), int(row), kept["pick"], kept["choice"])
    ranged = search.problem.circuit.ranged
    ends = zip(kept["input"], np.cumsum(kept["sizes"]), np.cumsum(kept["decided"]), strict=True)
    first = begun = 0
    for index, last, done in ends:
        nodes, decided = slice(first, int(last)), slice(begun, int(done))
        values = decided if ranged else slice(0)
        search.push(
            Block(
                int(index),
                *(kept[name][nodes] for name in ("rows", "limits", "tuned", "sound")),
                *(kept[name][decided] for name in ("node", "place")),
                *(kept[name][values] for name in ("low", "high")),
            )
        )
        first, begun = nodes.stop, decided.stop
