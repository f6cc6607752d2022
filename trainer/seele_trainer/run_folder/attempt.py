"""The config.yaml of a run's folder, and which attempt at the run owns the folder.

An abandoned attempt must not damage what a later one writes. A trainer that was taken for dead may come back, with a
node that had lost its connection to the cluster. The file `attempt` holds the number of the newest attempt (`seele
run` counts it there too). If several runs use one folder, one after the other, the file `run-uid` identifies the
latest. A trainer that finds a newer attempt or another run stops.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError

from seele_trainer.config import TrainerConfig
from seele_trainer.run_folder.durable import write_file
from seele_trainer.termination import ExpectedFailure, RefusedInput

CONFIG_FILE = "config.yaml"


class ConfigError(RefusedInput):
    """A config.yaml cannot be used; `problems` has one line for each reason."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_config(path: Path) -> TrainerConfig:
    """The configuration in a file. Raises ConfigError."""
    try:
        return TrainerConfig.model_validate(read_tree(path))
    except ValidationError as error:
        lines = (f"{path}: {'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors())
        raise ConfigError(*lines) from error


def read_tree(path: Path) -> dict[str, Any]:
    """The content of a file as plain data, whether or not this version accepts it. Raises ConfigError."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; give the run's {CONFIG_FILE}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: bytes that are not text, and numbers of thousands of digits.
        raise ConfigError(f"{path} is not YAML; give the run's {CONFIG_FILE}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not a run's configuration; give the run's {CONFIG_FILE}")
    return tree


ATTEMPT_FILE = "attempt"
_MOST_DIGITS = 9
RUN_UID_FILE = "run-uid"


class Superseded(ExpectedFailure):
    """A newer attempt at the run has begun, so this one must not write to the run's folder any more."""


class AttemptFileError(ExpectedFailure):
    """The file `attempt` does not hold a number."""


class Attempt:
    """Attempt `number` (from 1) at the run in `run_dir`. `run_uid` identifies the run; empty outside a cluster."""

    def __init__(self, run_dir: Path, number: int, run_uid: str = "") -> None:
        self.number = number
        self._run_dir = run_dir
        self._run_uid = run_uid

    def claim(self) -> None:
        """Take the folder for this attempt, before anything else is written to it. Raises Superseded."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        if self._run_uid and _read(self._run_dir / RUN_UID_FILE) != self._run_uid:
            # The folder belonged to another run, whose attempts were counted from 1 as well. The identity is written
            # first: it stops what is left of that run, whatever the number.
            write_file(self._run_dir / RUN_UID_FILE, f"{self._run_uid}\n")
            record_attempt(self._run_dir, self.number)
            return
        self._check_number()

    def keep_config(self, text: str) -> None:
        """Copy this attempt's configuration to the folder, for reports and evaluations.

        `seele run`, whose runs have no identity, has written `config.yaml` before its trainers start.
        """
        path = self._run_dir / CONFIG_FILE
        if self._run_uid or not path.exists():
            write_file(path, text.removesuffix("\n") + "\n")

    def check(self) -> None:
        """Raise Superseded if a newer attempt has taken the folder. To be called before every write to it."""
        if self._run_uid and (found := _read(self._run_dir / RUN_UID_FILE)) not in ("", self._run_uid):
            raise Superseded(
                f"another run ({found}) now uses {self._run_dir}: this one ({self._run_uid}) stops and leaves the "
                "folder's files alone"
            )
        self._check_number()

    def _check_number(self) -> None:
        newest = recorded_attempt(self._run_dir)
        if newest > self.number:
            raise Superseded(
                f"attempt {newest} of this run has begun in {self._run_dir}: attempt {self.number} stops and leaves the "
                f"folder's files alone. If there is no other attempt, delete {self._run_dir / ATTEMPT_FILE}"
            )
        if newest < self.number:
            record_attempt(self._run_dir, self.number)


def recorded_attempt(run_dir: Path) -> int:
    """Number of the newest attempt at the run in a folder, 0 before the first. Raises AttemptFileError."""
    path = run_dir / ATTEMPT_FILE
    text = _read(path, missing="0")
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise AttemptFileError(f"{path} contains {text[:50]!r} instead of the number of attempts; correct it")
    return int(text)


def record_attempt(run_dir: Path, number: int) -> None:
    """Make `number` the newest attempt at the run in a folder."""
    write_file(run_dir / ATTEMPT_FILE, f"{number}\n")


def _read(path: Path, missing: str = "") -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return missing


@dataclass(frozen=True)
class PodEnvironment:
    """What a trainer pod reads from its environment variables rather than from its configuration."""

    run_dir: Path
    rollout_urls: tuple[str, ...]
    rendezvous: str
    node_rank: int
    bind_host: str
    http_port: int
    attempt: Attempt
    rollout_urls_file: Path | None = None
    """File with the list of servers, if it may change during the run."""
    grace_seconds: float = math.inf
    """Time from a stop until this pod is killed."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the variables set by the plan; the defaults suit a trainer started by hand."""
        urls, urls_file = os.environ.get("SEELE_ROLLOUT_URLS", ""), os.environ.get("SEELE_ROLLOUT_URLS_FILE", "")
        run_dir = Path(os.environ.get("SEELE_RUN_DIR", "run"))
        # Without the variable, as for a trainer started by hand, this is the next attempt.
        attempt = int(os.environ.get("SEELE_ATTEMPT", 0)) or recorded_attempt(run_dir) + 1
        return cls(
            run_dir=run_dir,
            rollout_urls=tuple(url for url in urls.split(",") if url),
            rendezvous=os.environ.get("SEELE_RENDEZVOUS", "127.0.0.1:29500"),
            node_rank=int(os.environ.get("SEELE_NODE_RANK", "0")),
            bind_host=os.environ.get("SEELE_BIND_HOST", "0.0.0.0"),
            http_port=int(os.environ.get("SEELE_HTTP_PORT", "9400")),
            attempt=Attempt(run_dir, attempt, os.environ.get("SEELE_RUN_UID", "")),
            rollout_urls_file=Path(urls_file) if urls_file else None,
            grace_seconds=float(os.environ.get("SEELE_GRACE_SECONDS", "inf")),
        )
