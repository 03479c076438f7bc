"""HiGHS agrees: the same question as a mixed-integer program of a small ReLU network."""

from __future__ import annotations

import numpy as np
import pytest

import neurofail as nf

from . import milp


@pytest.mark.parametrize(
    ("widths", "failures"),
    [
        ((4, 8, 6, 2), (2, 0)),
        ((4, 8, 6, 2), (2, 2)),
        ((3, 10, 1), (4,)),
        ((3, 6, 5, 4, 1), (1, 1, 1)),
        ((4, 14, 10, 1), (4, 1)),
    ],
)
def test_agrees_with_highs(widths: tuple[int, ...], failures: tuple[int, ...]) -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        shapes = list(zip(widths[1:], widths, strict=False))
        net = nf.Network.dense(
            [rng.normal(size=s) for s in shapes],
            [rng.normal(size=s[0]) for s in shapes],
            ["relu"] * (len(shapes) - 1) + ["identity"],
        )
        x = rng.random((1, widths[0]))
        answer = nf.worst_case(net, x, nf.Crash(), failures, threads=1)
        assert answer.exact
        # HiGHS meets its constraints to 1e-6 or so.
        assert answer.error == pytest.approx(milp.worst(net, x[0], failures), rel=1e-5, abs=1e-5)
