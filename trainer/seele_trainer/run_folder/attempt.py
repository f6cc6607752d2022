"""Which attempt at a run its shared folder belongs to, so that one that was given up cannot spoil what a later one writes.

A node that was cut off from the cluster may come back with a trainer that everybody took for dead. The file `attempt` in
the run's folder holds the number of the newest attempt (`seele run` counts it there too), and the file `run-uid` which
run it is where several, one after the other, use the folder. Whoever finds a newer attempt there stops.
"""

from __future__ import annotations

import os
from pathlib import Path

ATTEMPT_FILE = "attempt"
RUN_UID_FILE = "run-uid"
CONFIG_FILE = "config.yaml"


class Superseded(RuntimeError):
    """A newer attempt at the run has begun, so this one must not write to the run's folder any more."""


class AttemptFileError(RuntimeError):
    """The file with the number of the attempt holds something else."""


class Attempt:
    """Attempt `number` (from 1) at the run in `run_dir`. `run_uid` is the run's identity, empty where it has none."""

    def __init__(self, run_dir: Path, number: int, run_uid: str = "") -> None:
        self.number = number
        self._run_dir = run_dir
        self._run_uid = run_uid

    def claim(self) -> None:
        """Take the folder for this attempt, before anything else is written to it. Raises Superseded."""
        if self._run_uid and self._read(RUN_UID_FILE) != self._run_uid:
            # Another run was here, whose attempts were counted from 1 as well. Its identity goes first: whatever is
            # left of that run stops at it, whichever number it finds.
            self._write(RUN_UID_FILE, self._run_uid)
            self._write(ATTEMPT_FILE, str(self.number))
            return
        self._check_number()

    def keep_config(self, text: str) -> None:
        """Leave this attempt's configuration in the folder, for reports and evaluations.

        A run without an identity is one on this machine, whose `config.yaml` is there before its trainers start.
        """
        if self._run_uid or not (self._run_dir / CONFIG_FILE).exists():
            self._write(CONFIG_FILE, text.removesuffix("\n"))

    def check(self) -> None:
        """Raises Superseded once a newer attempt has taken the folder. To be called before every write to it."""
        if self._run_uid and (found := self._read(RUN_UID_FILE)) not in ("", self._run_uid):
            raise Superseded(
                f"another run ({found}) works in {self._run_dir} now: this one ({self._run_uid}) stops and leaves its "
                "files alone"
            )
        self._check_number()

    def _check_number(self) -> None:
        newest = recorded_attempt(self._run_dir)
        if newest > self.number:
            raise Superseded(
                f"attempt {newest} of this run has begun in {self._run_dir}: attempt {self.number} stops and leaves its "
                f"files alone. If no other attempt is there, delete {self._run_dir / ATTEMPT_FILE}"
            )
        if newest < self.number:
            self._write(ATTEMPT_FILE, str(self.number))

    def _read(self, name: str) -> str:
        try:
            return (self._run_dir / name).read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return ""

    def _write(self, name: str, text: str) -> None:
        self._run_dir.mkdir(parents=True, exist_ok=True)
        unfinished = self._run_dir / f".{name}.{os.uname().nodename}.{os.getpid()}"
        with unfinished.open("w", encoding="utf-8") as stream:
            stream.write(f"{text}\n")
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(self._run_dir / name)


def recorded_attempt(run_dir: Path) -> int:
    """Number of the newest attempt at the run in a folder, 0 before the first. Raises AttemptFileError."""
    path = run_dir / ATTEMPT_FILE
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return 0
    if not text.isdecimal():
        raise AttemptFileError(f"{path} says {text[:50]!r}, not how often the run was started; correct it")
    return int(text)
