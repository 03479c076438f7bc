"""The project's own network file: an npz of float64 arrays and one JSON string."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from neurofail.activations import Activation
from neurofail.errors import InputError
from neurofail.formats.arrays import AnyArray, read_npz, write_npz
from neurofail.network import Network

FORMAT = 1


def save(net: Network, path: str | Path) -> None:
    """Write `net` to `path`: weight_l, bias_l (l = 1..L+1), low, high and the JSON string `network`."""
    header = {"format": FORMAT, **net.describe()}
    arrays: dict[str, AnyArray] = {"network": np.array(json.dumps(header, sort_keys=True))}
    for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True), start=1):
        arrays[f"weight_{i}"] = weight
        arrays[f"bias_{i}"] = bias
    arrays["low"], arrays["high"] = net.low, net.high
    write_npz(path, arrays)


def load(path: str | Path) -> Network:
    """The network that `save` wrote; InputError for anything else."""
    arrays = read_npz(path)
    if "network" not in arrays or arrays["network"].dtype.kind != "U" or arrays["network"].ndim:
        raise InputError(f"{path}: not a neurofail network; there is no 'network' description in it")
    try:
        header = json.loads(str(arrays["network"]))
        written, records = header["format"], header["activations"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: the 'network' description is damaged") from None
    if written != FORMAT:
        raise InputError(f"{path}: network format {written!r}; this version reads format {FORMAT}")
    if not isinstance(records, list):
        raise InputError(f"{path}: 'activations' must be a list")
    layers = range(1, len(records) + 1)
    wanted = {f"{part}_{i}" for part in ("weight", "bias") for i in layers} | {"low", "high"}
    missing = sorted(wanted - set(arrays))
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}")
    try:
        return Network.dense(
            [arrays[f"weight_{i}"] for i in layers],
            [arrays[f"bias_{i}"] for i in layers],
            [Activation.from_dict(record) for record in records],
            (arrays["low"], arrays["high"]),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
