"""How a process of Seele ends: its exit code, and the message that Kubernetes shows as the reason.

A log does not always end with the reason: torchrun appends its own report, and libraries warn while they are unloaded.
Imports only the standard library, so that commands start quickly.
"""

import fcntl
import os
from contextlib import suppress
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit codes of every `seele` command and of trainer pods."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    """Another attempt would be refused the same input."""
    INTERRUPTED = 130
    """Stopped by a signal: a training saves its state first and can be resumed."""


class ExpectedFailure(RuntimeError):
    """A failure whose message says what happened and what to do, so it is shown without a traceback."""

    exit_code = ExitCode.FAILED


class RefusedInput(ExpectedFailure):
    """A failure that another attempt would meet again, unless its cause is a disk or network that did not answer."""

    exit_code = ExitCode.BAD_INPUT


DEFAULT_PATH = Path("/dev/termination-log")
MAX_BYTES = 4000
"""The kubelet keeps only the last 4096 bytes, and the beginning of a message says most."""


def write_termination_message(message: str) -> None:
    """Write why this container fails to its termination log, if it has one (`TERMINATION_LOG` names another file).

    The processes of a pod share the file. The first one to fail knows the cause, so an existing message is kept.
    """
    path = Path(os.environ.get("TERMINATION_LOG") or DEFAULT_PATH)
    # The kubelet creates the file; outside a pod none must appear.
    with suppress(OSError), path.open("rb+", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if stream.seek(0, os.SEEK_END) == 0:
            cut = message.strip().encode(errors="replace")[:MAX_BYTES]
            # Never cut inside a character: the kubelet passes the message on as text.
            stream.write(cut.decode(errors="ignore").encode())
