"""A trainer's progress, from /progress or its termination message; read leniently, since its version may differ."""

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
    """The trainer's phase: starting, rollout, train, sync, eval, checkpoint, done or failed."""
    reward: float | None = None
    accuracy: float | None = None
    hint_rate: float | None = None
    policy_version: int | None = None
    eta_seconds: float | None = None
    last_checkpoint_step: int | None = None
    stop_seconds: float | None = None
    message: str = ""


def parse_progress(answer: bytes | str, attempt: int, run: str | None = None) -> ProgressSeen | None:
    """The answer of a trainer of `attempt`; None if it cannot be read, or comes from another run than `run`."""
    try:
        progress = json.loads(answer)
    except (ValueError, RecursionError):  # anything may answer in a pod, and must not stop the operator
        return None
    if not isinstance(progress, dict):
        return None
    step, steps = _count(progress, "step"), _count(progress, "steps")
    if step is None or steps is None:
        return None
    # The address of a pod that has just ended may belong to another run by now, or to another attempt.
    if run is not None and progress.get("name", run) != run:
        return None
    return ProgressSeen(
        attempt=attempt if (answered := _count(progress, "attempt")) is None else answered,
        step=step,
        steps=steps,
        phase=_text(progress, "phase"),
        reward=_number(progress, "reward"),
        accuracy=_number(progress, "accuracy"),
        hint_rate=_number(progress, "hintRate"),
        policy_version=_count(progress, "policyVersion"),
        eta_seconds=_number(progress, "etaSeconds"),
        last_checkpoint_step=_count(progress, "lastCheckpointStep"),
        stop_seconds=_number(progress, "stopSeconds"),
        message=_text(progress, "message"),
    )


def _number(progress: Mapping[str, Any], name: str) -> float | None:
    value = progress.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _count(progress: Mapping[str, Any], name: str) -> int | None:
    value = _number(progress, name)
    return int(value) if value is not None and 0 <= value < 2**53 else None


def _text(progress: Mapping[str, Any], name: str) -> str:
    value = progress.get(name)
    return value[:1024] if isinstance(value, str) else ""
