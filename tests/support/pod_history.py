"""A record of all pods of a namespace, to prove afterwards what never happened."""

import threading
from dataclasses import dataclass

import requests

from seele_operator.plan.names import ATTEMPT_LABEL, RUN_LABEL
from tests.support.kubernetes_api import ApiError, Body, KubernetesApi
from tests.support.waiting import wait_for

WATCH_SECONDS = 60
RETRY_SECONDS = 0.1


@dataclass(frozen=True)
class PodLife:
    """A created pod."""

    name: str
    uid: str
    run: str
    attempt: str


class PodHistory:
    """Watches a namespace from its creation on."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self.created: list[PodLife] = []
        self.overlaps: list[str] = []
        """Descriptions of moments when pods of two attempts of a run existed."""
        self.foreign: set[str] = set()
        """Names of pods to ignore: they have a run's labels but do not belong to it."""
        self._api = api
        self._namespace = namespace
        self._alive: dict[str, PodLife] = {}
        self._done = threading.Event()
        self._seen = 0
        self._thread = threading.Thread(target=self._watch, name="pod-history", daemon=True)
        self._thread.start()
        wait_for(lambda: self._seen, "the history starts")

    def close(self) -> None:
        """Stop watching after the next event."""
        self._done.set()

    def _watch(self) -> None:
        while not self._done.is_set():
            try:
                listed = self._api.list_raw("pods", self._namespace, RUN_LABEL)
                existing = {pod["metadata"]["uid"] for pod in listed["items"]}
                for uid in set(self._alive) - existing:
                    del self._alive[uid]
                for pod in listed["items"]:
                    self._record(pod)
                self._seen += 1
                version = listed["metadata"]["resourceVersion"]
                for event in self._api.watch("pods", self._namespace, version, RUN_LABEL, WATCH_SECONDS):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._record(event["object"])
                    elif event["type"] == "DELETED":
                        self._alive.pop(event["object"]["metadata"]["uid"], None)
                    if self._done.is_set():
                        return
            except (OSError, requests.RequestException, ApiError, ValueError):
                self._done.wait(RETRY_SECONDS)

    def _record(self, pod: Body) -> None:
        metadata = pod["metadata"]
        if metadata["uid"] in self._alive or metadata["name"] in self.foreign:
            return
        labels = metadata["labels"]
        life = PodLife(metadata["name"], metadata["uid"], labels[RUN_LABEL], labels.get(ATTEMPT_LABEL, ""))
        for other in self._alive.values():
            if other.run == life.run and other.attempt != life.attempt:
                self.overlaps.append(
                    f"{life.name} of attempt {life.attempt} appeared while {other.name} of attempt {other.attempt} existed"
                )
        self._alive[life.uid] = life
        self.created.append(life)
