"""The embedded example: networks trained on handwritten digits, and images they have not seen."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from neurofail.errors import InputError
from neurofail.formats import load
from neurofail.formats.arrays import read_npz
from neurofail.network import Network

Name = Literal["sigmoid", "relu", "deep"]


def digits(name: Name) -> Network:
    """A trained network: 8 x 8 pixels in [0, 1] in, one logit a digit out.

    "sigmoid" and "relu" are 64-64-32-10, "deep" is a ReLU 64-48-48-32-10. Their origin and their test
    accuracies are in the README beside them. Raises InputError for another name.

    >>> digits("relu")
    Network(64-64-32-10, relu relu)
    """
    if name not in get_args(Name):
        raise InputError(f"digits network {name!r} is unknown; known are {', '.join(get_args(Name))}")
    with as_file(files(__package__) / f"digits-{name}.npz") as path:
        return load(path)


def digits_test() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The held-out images, (n, 64) in [0, 1], and the digits they show, (n,) in 0..9.

    >>> inputs, labels = digits_test()
    >>> inputs.shape, labels.shape
    ((540, 64), (540,))
    """
    with as_file(files(__package__) / "digits-test.npz") as path:
        arrays = read_npz(path)
    return arrays["inputs"].astype(np.float64), arrays["labels"].astype(np.int64)
