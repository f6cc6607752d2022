"""Everything that ever happened to the pods of a namespace, to prove afterwards what never did."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

import requests

from seele_operator.plan.names import ATTEMPT_LABEL, RUN_LABEL
from tests.support.kubernetes_api import ApiError, Body, KubernetesApi
from tests.support.waiting import wait_for

WATCH_SECONDS = 60
RETRY_SECONDS = 0.1


@dataclass(frozen=True)
class PodLife:
    """A pod that was created."""

    name: str
    uid: str
    run: str
    attempt: str


class PodHistory:
    """Watches a namespace from the moment it is made."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self.created: list[PodLife] = []
        self.overlaps: list[str] = []
        """Moments at which pods of two attempts of one run existed."""
        self.foreign: set[str] = set()
        """Names of pods that have a run's labels and belong to nobody."""
        self._api = api
        self._namespace = namespace
        self._alive: dict[str, PodLife] = {}
        self._done = threading.Event()
        self._seen = 0
        self._thread = threading.Thread(target=self._watch, name="pod-history", daemon=True)
        self._thread.start()
        wait_for(lambda: self._seen, "the history begins")

    def close(self) -> None:
        """End at the next occasion."""
        self._done.set()

    def creations(self, name: str) -> int:
        """How often a pod of this name was created."""
        return Counter(life.name for life in self.created)[name]

    def _watch(self) -> None:
        while not self._done.is_set():
            try:
                listed = self._api.list_raw("pods", self._namespace, RUN_LABEL)
                there = {pod["metadata"]["uid"] for pod in listed["items"]}
                for uid in set(self._alive) - there:
                    del self._alive[uid]
                for pod in listed["items"]:
                    self._came(pod)
                self._seen += 1
                version = listed["metadata"]["resourceVersion"]
                for event in self._api.watch("pods", self._namespace, version, RUN_LABEL, WATCH_SECONDS):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._came(event["object"])
                    elif event["type"] == "DELETED":
                        self._alive.pop(event["object"]["metadata"]["uid"], None)
                    if self._done.is_set():
                        return
            except (OSError, requests.RequestException, ApiError, ValueError):
                self._done.wait(RETRY_SECONDS)

    def _came(self, pod: Body) -> None:
        metadata = pod["metadata"]
        if metadata["uid"] in self._alive or metadata["name"] in self.foreign:
            return
        labels = metadata["labels"]
        life = PodLife(metadata["name"], metadata["uid"], labels[RUN_LABEL], labels.get(ATTEMPT_LABEL, ""))
        for other in self._alive.values():
            if other.run == life.run and other.attempt != life.attempt:
                self.overlaps.append(
                    f"{life.name} of attempt {life.attempt} came while {other.name} of attempt {other.attempt} was there"
                )
        self._alive[life.uid] = life
        self.created.append(life)
