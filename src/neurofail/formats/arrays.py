"""Arrays from files of strangers: no pickles, and no allocation that only a header asks for."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from neurofail.errors import InputError

AnyArray = npt.NDArray[np.generic]

# Honest networks compress little; a member that claims to grow more than this, and beyond a size that any
# machine can hold, is a decompression bomb.
_GROWTH = 64
_ALWAYS_FINE = 1 << 30


def _read(stream: IO[bytes], size: int, what: str) -> AnyArray:
    """One .npy of `size` bytes in all; the header is believed only where the bytes are there."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise InputError(f"{what}: npy version {version} is not supported; use 1.0 or 2.0")
    except (ValueError, SyntaxError, EOFError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: not a NumPy array file ({error})") from None
    if dtype.hasobject:
        raise InputError(f"{what}: object arrays are refused (they would execute code); use numbers")
    if dtype.kind not in "fiubU":
        raise InputError(f"{what}: arrays of {dtype} are refused; use real numbers")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > size:
        raise InputError(
            f"{what}: the header claims {wanted} bytes but the file holds {size}; it is truncated or forged"
        )
    data = stream.read(wanted)
    if len(data) != wanted:
        raise InputError(f"{what}: truncated, {len(data)} bytes of {wanted}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def read_npy(path: str | Path) -> AnyArray:
    """The array in a .npy file."""
    try:
        with open(path, "rb") as stream:
            return _read(stream, Path(path).stat().st_size, str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def read_npz(path: str | Path) -> dict[str, AnyArray]:
    """Every array in an .npz file, by name."""
    try:
        with open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            packed, unpacked = Path(path).stat().st_size, sum(m.file_size for m in members)
            if unpacked > max(_ALWAYS_FINE, _GROWTH * packed):
                raise InputError(
                    f"{path}: claims to unpack from {packed} to {unpacked} bytes; refused as a bomb"
                )
            arrays = {}
            for member in members:
                if not member.filename.endswith(".npy"):
                    raise InputError(f"{path}: holds {member.filename!r}, which is not an array")
                with archive.open(member) as part:
                    name = member.filename.removesuffix(".npy")
                    arrays[name] = _read(part, member.file_size, f"{path}: {name}")
                    part.read(1)  # reaching the end makes zipfile verify the checksum
            return arrays
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: not a readable npz file ({error})") from None


def read_inputs(path: str | Path) -> AnyArray:
    """The inputs in a .npy file, or the array named `inputs` in an .npz file."""
    if Path(path).suffix != ".npz":
        return read_npy(path)
    arrays = read_npz(path)
    if "inputs" not in arrays:
        raise InputError(f"{path}: has no array 'inputs'; it holds {', '.join(arrays) or 'nothing'}")
    return arrays["inputs"]


def write_npz(path: str | Path, arrays: dict[str, AnyArray]) -> None:
    """Write arrays as an npz, the same bytes for the same arrays."""
    with open(path, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=False)
            # A fixed date: the bytes depend on the content alone.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, buffer.getvalue())
