"""The search's course: it can be limited, interrupted, resumed, started from a campaign, and watched."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

import neurofail as nf

RNG = np.random.default_rng(7)
SHAPES = ((16, 40), (40, 40), (40, 3))
NET = nf.Network.dense(
    [RNG.uniform(-1, 1, (b, a)) * np.sqrt(6 / (a + b)) for a, b in SHAPES], None, ["relu", "relu", "identity"]
)
INPUTS = RNG.random((90, 16))
COUNTS = (4, 1)


@pytest.fixture(scope="module")
def full() -> nf.WorstCase:
    return nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS)


def test_out_of_time_the_limit_still_holds(full: nf.WorstCase) -> None:
    early = nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, time_limit=0.0)
    assert not early.exact
    assert early.error <= full.error <= full.upper <= early.upper < np.inf
    assert early.nodes < full.nodes


def test_interrupt_keeps_the_limit_and_resumes_to_the_same_answer(full: nf.WorstCase, tmp_path: Path) -> None:
    path = tmp_path / "search.npz"
    calls = itertools.count()

    def interrupt(_: object) -> None:
        if next(calls) == 4:
            raise KeyboardInterrupt

    early = nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path, progress=interrupt)
    assert not early.exact
    assert early.interrupted
    assert early.error <= full.error <= early.upper
    assert path.exists()
    again = nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path)
    assert again == full
    assert not path.exists()


@pytest.mark.parametrize("fault", [nf.Crash(), nf.Byzantine(0.5)])
def test_many_short_runs_are_one_long_one(fault: nf.Crash | nf.Byzantine, tmp_path: Path) -> None:
    whole = nf.worst_case(NET, INPUTS[:70], fault, (1, 1), gap=0.01)
    path = tmp_path / "search.npz"
    for _ in range(1000):
        answer = nf.worst_case(
            NET,
            INPUTS[:70],
            fault,
            (1, 1),
            gap=0.01,
            checkpoint=path,
            time_limit=0.0 if not path.exists() else 0.02,
        )
        if not path.exists():
            break
    assert answer == whole


def test_checkpoint_of_another_question_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.npz"
    nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path, time_limit=0.0)
    with pytest.raises(nf.InputError, match="another"):
        nf.worst_case(NET, INPUTS, nf.Crash(), (4, 0), checkpoint=path)
    path.write_bytes(b"no npz")
    with pytest.raises(nf.InputError, match="cannot be read"):
        nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path)


def test_a_checkpoint_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "missing" / "search.npz", tmp_path):
        with pytest.raises(nf.InputError, match="cannot be written"):
            nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    path = tmp_path / "search.npz"
    with pytest.warns(UserWarning, match="was not written .No space left on device"):
        early = nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path, time_limit=0.0)
    assert 0 < early.error <= early.upper < np.inf
    assert not list(tmp_path.iterdir())


def test_two_searches_may_share_a_checkpoint(
    full: nf.WorstCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writes while the other does: the file is one of theirs, never a mixture, and neither is warned."""
    path, write, mine = tmp_path / "search.npz", np.savez, os.getpid()

    def interrupted_write(file: object, **arrays: object) -> None:
        write(file, **arrays)
        monkeypatch.setattr(np, "savez", write)
        monkeypatch.setattr(os, "getpid", lambda: mine + 1)
        nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path, time_limit=0.0)
        monkeypatch.setattr(os, "getpid", lambda: mine)

    monkeypatch.setattr(np, "savez", interrupted_write)
    nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path, time_limit=0.0)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path) == full


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.npz"
    nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path, time_limit=0.0)
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files}
    lost = {name: array for name, array in kept.items() if name != "course"}
    fewer = [{**kept, name: kept[name][:-1]} for name in ("rows", "limits", "sound", "pick", "choice")]
    # Every array is whole, but the last block's last node is not to be read.
    shorter = {**kept, "sizes": kept["sizes"] - (np.arange(len(kept["sizes"])) == len(kept["sizes"]) - 1)}
    for arrays in (lost, *fewer, shorter):
        np.savez(path, **arrays)
        with pytest.raises(nf.InputError, match="is damaged"):
            nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, checkpoint=path)


def test_starting_from_the_answer_leaves_it_to_be_proven(full: nf.WorstCase) -> None:
    start = (full.input, full.configuration)
    again = nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, incumbent=start)
    assert again.exact
    assert again.error == full.error
    assert again.nodes <= full.nodes
    with pytest.raises(nf.InputError, match="failures, not the number"):
        nf.worst_case(NET, INPUTS, nf.Crash(), (2, 0), incumbent=(0, nf.Configuration(())))
    with pytest.raises(nf.InputError, match="does not allow"):
        nf.worst_case(NET, INPUTS, nf.Crash(), (2, 0), incumbent=start)


def test_progress_closes_the_gap(full: nf.WorstCase) -> None:
    seen: list[object] = []
    nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, progress=seen.append)
    uppers = [s.upper for s in seen]
    assert uppers == sorted(uppers, reverse=True)
    assert [s.best for s in seen] == sorted(s.best for s in seen)
    assert (seen[-1].open, seen[-1].inputs_left, seen[-1].nodes) == (0, 0, full.nodes)
    assert seen[0].inputs_left > 0


def test_a_wider_gap_takes_fewer_nodes(full: nf.WorstCase) -> None:
    rough = nf.worst_case(NET, INPUTS, nf.Crash(), COUNTS, gap=0.3)
    assert rough.nodes < full.nodes
    assert rough.error <= full.error <= rough.upper <= 1.3 * rough.error + rough.rounding


def test_answers_are_plain_data(full: nf.WorstCase) -> None:
    record = full.to_dict()
    assert record["error"] == full.error
    assert record["configuration"][0]["kind"] == "crash"
    assert "worst error" in str(full)
