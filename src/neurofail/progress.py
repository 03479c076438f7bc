"""A bar for people: rate, time left, the worst so far. Silent where standard error is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from neurofail.kernel import Progress
from neurofail.tally import Sum


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
