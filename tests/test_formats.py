"""Files of strangers: what was written comes back, and everything else is one clear line and no memory."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from networks import ACTIVATIONS, random_network

import neurofail as nf
from neurofail.errors import InputError
from neurofail.formats.arrays import read_inputs, read_npy, read_npz

PETABYTE = 10**15


def npy(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    """A .npy file with a header of our choice."""
    text = header if isinstance(header, bytes) else header.encode("latin1")
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(text))
        + text
        + data
    )


def claim(shape: object, descr: object = "<f8") -> str:
    return repr({"descr": descr, "fortran_order": False, "shape": shape})


def npz(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def one_line(error: Exception, path: Path) -> None:
    assert "\n" not in str(error)
    assert str(path) in str(error)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.npz"
    random_network((3, 4, 2), "tanh").save(path)
    return path


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=str)
def test_every_number_comes_back(tmp_path: Path, phi: nf.Activation) -> None:
    net = random_network((3, 4, 5, 2), phi, seed=3)
    net.save(tmp_path / "net.npz")
    back = nf.load(tmp_path / "net.npz")
    assert back == net
    assert back.digest == net.digest
    assert all(np.array_equal(a, b) for a, b in zip(net.weights, back.weights, strict=True))
    assert back.activations == net.activations


def test_the_same_network_is_the_same_bytes(tmp_path: Path) -> None:
    net = random_network((3, 4, 2))
    net.save(tmp_path / "a.npz")
    net.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_extreme_numbers_come_back(tmp_path: Path) -> None:
    net = nf.Network.dense(
        [[[5e-324], [1.7e308]], [[-0.0, 1.0]]], None, ["relu", "identity"], (-1e300, 1e300)
    )
    net.save(tmp_path / "net.npz")
    assert nf.load(tmp_path / "net.npz") == net


HOSTILE: dict[str, Callable[[Path], object]] = {
    "empty file": lambda p: p.write_bytes(b""),
    "not a zip": lambda p: p.write_bytes(b"weights" * 100),
    "empty archive": lambda p: npz(p, {}),
    "a pickle": lambda p: p.write_bytes(pickle.dumps({"network": 1})),
    "a lone npy": lambda p: p.write_bytes(npy(claim((1,)), b"\0" * 8)),
    "a member that is no array": lambda p: npz(p, {"readme.txt": b"hello"}),
    "a member without content": lambda p: npz(p, {"network.npy": b""}),
    "a member of another version": lambda p: npz(p, {"network.npy": b"\x93NUMPY\x09\x00" + b"\0" * 20}),
    "no description": lambda p: np.savez(p, weight_1=np.ones((1, 1))),
    "a description of numbers": lambda p: np.savez(p, network=np.ones(3)),
    "a description of bytes": lambda p: np.savez(p, network=np.array(b"{}")),
    "bad JSON": lambda p: np.savez(p, network=np.array("{")),
    "JSON that is a list": lambda p: np.savez(p, network=np.array("[1, 2]")),
    "JSON nested too deep": lambda p: np.savez(p, network=np.array("[" * 100_000)),
    "JSON with a huge number": lambda p: np.savez(p, network=np.array('{"format": ' + "1" * 5000 + "}")),
    "another format": lambda p: np.savez(p, network=np.array('{"format": 99, "activations": []}')),
    "no layers": lambda p: np.savez(
        p, network=np.array('{"format": 1, "activations": []}'), low=np.zeros(1), high=np.ones(1)
    ),
    "activations that are no list": lambda p: np.savez(
        p, network=np.array('{"format": 1, "activations": "relu"}')
    ),
    "lacking arrays": lambda p: np.savez(p, network=np.array('{"format": 1, "activations": [{}, {}]}')),
    "object arrays": lambda p: np.savez(p, network=np.array({"a": object}, dtype=object)),
    "structured arrays": lambda p: npz(p, {"network.npy": npy(claim((1,), [("a", "<f8")]), b"\0" * 8)}),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_is_no_network_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "net.npz"
    make(path)
    with pytest.raises(InputError) as caught:
        nf.load(path)
    one_line(caught.value, path)


def rewrite(saved: Path, name: str, content: bytes) -> None:
    npz(saved, {**members_of(saved), name: content})


def packed(array: object) -> bytes:
    out = io.BytesIO()
    np.save(out, np.asarray(array), allow_pickle=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("weight_1.npy", packed(np.full((4, 3), np.nan)), "nan"),
        ("weight_1.npy", packed(np.full((4, 3), np.inf)), "inf"),
        ("weight_1.npy", packed(np.ones((4, 2))), r"low must be a number or 2 numbers|2 numbers"),
        ("weight_2.npy", packed(np.ones((2, 7))), "must have 4 columns"),
        ("weight_1.npy", packed(np.ones(12)), "dimension"),
        ("weight_1.npy", packed(np.full((4, 3), "x")), "real numbers"),
        ("bias_1.npy", packed(np.ones(9)), "has 9 entries"),
        ("low.npy", packed(np.ones(9)), "low must be a number or 3 numbers"),
        ("low.npy", packed(np.full(3, 2.0)), "exceeds high"),
    ],
)
def test_an_array_that_does_not_fit_is_named(saved: Path, name: str, content: bytes, says: str) -> None:
    rewrite(saved, name, content)
    with pytest.raises(InputError, match=says) as caught:
        nf.load(saved)
    one_line(caught.value, saved)


def test_a_pickle_inside_never_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]  # what a hostile file would do

    path = tmp_path / "net.npz"
    np.savez(path, network=np.array([Evil()], dtype=object))
    with pytest.raises(InputError, match="object arrays are refused"):
        nf.load(path)
    assert not (tmp_path / "ran").exists()


def test_every_truncation_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in range(0, len(whole), 7):
        saved.write_bytes(whole[:size])
        with pytest.raises(InputError):
            nf.load(saved)


def test_no_flipped_byte_does_more_than_change_or_refuse(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    for at in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        saved.write_bytes(damaged)
        try:
            nf.load(saved)
        except InputError as error:
            one_line(error, saved)


@pytest.mark.parametrize(
    "shape",
    [(PETABYTE // 8,), (PETABYTE, PETABYTE), (2**62, 4), (2**31, 2**31), (1 << 100,), (0, 1 << 100)],
    ids=str,
)
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_a_header_that_claims_a_petabyte_allocates_nothing(tmp_path: Path, shape: object, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    content = npy(claim(shape), b"\0" * 64)
    if kind == "npz":
        npz(path, {"inputs.npy": content})
    else:
        path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read_inputs(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    one_line(caught.value, path)


def test_a_bomb_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 128 MiB of zeros in 128 KiB; the size below which everything is fine is lowered to save the test time.
    monkeypatch.setattr("neurofail.formats.arrays._ALWAYS_FINE", 1 << 24)
    path = tmp_path / "net.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("network.npy", "w") as member,
    ):
        member.write(npy(claim((1 << 24,))) + bytes(1 << 27))
    assert path.stat().st_size < 1 << 18
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="bomb"):
            nf.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_member_whose_size_is_forged_is_refused(tmp_path: Path) -> None:
    """The directory says 1 PB, or less than there is; the bytes decide."""
    for claimed in (PETABYTE, 200):
        path = npz(tmp_path / "net.npz", {"inputs.npy": npy(claim((100,)), bytes(800))}, zipfile.ZIP_STORED)
        raw = bytearray(path.read_bytes())
        size = struct.pack("<I", 800 + len(npy(claim((100,)))))
        forged = struct.pack("<I", min(claimed, 0xFFFFFFFE))
        path.write_bytes(raw.replace(size, forged))
        with pytest.raises(InputError):
            read_npz(path)


HEADERS = [
    claim((-1,)),
    claim((-2, -3)),
    claim((-1, -8)),
    claim((True, 1)),
    claim((0,)),
    claim((2, 0, 3)),
    claim((1,) * 33),
    claim((1,) * 99),
    claim((1.5,)),
    claim("shape"),
    claim((1,), "<U0"),
    claim((1,), "|S0"),
    claim((1,), "|O"),
    claim((1,), "<m8[s]"),
    claim((1,), "<c16"),
    claim((1,), ("<f8",)),
    claim((1,), ()),
    claim((1,), []),
    claim((1,), [()]),
    claim((1,), [1, 2]),
    claim((1,), 5),
    claim((1,), None),
    claim((1,), ("<f8", (1 << 62,))),
    claim((1,), "<f9999999999999"),
    claim((1,), "<U999999999999999999999"),
    "{",
    "{1: 2, 'a': 3}",
    "{'descr': '<f8', 'fortran_order': 3, 'shape': (1,)}",
    "(" * 5000,
    "[" * 150 + "]" * 150,
    "'" * 3,
    "'''",
    "\\",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1L,), }",
    "{'descr': '\\d', 'fortran_order': False, 'shape': (1,), }",
    "0" * 9000,
    "9" * 9000,
    " " * 60000,
    "lambda: 0",
    "__import__('os')",
    "\0\0\0",
    b"\xff\xfe\xfd",
    "if 1:\n 2\n  3",
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
@pytest.mark.parametrize("version", [1, 2])
def test_a_forged_header_gives_an_array_or_one_line(
    tmp_path: Path, header: str | bytes, version: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(npy(header, bytes(64), version))
    try:
        assert read_npy(path).size <= 8
    except InputError as error:
        one_line(error, path)
    assert capfd.readouterr().err == ""


@given(data=st.data())
def test_headers_of_random_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.npy"
    alphabet = "{}()[]'\":,<>|fiUO0123456789- descrshapefortran_orderTrueFalse\n\\"
    path.write_bytes(npy(data.draw(st.text(alphabet, max_size=120)), bytes(16)))
    with pytest.raises(InputError):
        read_npy(path)


@given(
    cut=st.integers(0, 400), at=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6)
)
@example(cut=0, at=[])
def test_random_damage_to_an_archive_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, cut: int, at: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.npz"
    random_network((2, 2, 1)).save(path)
    raw = bytearray(path.read_bytes())
    for where, byte in at:
        raw[where % len(raw)] = byte
    path.write_bytes(raw[: len(raw) - cut])
    try:
        nf.load(path)
    except InputError as error:
        one_line(error, path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_data_of_any_compression_is_refused(tmp_path: Path, method: int) -> None:
    path = npz(tmp_path / "net.npz", {"inputs.npy": packed(np.arange(1000.0))}, method)
    raw = bytearray(path.read_bytes())
    raw[100:200] = bytes(range(100))
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_npz(path)
    one_line(caught.value, path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "net.npz", {"network\u00e9.npy": b""})
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(InputError):
        read_npz(path)


def test_no_such_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        nf.load(tmp_path / "none.npz")
    (tmp_path / "dir.npz").mkdir()
    with pytest.raises(InputError, match="directory"):
        nf.load(tmp_path / "dir.npz")
    with pytest.raises(InputError, match="unknown kind of network file"):
        nf.load(tmp_path / "net.pt")
    with pytest.raises(InputError, match="No such file"):
        read_inputs(tmp_path / "none.npy")


def test_inputs_come_from_npy_or_from_the_array_of_that_name(tmp_path: Path) -> None:
    x = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", inputs=x, labels=np.arange(2))
    np.savez(tmp_path / "y.npz", labels=np.arange(2))
    assert np.array_equal(read_inputs(tmp_path / "x.npy"), x)
    assert np.array_equal(read_inputs(tmp_path / "x.npz"), x)
    with pytest.raises(InputError, match="has no array 'inputs'; it holds labels"):
        read_inputs(tmp_path / "y.npz")


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i4", "|u1", "|b1", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_kind_of_real_number_is_read(tmp_path: Path, dtype: str, order: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype, order=order)  # type: ignore[call-overload]  # a str
    np.save(tmp_path / "x.npy", array)
    assert np.array_equal(read_npy(tmp_path / "x.npy"), array)


def test_a_long_double_beyond_float64_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.full((1, 3), np.finfo(np.longdouble).max))
    net = random_network((3, 2, 1))
    with pytest.raises(InputError):
        net.check_inputs(read_inputs(tmp_path / "x.npy"))
    assert capfd.readouterr().err == ""


def test_the_description_can_be_read_by_people(saved: Path) -> None:
    header = json.loads(str(np.load(saved)["network"]))
    assert header["format"] == 1
    assert header["widths"] == [3, 4, 2]
    assert [a["name"] for a in header["activations"]] == ["tanh", "identity"]
