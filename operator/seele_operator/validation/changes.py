"""Which fields of a run may change after it has started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seele_operator.api.problems import shown

MAY_CHANGE = (
    "training.steps",
    "training.tokensPerMicroBatch",
    "training.gradientCheckpointing",
    "rollout.replicas",
    "rollout.maxConcurrentProblems",
    "rollout.requestTimeoutSeconds",
    "rollout.serverStartTimeoutSeconds",
    "rollout.serverRetryTimeoutSeconds",
    "rollout.syncTimeoutSeconds",
    "rollout.canaryTolerance",
    "verifier.workers",
    "verifier.timeoutSeconds",
    "evaluation",
    "checkpoints",
    "observability",
)
"""Fields and sections that may change when a run resumes from a checkpoint: earlier steps stay comparable."""

MAY_CHANGE_LIVE = ("rollout.replicas", "runPolicy")
"""Fields and sections that may change while pods are running."""


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], allowed: Sequence[str] = MAY_CHANGE, prefix: str = ""
) -> list[str]:
    """A line for each field that must not differ but does, such as `training.seed: was 0 and is 1`."""
    lines: list[str] = []
    for key in {**before, **after}:
        field = f"{prefix}{key}"
        old, new = before.get(key), after.get(key)
        if old == new or field in allowed:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, allowed, f"{field}.")
        else:
            lines.append(f"{field}: was {shown(old)} and is {shown(new)}")
    return lines
