"""What a trainer says of itself, on /progress and as its last words: read leniently, for it may be older or newer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ProgressSeen:
    """The trainer's answer on /progress."""

    attempt: int
    """Attempt of the pod that answered."""
    step: int
    steps: int
    phase: str
    """What the trainer was doing: starting, rollout, train, sync, eval, checkpoint, done or failed."""
    reward: float | None = None
    accuracy: float | None = None
    hint_rate: float | None = None
    policy_version: int | None = None
    eta_seconds: float | None = None
    last_checkpoint_step: int | None = None
    message: str = ""


def parse_progress(answer: bytes | str, attempt: int, run: str | None = None) -> ProgressSeen | None:
    """What a trainer of `attempt` answered; None for what is no progress, or that of another than `run`.

    Fields that are not known are left out.
    """
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError):  # whatever runs in a pod may answer, and must not stop the operator by it
        return None
    if not isinstance(said, dict):
        return None
    step, steps = _count(said, "step"), _count(said, "steps")
    if step is None or steps is None:
        return None
    # The address of a pod that has just ended may be another run's by now.
    if run is not None and said.get("name", run) != run:
        return None
    return ProgressSeen(
        # A trainer of an attempt that has just ended may answer at an address that was given away again.
        attempt=attempt if (known := _count(said, "attempt")) is None else known,
        step=step,
        steps=steps,
        phase=_text(said, "phase"),
        reward=_number(said, "reward"),
        accuracy=_number(said, "accuracy"),
        hint_rate=_number(said, "hintRate"),
        policy_version=_count(said, "policyVersion"),
        eta_seconds=_number(said, "etaSeconds"),
        last_checkpoint_step=_count(said, "lastCheckpointStep"),
        message=_text(said, "message"),
    )


def _number(said: Mapping[str, Any], name: str) -> float | None:
    value = said.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return found if math.isfinite(found) else None


def _count(said: Mapping[str, Any], name: str) -> int | None:
    value = _number(said, name)
    return int(value) if value is not None and 0 <= value < 2**53 else None


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    return value[:1024] if isinstance(value, str) else ""
