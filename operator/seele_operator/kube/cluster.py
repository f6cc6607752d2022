"""The API server as the operator needs it: raw JSON bodies in and out, its errors turned into ours."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from seele_operator.api.notices import Notice, Refusal
from seele_operator.api.seelerun import API_VERSION, KIND
from seele_operator.kube.connection import ApiConnection, ContentType, RequestSeen, default_identity
from seele_operator.kube.errors import (
    AlreadyExists,
    Asked,
    ClusterError,
    ClusterUnavailable,
    Conflict,
    Expired,
    Gone,
    NotLeading,
    Refused,
    error_of,
)
from seele_operator.kube.events import event, event_name, timestamp
from seele_operator.kube.ownership import applied_instead_of_created, controller_of, taken
from seele_operator.plan import names
from seele_operator.plan.names import Manifest
from seele_operator.plan.objects import ClusterFeatures

FIELD_MANAGER = "seele-operator"
PAGE = 250
"""Objects of a list that are parsed at a time: about 2 MB, and 20 ms in which nothing else happens."""
LIST_TRIES = 3
LIST_SECONDS = 60.0
EVENTS_REMEMBERED = 2000
"""Events whose count is known without asking."""

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


def path_of(api_version: str, kind: str, namespace: str | None, *rest: str) -> str:
    """Where objects of a kind are, in a namespace or (None) in all; `rest` is a name, and a subresource."""
    parts = ["apis" if "/" in api_version else "api", *api_version.split("/")]
    if namespace is not None:
        parts += ["namespaces", namespace]
    return "/" + "/".join(quote(part, safe="") for part in (*parts, PLURALS[kind], *rest))


class Cluster:
    """What the operator asks of the API server.

    Every method raises ClusterUnavailable where it makes sense to try again later, every method that writes raises
    NotLeading where this operator may not write, and any may raise Refused where this operator lacks the permission.
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
    ) -> Cluster:
        """Find the API server as ApiConnection.open does, and ask it what it supports.

        `allowed` is asked right before every write. Use `async with` or `close()`. Raises NoCluster too.
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

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def read_run(self, namespace: str, name: str) -> Manifest | None:
        """The run as it is now; None where there is none."""
        return await self._read(Asked(API_VERSION, KIND, name), namespace)

    async def read_pod(self, namespace: str, name: str) -> Manifest | None:
        """The pod as it is now; None where there is none."""
        return await self._read(Asked("v1", "Pod", name), namespace)

    async def each_run(self, namespace: str | None, take: Take) -> str:
        """Hand all runs of a namespace (None: of all namespaces) to `take`; the resourceVersion they are seen at."""
        return await self._list(Asked(API_VERSION, KIND), namespace, {}, take)

    async def each_pod(self, namespace: str | None, take: Take) -> str:
        """Hand all pods of runs, of a namespace (None: of all namespaces), to `take`; the resourceVersion they are seen at.

        One by one, since thousands of pods as they come would fill the operator's memory. A pod may come twice.
        """
        return await self._list(Asked("v1", "Pod"), namespace, {"labelSelector": names.RUN_LABEL}, take)

    async def patch_status(
        self, namespace: str, name: str, resource_version: str, patch: Mapping[str, Any]
    ) -> Manifest:
        """Change the status of a run by a merge patch (of the status alone), if nobody changed the run since it was read.

        Returns the run as it is now. Raises Conflict, Gone or Refused.
        """
        asked = Asked(API_VERSION, KIND, name)
        body = {"metadata": {"resourceVersion": resource_version}, "status": patch}
        path = path_of(API_VERSION, KIND, namespace, name, "status")
        return await self._write("PATCH", asked, path, body, "application/merge-patch+json")

    async def create_pod(self, manifest: Manifest) -> Manifest | None:
        """Create a pod and return it; None where one of its name exists, which is left as it is.

        Raises Refused or NamespaceTerminating.
        """
        try:
            return await self._create(manifest)
        except AlreadyExists:
            return None

    async def delete_pod(self, namespace: str, name: str, uid: str, grace: int | None = None) -> None:
        """Ask for the deletion of this very pod; nothing happens where it is gone already."""
        await self._delete(Asked("v1", "Pod", name), namespace, uid, grace)

    async def adopt_pod(self, namespace: str, name: str, uid: str, owner: Mapping[str, Any]) -> None:
        """Add an owner reference to this very pod. Raises Gone, or Conflict (also where it has a controller by now)."""
        asked = Asked("v1", "Pod", name)
        body = {"metadata": {"uid": uid, "ownerReferences": [owner]}}
        path = path_of("v1", "Pod", namespace, name)
        # A strategic merge adds to the owners; a plain merge patch would replace them.
        await self._write("PATCH", asked, path, body, "application/strategic-merge-patch+json")

    async def ensure(self, manifest: Manifest, run_uid: str) -> None:
        """Make an object what the manifest says, if it is missing, the run's (uid `run_uid`), or an orphan of the run.

        A claim that exists is left as it is: hardly anything of it can change, and it may outlive its run. Raises
        Refused (NameTaken where the name belongs to somebody else), Conflict or NamespaceTerminating.
        """
        try:
            await self._create(manifest)
            return
        except AlreadyExists:
            pass
        asked, namespace = _asked(manifest), manifest["metadata"]["namespace"]
        existing = await self._read(asked, namespace, with_managers=True)
        if existing is None:
            raise Conflict(f"{asked} was there and is gone")
        why = taken(manifest, existing, run_uid)
        if why is not None:
            raise Refused(Refusal("NameTaken", f"{asked}: {why}"))
        if asked.kind == "PersistentVolumeClaim":
            return
        await self._take_over_created_fields(asked, existing)
        metadata = {**manifest["metadata"], "uid": existing["metadata"]["uid"]}
        await self._write(
            "PATCH",
            asked,
            path_of(asked.api_version, asked.kind, namespace, asked.name),
            {**manifest, "metadata": metadata},
            "application/apply-patch+yaml",
            {"fieldManager": FIELD_MANAGER, "force": "true"},
        )

    async def delete_object(self, manifest: Manifest, run_uid: str) -> None:
        """Delete the object that the manifest names, if the run (uid `run_uid`) controls it."""
        asked, namespace = _asked(manifest), manifest["metadata"]["namespace"]
        path = path_of(asked.api_version, asked.kind, namespace, asked.name)
        answer = await self._connection.request("GET", path)
        if answer.code == 404:  # the object, or its kind
            return
        if answer.code >= 300:
            raise error_of(asked, answer)
        controller = controller_of(answer.body)
        if controller is not None and controller["uid"] == run_uid:
            await self._delete(asked, namespace, answer.body["metadata"]["uid"])

    async def delete_run(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very run; its objects follow in the background."""
        await self._delete(Asked(API_VERSION, KIND, name), namespace, uid)

    async def post_event(self, run: Mapping[str, Any], notice: Notice, now: datetime) -> None:
        """Tell about the run in a Kubernetes Event; a repeated one is counted up. Never raises: a failure is logged."""
        try:
            await self._post_event(run, notice, now)
        except ClusterError as error:
            _log.warning("an event about %s was not posted: %s", run["metadata"]["name"], error)

    async def _post_event(self, run: Mapping[str, Any], notice: Notice, now: datetime) -> None:
        namespace, name = run["metadata"]["namespace"], event_name(run, notice)
        asked, path = Asked("v1", "Event", name), path_of("v1", "Event", namespace, name)
        count = self._event_counts.get(name, 0)
        if count == 0:
            try:
                await self._create(event(run, notice, now, self._instance))
            except AlreadyExists:
                # Another operator told it. The answer to a patch has the count, so that events need not be readable.
                last = {"lastTimestamp": timestamp(now)}
                known = await self._write("PATCH", asked, path, last, "application/merge-patch+json")
                count = int(known.get("count") or 1)
        if count > 0:
            repeated = {"count": count + 1, "lastTimestamp": timestamp(now)}
            try:
                await self._write("PATCH", asked, path, repeated, "application/merge-patch+json")
            except Gone:  # the API server forgets events after an hour
                count = 0
                await self._create(event(run, notice, now, self._instance))
        self._event_counts[name] = count + 1
        self._event_counts.move_to_end(name)
        while len(self._event_counts) > EVENTS_REMEMBERED:
            self._event_counts.popitem(last=False)

    async def _read(self, asked: Asked, namespace: str, *, with_managers: bool = False) -> Manifest | None:
        path = path_of(asked.api_version, asked.kind, namespace, asked.name)
        answer = await self._connection.request("GET", path)
        if answer.code < 300:
            body = dict(answer.body)
            return body if with_managers else _slim(body)
        error = error_of(asked, answer)
        if isinstance(error, Gone):
            return None
        raise error

    async def _list(self, asked: Asked, namespace: str | None, query: Mapping[str, str], take: Take) -> str:
        for _ in range(LIST_TRIES - 1):
            try:
                return await self._list_pages(asked, namespace, query, take)
            except Expired:
                # The server forgets what it was listing after some minutes.
                continue
        try:
            return await self._list_pages(asked, namespace, query, take)
        except Expired as error:
            raise ClusterUnavailable(str(error)) from error

    async def _list_pages(self, asked: Asked, namespace: str | None, query: Mapping[str, str], take: Take) -> str:
        path = path_of(asked.api_version, asked.kind, namespace)
        more: dict[str, str] = {}
        while True:
            answer = await self._connection.request(
                "GET", path, query={**query, **more, "limit": PAGE}, seconds=LIST_SECONDS
            )
            if answer.code >= 300:
                raise error_of(asked, answer)
            for item in answer.body.get("items") or []:
                take({**_slim(item), "apiVersion": asked.api_version, "kind": asked.kind})
            metadata = answer.body["metadata"]
            if not metadata.get("continue"):
                return str(metadata["resourceVersion"])
            more = {"continue": metadata["continue"]}
            await asyncio.sleep(0)  # others have waited while this page was parsed

    async def _create(self, manifest: Manifest) -> Manifest:
        asked = _asked(manifest)
        path = path_of(asked.api_version, asked.kind, manifest["metadata"]["namespace"])
        return await self._write("POST", asked, path, manifest, query={"fieldManager": FIELD_MANAGER})

    async def _delete(self, asked: Asked, namespace: str, uid: str, grace: int | None = None) -> None:
        options: dict[str, Any] = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        path = path_of(asked.api_version, asked.kind, namespace, asked.name)
        try:
            await self._write("DELETE", asked, path, options)
        except (Gone, Conflict):  # or another object has its name by now
            return

    async def _take_over_created_fields(self, asked: Asked, existing: Manifest) -> None:
        """Let what was created by POST belong to our applying from now on."""
        managed = applied_instead_of_created(existing, FIELD_MANAGER)
        if managed is None:
            return
        metadata = existing["metadata"]
        patch = [
            {"op": "replace", "path": "/metadata/managedFields", "value": managed},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
        ]
        path = path_of(asked.api_version, asked.kind, metadata["namespace"], asked.name)
        await self._write("PATCH", asked, path, patch, "application/json-patch+json")

    async def _write(
        self,
        method: str,
        asked: Asked,
        path: str,
        body: Any,
        content_type: ContentType = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Manifest:
        answer = await self._connection.request(
            method, path, body, query=query, content_type=content_type, before=self._check_allowed
        )
        if answer.code >= 300:
            raise error_of(asked, answer)
        return _slim(dict(answer.body))

    def _check_allowed(self) -> None:
        if not self._allowed():
            raise NotLeading("this operator does not hold the lease: nothing was sent")


async def _features(connection: ApiConnection) -> ClusterFeatures:
    answer = await connection.request("GET", "/apis/policy")
    if answer.code >= 500 or answer.code in (401, 429):
        raise error_of(Asked("policy", "APIGroup", "policy"), answer)
    versions = [version.get("groupVersion") for version in answer.body.get("versions") or []]
    # Who may not look has the newest: it was only for three releases that there was no policy/v1.
    old = "policy/v1" not in versions and "policy/v1beta1" in versions
    return ClusterFeatures(pod_disruption_budget="policy/v1beta1" if old else "policy/v1")


def _asked(manifest: Manifest) -> Asked:
    return Asked(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])


def _slim(body: Manifest) -> Manifest:
    """Without the list of who owns which field, which is half of a pod."""
    metadata = body.get("metadata") or {}
    metadata.pop("managedFields", None)
    return body
