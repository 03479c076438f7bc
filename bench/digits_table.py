"""The README's table: observed worst, best refined bound and Fep on the two digits networks.

Run from the project's root, with neurofail installed:

    python bench/digits_table.py

Every configuration is enumerated on all 540 held-out images; the observed error is the reference's replay.
"""

from __future__ import annotations

import neurofail as nf
from neurofail.data import digits, digits_test

CASES: list[tuple[str, nf.Fault, list[tuple[int, ...]]]] = [
    ("crash", nf.Crash(), [(1, 0), (0, 1), (2, 0), (0, 2), (2, 2)]),
    ("Byzantine, C = 1", nf.Byzantine(1.0), [(1, 0), (0, 1), (2, 0), (1, 1)]),
    ("synapse crash", nf.SynapseCrash(), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]),
    ("Byzantine synapse, C = 1", nf.SynapseByzantine(1.0), [(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
]


def main() -> None:
    """Prints the table in Markdown."""
    inputs, _ = digits_test()
    print("| network | failure | per layer | configurations | observed | best bound | Fep | Fep / observed |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for name in ("sigmoid", "relu"):
        net = digits(name)
        for label, fault, counts in CASES:
            for failures in counts:
                found = nf.compare(nf.run(net, inputs, nf.Exhaustive(net, fault, failures=failures)))
                fep = found.domain["fep"]
                print(
                    f"| {name} | {label} | {', '.join(map(str, failures))} | {found.tally.count:,} "
                    f"| {found.observed:.4g} | {found.inputs['best']:.4g} ({found.inputs.best_name}) "
                    f"| {fep:.4g} | {found.ratio(fep):.3g} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
