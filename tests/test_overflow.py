"""A golden run that leaves the number format is refused: no deviation from it means anything."""

from __future__ import annotations

import pytest

import neurofail as nf


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_output_that_does_not_fit_is_named(dtype: str) -> None:
    huge = 1e30 if dtype == "float32" else 1e200
    net = nf.Network.dense([[[huge]], [[huge]]], None, ["relu", "identity"])
    plan = nf.Exhaustive(net, nf.Crash(), failures=(1,))
    with pytest.raises(nf.InputError, match=rf"inputs\[1\].*does not fit {dtype}"):
        nf.run(net, [[0.0], [1.0]], plan, dtype=dtype)
