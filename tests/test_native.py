"""The binding to C: what is lent to it must stay alive while it works."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import neurofail as nf
from neurofail import kernel


@pytest.mark.skipif(not kernel.backends()[0].startswith("c/"), reason="no C kernel in this installation")
def test_threads_draw_the_same_sample_at_the_same_time() -> None:
    # Once, the generator's room was freed while C wrote to it: two threads' samples then mixed, rarely.
    rng = np.random.default_rng(0)
    net = nf.Network.dense(
        [rng.normal(size=(12, 8)), rng.normal(size=(3, 12))], None, ["sigmoid", "identity"]
    )
    plan = nf.Sampled(net, nf.Crash(), failures=(3,), count=200_000, seed=1)
    session = kernel.open_session(kernel.backends()[0], plan, rng.random((4, 8)), "float32")
    alone = session.rows(0, plan.count)[0]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: session.rows(start, 500)[0], range(0, plan.count, 500)))
    assert np.array_equal(np.concatenate(parts), alone)
