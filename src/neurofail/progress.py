"""A bar for people: rate, time left, the worst so far. Silent where standard error is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neurofail.kernel import Progress
from neurofail.tally import Sum

if TYPE_CHECKING:
    from neurofail.search.rounds import Snapshot


@contextmanager
def bar(count: int, unit: str, label: str = "", *, quiet: bool = False) -> Iterator[Progress]:
    """A progress callback for `neurofail.run` that draws on standard error while the block lasts."""
    from tqdm import tqdm

    # None: silent unless standard error is a terminal.
    disable = True if quiet else None
    with tqdm(
        total=count, unit=f" {unit}", desc=label or None, unit_scale=True, disable=disable, leave=False
    ) as drawn:

        def update(done: int, total: Sum) -> None:
            drawn.set_postfix_str(f"worst {total.error:.4g}", refresh=False)
            drawn.update(done - drawn.n)

        yield update


@contextmanager
def closing(*, quiet: bool = False) -> Iterator[Callable[[Snapshot], None]]:
    """A progress callback for `neurofail.worst_case`: one line that shows the gap close."""
    from tqdm import tqdm

    disable = True if quiet else None
    with tqdm(unit=" nodes", unit_scale=True, disable=disable, leave=False) as drawn:

        def update(at: Snapshot) -> None:
            drawn.set_postfix_str(
                f"best {at.best:.6g}, limit {at.upper:.6g}, {at.inputs_left} inputs left", refresh=False
            )
            drawn.update(at.nodes - drawn.n)

        yield update
