"""What the watches have told: every SeeleRun, and its pods as far as decisions need them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from seele_operator.api.seelerun import KIND
from seele_operator.observe.pods import ObservedPod, observe_pod
from seele_operator.plan.names import RUN_LABEL

Body = Mapping[str, Any]


class RunKey(NamedTuple):
    """Where a run is found."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Version:
    """How recent something known is: by the API server's own count where it is a number, else by when it was heard."""

    text: str
    heard: float

    def older_than(self, other: _Version) -> bool:
        if self.text.isdecimal() and other.text.isdecimal():
            return int(self.text) < int(other.text)
        return self.heard < other.heard

    def same_as(self, other: _Version) -> bool:
        return self.text == other.text


@dataclass(frozen=True, slots=True)
class _Run:
    body: Body
    version: _Version


@dataclass(frozen=True, slots=True)
class _Pod:
    seen: ObservedPod
    controller: str
    """Uid of the pod's controller, whichever run that is; empty for an orphan."""
    version: _Version


@dataclass
class _Gone:
    """Versions at which objects were deleted, so that a read that overlapped with the deletion does not revive them."""

    versions: dict[tuple[str, str], _Version] = field(default_factory=dict)

    def forget_before(self, moment: float) -> None:
        self.versions = {key: version for key, version in self.versions.items() if version.heard >= moment}


class Store:
    """Runs and pods as last heard of. News that is older than what is known is ignored."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._runs: dict[RunKey, _Run] = {}
        self._pods: dict[RunKey, dict[str, _Pod]] = {}
        self._gone_runs = _Gone()
        self._gone_pods = _Gone()

    def run(self, key: RunKey) -> Body | None:
        """The run's body, without its managed fields; None for a run that is not known."""
        known = self._runs.get(key)
        return known.body if known is not None else None

    def runs(self) -> Iterator[tuple[RunKey, Body]]:
        """All runs."""
        return ((key, known.body) for key, known in self._runs.items())

    def run_count(self) -> int:
        """How many runs are known."""
        return len(self._runs)

    def pods(self, key: RunKey) -> tuple[ObservedPod, ...]:
        """Pods with the label of the run in `key`, in order of their names, as this very run (by its uid) sees them."""
        run = self._runs.get(key)
        uid = uid_of(run.body) if run is not None else ""
        return tuple(_as_seen_by(uid, pod) for _, pod in sorted(self._pods.get(key, {}).items()))

    def put_run(self, body: Body) -> RunKey | None:
        """Take in a run that was read or heard of; its key where that was news."""
        key = key_of(body)
        version = self._version(body)
        known = self._runs.get(key)
        if known is not None and (known.version.same_as(version) or version.older_than(known.version)):
            return None
        if known is None and _already_gone(self._gone_runs, key, version):
            return None
        self._runs[key] = _Run(_without_managed_fields(body), version)
        return key

    def drop_run(self, body: Body) -> RunKey | None:
        """Take in that a run was deleted; its key where that was news."""
        key = key_of(body)
        version = self._version(body)
        known = self._runs.get(key)
        # The name may have been taken by a newer run in the meantime.
        if known is None or (uid_of(known.body) != uid_of(body) and version.older_than(known.version)):
            return None
        del self._runs[key]
        self._gone_runs.versions[key] = version
        return key

    def put_pod(self, body: Body) -> RunKey | None:
        """Take in a pod that was read or heard of; the key of its run where that was news."""
        place = place_of(body)
        if place is None:
            return None
        key, name = place
        version = self._version(body)
        known = self._pods.get(key, {}).get(name)
        if known is not None and (known.version.same_as(version) or version.older_than(known.version)):
            return None
        if known is None and _already_gone(self._gone_pods, (key.namespace, name), version):
            return None
        controller = _controller_of(body)
        seen = observe_pod(body, controller)
        if seen is None:
            # A pod without the labels of a run's pod, or one that has lost them.
            if known is not None:
                self._remove_pod(key, name, version)
            return key if known is not None else None
        self._pods.setdefault(key, {})[name] = _Pod(seen, controller, version)
        return key

    def drop_pod(self, body: Body) -> RunKey | None:
        """Take in that a pod was deleted; the key of its run where that was news."""
        place = place_of(body)
        if place is None:
            return None
        key, name = place
        version = self._version(body)
        known = self._pods.get(key, {}).get(name)
        if known is None or (known.seen.uid != body["metadata"].get("uid") and version.older_than(known.version)):
            return None
        self._remove_pod(key, name, version)
        return key

    def lost_pod(self, key: RunKey, name: str, uid: str) -> None:
        """Take in that a fresh read did not find a pod."""
        known = self._pods.get(key, {}).get(name)
        if known is not None and known.seen.uid == uid:
            self._remove_pod(key, name, _Version(known.version.text, self._clock()))

    def lost_run(self, key: RunKey, uid: str) -> None:
        """Take in that a fresh read did not find a run."""
        known = self._runs.get(key)
        if known is not None and uid_of(known.body) == uid:
            del self._runs[key]
            self._gone_runs.versions[key] = _Version(known.version.text, self._clock())

    def keep_runs(self, listed: set[RunKey], version: str, began: float, namespace: str | None = None) -> set[RunKey]:
        """Take in that a list of all runs in `namespace` (None: in all) showed only these; returns the keys that are gone.

        `version` is the list's own, and `began` the clock's time when it was asked for: what was heard of later stays.
        """
        asked = _Version(version, began)
        news: set[RunKey] = set()
        for key, known in list(self._runs.items()):
            if key not in listed and namespace in (None, key.namespace) and known.version.older_than(asked):
                del self._runs[key]
                news.add(key)
        self._gone_runs.forget_before(began)
        return news

    def keep_pods(
        self, listed: set[tuple[RunKey, str]], version: str, began: float, namespace: str | None = None
    ) -> set[RunKey]:
        """Take in that a list of all pods of runs showed only these, as `keep_runs` does; returns the keys of their runs."""
        asked = _Version(version, began)
        news: set[RunKey] = set()
        missing = [
            (key, name)
            for key, pods in self._pods.items()
            for name, known in pods.items()
            if (key, name) not in listed and namespace in (None, key.namespace) and known.version.older_than(asked)
        ]
        for key, name in missing:
            self._remove_pod(key, name, asked)
            news.add(key)
        self._gone_pods.forget_before(began)
        return news

    def _remove_pod(self, key: RunKey, name: str, version: _Version) -> None:
        pods = self._pods[key]
        del pods[name]
        if not pods:
            del self._pods[key]
        self._gone_pods.versions[key.namespace, name] = version

    def _version(self, body: Body) -> _Version:
        return _Version(str(body["metadata"].get("resourceVersion", "")), self._clock())


def key_of(run: Body) -> RunKey:
    """Where a run is found."""
    metadata = run["metadata"]
    return RunKey(metadata["namespace"], metadata["name"])


def uid_of(body: Body) -> str:
    """Identifier that the API server gave an object."""
    return str(body["metadata"].get("uid", ""))


def place_of(pod: Body) -> tuple[RunKey, str] | None:
    """The key of a pod's run, and the pod's name; None for a pod without a run's label."""
    metadata = pod["metadata"]
    run = (metadata.get("labels") or {}).get(RUN_LABEL)
    return (RunKey(metadata["namespace"], run), metadata["name"]) if run else None


def _controller_of(body: Body) -> str:
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller") and owner.get("kind") == KIND), "")


def _as_seen_by(uid: str, pod: _Pod) -> ObservedPod:
    return replace(pod.seen, owner="other") if pod.seen.owner == "run" and pod.controller != uid else pod.seen


def _already_gone(gone: _Gone, key: tuple[str, str], version: _Version) -> bool:
    deleted = gone.versions.get(key)
    return deleted is not None and not deleted.older_than(version)


def _without_managed_fields(body: Body) -> Body:
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": metadata}
