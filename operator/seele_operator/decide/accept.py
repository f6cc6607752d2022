"""Which spec a run follows, and which edits of it are allowed.

A run follows the user's current spec or, if that cannot be followed, the one accepted before.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from seele_operator.api.seelerun import API_VERSION, KIND, SeeleRun
from seele_operator.api.types import BadRunError, shown
from seele_operator.plan.gang_schedulers import gang_scheduler_of
from seele_operator.validation.load import check_cluster, check_run, parse_run

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

EditScope = Literal["all", "resumable", "live"]
"""What may change: everything, since nothing is trained yet; what a checkpoint can resume with, since no trainer is
running; or only what can change under running pods."""

_PARSED = 512
"""Specs cached in parsed form: those of active runs, not of all."""


@dataclass(frozen=True)
class Accepted:
    """The spec to follow, and what to report about the user's."""

    run: SeeleRun | None
    """The run to follow; None if no spec of it was ever valid."""
    text: str | None
    """Its spec as JSON, for the status."""
    reason: Literal["Accepted", "Invalid", "ChangeRefused"]
    message: str
    """All problems of the user's spec, in the words of `seele validate`; empty if it is valid."""
    changed: bool
    """Whether the spec to follow differs from the one accepted before."""
    respawn: bool
    """Whether the difference requires new pods."""


def accept(body: Mapping[str, Any], before: str | None, scope: EditScope) -> Accepted:
    """The spec to follow for the run in `body`; `before` is the spec accepted last, None at first."""
    metadata = _metadata(body["metadata"])
    text = json.dumps(body.get("spec"), separators=(",", ":"), sort_keys=True)
    old = None if before is None else _parse(before, metadata)
    if before == text and isinstance(old, SeeleRun):
        return Accepted(old, before, "Accepted", "", changed=False, respawn=False)
    last = old if isinstance(old, SeeleRun) else None
    new = _parse(text, metadata)
    if not isinstance(new, SeeleRun):
        return Accepted(last, before if last else None, "Invalid", "; ".join(new), changed=False, respawn=False)
    if last is None or before is None:
        return Accepted(new, text, "Accepted", "", changed=True, respawn=False)
    refused = [] if scope == "all" else _not_resumable(last, new)
    live = _live_fields(last)
    pods = differences(_dump(last), _dump(new), live)
    if not refused and (scope != "live" or not pods):
        return Accepted(new, text, "Accepted", "", changed=True, respawn=bool(pods))
    lines = [f"spec.{line}" for line in dict.fromkeys([*refused, *(pods if scope == "live" else ())])]
    message = f"{'; '.join(lines)}: {_remedy(scope, refused)}"
    kept = _with_live_fields(before, text, live)
    merged = _parse(kept, metadata)
    if isinstance(merged, SeeleRun):
        return Accepted(merged, kept, "ChangeRefused", message, changed=kept != before, respawn=False)
    return Accepted(last, before, "ChangeRefused", message, changed=False, respawn=False)


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


def _remedy(scope: EditScope, refused: list[str]) -> str:
    if refused:
        return "cannot change once training has started; change it back, or create a new run"
    return "cannot change while the pods are running; change it back, or suspend the run first (runPolicy.suspend)"


def _not_resumable(before: SeeleRun, after: SeeleRun) -> list[str]:
    """Changes that the run's checkpoints do not allow."""
    old, new = (
        run.spec.trainer_config(run.metadata.name).model_dump(mode="json", by_alias=True) for run in (before, after)
    )
    old_folder, new_folder = ({"storage": {"run": _dump(run)["storage"]["run"]}} for run in (before, after))
    return [*differences(old, new), *differences(old_folder, new_folder, ())]


def _live_fields(run: SeeleRun) -> tuple[str, ...]:
    """Fields that may change under running pods; the number of servers is not one if the gang is all or nothing."""
    all_or_nothing = gang_scheduler_of(run).all_or_nothing
    return tuple(field for field in MAY_CHANGE_LIVE if not (all_or_nothing and field == "rollout.replicas"))


def _with_live_fields(before: str, after: str, live: Iterable[str]) -> str:
    """The accepted spec `before` with the `live` fields of `after`."""
    kept, wanted = json.loads(before), json.loads(after)
    for path in live:
        *sections, field = path.split(".")
        source: Any = wanted
        target: Any = kept
        for section in sections:
            source = source.get(section) or {}
            target = target.setdefault(section, {})
        if field in source:
            target[field] = source[field]
        else:
            target.pop(field, None)
    return json.dumps(kept, separators=(",", ":"), sort_keys=True)


def _dump(run: SeeleRun) -> dict[str, Any]:
    return run.spec.model_dump(mode="json", by_alias=True)


def _metadata(metadata: Mapping[str, Any]) -> str:
    """The metadata that the plan reads, as JSON."""
    kept = {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata}
    return json.dumps(kept, sort_keys=True)


@lru_cache(maxsize=_PARSED)
def _parse(spec: str, metadata: str) -> SeeleRun | tuple[str, ...]:
    """The run with this spec, or all its problems."""
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": json.loads(metadata), "spec": json.loads(spec)}
    try:
        run = parse_run(body)
    except BadRunError as error:
        return tuple(error.problems)
    problems = (*check_run(run), *check_cluster(run))
    return problems or run
