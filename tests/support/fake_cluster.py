"""An API server in memory, for tests of the operator's passes: it stores objects, and can fail at any request."""

import itertools
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from seele_operator.api.events import RunEvent
from seele_operator.kube.errors import Conflict, Gone
from seele_operator.plan.objects import ClusterFeatures

Body = dict[str, Any]
Request = tuple[str, str]
"""Verb and object, such as ("create", "Pod/first-trainer-0")."""

NAMESPACE = "lab"


class FakeCluster:
    """The methods of Cluster, on objects in memory."""

    features = ClusterFeatures()

    def __init__(self) -> None:
        self.objects: dict[str, Body] = {}
        self.requests: list[Request] = []
        self.events: list[RunEvent] = []
        self.logs: dict[str, str] = {}
        """Logs by the name of the pod; other pods have no log."""
        self.before: Callable[[Request], None] = lambda request: None
        """Called before each request; may raise the error with which it fails."""
        self.after: Callable[[Request], None] = lambda request: None
        """Called after each write; may raise an exception that ends the operator."""
        self._versions = itertools.count(100)

    # For tests.

    def add(self, kind: str, body: Body) -> Body:
        """Store an object on behalf of another client."""
        stored = deepcopy(body)
        stored["kind"] = kind
        metadata = stored["metadata"]
        metadata.setdefault("namespace", NAMESPACE)
        metadata.setdefault("uid", f"uid-{next(self._versions)}")
        self._stamp(stored)
        self.objects[f"{kind}/{metadata['name']}"] = stored
        return deepcopy(stored)

    def change(self, name: str, **fields: Any) -> Body:
        """Replace top-level fields of an object on behalf of another client."""
        self.objects[name] |= deepcopy(fields)
        self._stamp(self.objects[name])
        return deepcopy(self.objects[name])

    def remove(self, name: str) -> None:
        """Remove an object at once."""
        del self.objects[name]

    def names(self, kind: str) -> set[str]:
        """The names of all objects of a kind."""
        return {name.partition("/")[2] for name in self.objects if name.startswith(f"{kind}/")}

    def sent(self, *verbs: str) -> list[Request]:
        """The requests with these verbs, in order."""
        return [request for request in self.requests if request[0] in verbs]

    # The operator's requests.

    async def read_run(self, namespace: str, name: str) -> Body | None:
        return self._read(f"SeeleRun/{name}")

    async def read_pod(self, namespace: str, name: str) -> Body | None:
        return self._read(f"Pod/{name}")

    async def read_log(self, namespace: str, pod: str, container: str) -> str:
        self._begin("log", f"Pod/{pod}")
        if pod not in self.logs:
            raise Gone(pod)
        return self.logs[pod]

    async def each_run(self, namespace: str | None, take: Callable[[Body], None]) -> str:
        return self._each("SeeleRun", take)

    async def each_pod(self, namespace: str | None, take: Callable[[Body], None]) -> str:
        return self._each("Pod", take)

    async def patch_status(self, namespace: str, name: str, resource_version: str, patch: Mapping[str, Any]) -> Body:
        request = self._begin("patch_status", f"SeeleRun/{name}")
        run = self.objects.get(request[1])
        if run is None:
            raise Gone(name)
        if run["metadata"]["resourceVersion"] != resource_version:
            raise Conflict(name)
        run["status"] = merge_patched(run.get("status"), patch)
        self._stamp(run)
        self.after(request)
        return deepcopy(run)

    async def create_pod(self, manifest: Body) -> Body | None:
        name = f"Pod/{manifest['metadata']['name']}"
        request = self._begin("create", name)
        if name in self.objects:
            return None
        created = self.add("Pod", {**manifest, "status": {"phase": "Pending"}})
        self.after(request)
        return created

    async def delete_pod(self, namespace: str, name: str, uid: str, grace: int | None = None) -> None:
        request = self._begin("delete", f"Pod/{name}")
        pod = self.objects.get(request[1])
        if pod is not None and pod["metadata"]["uid"] == uid:
            pod["metadata"] |= {"deletionTimestamp": "2026-11-22T20:00:00Z", "deletionGracePeriodSeconds": grace}
            self._stamp(pod)
        self.after(request)

    async def adopt_pod(self, namespace: str, name: str, uid: str, owner: Mapping[str, Any]) -> None:
        request = self._begin("adopt", f"Pod/{name}")
        self.objects[request[1]]["metadata"]["ownerReferences"] = [dict(owner)]
        self._stamp(self.objects[request[1]])
        self.after(request)

    async def ensure(self, manifest: Body, run_uid: str) -> None:
        request = self._begin("ensure", f"{manifest['kind']}/{manifest['metadata']['name']}")
        self.add(manifest["kind"], manifest)
        self.after(request)

    async def delete_object(self, manifest: Body, run_uid: str) -> None:
        request = self._begin("delete", f"{manifest['kind']}/{manifest['metadata']['name']}")
        self.objects.pop(request[1], None)
        self.after(request)

    async def delete_run(self, namespace: str, name: str, uid: str) -> None:
        request = self._begin("delete", f"SeeleRun/{name}")
        self.objects.pop(request[1], None)
        self.after(request)

    async def post_event(self, run: Mapping[str, Any], event: RunEvent, now: datetime) -> None:
        self.events.append(event)

    def _begin(self, verb: str, name: str) -> Request:
        request = (verb, name)
        self.requests.append(request)
        self.before(request)
        return request

    def _read(self, name: str) -> Body | None:
        self._begin("read", name)
        return deepcopy(self.objects.get(name))

    def _each(self, kind: str, take: Callable[[Body], None]) -> str:
        self._begin("list", kind)
        for name, body in self.objects.items():
            if name.startswith(f"{kind}/"):
                take(deepcopy(body))
        return str(next(self._versions))

    def _stamp(self, body: Body) -> None:
        body["metadata"]["resourceVersion"] = str(next(self._versions))


def merge_patched(target: Any, patch: Any) -> Any:
    """A merge patch, applied by the algorithm of RFC 7386, section 2."""
    if not isinstance(patch, Mapping):
        return deepcopy(patch)
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patched(result.get(name), value)
    return result
