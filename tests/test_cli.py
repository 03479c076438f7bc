"""The command line: exit codes, one line for whatever is wrong, and JSON that keeps to its schema."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from networks import random_inputs, random_network

import neurofail as nf
from neurofail.cli import main

NET = random_network((3, 5, 4, 2), "relu", seed=5)
X = random_inputs(NET, 12)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    NET.save(tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", X)
    return tmp_path


def call(files: Path, command: str, *more: str) -> list[str]:
    return [*command.replace("NET", str(files / "net.npz")).replace("X", str(files / "x.npy")).split(), *more]


RUN = "run NET --inputs X --fault crash --failures 1,1 --quiet"


def test_a_campaign_that_holds_exits_with_0(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call(files, RUN)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    worst = nf.run(NET, X, nf.Exhaustive(NET, nf.Crash(), (1, 1))).worst
    assert worst is not None
    assert f"{worst.error:.6g}" in out
    assert str(worst.configuration) in out
    assert "fep" in out


@pytest.mark.parametrize("fault", ["crash --failures 1,1", "synapse-crash --failures 1,0,1"])
def test_the_exact_rung_stands_where_the_campaign_was_exhaustive(
    files: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    ladder = shown(files, capsys, f"run NET --inputs X --dtype float64 --quiet --exact --fault {fault}")
    found = shown(files, capsys, f"worst NET --inputs X --quiet --fault {fault}")
    assert isinstance(ladder["exact"], dict)
    assert ladder["exact"]["exact"] is True
    assert ladder["exact"]["error"] == found["error"] == pytest.approx(ladder["observed"], rel=1e-12)


def test_worst_says_by_its_exit_code_whether_epsilon_is_shown_to_hold(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "worst NET --inputs X --quiet --fault crash --failures 1,1"
    assert main(call(files, command, "--epsilon", "1e6")) == 0
    assert main(call(files, command, "--epsilon", "0.0001")) == 1
    assert main(call(files, command, "--epsilon", "nan")) == 2
    assert main(call(files, command, "--threads", "-1")) == 2
    assert main(call(files, "tolerate NET --fault crash --epsilon 1 --most 0")) == 2
    answer = nf.worst_case(NET, X, nf.Crash(), (1, 1))
    for changed, code in (({"interrupted": True}, 3), ({"exact": False, "upper": 1e9}, 1)):
        late = dataclasses.replace(answer, **changed)  # type: ignore[arg-type]  # by name
        monkeypatch.setattr("neurofail.search.worst_case", lambda *_, _late=late, **__: _late)
        assert main(call(files, command, "--epsilon", str(2 * answer.error))) == code
    capsys.readouterr()


def test_worst_margin_says_by_its_exit_code_whether_predictions_hold(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "worst NET --inputs X --quiet --margin --fault crash --failures"
    for counts in ("0,0", "1,1"):
        found = shown(files, capsys, command, counts)
        answer = nf.worst_margin(NET, X, nf.Crash(), tuple(map(int, counts.split(","))))
        assert (found["margin"], found["changes"]) == (answer.margin, answer.changes)
        assert main(call(files, command, counts)) == (1 if answer.changes else 0)
        assert "smallest margin" in capsys.readouterr().out
    assert main(call(files, command, "1,1", "--epsilon", "1")) == 2
    assert "--epsilon limits errors" in capsys.readouterr().err
    open_ = dataclasses.replace(nf.worst_margin(NET, X, nf.Crash(), (0, 0)), exact=False, lower=-1.0)
    for late, code in ((open_, 1), (dataclasses.replace(open_, interrupted=True), 3)):
        monkeypatch.setattr("neurofail.search.worst_margin", lambda *_, _late=late, **__: _late)
        assert main(call(files, command, "0,0")) == code


def test_worst_goes_on_from_its_checkpoint(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = nf.Network.dense(
        [np.random.default_rng(3).normal(size=s) for s in ((40, 8), (40, 40), (3, 40))],
        None,
        ["relu", "relu", "identity"],
    )
    net.save(files / "wide.npz")
    np.save(files / "many.npy", np.random.default_rng(4).random((90, 8)))
    asked = ["worst", str(files / "wide.npz"), "--inputs", str(files / "many.npy"), "--fault", "crash"]
    asked += ["--failures", "3,0", "--quiet", "--json"]
    kept = ["--checkpoint", str(files / "search.npz")]
    assert main(asked) == 0
    whole = capsys.readouterr().out
    assert main([*asked, *kept, "--time-limit", "0"]) == 0
    assert (files / "search.npz").exists()
    assert not json.loads(capsys.readouterr().out)["exact"]
    assert main([*asked, *kept]) == 0
    assert capsys.readouterr().out == whole
    assert not (files / "search.npz").exists()
    assert main([*asked, "--checkpoint", str(files / "none" / "search.npz"), "--time-limit", "0"]) == 2
    assert "search.npz" in capsys.readouterr().err


def test_an_epsilon_that_is_exceeded_exits_with_1(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call(files, RUN, "--epsilon", "0.0001")) == 1
    assert "EXCEEDED" in capsys.readouterr().out
    assert main(call(files, RUN, "--epsilon", "1e6")) == 0


def shown(files: Path, capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, object]:
    main(call(files, *command, "--json"))
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert isinstance(found, dict)
    return found


# The schema of `run --json`: every key, and the type of what stands there.
NUMBER = (int, float)
SCHEMA: dict[str, object] = {
    "schema": int,
    "command": str,
    "tally": {
        "setup": {
            "network": str,
            "inputs": str,
            "dtype": str,
            "epsilon": NUMBER,
            "plan": str,
            "faults": list,
            "failures": list,
            "totals": type(None),
            "at_most": bool,
        },
        "backend": str,
        "ranges": list,
        "count": int,
        "inputs": int,
        "evaluations": int,
        "worst": {
            "error": NUMBER,
            "index": int,
            "configuration": list,
            "input": int,
            "output": int,
            "measured": NUMBER,
        },
        "sdc": int,
        "due": int,
        "exceeded": int,
        "histogram": dict,
    },
    "observed": NUMBER,
    "bounds": {
        where: {"values": dict, "ratios": dict, "best_name": str, "why": dict, "refused": dict}
        for where in ("inputs", "domain")
    },
    "arithmetic": NUMBER,
    "verdict": {"epsilon": NUMBER, "outcome": str, "by": str},
    "holds": bool,
    "exact": (dict, type(None)),
}


def keeps_to(schema: object, found: object, where: str = "$") -> None:
    if isinstance(schema, dict):
        assert isinstance(found, dict), where
        assert set(schema) == set(found), where
        for key, inner in schema.items():
            keeps_to(inner, found[key], f"{where}.{key}")
    else:
        assert isinstance(found, schema), where  # type: ignore[arg-type]  # a type or a tuple of them


def test_run_json_keeps_to_its_schema(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(files, capsys, RUN + " --epsilon 0.5")
    keeps_to(SCHEMA, found)
    assert (found["schema"], found["command"]) == (1, "run")
    assert found["tally"]["evaluations"] == 20 * 12  # type: ignore[index]  # checked above
    assert set(found["bounds"]["domain"]["values"]) == {  # type: ignore[index]  # checked above
        "fep",
        "fep_capped",
        "influence",
        "rowwise",
        "hybrid",
        "best",
    }


@pytest.mark.parametrize("epsilon", ["inf", "1e999"])
def test_an_infinite_epsilon_is_a_word_in_json(
    files: Path, capsys: pytest.CaptureFixture[str], epsilon: str
) -> None:
    assert shown(files, capsys, RUN, "--epsilon", epsilon)["verdict"]["epsilon"] == "inf"  # type: ignore[index]  # is


def test_bound_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(files, capsys, "bound NET --fault crash --failures 1,1")
    assert set(found) == {"schema", "command", "network", "bounds"}
    expected = nf.bounds(NET, nf.Crash(), (1, 1))
    assert found["bounds"]["values"] == dict(expected)  # type: ignore[index]  # it is a dict
    assert found["network"]["widths"] == [3, 5, 4, 2]  # type: ignore[index]  # it is a dict


def test_bounds_that_overflow_are_words_in_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = nf.Network.dense([[[1e200]], [[1e200]], [[1.0]]], None, ["relu", "relu", "identity"])
    huge.save(files / "net.npz")
    found = shown(files, capsys, "bound NET --fault crash --failures 1,0")
    assert found["bounds"]["values"]["fep"] == "inf"  # type: ignore[index]  # it is a dict


def test_bound_certifies_inputs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everywhere = shown(files, capsys, "bound NET --fault crash --failures 1,1")
    here = shown(files, capsys, "bound NET --fault crash --failures 1,1 --inputs X")
    assert here["bounds"]["values"]["best"] < everywhere["bounds"]["values"]["best"]  # type: ignore[index]  # dicts


@pytest.mark.parametrize(
    ("more", "plan"),
    [
        ("--fault crash --total 2", nf.Exhaustive(NET, nf.Crash(), total=2)),
        ("--fault crash --failures 2,1 --at-most", nf.Exhaustive(NET, nf.Crash(), (2, 1), at_most=True)),
        ("--fault stuck-at --value -0.5 --failures 1,0", nf.Exhaustive(NET, nf.StuckAt(-0.5), (1, 0))),
        ("--fault byzantine --capacity 2 --total 1", nf.Exhaustive(NET, nf.Byzantine(2.0), total=1)),
        (
            "--fault byzantine --capacity=-1,3 --draw uniform --total 2 --sample 50 --seed 9",
            nf.Sampled(NET, nf.Byzantine((-1.0, 3.0), draw="uniform"), total=2, count=50, seed=9),
        ),
        (
            "--fault byzantine --capacity 1 --semantics own --failures 1,1",
            nf.Exhaustive(NET, nf.Byzantine(1.0, "own"), (1, 1)),
        ),
        ("--fault synapse-crash --failures 1,0,1", nf.Exhaustive(NET, nf.SynapseCrash(), (1, 0, 1))),
        (
            "--fault synapse-byzantine --capacity 1 --semantics additive --unweighted --total 1",
            nf.Exhaustive(NET, nf.SynapseByzantine(1.0, "additive", weighted=False), total=1),
        ),
    ],
)
def test_every_way_to_say_what_fails(
    files: Path, capsys: pytest.CaptureFixture[str], more: str, plan: nf.Exhaustive
) -> None:
    found = shown(files, capsys, f"run NET --inputs X --quiet --dtype float64 --threads 1 {more}")
    assert found["tally"] == nf.run(NET, X, plan, dtype="float64", threads=1).to_dict()


def test_replay_shows_what_changed_layer_by_layer(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On 2-2-1: x = (0.5, 0.25), y = (0.5, 0.5), F = 1.5; crash of neuron 1: y = (0.5, 0), F = 0.5."""
    nf.Network.dense([np.diag([1.0, 2.0]), [[1.0, 2.0]]], None, ["relu", "identity"]).save(files / "net.npz")
    np.save(files / "x.npy", [[0.0, 0.0], [0.5, 0.25]])
    assert main(call(files, "run NET --inputs X --fault crash --failures 1 --replay 1")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines == [
        "configuration 1: crash of layer 1 neuron 1",
        "on input 1, its worst of 2: error 1 at output 0",
        "layer 1: 1 of 2 changed",
        "1 golden 0.5 faulty 0 by -0.5",
        "outputs: 1 of 1 changed",
        "0 golden 1.5 faulty 0.5 by -1",
    ]


def test_the_witness_replays_to_the_error_reported(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(files, capsys, RUN)
    worst = found["tally"]["worst"]  # type: ignore[index]  # it is a dict
    assert main(call(files, RUN, "--replay", str(worst["index"]))) == 0
    assert (
        f"on input {worst['input']}, its worst of 12: error {worst['error']:.6g}" in capsys.readouterr().out
    )


def damaged(files: Path, kind: str) -> None:
    """One of the files of a call, made unusable."""
    net, x = files / "net.npz", files / "x.npy"
    bomb = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (125000000000000,)}"
    )
    if kind == "truncated network":
        net.write_bytes(net.read_bytes()[:200])
    elif kind == "empty network":
        net.write_bytes(b"")
    elif kind == "no network":
        net.unlink()
    elif kind == "a directory":
        net.unlink()
        net.mkdir()
    elif kind == "object arrays":
        np.savez(net, network=np.array([{}], dtype=object))
    elif kind == "a petabyte":
        with zipfile.ZipFile(net, "w") as archive:
            archive.writestr("network.npy", bomb.ljust(128, b" "))
    elif kind == "NaN weights":
        arrays = dict(np.load(net))
        arrays["weight_1"] = np.full_like(arrays["weight_1"], np.nan)
        np.savez(net, **arrays)
    elif kind == "infinite weights":
        arrays = dict(np.load(net))
        arrays["weight_2"][0, 0] = np.inf
        np.savez(net, **arrays)
    elif kind == "an unknown activation":
        arrays = dict(np.load(net))
        arrays["network"] = np.array(str(arrays["network"]).replace('"relu"', '"swish"'))
        np.savez(net, **arrays)
    elif kind == "wrong shapes":
        arrays = dict(np.load(net))
        arrays["weight_2"] = arrays["weight_2"][:, :-1]
        np.savez(net, **arrays)
    else:
        np.save(
            x,
            {
                "inputs of another width": X[:, :2],
                "inputs outside the range": X + 9,
                "no inputs": X[:0],
                "NaN inputs": X * np.nan,
                "inputs of words": X.astype(str),
                "flat inputs": X[0],
                "object inputs": np.array([{}], dtype=object),
            }[kind],
        )


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated network", "not a readable npz file"),
        ("empty network", "not a readable npz file"),
        ("no network", "No such file"),
        ("a directory", "directory"),
        ("object arrays", "object arrays are refused"),
        ("a petabyte", "1000000000000000 bytes"),
        ("NaN weights", "weights[0] holds nan at (0, 0)"),
        ("infinite weights", "weights[1] holds inf at (0, 0)"),
        ("an unknown activation", "activation 'swish' is unknown"),
        ("wrong shapes", "must have 5 columns"),
        ("inputs of another width", "this network needs (n, 3)"),
        ("inputs outside the range", "outside the network's input_range"),
        ("no inputs", "inputs are empty"),
        ("NaN inputs", "inputs holds nan"),
        ("inputs of words", "real numbers"),
        ("flat inputs", "2 dimension"),
        ("object inputs", "object arrays are refused"),
    ],
)
def test_bad_files_are_one_line_and_exit_code_2(
    files: Path, capfd: pytest.CaptureFixture[str], kind: str, says: str
) -> None:
    damaged(files, kind)
    assert main(call(files, RUN)) == 2
    one_line(capfd, says)


def one_line(capfd: pytest.CaptureFixture[str], says: str) -> None:
    out, err = capfd.readouterr()
    assert out == ""
    assert says in err
    assert err.startswith("neurofail: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("", "required: COMMAND"),
        ("fly NET", "invalid choice: 'fly'"),
        ("run NET --fault crash --failures 1,1", "required: --inputs"),
        ("run NET --inputs X --failures 1,1", "required: --fault"),
        ("run NET --inputs X --fault crash", "give either failures"),
        ("run NET --inputs X --fault crash --failures 1,1 --total 1", "give either failures"),
        ("run NET --inputs X --fault crush --failures 1,1", "invalid choice: 'crush'"),
        ("run NET --inputs X --fault crash --failures 1;1", "must be whole numbers such as 2,0"),
        ("run NET --inputs X --fault crash --failures 6,0", "layer 1 has only 5 neurons"),
        ("run NET --inputs X --fault crash --failures 1", "has 1 count(s)"),
        ("run NET --inputs X --fault crash --total 10", "has only 9 neurons"),
        ("run NET --inputs X --fault crash --total=-1", "total is -1"),
        ("run NET --inputs X --fault crash --total 1.5", "invalid int value"),
        ("run NET --inputs X --fault crash --value 1 --total 1", "'value'"),
        ("run NET --inputs X --fault stuck-at --total 1", "'value'"),
        ("run NET --inputs X --fault stuck-at --value nan --total 1", "stuck-at value is nan"),
        ("run NET --inputs X --fault byzantine --total 1", "'capacity'"),
        ("run NET --inputs X --fault byzantine --capacity 0 --total 1", "capacity is 0"),
        ("run NET --inputs X --fault byzantine --capacity 3,1 --total 1", "upside down"),
        ("run NET --inputs X --fault byzantine --capacity 1,2,3 --total 1", "two ends"),
        ("run NET --inputs X --fault byzantine --capacity one --total 1", "must be C or LOW,HIGH"),
        ("run NET --inputs X --fault byzantine --capacity 1 --draw often --total 1", "draw is 'often'"),
        ("run NET --inputs X --fault byzantine --capacity 1 --draw uniform --total 1", "use Sampled"),
        ("run NET --inputs X --fault byzantine --capacity 1 --semantics x --total 1", "semantics is 'x'"),
        (RUN + " --sample 0", "count is 0"),
        (RUN + " --sample 5 --seed=-1", "seed is -1"),
        (RUN + " --threads 0", "threads is 0"),
        (RUN + " --backend gpu", "backend 'gpu' is not available"),
        (RUN + " --dtype float16", "invalid choice: 'float16'"),
        (RUN + " --epsilon=-1", "epsilon is -1.0"),
        (RUN + " --epsilon nan", "epsilon is nan"),
        (RUN + " --replay 20", "this plan has 20, from 0"),
        (RUN + " --replay=-1", "configuration index is -1"),
        ("run NET.pt --inputs X --fault crash --total 1", "unknown kind of network file"),
        ("run NET --inputs X.gone --fault crash --total 1", "No such file"),
        ("run NET --inputs NET --fault crash --total 1", "has no array 'inputs'"),
        ("bound NET --fault crash --failures 9,9", "has only 5 neurons"),
        ("demo --epsilon few", "invalid float value"),
        ("demo --epsilon nan", "epsilon is nan"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(
    files: Path, capfd: pytest.CaptureFixture[str], command: str, says: str
) -> None:
    assert main(call(files, command)) == 2
    one_line(capfd, says)


def process(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    return subprocess.run(
        [sys.executable, "-m", "neurofail", *arguments], capture_output=True, text=True, env=environment
    )


def test_a_process_of_its_own_exits_with_the_same_codes(files: Path) -> None:
    good = process(*call(files, RUN))
    assert (good.returncode, good.stderr) == (0, "")
    assert process(*call(files, RUN, "--epsilon", "0.0001")).returncode == 1
    bad = process(*call(files, RUN), NEUROFAIL_BACKEND="c/neon")
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1
    assert "(from NEUROFAIL_BACKEND)" in bad.stderr
    version = process("--version")
    assert (version.returncode, version.stdout) == (0, f"neurofail {nf.__version__}\n")


def test_ctrl_c_exits_with_3(tmp_path: Path) -> None:
    net = random_network((64, 256, 256, 10))
    net.save(tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", random_inputs(net, 200))
    command = call(tmp_path, "run NET --inputs X --fault crash --failures 5,5 --backend numpy")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "neurofail", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:  # the last import of a campaign: it runs, or is about to
            if "neurofail._numpy" in line:
                break
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert running.returncode == 3
    assert out == ""
    ours = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert ours == ["neurofail: interrupted"]


def test_a_reader_that_leaves_is_no_error(files: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "neurofail", *call(files, RUN, "--json")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(30) == 0
