"""The store: whole files or none, damage named and mended, folders of others refused."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from networks import random_network

import neurofail as nf
from neurofail import campaign
from neurofail import folder as store
from neurofail.errors import CampaignError, InputError
from neurofail.folder import Folder, canonical
from neurofail.plans import Plan
from neurofail.tally import Setup, Tally

NET = random_network((5, 8, 6, 3))
INPUTS = np.random.default_rng(1).random((9, 5))


def plan(seed: int = 1, count: int = 3000) -> nf.Sampled:
    return nf.Sampled(NET, nf.Crash(), (2, 1), count=count, seed=seed)


def run(out: Path, asked: Plan | None = None, **options: object) -> Tally:
    return campaign.run(NET, INPUTS, asked or plan(), out, epsilon=0.3, **options)  # type: ignore[arg-type]  # passed on


WHOLE = nf.run(NET, INPUTS, plan(), epsilon=0.3)


def shard_files(out: Path) -> list[Path]:
    return sorted((out / "shards").glob("*.json"))


def test_a_folder_is_all_that_is_needed(tmp_path: Path) -> None:
    assert run(tmp_path) == WHOLE
    again, damaged = Folder.open(tmp_path).load()
    assert not damaged
    assert again.to_bytes() == WHOLE.to_bytes()
    assert again.plan.net == NET
    assert np.array_equal(again.setup.inputs, INPUTS)


@pytest.mark.parametrize(
    "asked",
    [
        nf.Exhaustive(NET, nf.Crash(), total=2, at_most=True),
        nf.Exhaustive(NET, [nf.Byzantine((-0.5, 2.0)), nf.SynapseCrash()], failures=[(1, 0), (0, 1, 0)]),
        nf.Sampled(NET, nf.SynapseByzantine(0.5, draw="uniform"), (1, 0, 1), count=500, seed=2**64 - 1),
        nf.Sampled(NET, nf.StuckAt(0.1), total=3, at_most=True, count=500),
    ],
    ids=["at most", "mixture", "drawn", "stuck"],
)
def test_every_kind_of_plan_comes_back_from_its_description(asked: Plan, tmp_path: Path) -> None:
    tally = run(tmp_path, asked)
    assert tally == nf.run(NET, INPUTS, asked, epsilon=0.3)
    assert Folder.open(tmp_path).load()[0] == tally


def test_the_manifest_is_canonical_and_the_same_whoever_makes_it(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b", shard_seconds=0.05)
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in "ab"]
    assert manifests[0] == manifests[1] == canonical(json.loads(manifests[0]))
    assert json.loads(manifests[0])["setup"]["network"] == NET.digest


@pytest.mark.parametrize(
    ("other", "options", "says"),
    [
        (plan(seed=2), {}, "seed is 1 there and 2 here"),
        (plan(count=2999), {}, "count is 3000 there and 2999 here"),
        (nf.Exhaustive(NET, nf.Crash(), (2, 1)), {}, "plan is"),
        (plan(), {"dtype": "float64"}, 'dtype is "float32" there and "float64" here'),
        (plan(), {"records": True}, "records is false there and true here"),
    ],
)
def test_the_folder_of_another_campaign_is_refused(
    other: Plan, options: dict[str, object], says: str, tmp_path: Path
) -> None:
    run(tmp_path)
    if "records" in options:
        pytest.importorskip("pyarrow")
    before = {f: f.read_bytes() for f in shard_files(tmp_path)}
    with pytest.raises(InputError, match=says):
        run(tmp_path, other, **options)
    assert {f: f.read_bytes() for f in shard_files(tmp_path)} == before


def test_another_network_or_other_inputs_are_named(tmp_path: Path) -> None:
    run(tmp_path)
    net = random_network((5, 8, 6, 3), seed=9)
    with pytest.raises(InputError, match="network is"):
        campaign.run(
            net, INPUTS, nf.Sampled(net, nf.Crash(), (2, 1), count=3000, seed=1), tmp_path, epsilon=0.3
        )
    with pytest.raises(InputError, match="inputs is"):
        campaign.run(NET, INPUTS[:5], plan(), tmp_path, epsilon=0.3)


def test_another_version_does_not_go_on_with_a_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    monkeypatch.setattr(store, "__version__", "9.9")
    with pytest.raises(InputError, match=r'neurofail is "0\.1\.0" there and "9\.9" here'):
        run(tmp_path)
    assert Folder.open(tmp_path).load()[0] == WHOLE


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def deep(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def huge(path: Path) -> None:
    os.truncate(path, 1 << 40)


def renamed(path: Path) -> None:
    path.rename(path.with_name("0128-0129.json"))


def resealed(change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    """A change that the checksum does not show."""

    def alter(path: Path) -> None:
        record = json.loads(path.read_bytes())
        del record["checksum"]
        change(record["tally"])
        path.write_bytes(store._sealed(record))

    alter.__name__ = change.__name__
    return alter


def too_many(tally: dict[str, object]) -> None:
    tally["sdc"] = 10**12


def negative(tally: dict[str, object]) -> None:
    tally["due"] = -1


def text(tally: dict[str, object]) -> None:
    tally["exceeded"] = "many"


def elsewhere(tally: dict[str, object]) -> None:
    tally["ranges"] = [[0, 1]]


def no_bins(tally: dict[str, object]) -> None:
    tally["histogram"] = {"9999": 64}


def wrong_bins(tally: dict[str, object]) -> None:
    tally["histogram"] = {"3": 1}


def no_witness(tally: dict[str, object]) -> None:
    tally["worst"] = None


def other_witness(tally: dict[str, object]) -> None:
    tally["worst"]["configuration"] = []  # type: ignore[index]  # a dict, in this test


def far_witness(tally: dict[str, object]) -> None:
    tally["worst"]["input"] = 10**6  # type: ignore[index]  # a dict, in this test


def nan(tally: dict[str, object]) -> None:
    tally["worst"]["error"] = "nan"  # type: ignore[index]  # a dict, in this test


FORGERIES = [
    resealed(f)
    for f in (
        too_many, negative, text, elsewhere, no_bins, wrong_bins, no_witness, other_witness, far_witness, nan,
    )
]  # fmt: skip


@pytest.mark.parametrize(
    "damage", [flip, torn, empty, deep, pipe, huge, renamed, *FORGERIES], ids=lambda damage: damage.__name__
)
def test_a_damaged_shard_is_named_set_aside_and_run_again(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    run(tmp_path)
    victim = shard_files(tmp_path)[2]
    damage(victim)
    _, named = Folder.open(tmp_path).load()
    assert any("damaged" in line for line in named)
    said: list[str] = []
    assert run(tmp_path, notice=said.append).to_bytes() == WHOLE.to_bytes()
    assert len(said) == 1
    assert "set aside as" in said[0]
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    assert Folder.open(tmp_path).load() == (WHOLE, [])


def test_a_forged_witness_does_not_replay(tmp_path: Path) -> None:
    run(tmp_path)
    folder = Folder.open(tmp_path)
    worst = WHOLE.worst
    assert worst is not None
    at = next(b for b in folder.blocks() if b[0] <= worst.index < b[1])

    def double(tally: dict[str, object]) -> None:
        tally["worst"]["error"] *= 2  # type: ignore[index,operator]  # a dict, in this test

    resealed(double)(folder.shard_path(at))
    with pytest.raises(InputError, match="the reference gives"):
        folder.load()


def test_a_damaged_shard_uncovers_the_smaller_ones_that_it_held(tmp_path: Path) -> None:
    run(tmp_path)
    folder = Folder.open(tmp_path)
    big = folder.shard_path((0, 1024))
    assert len([b for b in folder.blocks() if b[1] <= 1024]) > 1
    big.write_bytes(b"torn")
    before = len(shard_files(tmp_path))
    assert run(tmp_path) == WHOLE
    assert len(shard_files(tmp_path)) == before - 1


def test_a_shard_of_another_campaign_does_not_slip_in(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b", plan(seed=2))
    victim = shard_files(tmp_path / "a")[0]
    victim.write_bytes((tmp_path / "b" / "shards" / victim.name).read_bytes())
    assert "another campaign" in Folder.open(tmp_path / "a").load()[1][0]


@pytest.mark.parametrize("name", ["manifest.json", "network.npz", "inputs.npz"])
def test_a_damaged_manifest_or_data_file_is_named(name: str, tmp_path: Path) -> None:
    run(tmp_path)
    torn(tmp_path / name)
    with pytest.raises(InputError, match=name):
        Folder.open(tmp_path)


def test_a_manifest_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    run(tmp_path)
    huge(tmp_path / "manifest.json")
    with pytest.raises(InputError, match=r"manifest\.json: not a file of this kind"):
        Folder.open(tmp_path)


def test_damage_does_not_stand_in_the_way_of_a_good_copy(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name)
    # The same shard damaged where it is to go, and a large one that hides small ones where it comes from.
    torn(Folder.open(tmp_path / "a").shard_path((0, 64)))
    Folder.open(tmp_path / "b").shard_path((0, 1024)).write_bytes(b"torn")
    said: list[str] = []
    joined = campaign.merge([tmp_path / "a", tmp_path / "b"], notice=said.append)
    assert joined.load() == (WHOLE, [])
    assert ["0000-0064" in said[0], "0000-1024" in said[1], len(said)] == [True, True, 2]


def test_a_network_put_in_from_elsewhere_is_noticed(tmp_path: Path) -> None:
    run(tmp_path)
    random_network((5, 8, 6, 3), seed=9).save(tmp_path / "network.npz")
    with pytest.raises(InputError, match="network differ"):
        Folder.open(tmp_path)


def test_a_folder_that_is_no_campaign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no campaign is here"):
        Folder.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        run(tmp_path / "file")


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int, where: str) -> None:
    """The disk is full from the `after`-th call of os.`where` on."""
    real, calls = getattr(os, where), [0]

    def failing(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, where, failing)


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize("after", [0, 1, 2, 5, 7])
def test_a_full_disk_loses_nothing(
    where: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        full_disk(patch, after, where)
        with pytest.raises(CampaignError, match="No space left on device; every finished shard is kept"):
            run(tmp_path, shard_seconds=0.002)
    assert not list(tmp_path.rglob(".*"))
    kept = {f.name: f.read_bytes() for f in shard_files(tmp_path)}
    assert run(tmp_path).to_bytes() == WHOLE.to_bytes()
    for name, data in kept.items():
        assert (tmp_path / "shards" / name).read_bytes() == data


def test_a_real_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {disk} 2>/dev/null"):
        pytest.skip("mounting is not permitted here")
    try:
        with pytest.raises(CampaignError, match="No space left on device"):
            run(disk / "c", plan(count=200_000), shard_seconds=0.002)
        finished, damaged = Folder.open(disk / "c").load()
        assert finished.count > 0
        assert not damaged
        os.system(f"mount -o remount,size=10m {disk}")
        assert run(disk / "c", plan(count=200_000)) == nf.run(NET, INPUTS, plan(count=200_000), epsilon=0.3)
    finally:
        os.system(f"umount {disk}")


def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs tmpfs {disk} 2>/dev/null"):
        pytest.skip("mounting is not permitted here")
    try:
        run(disk / "part", shard=(1, 2))
        run(disk / "whole")
        os.system(f"mount -o remount,ro {disk}")
        with pytest.raises(InputError, match="cannot be written"):
            run(disk / "part")
        with pytest.raises(InputError, match="cannot be written"):
            run(disk / "new")
        # What is complete can be read, and asking for it again is no reason to write.
        assert run(disk / "whole") == WHOLE
    finally:
        os.system(f"umount {disk}")


@pytest.mark.parametrize(
    "path", ["/dev/null/c", "/proc/c", "a" * 300], ids=["under a file", "no place", "long"]
)
def test_a_path_that_cannot_be_is_no_full_disk(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written \(.*\); name a folder that can"):
        run(tmp_path / path)


def test_no_permission_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InputError, match="Permission denied"):
        run(tmp_path / "c")


def test_what_a_killed_process_left_half_written_is_swept(tmp_path: Path) -> None:
    run(tmp_path)
    host = os.uname().nodename
    dead = tmp_path / "shards" / f".0000-0064.json.{host}.{2**22 - 1}"
    mine = tmp_path / "shards" / f".0000-0064.json.{host}.{os.getpid()}"
    other = tmp_path / "shards" / ".0000-0064.json.elsewhere.7"
    for path in (dead, mine, other):
        path.write_text("half")
    assert run(tmp_path) == WHOLE
    assert not dead.exists()
    assert mine.exists()
    assert other.exists()


def test_an_empty_setup_has_a_folder_too(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path, Setup(plan(), INPUTS, "float32", 0.3))
    assert folder.load() == (Tally.empty(folder.setup), [])
    assert folder.blocks() == []
