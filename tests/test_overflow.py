"""A golden run that leaves the number format is refused: no deviation from it means anything."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import neurofail as nf
from neurofail.activations import NAMES
from neurofail.kernel import _largest_output


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_output_that_does_not_fit_is_named(dtype: str) -> None:
    huge = 1e30 if dtype == "float32" else 1e200
    net = nf.Network.dense([[[huge]], [[huge]]], None, ["relu", "identity"])
    plan = nf.Exhaustive(net, nf.Crash(), failures=(1,))
    with pytest.raises(nf.InputError, match=rf"inputs\[1\].*does not fit {dtype}"):
        nf.run(net, [[0.0], [1.0]], plan, dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_output_is_never_underestimated(name: str) -> None:
    rng = np.random.default_rng(5)
    for scale in (0.1, 1.0, 30.0):
        weights = [scale * rng.normal(size=(b, a)) for a, b in pairwise((3, 5, 4, 2))]
        biases = [rng.normal(size=b) for b in (5, 4, 2)]
        net = nf.Network.dense(weights, biases, [name, name, "identity"])
        inputs = rng.uniform(-2, 2, size=(50, 3))
        assert np.abs(net(inputs)).max() <= _largest_output(net, inputs)
