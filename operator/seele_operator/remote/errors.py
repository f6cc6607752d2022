"""Why a command could not do its work in the cluster, in one line that says what to do about it."""

from __future__ import annotations


class RemoteError(Exception):
    """A command ends with this line and this exit code."""

    exit_code = 1


class BadInput(RemoteError):
    """What the user asked for cannot be: an unknown context, run or pod, or a run that is not in a state for it."""

    exit_code = 2


class ServerTrouble(RemoteError):
    """The cluster refuses or fails: no rights, no CRD, an internal error."""


class Unreachable(ServerTrouble):
    """No answer, or one that says to try again: it makes sense to ask once more."""


class Silence(Unreachable):
    """The connection stands, and nothing came over it for some time."""
