"""One exception tree; every message names the value that is wrong and what would be right."""

from __future__ import annotations


class NeurofailError(Exception):
    """Base of every error that neurofail raises on purpose."""


class InputError(NeurofailError, ValueError):
    """A network, fault, plan, input or file that cannot be used as it is."""


class UnsoundError(InputError):
    """A bound was asked for where it would not hold; the message gives the reason."""


class BackendError(NeurofailError, RuntimeError):
    """A backend was demanded that this installation or this machine does not have."""


class FallbackWarning(UserWarning):
    """The campaign runs, but slower than it could: the C kernel is not part of this installation."""


class InversionError(NeurofailError):
    """The ladder observed <= exact <= bounds is out of order.

    This is a bug in neurofail or a hole in a theorem, never the user's mistake. `witness` holds what
    anyone needs to replay it.
    """

    def __init__(self, message: str, witness: object = None) -> None:
        super().__init__(message)
        self.witness = witness


class CampaignError(NeurofailError):
    """A campaign stopped before its end: a full disk, a failing shard, a lost cluster.

    Whatever was finished is kept, and the same command resumes it.
    """
