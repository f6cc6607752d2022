"""The cache filled by the watches: every SeeleRun, and the facts about its pods that decisions need."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from seele_operator.api.seelerun import KIND
from seele_operator.observe.pods import ObservedPod, observe_pod
from seele_operator.plan.names import RUN_LABEL

Body = Mapping[str, Any]


class RunKey(NamedTuple):
    """A run's namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Version:
    """The age of a fact: by the resourceVersion if that is a number, else by the time when it was received."""

    text: str
    received: float

    def older_than(self, other: "_Version") -> bool:
        if self.text.isdecimal() and other.text.isdecimal():
            return int(self.text) < int(other.text)
        return self.received < other.received

    def is_news_after(self, known: "_Version") -> bool:
        return self.text != known.text and not self.older_than(known)


@dataclass(frozen=True, slots=True)
class _Run:
    body: Body
    version: _Version


@dataclass(frozen=True, slots=True)
class _Pod:
    seen: ObservedPod
    controller: str
    """Uid of the pod's controller, of any run; empty for an orphan."""
    version: _Version


_Deleted = dict[tuple[str, str], _Version]
"""The versions at which objects were deleted, so that a read that overlapped with the deletion does not revive them."""


class Store:
    """Runs and pods as last seen. Older information than what is stored is ignored."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._runs: dict[RunKey, _Run] = {}
        self._pods: dict[RunKey, dict[str, _Pod]] = {}
        self._deleted_runs: _Deleted = {}
        self._deleted_pods: _Deleted = {}

    def run(self, key: RunKey) -> Body | None:
        """The run's body, without its managed fields; None if the run is not known."""
        known = self._runs.get(key)
        return known.body if known is not None else None

    def runs(self) -> Iterator[tuple[RunKey, Body]]:
        """All runs."""
        return ((key, known.body) for key, known in self._runs.items())

    def run_count(self) -> int:
        """The number of known runs."""
        return len(self._runs)

    def pods(self, key: RunKey) -> tuple[ObservedPod, ...]:
        """The pods with the label of the run in `key`, by name, with their owner relative to the run's current uid."""
        run = self._runs.get(key)
        uid = uid_of(run.body) if run is not None else ""
        return tuple(_as_seen_by(uid, pod) for _, pod in sorted(self._pods.get(key, {}).items()))

    def put_run(self, body: Body) -> RunKey | None:
        """Store a run that was read or watched; returns its key if that was news."""
        key = key_of(body)
        version = self._version(body)
        if not _is_news(version, self._runs.get(key), self._deleted_runs.get(key)):
            return None
        self._runs[key] = _Run(_without_managed_fields(body), version)
        return key

    def drop_run(self, body: Body) -> RunKey | None:
        """Remove a run that was deleted; returns its key if that was news."""
        key = key_of(body)
        version = self._version(body)
        known = self._runs.get(key)
        # A newer run may have taken the name in the meantime.
        if known is None or (uid_of(known.body) != uid_of(body) and version.older_than(known.version)):
            return None
        del self._runs[key]
        self._deleted_runs[key] = version
        return key

    def put_pod(self, body: Body) -> RunKey | None:
        """Store a pod that was read or watched; returns the key of its run if that was news."""
        if (found := self._found(body)) is None:
            return None
        key, name, version, known = found
        if not _is_news(version, known, self._deleted_pods.get((key.namespace, name))):
            return None
        controller = _controller_of(body)
        seen = observe_pod(body, controller)
        if seen is None:
            # It lacks the labels of a run's pod, or has lost them.
            if known is not None:
                self._remove_pod(key, name, version)
            return key if known is not None else None
        self._pods.setdefault(key, {})[name] = _Pod(seen, controller, version)
        return key

    def drop_pod(self, body: Body) -> RunKey | None:
        """Remove a pod that was deleted; returns the key of its run if that was news."""
        if (found := self._found(body)) is None:
            return None
        key, name, version, known = found
        if known is None or (known.seen.uid != body["metadata"].get("uid") and version.older_than(known.version)):
            return None
        self._remove_pod(key, name, version)
        return key

    def lost_pod(self, key: RunKey, name: str, uid: str) -> None:
        """Remove a pod that a fresh read did not find."""
        known = self._pods.get(key, {}).get(name)
        if known is not None and known.seen.uid == uid:
            self._remove_pod(key, name, _Version(known.version.text, self._clock()))

    def lost_run(self, key: RunKey, uid: str) -> None:
        """Remove a run that a fresh read did not find."""
        known = self._runs.get(key)
        if known is not None and uid_of(known.body) == uid:
            del self._runs[key]
            self._deleted_runs[key] = _Version(known.version.text, self._clock())

    def keep_runs(self, listed: set[RunKey], version: str, began: float, namespace: str | None = None) -> set[RunKey]:
        """Remove all runs in `namespace` (None: in all) that are not in a list of them; returns their keys.

        `version` is the list's resourceVersion, and `began` the time of its request: later information is kept.
        """
        list_version = _Version(version, began)
        removed = {
            key
            for key, known in self._runs.items()
            if key not in listed and namespace in (None, key.namespace) and known.version.older_than(list_version)
        }
        for key in removed:
            del self._runs[key]
        self._deleted_runs = _since(began, self._deleted_runs)
        return removed

    def keep_pods(
        self, listed: set[tuple[RunKey, str]], version: str, began: float, namespace: str | None = None
    ) -> set[RunKey]:
        """Like `keep_runs`, for the pods of runs; returns the keys of their runs."""
        list_version = _Version(version, began)
        missing = [
            (key, name)
            for key, pods in self._pods.items()
            if namespace in (None, key.namespace)
            for name, known in pods.items()
            if (key, name) not in listed and known.version.older_than(list_version)
        ]
        for key, name in missing:
            self._remove_pod(key, name, list_version)
        self._deleted_pods = _since(began, self._deleted_pods)
        return {key for key, _ in missing}

    def _remove_pod(self, key: RunKey, name: str, version: _Version) -> None:
        pods = self._pods[key]
        del pods[name]
        if not pods:
            del self._pods[key]
        self._deleted_pods[key.namespace, name] = version

    def _found(self, pod: Body) -> tuple[RunKey, str, _Version, _Pod | None] | None:
        """The key of the pod's run, the pod's name and version, and what is stored of it; None without a run's label."""
        place = place_of(pod)
        return None if place is None else (*place, self._version(pod), self._pods.get(place[0], {}).get(place[1]))

    def _version(self, body: Body) -> _Version:
        return _Version(str(body["metadata"].get("resourceVersion", "")), self._clock())


def key_of(run: Body) -> RunKey:
    """The run's key."""
    metadata = run["metadata"]
    return RunKey(metadata["namespace"], metadata["name"])


def uid_of(body: Body) -> str:
    """The object's uid; empty if it has none."""
    return str(body["metadata"].get("uid", ""))


def place_of(pod: Body) -> tuple[RunKey, str] | None:
    """The key of the pod's run and the pod's name; None if the pod lacks the run's label."""
    metadata = pod["metadata"]
    run = (metadata.get("labels") or {}).get(RUN_LABEL)
    return (RunKey(metadata["namespace"], run), metadata["name"]) if run else None


def _controller_of(body: Body) -> str:
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller") and owner.get("kind") == KIND), "")


def _as_seen_by(uid: str, pod: _Pod) -> ObservedPod:
    return replace(pod.seen, owner="other") if pod.seen.owner == "run" and pod.controller != uid else pod.seen


def _is_news(version: _Version, known: _Run | _Pod | None, deleted: _Version | None) -> bool:
    if known is not None:
        return version.is_news_after(known.version)
    return deleted is None or deleted.older_than(version)


def _since(moment: float, deleted: _Deleted) -> _Deleted:
    return {key: version for key, version in deleted.items() if version.received >= moment}


def _without_managed_fields(body: Body) -> Body:
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": metadata}
