"""The last word of a container: why it failed, where Kubernetes looks for it before it looks at the log.

A log does not always end with the reason: torchrun appends a page of its own, libraries warn while they are unloaded.
Imports nothing but the standard library, for commands that must start at once.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

DEFAULT_PATH = Path("/dev/termination-log")
MAX_BYTES = 4000
"""The kubelet keeps the last 4096 bytes, and the beginning is what says most."""


def write_termination_message(message: str) -> None:
    """Write why this container fails to its termination log, where it has one (`TERMINATION_LOG` names another file).

    The processes of a pod share the file, and the one that failed first knows why: whatever is there stays.
    """
    path = Path(os.environ.get("TERMINATION_LOG") or DEFAULT_PATH)
    # The file is the kubelet's and is there from the beginning: outside of a pod none must be made.
    with suppress(OSError), path.open("rb+", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if stream.seek(0, os.SEEK_END) == 0:
            cut = message.strip().encode(errors="replace")[:MAX_BYTES]
            # Not in the middle of a character: the kubelet passes it on as text.
            stream.write(cut.decode(errors="ignore").encode())
