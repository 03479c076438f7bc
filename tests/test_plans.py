"""Plans: every configuration once, numbered both ways, and the compiled plans hold to the same numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise, product
from math import comb, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import DRAWN, ENUMERABLE, random_inputs, random_network

from neurofail.configuration import Configuration, Failure
from neurofail.errors import InputError
from neurofail.faults import Byzantine, Crash, Fault, StuckAt, SynapseByzantine, SynapseCrash
from neurofail.kernel import open_session
from neurofail.plans import Exhaustive, Plan, Sampled

NET = random_network((2, 4, 3, 2))
WIDE = random_network((8, 300, 200, 10))

# Every form of budget, on 2-4-3-2: fault(s), how many, and the exact count by hand.
PLANS: dict[str, tuple[object, dict[str, object], int]] = {
    "two in layer 1": (Crash(), {"failures": (2, 0)}, 6),
    "two and one": (Crash(), {"failures": (2, 1)}, 6 * 3),
    "none at all": (Crash(), {"failures": (0, 0)}, 1),
    "all of them": (Crash(), {"failures": (4, 3)}, 1),
    "at most": (Crash(), {"failures": (2, 1), "at_most": True}, (1 + 4 + 6) * (1 + 3)),
    "anywhere": (Crash(), {"total": 3}, comb(7, 3)),
    "at most anywhere": (Crash(), {"total": 2, "at_most": True}, 1 + 7 + 21),
    "variants": (Byzantine(1.0), {"failures": (2, 1)}, 6 * 4 * 3 * 2),
    "variants anywhere": (Byzantine(1.0), {"total": 2}, 21 * 4),
    "variants at most": (Byzantine(1.0), {"failures": (2, 0), "at_most": True}, 1 + 4 * 2 + 6 * 4),
    "joint": (Byzantine(1.0, draw="guided"), {"failures": (2, 1)}, 4 * 6 * 3),
    "equivocating": (Byzantine(1.0, draw="guided", equivocate=True), {"failures": (1, 1)}, 4 * 4 * 3),
    "synapses": (SynapseCrash(), {"failures": (1, 1, 1)}, 8 * 12 * 6),
    "synapses anywhere": (SynapseCrash(), {"total": 2}, comb(26, 2)),
    "a mixture": ([Crash(), StuckAt(1.0)], {"failures": [(1, 1), (2, 0)]}, 4 * comb(3, 2) * 3),
    "a mixture at most": (
        [Crash(), StuckAt(1.0)],
        {"failures": [(1, 0), (1, 0)], "at_most": True},
        1 + 4 + 4 + 4 * 3,
    ),
    "a mixture anywhere": ([Crash(), Byzantine(1.0)], {"total": [1, 2]}, 7 * comb(6, 2) * 4),
    "neurons and synapses": ([SynapseCrash(), Crash()], {"failures": [(1, 0, 1), (1, 1)]}, 8 * 6 * 4 * 3),
    "neurons and synapses anywhere": ([Crash(), SynapseCrash()], {"total": [2, 1]}, 21 * 26),
    "joint and not": (
        [Byzantine(1.0, draw="guided"), StuckAt(1.0)],
        {"failures": [(1, 1), (1, 0)]},
        4 * 4 * 3 * 3,
    ),
}
EACH = pytest.mark.parametrize("name", PLANS)


def exhaustive(name: str) -> Exhaustive:
    faults, counts, _ = PLANS[name]
    return Exhaustive(NET, faults, **counts)  # type: ignore[arg-type]  # every form that users write


@EACH
def test_the_count_by_hand(name: str) -> None:
    assert exhaustive(name).count == PLANS[name][2]


@EACH
def test_every_configuration_once_and_its_number_back(name: str) -> None:
    plan = exhaustive(name)
    seen = [plan[i] for i in range(plan.count)]
    assert len(set(seen)) == plan.count
    assert [plan.index(configuration) for configuration in seen] == list(range(plan.count))


@EACH
def test_every_configuration_keeps_the_budget(name: str) -> None:
    faults, counts, _ = PLANS[name]
    kinds = [faults] if isinstance(faults, Fault) else list(faults)  # type: ignore[call-overload]  # a list
    plan = exhaustive(name)
    for i in range(plan.count):
        failures = list(plan[i])
        # No place twice, whatever happens there.
        places = [(f.layer, f.neuron, f.source) for f in failures]
        assert len(set(places)) == len(places)
        for k, fault in enumerate(kinds):
            mine = Counter(f.layer for f in failures if f.kind == fault.kind)
            if "total" in counts:
                asked = np.atleast_1d(counts["total"])[k]  # type: ignore[arg-type]  # a number or a list
                assert mine.total() <= asked if counts.get("at_most") else mine.total() == asked
            else:
                rows = [counts["failures"]] if isinstance(faults, Fault) else counts["failures"]
                for layer, asked in enumerate(rows[k], start=1):  # type: ignore[index]  # rows of numbers
                    assert mine[layer] <= asked if counts.get("at_most") else mine[layer] == asked


def test_plain_crashes_come_in_lexicographic_order_first_layer_slowest() -> None:
    plan = Exhaustive(NET, Crash(), failures=(2, 1))
    found = [tuple((f.layer, f.neuron) for f in plan[i]) for i in range(plan.count)]
    assert found == [((1, a), (1, b), (2, c)) for (a, b), c in product(combinations(range(4), 2), range(3))]


@pytest.mark.parametrize("fault", [Crash(), Byzantine(1.0), Byzantine(1.0, draw="guided")], ids=str)
@pytest.mark.parametrize("at_most", [False, True])
def test_far_numbers_invert(fault: Fault, at_most: bool) -> None:
    plan = Exhaustive(WIDE, fault, failures=(9, 7), at_most=at_most)
    assert plan.count > 10**25
    for i in (0, 1, 10**25, 10**25 + 1, plan.count // 2, plan.count - 2, plan.count - 1):
        # Under "at most", no failure at all is held once for each joint choice, and the first is its number.
        number = i if len(plan[i]) else 0
        assert plan.index(plan[i]) == number


def test_far_numbers_invert_anywhere_and_in_mixtures() -> None:
    for plan in (
        Exhaustive(WIDE, Crash(), total=20),
        Exhaustive(WIDE, [Crash(), Byzantine(1.0)], total=[8, 8]),
        Exhaustive(WIDE, [SynapseCrash(), Crash()], failures=[(3, 3, 2), (4, 4)]),
    ):
        assert plan.count > 10**25
        for i in (0, 10**25, plan.count - 1):
            assert plan.index(plan[i]) == i


def test_the_exact_size_of_a_large_plan() -> None:
    assert Exhaustive(WIDE, Crash(), failures=(8, 4)).count == comb(300, 8) * comb(200, 4)
    assert Exhaustive(WIDE, Crash(), total=12).count == comb(500, 12)
    assert Exhaustive(WIDE, Crash(), failures=(3, 2), at_most=True).count == prod(
        sum(comb(n, i) for i in range(f + 1)) for n, f in ((300, 3), (200, 2))
    )


@given(data=st.data())
def test_any_number_of_any_plan_inverts(data: st.DataObject) -> None:
    widths = data.draw(st.lists(st.integers(1, 40), min_size=3, max_size=5))
    net = random_network(widths)
    fault = data.draw(st.sampled_from(ENUMERABLE))
    counts = [data.draw(st.integers(0, min(5, fault.places(net, layer)))) for layer in fault.layers(net)]
    plan = Exhaustive(net, fault, failures=counts, at_most=data.draw(st.booleans()))
    i = data.draw(st.integers(0, plan.count - 1))
    assert plan[plan.index(plan[i])] == plan[i]
    assert plan.index(plan[i]) == i or not plan[i].failures


def test_what_a_plan_does_not_hold_has_no_number() -> None:
    plan = Exhaustive(NET, Crash(), failures=(1, 1))
    crash = lambda layer, neuron: Failure(layer, neuron, None, "crash")  # noqa: E731  # short and local
    for failures, says in [
        ([crash(1, 0)], "not the number of failures"),
        ([crash(1, 0), crash(1, 1)], "not the number of failures"),
        ([crash(1, 0), crash(2, 3)], "is no failure of this plan"),
        ([crash(1, 4), crash(2, 0)], "is no failure of this plan"),
        ([crash(1, -1), crash(2, 0)], "is no failure of this plan"),
        ([crash(3, 0), crash(2, 0)], "is no failure of this plan"),
        ([crash(1, 0), crash(1, 0), crash(2, 0)], "fails twice"),
        ([Failure(1, 0, None, "stuck-at"), crash(2, 0)], "is no failure of this plan"),
        ([Failure(1, 0, None, "crash", variant=1), crash(2, 0)], "is no failure of this plan"),
    ]:
        with pytest.raises(InputError, match=says):
            plan.index(Configuration(tuple(failures)))


@pytest.mark.parametrize("index", [-1, 18, 10**30, 1.0, "0", None])
def test_numbers_outside_the_plan_are_refused(index: object) -> None:
    with pytest.raises(InputError, match="configuration index is"):
        Exhaustive(NET, Crash(), failures=(2, 1))[index]  # type: ignore[index]  # wrong on purpose


@pytest.mark.parametrize(
    ("fault", "counts", "says"),
    [
        (Crash(), {"failures": (5, 0)}, "layer 1 has only 4 neurons"),
        (Crash(), {"failures": (0, 4)}, "layer 2 has only 3 neurons"),
        (Crash(), {"total": 8}, "the network has only 7 neurons"),
        (SynapseCrash(), {"failures": (9, 0, 0)}, "layer 1 has only 8 synapses"),
        ([Crash(), StuckAt(1.0)], {"failures": [(3, 0), (2, 0)]}, "only 4 places can fail"),
        (Crash(), {"failures": (1,)}, r"has 1 count\(s\)"),
        (Crash(), {"failures": (1, 1, 1)}, r"has 3 count\(s\)"),
        (SynapseCrash(), {"failures": (1, 1)}, r"has 2 count\(s\)"),
        (Crash(), {"failures": (-1, 0)}, "failures is -1"),
        (Crash(), {"failures": (1.5, 0)}, "failures is 1.5"),
        (Crash(), {"total": -1}, "total is -1"),
        (Crash(), {}, "give either failures"),
        (Crash(), {"failures": (1, 0), "total": 1}, "give either failures"),
        ("crash", {"total": 1}, "it must be a fault such as"),
        ([], {"total": []}, "it must be a fault such as"),
        (5, {"total": 1}, "it must be a fault such as"),
        ([Crash(), StuckAt(1.0)], {"total": 1}, "a list of 2, one each"),
        (Byzantine(1.0, draw="uniform"), {"total": 1}, "cannot be enumerated; use Sampled"),
    ],
    ids=str,
)
def test_budgets_that_do_not_fit_are_refused(fault: object, counts: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Exhaustive(NET, fault, **counts)  # type: ignore[arg-type]  # wrong on purpose
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": 0}, "count is 0"),
        ({"count": -1}, "count is -1"),
        ({"count": 1 << 63}, "between 1 and 2"),
        ({"count": 1.0}, "count is 1.0"),
        ({"count": 1, "seed": -1}, "seed is -1"),
        ({"count": 1, "seed": 1 << 64}, "seed is"),
    ],
    ids=str,
)
def test_samples_that_cannot_be_drawn_are_refused(options: dict[str, int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Sampled(NET, Crash(), failures=(1, 0), **options)


# ---- Sampled plans ----


@EACH
def test_a_sample_is_a_pure_function_of_seed_and_index(name: str) -> None:
    faults, counts, _ = PLANS[name]
    one = Sampled(NET, faults, count=500, seed=11, **counts)  # type: ignore[arg-type]  # every form
    other = Sampled(NET, faults, count=200, seed=11, **counts)  # type: ignore[arg-type]  # every form
    backwards = [other[i] for i in reversed(range(200))][::-1]
    assert [one[i] for i in range(200)] == backwards
    exhaustive_plan = exhaustive(name)
    for configuration in backwards:
        assert 0 <= exhaustive_plan.index(configuration) < exhaustive_plan.count


def test_other_seeds_give_other_samples_up_to_the_last() -> None:
    draws = [
        [
            str(Sampled(WIDE, Crash(), failures=(8, 4), count=1 << 62, seed=seed)[(1 << 61) + i])
            for i in range(3)
        ]
        for seed in (0, 1, 1 << 32, (1 << 64) - 1)
    ]
    assert len({text for sample in draws for text in sample}) == 12


def chi_square(counts: Sequence[int], expected: float) -> float:
    return sum((n - expected) ** 2 / expected for n in counts)


@pytest.mark.parametrize("name", [name for name in PLANS if 3 < PLANS[name][2] <= 330])
def test_every_configuration_is_drawn_equally_often(name: str) -> None:
    faults, counts, size = PLANS[name]
    draws = 20 * size
    plan = Sampled(NET, faults, count=draws, seed=2024, **counts)  # type: ignore[arg-type]  # every form
    numbered = exhaustive(name)
    seen = Counter(numbered.index(plan[i]) for i in range(draws))
    found = chi_square([seen[i] for i in range(size)], draws / size)
    # Chi-square of size - 1 degrees: mean size - 1, deviation sqrt(2 (size - 1)); five of them, seed fixed.
    assert found < size - 1 + 5 * (2 * (size - 1)) ** 0.5
    assert found > size - 1 - 5 * (2 * (size - 1)) ** 0.5


def test_levels_are_uniform_and_belong_to_their_failure() -> None:
    plan = Sampled(NET, Byzantine(1.0, draw="uniform"), failures=(2, 1), count=2000, seed=3)
    levels = [f.level for i in range(plan.count) for f in plan[i]]
    counts, _ = np.histogram(levels, bins=20, range=(0, 1))
    assert chi_square(counts.tolist(), len(levels) / 20) < 19 + 5 * 38**0.5
    assert len(set(levels)) == len(levels)


def test_the_first_index_of_a_configuration_is_found() -> None:
    plan = Sampled(NET, Crash(), failures=(1, 0), count=50, seed=1)
    for i in range(50):
        assert plan.index(plan[i]) <= i
        assert plan[plan.index(plan[i])] == plan[i]
    with pytest.raises(InputError, match="not among the 50"):
        plan.index(Configuration((Failure(1, 9, None, "crash"),)))


# ---- What backends make of a plan ----


def held_to_plan(backend: str, plan: Plan, starts: Sequence[int], count: int) -> None:
    """rows() of a backend is plan.rows, from any start, whole or piece by piece."""
    session = open_session(backend, plan, random_inputs(plan.net, 1), "float64")
    for start in starts:
        size = min(count, plan.count - start)
        expected = [plan.rows(start + i) for i in range(size)]
        for cut in {size, size // 3}:
            rows, levels = [], []
            for first, last in pairwise([0, cut, size]):
                if first == last:
                    continue
                some, drawn = session.rows(start + first, last - first)
                rows += some.tolist()
                levels += (np.zeros(some.shape) if drawn is None else drawn).tolist()
            assert [[r for r in row if r >= 0] for row in rows] == [[r for r, _ in c] for c in expected]
            assert [
                [level for level, r in zip(some_levels, row, strict=True) if r >= 0]
                for some_levels, row in zip(levels, rows, strict=True)
            ] == [[level for _, level in c] for c in expected]
            for row in rows:  # what is unused stands at the end
                assert row == sorted(row, key=lambda r: r < 0)


@EACH
def test_backends_enumerate_as_the_plan_says(compiled: str, name: str) -> None:
    plan = exhaustive(name)
    starts = sorted({0, 1 % plan.count, plan.count // 3, plan.count // 2, plan.count - 1})
    held_to_plan(compiled, plan, starts, 700)


@EACH
def test_backends_sample_as_the_plan_says(compiled: str, name: str) -> None:
    faults, counts, _ = PLANS[name]
    plan = Sampled(NET, faults, count=1 << 62, seed=(1 << 63) + 5, **counts)  # type: ignore[arg-type]  # every form
    held_to_plan(compiled, plan, [0, 12345, (1 << 32) - 20, (1 << 62) - 50], 50)


@pytest.mark.parametrize("fault", DRAWN, ids=str)
@pytest.mark.parametrize("at_most", [False, True])
def test_backends_draw_the_same_levels(compiled: str, fault: Fault, at_most: bool) -> None:
    counts = (2, 2, 1)[: len(fault.layers(NET))]
    plan = Sampled(NET, [fault, Crash()], [counts, (1, 0)], count=1000, seed=5, at_most=at_most)
    held_to_plan(compiled, plan, [0, 900], 100)


@pytest.mark.parametrize("failures", [3, 7, 30], ids=str)
@pytest.mark.parametrize("fault", [Crash(), Byzantine(1.0), Byzantine(1.0, draw="uniform")], ids=str)
def test_backends_draw_as_many_words_as_it_takes(compiled: str, fault: Fault, failures: int) -> None:
    """One block of four words to more than forty, of which backends make several at a time."""
    plan = Sampled(WIDE, fault, (failures, failures), count=1000, seed=7)
    held_to_plan(compiled, plan, [0, 501], 30)


@pytest.mark.parametrize("failures", [1, 2, 10, 11, 290, 299, 300], ids=str)
def test_backends_find_any_place_in_an_enumeration(compiled: str, failures: int) -> None:
    """Few of many, a seventh of 2^63 configurations and four times as many, and almost all neurons."""
    plan = Exhaustive(WIDE, Crash(), failures=(failures, 0))
    assert (plan.count >= 1 << 63) == (failures == 11)
    rng = np.random.default_rng(failures)
    drawn = [int(share * plan.count) for share in rng.random(20)]
    held_to_plan(compiled, plan, [*drawn, plan.count - 1], 3)


@pytest.mark.parametrize("start", [0, 10**25 - 50, 10**25])
def test_backends_follow_an_enumeration_beyond_64_bits(compiled: str, start: int) -> None:
    for plan in (
        Exhaustive(WIDE, Crash(), failures=(9, 7)),
        Exhaustive(WIDE, Byzantine(1.0), total=14),
        Exhaustive(WIDE, [Crash(), SynapseByzantine(1.0)], failures=[(6, 2), (0, 4, 1)], at_most=True),
    ):
        held_to_plan(compiled, plan, [start, plan.count - 100], 100)


def test_backends_carry_across_every_digit(compiled: str) -> None:
    """A plan of many small digits, run through whole: every carry from block to block happens."""
    net = random_network((1, 2, 2, 2, 2, 1))
    plan = Exhaustive(net, [Byzantine(1.0), Crash()], [(1, 1, 0, 1), (1, 0, 2, 1)], at_most=True)
    held_to_plan(compiled, plan, [0], plan.count if plan.count < 40_000 else 40_000)
