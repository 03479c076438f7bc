"""Old against new: worse is said when it is so, and chance is not taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import random_network

import neurofail as nf
from neurofail import campaign
from neurofail.diff import diff, diff_folders
from neurofail.errors import InputError
from neurofail.tally import Tally

INPUTS = np.random.default_rng(1).random((25, 5))


def network(strength: float = 1.0, seed: int = 0) -> nf.Network:
    """A network whose outputs, and so whose errors, are `strength` times as large."""
    net = random_network((5, 8, 6, 3), seed=seed)
    return nf.Network.dense(
        [*net.weights[:-1], strength * net.weights[-1]], net.biases, net.activations, (net.low, net.high)
    )


def sampled(net: nf.Network, count: int = 4000, seed: int = 1, epsilon: float = 0.5) -> Tally:
    return nf.run(net, INPUTS, nf.Sampled(net, nf.Crash(), (2, 1), count=count, seed=seed), epsilon=epsilon)


def enumerated(net: nf.Network) -> Tally:
    return nf.run(net, INPUTS, nf.Exhaustive(net, nf.Crash(), (2, 0)), epsilon=0.5)


def test_a_network_is_no_more_fragile_than_itself() -> None:
    assert not diff(sampled(network()), sampled(network())).worse
    assert not diff(enumerated(network()), enumerated(network())).worse


def test_the_same_network_under_other_seeds_is_seldom_called_worse() -> None:
    old = sampled(network(), seed=1000)
    alarms = sum(diff(old, sampled(network(), seed=seed)).worse for seed in range(40))
    # Four comparisons, each in error at most one time in 20, three of them one-sided at 2.5 %.
    assert alarms <= 6


def test_a_larger_worst_case_is_worse_however_little() -> None:
    found = diff(enumerated(network()), enumerated(network(1.0001)))
    worst = next(f for f in found.findings if f.name == "worst case")
    assert worst.worse
    assert found.worse
    assert "configuration" in worst.says
    assert not diff(enumerated(network(1.0001)), enumerated(network())).worse


def test_a_larger_rate_beyond_chance_is_worse() -> None:
    found = diff(sampled(network()), sampled(network(1.5)))
    exceeded = next(f for f in found.findings if f.name == "exceeded")
    assert exceeded.worse
    assert "beyond chance" in exceeded.says
    assert not diff(sampled(network(1.5)), sampled(network())).worse


def test_a_larger_sampled_maximum_alone_is_not_worse() -> None:
    net = random_network((5, 24, 16, 3))

    def drawn(seed: int) -> Tally:
        return nf.run(net, INPUTS, nf.Sampled(net, nf.Crash(), (3, 2), count=300, seed=seed))

    pairs = [(drawn(seed), drawn(seed + 100)) for seed in range(10)]
    larger = [(a, b) for a, b in pairs if a.worst and b.worst and b.worst.error > a.worst.error]
    assert larger
    for a, b in larger:
        found = next(f for f in diff(a, b).findings if f.name == "largest")
        assert "neither is the worst case" in found.says
        assert not found.worse


def test_many_errors_above_all_of_the_old_sample_are_worse() -> None:
    found = next(f for f in diff(sampled(network()), sampled(network(2.0))).findings if f.name == "largest")
    assert found.worse


def test_different_questions_are_not_compared() -> None:
    with pytest.raises(InputError, match=r"epsilon is 0\.5 in the old and 0\.4 in the new"):
        diff(sampled(network()), sampled(network(), epsilon=0.4))
    with pytest.raises(InputError, match="plan is"):
        diff(sampled(network()), enumerated(network()))


def test_an_unfinished_enumeration_is_not_compared() -> None:
    net = network()
    part = nf.run(net, INPUTS, nf.Exhaustive(net, nf.Crash(), (2, 0)), epsilon=0.5, stop=3)
    with pytest.raises(InputError, match="has run 3 of 28"):
        diff(enumerated(net), part)
    with pytest.raises(InputError, match="has not run anything"):
        diff(Tally.empty(part.setup), part)


def test_folders_are_compared_and_damage_is_named(tmp_path: Path) -> None:
    for name, net in (("old", network()), ("new", network(1.01))):
        campaign.run(net, INPUTS, nf.Exhaustive(net, nf.Crash(), (2, 0)), tmp_path / name)
    found = diff_folders(tmp_path / "old", tmp_path / "new")
    assert found.worse
    assert str(found).endswith("the new network is more fragile")
    assert found.to_dict()["worse"] is True
    next((tmp_path / "new" / "shards").glob("*.json")).write_text("torn")
    with pytest.raises(InputError, match="damaged"):
        diff_folders(tmp_path / "old", tmp_path / "new")
