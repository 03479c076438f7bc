"""The commands about campaigns, as they are typed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from networks import random_network

import neurofail as nf
from neurofail import campaign, progress
from neurofail.cli import main
from neurofail.executors import Outcome
from neurofail.folder import Folder
from neurofail.tally import Sum

NET = random_network((6, 12, 8, 3))
INPUTS = np.random.default_rng(1).random((15, 6))
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    NET.save(tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", INPUTS)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


RUN = ["run", "net.npz", "--inputs", "x.npy", "--fault", "crash", "--failures", "2,1"]
SAMPLE = [*RUN, "--sample", "5000", "--seed", "3"]


def whole(epsilon: float = float("inf")) -> nf.Tally:
    plan = nf.Sampled(NET, nf.Crash(), (2, 1), count=5000, seed=3)
    return nf.run(NET, INPUTS, plan, epsilon=epsilon)


def test_run_in_a_folder_twice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SAMPLE, "--out", "c"]) == 0
    first = capsys.readouterr().out
    assert main([*SAMPLE, "--out", "c"]) == 0
    assert capsys.readouterr().out == first
    assert Folder.open(here / "c").load()[0] == whole()
    assert "worst case can be larger; with confidence 0.95" in first
    assert "(Wilson)" in first
    assert "worst error" not in first  # a sampled maximum is never called the worst


def test_exceeding_epsilon_is_exit_code_1(here: Path) -> None:
    assert main([*SAMPLE, "--out", "c", "--epsilon", "0.001"]) == 1
    assert main(["report", "c"]) == 1
    assert main([*SAMPLE, "--out", "d", "--epsilon", "1000"]) == 0


def test_another_campaign_in_the_folder_is_exit_code_2(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*SAMPLE, "--out", "c"])
    capsys.readouterr()
    assert main([*SAMPLE[:-1], "4", "--out", "c"]) == 2
    said = capsys.readouterr().err
    assert said == "neurofail: c holds another campaign: seed is 3 there and 4 here\n"


def test_an_array_job_is_reported_and_joined(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in (1, 2, 3):
        assert main([*SAMPLE, "--out", f"part{i}", "--shard", f"{i}/3", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["report", "part2"]) == 3
    assert "still to run: configurations 0 to" in capsys.readouterr().out
    assert main(["merge", "part1", "part2", "--out", "two"]) == 3
    assert main(["merge", "two", "part3"]) == 0
    next((here / "part1" / "shards").glob("*.json")).write_text("torn")
    capsys.readouterr()
    assert main(["merge", "part1", "--out", "lacking"]) == 3
    assert re.fullmatch(r"neurofail: part1/shards/.*: damaged: torn.*\n", capsys.readouterr().err)
    assert Folder.open(here / "two").load()[0] == whole()
    capsys.readouterr()
    assert main(["report", "two", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["campaign"] == {"path": "two", "complete": True, "missing": [], "damaged": []}
    assert found["tally"] == whole().to_dict()


def test_the_slurm_script_of_the_readme(here: Path) -> None:
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", README.read_text(), re.DOTALL)
    assert script, "the README has no array script"
    text = script.group(1)
    array, parts = re.search(r"#SBATCH --array=1-(\d+)", text), re.search(r"\$\{PARTS:-(\d+)\}", text)
    assert array
    assert parts
    assert array.group(1) == parts.group(1)
    (here / "job.sh").write_text(text)
    (here / "model.npz").write_bytes((here / "net.npz").read_bytes())
    bin_ = here / "bin"
    bin_.mkdir()
    (bin_ / "neurofail").write_text(f'#!/bin/sh\nexec {sys.executable} -m neurofail "$@"\n')
    (bin_ / "neurofail").chmod(0o755)
    for task in (2, 1, 3):
        env = {
            **os.environ,
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(nf.__file__).parents[1]),
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_COUNT": "1",  # each is submitted alone
            "PARTS": "3",
            "SLURM_CPUS_PER_TASK": "1",
            "SAMPLE": "3000",
        }
        done = subprocess.run(["bash", "job.sh"], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert Folder.open(here / "campaign").load()[0].complete


def test_what_is_for_folders_needs_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--shard", "1/2"], ["--scheduler", "tcp://h:1"], ["--records"], ["--until", "0.1"]):
        assert main([*SAMPLE, *option]) == 2
        assert "add --out DIR" in capsys.readouterr().err
    for wrong in ("0/2", "3/2", "1", "a/b"):
        assert main([*SAMPLE, "--out", "c", "--shard", wrong]) == 2
        assert "must be I/N" in capsys.readouterr().err


def test_a_folder_must_be_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (SAMPLE, ["merge", "c"]):
        assert main([*command, "--out", ""]) == 2
        assert capsys.readouterr().err.startswith("neurofail: argument --out: no folder is named")
    assert sorted(p.name for p in here.iterdir()) == ["net.npz", "x.npy"]


def test_until_stops_early(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SAMPLE, "--out", "c", "--until", "0.2"]) == 0
    assert Folder.open(here / "c").load()[0].count == 1024
    assert "still to run: configurations 1024 to 4999" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("redirection", "code", "says"),
    [
        (">&-", 0, ""),
        (">/dev/null 2>&-", 0, ""),
        ("| true", 0, ""),
        (">/dev/full", 2, "neurofail: standard output: No space left on device\n"),
    ],
)
def test_output_that_cannot_be_written(redirection: str, code: int, says: str, here: Path) -> None:
    command = " ".join([sys.executable, "-m", "neurofail", *SAMPLE, "--out", "c", redirection])
    env = {**os.environ, "PYTHONPATH": str(Path(nf.__file__).parents[1])}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, says)
    assert Folder.open(here / "c").load()[0] == whole()


def test_damage_is_said_on_standard_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*SAMPLE, "--out", "c"])
    next((here / "c" / "shards").glob("*.json")).write_text("{")
    capsys.readouterr()
    assert main(["report", "c"]) == 3
    assert "damaged" in capsys.readouterr().out
    assert main([*SAMPLE, "--out", "c"]) == 0
    assert re.search(r"damaged: torn.*set aside as c/damaged/", capsys.readouterr().err)


def test_diff_in_one_line_of_a_ci_job(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = nf.Network.dense(
        [*NET.weights[:-1], 1.5 * NET.weights[-1]], NET.biases, NET.activations, (NET.low, NET.high)
    )
    worse.save(here / "worse.npz")
    main([*RUN, "--out", "old"])
    main(["run", "worse.npz", *RUN[2:], "--out", "new"])
    capsys.readouterr()
    assert main(["diff", "old", "new"]) == 1
    assert "WORSE" in capsys.readouterr().out
    assert main(["diff", "new", "old", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["worse"] is False
    assert main(["diff", "old", "nowhere"]) == 2


def test_plan(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sample"] == 9604
    assert main(["plan", "--width", "0.02", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sample"] == 9600
    assert main(["plan", "net.npz", "--fault", "crash", "--total", "2", "--margin", "0.05"]) == 0
    said = capsys.readouterr().out
    assert "without replacement, 128 of 190 would do" in said  # 190 / (1 + 0.0025 * 189 / 0.96036) = 127.3
    assert "running every configuration costs no more" in said
    assert "--failures 1,1 --sample" in said
    assert main(["plan", "net.npz"]) == 2
    capsys.readouterr()
    assert main(["plan", "--population", str(10**400), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["without_replacement"] == 9604
    for goal in ("--margin", "--width"):
        assert main(["plan", goal, "1e-300"]) == 2
        assert "more than 2^63 - 1 configurations" in capsys.readouterr().err


def test_strata_are_estimated_together(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = [a for a in RUN if a not in ("--failures", "2,1")]
    for failures in ("2,0", "1,1", "0,2"):
        assert main([*base, "--failures", failures, "--sample", "400", "--out", failures]) == 0
    capsys.readouterr()
    assert main(["report", "2,0", "1,1", "0,2"]) == 0
    assert "weighted over 3 strata" in capsys.readouterr().out
    assert main(["report", "2,0", "1,1"]) == 2
    assert "strata missing: (0, 2)" in capsys.readouterr().err


def test_a_failing_shard_is_exit_code_3(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(task: object, block: tuple[int, int], *_: object) -> Outcome:
        return Outcome(block, None, None, "Traceback: why", "node1", 0.0)

    monkeypatch.setattr("neurofail.executors.work", fail)
    assert main([*SAMPLE, "--out", "c"]) == 3
    said = capsys.readouterr().err
    assert "configurations 0 to 63 failed on node1" in said
    assert "Traceback: why" in said


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(sent: signal.Signals, here: Path) -> None:
    many = [*RUN, "--sample", "100000000", "--out", "c", "--quiet", "--threads", "1"]
    env = {**os.environ, "PYTHONPATH": str(Path(nf.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "neurofail", *many], env=env, stderr=subprocess.PIPE, text=True
    )
    while not list((here / "c").glob("shards/*.json")):
        time.sleep(0.05)
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 3
    assert said == "neurofail: interrupted; every finished shard is kept, the same command resumes\n"
    assert Folder.open(here / "c").load()[0].count > 0


def test_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.bar(1000, "configurations") as update:
        for done in range(100, 600, 100):
            now[0] += 6.0
            update(done, Sum(error=0.25, sdc=3))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "20.0% (200 of 1,000 configurations), 8/s, 0:01:36 left, worst 0.25, SDC 3",
        "40.0% (400 of 1,000 configurations), 17/s, 0:00:36 left, worst 0.25, SDC 3",
    ]
    with progress.bar(1000, "configurations", quiet=True) as update:
        now[0] += 1000.0
        update(600, Sum(error=0.25, sdc=3))
    assert capsys.readouterr().err == ""


def test_a_bar_where_there_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.bar(1000, "configurations") as update:
        time.sleep(0.15)
        update(500, Sum(error=0.25, sdc=3))
    said = capsys.readouterr().err
    assert "50%" in said
    assert "worst 0.25, SDC 3" in said


def test_importing_neurofail_loads_none_of_this() -> None:
    heavy = ("scipy", "distributed", "pandas", "tqdm")
    script = f"import sys, neurofail; print([m for m in {heavy} if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(Path(nf.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert campaign.__name__ == "neurofail.campaign"
