"""Arrays from files of strangers: no pickles, and no allocation that only a header asks for."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
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
_MOST = 1 << 48  # numbers in an array


def _why(error: Exception) -> str:
    """What a library says was wrong, in one line of bearable length."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _header(stream: IO[bytes], what: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, Fortran order and dtype that a .npy claims, where they can be meant."""
    try:
        # A header that NumPy would repair with a warning is not one that NumPy wrote.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            version = np.lib.format.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                raise InputError(f"{what}: npy version {version} is not supported; use 1.0 or 2.0")
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(stream)
    except InputError:
        raise
    except Exception as error:  # forged headers make NumPy's parser fail in a dozen ways
        raise InputError(f"{what}: not a NumPy array file ({_why(error)})") from None
    if dtype.hasobject:
        raise InputError(f"{what}: object arrays are refused (they would execute code); use numbers")
    if dtype.kind not in "fiubU" or not dtype.itemsize:
        raise InputError(f"{what}: arrays of {dtype} are refused; use real numbers")
    # An extent of 0 would let the others claim anything.
    if len(shape) > 32 or any(n < 0 for n in shape) or math.prod(max(n, 1) for n in shape) > _MOST:
        raise InputError(f"{what}: the header claims the shape {shape}; no array has it")
    return tuple(map(int, shape)), fortran, dtype


def _read(stream: IO[bytes], size: int, what: str) -> AnyArray:
    """One .npy of `size` bytes in all; the header is believed only where the bytes are there."""
    shape, fortran, dtype = _header(stream, what)
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > size:
        raise InputError(
            f"{what}: the header claims {wanted} bytes but the file holds {size}; it is truncated or forged"
        )
    data = stream.read(wanted)
    if len(data) != wanted:
        raise InputError(f"{what}: truncated, {len(data)} bytes of {wanted}")
    return np.ndarray(shape, dtype, data, order="F" if fortran else "C")


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
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or _why(error)}") from None
    except Exception as error:  # damaged archives make zipfile and its decompressors fail in as many
        raise InputError(f"{path}: not a readable npz file ({_why(error)})") from None


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
            # Trained weights hardly compress: more effort would only keep a campaign's workers waiting.
            archive.writestr(entry, buffer.getvalue(), compresslevel=1)
