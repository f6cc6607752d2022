"""A small synchronous client of a Kubernetes API server for tests: raw JSON in, raw JSON out."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

Body = dict[str, Any]

GROUPS = {
    "seeleruns": "apis/seele.dev/v1alpha1",
    "deployments": "apis/apps/v1",
    "leases": "apis/coordination.k8s.io/v1",
    "networkpolicies": "apis/networking.k8s.io/v1",
    "poddisruptionbudgets": "apis/policy/v1",
    "customresourcedefinitions": "apis/apiextensions.k8s.io/v1",
    "clusterroles": "apis/rbac.authorization.k8s.io/v1",
    "clusterrolebindings": "apis/rbac.authorization.k8s.io/v1",
    "roles": "apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "apis/rbac.authorization.k8s.io/v1",
    "priorityclasses": "apis/scheduling.k8s.io/v1",
    "runtimeclasses": "apis/node.k8s.io/v1",
}
"""API group of each resource outside the core group; tests change `groups` for old servers."""
CLUSTER_SCOPED = {
    "namespaces",
    "nodes",
    "customresourcedefinitions",
    "clusterroles",
    "clusterrolebindings",
    "priorityclasses",
    "runtimeclasses",
}
SECONDS = 30.0


class ApiError(Exception):
    """The API server refused a request; `code` is the HTTP status and `reason` its stable word."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        try:
            self.reason = str(json.loads(text).get("reason"))
            self.message = str(json.loads(text).get("message"))
        except ValueError:
            self.reason = ""
            self.message = text


def plural(kind: str) -> str:
    """The resource name of a kind."""
    lower = kind.lower()
    return f"{lower[:-1]}ies" if lower.endswith(("cy",)) else f"{lower}es" if lower.endswith("ss") else f"{lower}s"


class KubernetesApi:
    """`api.get("pods", "name", "namespace")`, and so on. As thread-safe as `requests`."""

    def __init__(self, url: str, token: str, certificate_authority: Path) -> None:
        self.url = url
        self.certificate_authority = certificate_authority
        self.groups = dict(GROUPS)
        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=64)
        self._session.mount("https://", adapter)
        if token:  # `kubectl proxy` adds its own
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = str(certificate_authority)
        self._session.trust_env = False

    def request(
        self,
        verb: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> Body:
        """Send one request. Raises ApiError, or requests' ConnectionError if there is no server."""
        answer = self._session.request(
            verb,
            f"{self.url}/{path}",
            params=query,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type, "Accept": accept},
            timeout=SECONDS,
        )
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, answer.text)
        try:
            result: Body = answer.json()
        except ValueError:
            result = {"text": answer.text}
        return result

    def path(self, resource: str, name: str | None, namespace: str | None, subresource: str = "") -> str:
        """The path of an object or a collection."""
        parts = [self.groups.get(resource, "api/v1")]
        if resource not in CLUSTER_SCOPED and namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (resource, name, subresource) if part]
        return "/".join(parts)

    def get(self, resource: str, name: str, namespace: str | None = None) -> Body | None:
        """One object; None if it does not exist."""
        try:
            return self.request("GET", self.path(resource, name, namespace))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def list(self, resource: str, namespace: str | None = None, selector: str = "") -> list[Body]:
        """All objects of a namespace, or of all namespaces."""
        return list(self.list_raw(resource, namespace, selector)["items"])

    def list_raw(self, resource: str, namespace: str | None = None, selector: str = "") -> Body:
        """The list object itself, with its resourceVersion."""
        return self.request("GET", self.path(resource, None, namespace), labelSelector=selector)

    def watch(
        self, resource: str, namespace: str | None, version: str, selector: str = "", seconds: int = 300
    ) -> Iterator[Body]:
        """Events since a resourceVersion, until the server ends the watch."""
        answer = self._session.get(
            f"{self.url}/{self.path(resource, None, namespace)}",
            params={
                "watch": "1",
                "resourceVersion": version,
                "labelSelector": selector,
                "timeoutSeconds": str(seconds),
            },
            stream=True,
            timeout=(SECONDS, seconds + SECONDS),
        )
        with answer:
            if answer.status_code >= 400:
                raise ApiError(answer.status_code, answer.text)
            # A chunk may hold half an event, but each line is one event.
            for line in answer.iter_lines(chunk_size=1):
                if line:
                    yield json.loads(line)

    def create(self, manifest: Mapping[str, Any], namespace: str | None = None) -> Body:
        """Create an object, by default in the namespace of its metadata."""
        metadata = manifest.get("metadata") or {}
        where = namespace or metadata.get("namespace", "default")
        return self.request("POST", self.path(plural(manifest["kind"]), None, where), manifest)

    def apply(self, manifest: Mapping[str, Any], namespace: str | None = None) -> Body:
        """Apply an object server-side, as `kubectl apply --server-side`."""
        metadata = manifest["metadata"]
        path = self.path(plural(manifest["kind"]), metadata["name"], namespace or metadata.get("namespace", "default"))
        return self.request("PATCH", path, manifest, "application/apply-patch+yaml", fieldManager="tests", force="true")

    def patch(
        self, resource: str, name: str, namespace: str | None, change: Mapping[str, Any], subresource: str = ""
    ) -> Body:
        """Change an object by a merge patch."""
        path = self.path(resource, name, namespace, subresource)
        return self.request("PATCH", path, change, "application/merge-patch+json")

    def delete(self, resource: str, name: str, namespace: str | None = None, grace: int | None = None) -> None:
        """Request the deletion of an object; does nothing if it does not exist."""
        options: Body = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self.request("DELETE", self.path(resource, name, namespace), options)
        except ApiError as error:
            if error.code != 404:
                raise
