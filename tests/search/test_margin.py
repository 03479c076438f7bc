"""The smallest margin equals enumeration, and says rightly whether a prediction changes."""

from __future__ import annotations

import numpy as np
import pytest

import neurofail as nf

from .enumeration import faulty, random_network, sets


def check(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = random_network(rng, int(rng.integers(1, 4)), width=5)
    if net.widths[-1] < 2:
        return
    inputs = rng.uniform(-1, 1, (3, net.widths[0]))
    total, at_most = int(rng.integers(0, min(3, sum(net.widths[1:-1])) + 1)), bool(rng.random() < 0.5)
    answer = nf.worst_margin(net, inputs, nf.Crash(), total=total, at_most=at_most, threads=1)
    outputs = faulty(net, inputs, sets(net, total=total, at_most=at_most), 0.0)
    label = np.argmax(net(inputs), axis=1)
    own = outputs[:, np.arange(3), label]
    outputs[:, np.arange(3), label] = -np.inf
    truth = float((own - outputs.max(axis=2)).min())
    about = f"seed {seed}: {net}, {total}, {at_most}"
    assert answer.exact, about
    assert answer.margin == pytest.approx(truth, abs=answer.rounding), about
    assert truth - 2 * answer.rounding <= answer.lower <= truth + answer.rounding, about
    if abs(truth) > answer.rounding:
        assert answer.changes is (truth < 0), about


@pytest.mark.parametrize("block", range(2))
def test_equals_enumeration(block: int) -> None:
    for seed in range(200 * block, 200 * (block + 1)):
        check(seed)


def test_one_output_has_no_margin() -> None:
    net = nf.Network.dense([[[1.0]], [[1.0]]], None, ["relu", "identity"])
    with pytest.raises(nf.InputError, match="two outputs"):
        nf.worst_margin(net, [[0.5]], nf.Crash(), (1,))


def test_out_of_time_the_limit_still_holds() -> None:
    rng = np.random.default_rng(1)
    net = nf.Network.dense(
        [rng.normal(size=s) for s in ((30, 8), (30, 30), (3, 30))], None, ["relu"] * 2 + ["identity"]
    )
    inputs = rng.random((5, 8))
    early = nf.worst_margin(net, inputs, nf.Crash(), (3, 0), time_limit=0.0)
    full = nf.worst_margin(net, inputs, nf.Crash(), (3, 0))
    assert not early.exact
    assert full.exact
    assert early.lower <= full.margin <= early.margin
    assert "not settled" in str(early)
    assert "exact" in str(full)
