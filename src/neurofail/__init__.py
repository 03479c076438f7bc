"""How many neurons can this network lose? Promised, observed, exact; and the three held together."""

from neurofail.activations import Activation
from neurofail.bounds import bounds, fep, tolerance
from neurofail.compare import compare
from neurofail.configuration import Configuration, Failure
from neurofail.errors import (
    BackendError,
    FallbackWarning,
    InputError,
    InversionError,
    NeurofailError,
    UnsoundError,
)
from neurofail.faults import Byzantine, Crash, Fault, StuckAt, SynapseByzantine, SynapseCrash
from neurofail.formats import load
from neurofail.kernel import backends, run
from neurofail.network import Network
from neurofail.plans import Exhaustive, Sampled
from neurofail.search import WorstCase, WorstInBox, WorstMargin, worst_case, worst_in_box, worst_margin
from neurofail.tally import Tally

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "BackendError",
    "Byzantine",
    "Configuration",
    "Crash",
    "Exhaustive",
    "Failure",
    "FallbackWarning",
    "Fault",
    "InputError",
    "InversionError",
    "Network",
    "NeurofailError",
    "Sampled",
    "StuckAt",
    "SynapseByzantine",
    "SynapseCrash",
    "Tally",
    "UnsoundError",
    "WorstCase",
    "WorstInBox",
    "WorstMargin",
    "backends",
    "bounds",
    "compare",
    "fep",
    "load",
    "run",
    "tolerance",
    "worst_case",
    "worst_in_box",
    "worst_margin",
]
