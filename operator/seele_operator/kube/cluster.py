"""The operator's requests to the API server: raw JSON bodies in and out, and errors as our own exceptions."""

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

from seele_operator.api.events import Refusal, RunEvent, event_manifest, event_name, timestamp
from seele_operator.api.seelerun import API_VERSION, KIND
from seele_operator.kube.connection import REQUEST_SECONDS, ApiConnection, ContentType, RequestSeen, default_identity
from seele_operator.kube.errors import (
    AlreadyExists,
    ClusterError,
    ClusterUnavailable,
    Conflict,
    Expired,
    Gone,
    NotLeading,
    Refused,
    Target,
    error_of,
)
from seele_operator.plan import names
from seele_operator.plan.names import Manifest
from seele_operator.plan.objects import ClusterFeatures

FIELD_MANAGER = "seele-operator"
PAGE = 250
"""Objects of a list that are parsed at a time: about 2 MB, which block the event loop for 20 ms."""
LIST_TRIES = 3
LIST_SECONDS = 60.0
LOG_LINES = 2000
"""Lines at the end of a log that are searched for the reason of a failure."""
LOG_LINE_BYTES = 2000
"""Bytes kept of each of them."""
MAX_REMEMBERED_EVENTS = 2000
"""Events whose count is kept in memory."""

Take = Callable[[Manifest], None]

PLURALS = {
    "ConfigMap": "configmaps",
    "Event": "events",
    "Lease": "leases",
    "NetworkPolicy": "networkpolicies",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "PodGroup": "podgroups",
    "SeeleRun": "seeleruns",
    "Service": "services",
}

_log = logging.getLogger(__name__)


def path_of(target: Target, namespace: str | None, subresource: str = "") -> str:
    """URL path of an object or of all objects of a kind; in one namespace or in all (None).

    Raises ValueError for an empty name.
    """
    if target.name == "":
        # The path would be that of all objects of the kind.
        raise ValueError(f"a {target.kind} without a name")
    version = target.api_version
    parts = ["apis" if "/" in version else "api", *version.split("/")]
    if namespace is not None:
        parts += ["namespaces", namespace]
    parts += [PLURALS[target.kind], target.name or "", subresource]
    return "/" + "/".join(quote(part, safe="") for part in parts if part)


class Cluster:
    """The operator's client of the API server.

    Every method raises ClusterUnavailable if a later retry makes sense, and Refused if this operator lacks the permission;
    every method that writes raises NotLeading if this operator may not write.
    """

    def __init__(
        self, connection: ApiConnection, features: ClusterFeatures, allowed: Callable[[], bool] = lambda: True
    ) -> None:
        self.features = features
        self._connection = connection
        self._allowed = allowed
        self._event_counts: OrderedDict[str, int] = OrderedDict()
        self._instance = default_identity()

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | None = None,
        context: str | None = None,
        *,
        allowed: Callable[[], bool] = lambda: True,
        on_request: RequestSeen | None = None,
    ) -> Self:
        """Find the API server as ApiConnection.open does, and query what it supports.

        `allowed` is called immediately before every write. Use `async with` or `close()`. Raises NoCluster too.
        """
        connection = await ApiConnection.open(kubeconfig, context, on_request=on_request)
        try:
            return cls(connection, await _features(connection), allowed)
        except BaseException:
            await connection.close()
            raise

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def read_run(self, namespace: str, name: str) -> Manifest | None:
        """The run as it is now; None if it does not exist."""
        return await self._read(Target(API_VERSION, KIND, name), namespace)

    async def read_pod(self, namespace: str, name: str) -> Manifest | None:
        """The pod as it is now; None if it does not exist."""
        return await self._read(Target("v1", "Pod", name), namespace)

    async def read_log(self, namespace: str, pod: str, container: str) -> str:
        """The last lines of a container's log, each of them cut. Raises ClusterError."""
        target, part = Target("v1", "Pod", pod), {"container": container, "tailLines": str(LOG_LINES)}
        path = path_of(target, namespace, "log")
        # No `limitBytes`: it would drop the end.
        lines = self._connection.lines(target, path, part, silence_seconds=REQUEST_SECONDS)
        # A container may write anything, such as one line without an end that arrives in any number of pieces.
        kept: deque[bytes] = deque(maxlen=LOG_LINES)
        async with contextlib.aclosing(lines):
            async for line in lines:
                kept.append(line[:LOG_LINE_BYTES])
        return b"\n".join(kept).decode("utf-8", "replace")

    async def each_run(self, namespace: str | None, take: Take) -> str:
        """Pass each run in a namespace (None: in all namespaces) to `take`; returns the list's resourceVersion."""
        return await self._list(Target(API_VERSION, KIND), namespace, {}, take)

    async def each_pod(self, namespace: str | None, take: Take) -> str:
        """Pass each run's pods in a namespace (None: in all namespaces) to `take`; returns the list's resourceVersion.

        One by one, since thousands of raw pods would fill the operator's memory. A pod may be passed twice.
        """
        return await self._list(Target("v1", "Pod"), namespace, {"labelSelector": names.RUN_LABEL}, take)

    async def patch_status(
        self, namespace: str, name: str, resource_version: str, patch: Mapping[str, Any]
    ) -> Manifest:
        """Merge `patch` into a run's status, if the run is unchanged since it was read; returns the patched run.

        Raises Conflict, Gone or Refused.
        """
        target = Target(API_VERSION, KIND, name)
        body = {"metadata": {"resourceVersion": resource_version}, "status": patch}
        return await self._write(
            "PATCH", target, path_of(target, namespace, "status"), body, "application/merge-patch+json"
        )

    async def create_pod(self, manifest: Manifest) -> Manifest | None:
        """Create a pod and return it; None if a pod of that name exists, which is not changed.

        Raises Refused or NamespaceTerminating.
        """
        try:
            return await self._create(manifest)
        except AlreadyExists:
            return None

    async def delete_pod(self, namespace: str, name: str, uid: str, grace: int | None = None) -> None:
        """Request the deletion of the pod with this uid; does nothing if it is already gone."""
        await self._delete(Target("v1", "Pod", name), namespace, uid, grace)

    async def adopt_pod(self, namespace: str, name: str, uid: str, owner: Mapping[str, Any]) -> None:
        """Add an owner reference to the pod with this uid. Raises Gone, or Conflict (including if it now has a controller)."""
        target = Target("v1", "Pod", name)
        body = {"metadata": {"uid": uid, "ownerReferences": [owner]}}
        path = path_of(target, namespace)
        # A strategic merge adds to the owners; a plain merge patch would replace them.
        await self._write("PATCH", target, path, body, "application/strategic-merge-patch+json")

    async def ensure(self, manifest: Manifest, run_uid: str) -> None:
        """Create or apply the object, unless one of its name exists that neither belongs to the run nor is its orphan.

        An existing claim is not changed: hardly any of its fields can change, and it may outlive its run. Raises Refused
        (NameTaken if the name belongs to another owner), Conflict or NamespaceTerminating.
        """
        try:
            await self._create(manifest)
            return
        except AlreadyExists:
            pass
        target, namespace = _target_of(manifest), manifest["metadata"]["namespace"]
        existing = await self._read(target, namespace, with_managers=True)
        if existing is None:
            raise Conflict(f"{target} existed a moment ago and is gone")
        why = names.taken(manifest, existing, run_uid)
        if why is not None:
            raise Refused(Refusal("NameTaken", f"{target}: {why}"))
        if target.kind == "PersistentVolumeClaim":
            return
        await self._take_over_created_fields(target, existing)
        metadata = {**manifest["metadata"], "uid": existing["metadata"]["uid"]}
        await self._write(
            "PATCH",
            target,
            path_of(target, namespace),
            {**manifest, "metadata": metadata},
            "application/apply-patch+yaml",
            {"fieldManager": FIELD_MANAGER, "force": "true"},
        )

    async def delete_object(self, manifest: Manifest, run_uid: str) -> None:
        """Delete the object named by the manifest, if the run with `run_uid` controls it."""
        target, namespace = _target_of(manifest), manifest["metadata"]["namespace"]
        answer = await self._connection.request("GET", path_of(target, namespace))
        if answer.code == 404:  # the object, or its kind
            return
        if answer.code >= 300:
            raise error_of(target, answer)
        controller = names.controller_of(answer.body)
        if controller is not None and controller["uid"] == run_uid:
            await self._delete(target, namespace, answer.body["metadata"]["uid"])

    async def delete_run(self, namespace: str, name: str, uid: str) -> None:
        """Delete the run with this uid; its objects follow in the background."""
        await self._delete(Target(API_VERSION, KIND, name), namespace, uid)

    async def post_event(self, run: Mapping[str, Any], event: RunEvent, now: datetime) -> None:
        """Post a Kubernetes Event about the run, or increment the count of a repeated one. Failures are only logged."""
        try:
            await self._post_event(run, event, now)
        except ClusterError as error:
            _log.warning("an event about %s was not posted: %s", run["metadata"]["name"], error)

    async def _post_event(self, run: Mapping[str, Any], event: RunEvent, now: datetime) -> None:
        namespace, name = run["metadata"]["namespace"], event_name(run, event)
        target = Target("v1", "Event", name)
        path = path_of(target, namespace)
        count = self._event_counts.get(name, 0)
        if count == 0:
            try:
                await self._create(event_manifest(run, event, now, self._instance))
            except AlreadyExists:
                # Another operator posted it. The answer to a patch holds the count, so no right to read events is needed.
                last = {"lastTimestamp": timestamp(now)}
                known = await self._write("PATCH", target, path, last, "application/merge-patch+json")
                count = int(known.get("count") or 1)
        if count > 0:
            repeated = {"count": count + 1, "lastTimestamp": timestamp(now)}
            try:
                await self._write("PATCH", target, path, repeated, "application/merge-patch+json")
            except Gone:  # the API server keeps events for an hour
                count = 0
                await self._create(event_manifest(run, event, now, self._instance))
        self._event_counts[name] = count + 1
        self._event_counts.move_to_end(name)
        while len(self._event_counts) > MAX_REMEMBERED_EVENTS:
            self._event_counts.popitem(last=False)

    async def _read(self, target: Target, namespace: str, *, with_managers: bool = False) -> Manifest | None:
        answer = await self._connection.request("GET", path_of(target, namespace))
        if answer.code < 300:
            body = dict(answer.body)
            return body if with_managers else _slim(body)
        error = error_of(target, answer)
        if isinstance(error, Gone):
            return None
        raise error

    async def _list(self, target: Target, namespace: str | None, query: Mapping[str, str], take: Take) -> str:
        for _ in range(LIST_TRIES - 1):
            try:
                return await self._list_pages(target, namespace, query, take)
            except Expired:
                continue  # a continue token expires after a few minutes
        try:
            return await self._list_pages(target, namespace, query, take)
        except Expired as error:
            raise ClusterUnavailable(str(error)) from error

    async def _list_pages(self, target: Target, namespace: str | None, query: Mapping[str, str], take: Take) -> str:
        path = path_of(target, namespace)
        more: dict[str, str] = {}
        while True:
            answer = await self._connection.request(
                "GET", path, query={**query, **more, "limit": PAGE}, seconds=LIST_SECONDS
            )
            if answer.code >= 300:
                raise error_of(target, answer)
            for item in answer.body.get("items") or []:
                take({**_slim(item), "apiVersion": target.api_version, "kind": target.kind})
            metadata = answer.body["metadata"]
            if not metadata.get("continue"):
                return str(metadata["resourceVersion"])
            more = {"continue": metadata["continue"]}
            await asyncio.sleep(0)  # let other tasks run, which waited while this page was parsed

    async def _create(self, manifest: Manifest) -> Manifest:
        target = _target_of(manifest)
        path = path_of(Target(target.api_version, target.kind), manifest["metadata"]["namespace"])
        return await self._write("POST", target, path, manifest, query={"fieldManager": FIELD_MANAGER})

    async def _delete(self, target: Target, namespace: str, uid: str, grace: int | None = None) -> None:
        options: dict[str, Any] = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._write("DELETE", target, path_of(target, namespace), options)
        except (Gone, Conflict):  # Conflict: another object now has its name
            return

    async def _take_over_created_fields(self, target: Target, existing: Manifest) -> None:
        """Transfer the fields that were set by POST to our server-side apply."""
        managed = applied_instead_of_created(existing, FIELD_MANAGER)
        if managed is None:
            return
        metadata = existing["metadata"]
        patch = [
            {"op": "replace", "path": "/metadata/managedFields", "value": managed},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
        ]
        path = path_of(target, metadata["namespace"])
        await self._write("PATCH", target, path, patch, "application/json-patch+json")

    async def _write(
        self,
        method: str,
        target: Target,
        path: str,
        body: Any,
        content_type: ContentType = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Manifest:
        answer = await self._connection.request(
            method, path, body, query=query, content_type=content_type, before=self._check_allowed
        )
        if answer.code >= 300:
            raise error_of(target, answer)
        return _slim(dict(answer.body))

    def _check_allowed(self) -> None:
        if not self._allowed():
            raise NotLeading("this operator does not hold the lease: nothing was sent")


def applied_instead_of_created(existing: Mapping[str, Any], manager: str) -> list[dict[str, Any]] | None:
    """The object's managedFields, with `manager`'s created fields marked as applied; None if nothing has to change.

    The API server treats creating and applying as two owners, even under one name: a field that was created and is then
    missing from what is applied would otherwise stay.
    """
    entries: list[dict[str, Any]] = existing["metadata"].get("managedFields") or []
    ours = [entry for entry in entries if entry.get("manager") == manager and not entry.get("subresource")]
    created = [entry for entry in ours if entry.get("operation") == "Update"]
    if not created:
        return None
    kept = [entry for entry in entries if entry not in created]
    if len(created) == len(ours):
        kept.append({**created[0], "operation": "Apply"})
    return kept


async def _features(connection: ApiConnection) -> ClusterFeatures:
    answer = await connection.request("GET", "/apis/policy")
    if answer.code >= 500 or answer.code in (401, 429):
        raise error_of(Target("policy", "APIGroup", "policy"), answer)
    versions = [version.get("groupVersion") for version in answer.body.get("versions") or []]
    # Without the right to read the group, assume the newest: only three supported releases lack policy/v1.
    old = "policy/v1" not in versions and "policy/v1beta1" in versions
    return ClusterFeatures(pod_disruption_budget="policy/v1beta1" if old else "policy/v1")


def _target_of(manifest: Manifest) -> Target:
    return Target(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])


def _slim(body: Manifest) -> Manifest:
    """The object without its managed fields, which are half of a pod."""
    metadata = body.get("metadata") or {}
    metadata.pop("managedFields", None)
    return body
