"""The API server as the user of a cluster sees it: SeeleRuns, and the pods, logs and events of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from seele_operator.api.seelerun import GROUP, PLURAL, VERSION
from seele_operator.client.errors import Asked, Missing, RemoteError, Unreachable, no_answer, refusal
from seele_operator.client.kubeconfig import Connection
from seele_operator.plan import names
from seele_operator.plan.names import Manifest

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

FIELD_MANAGER = "seele-cli"
"""Owner of the fields that these commands set."""
PAGE = 500
"""Objects asked for at once."""
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
LOG_SILENCE_SECONDS = 60.0
"""After such a time without a line a log is asked for anew: a connection that died silently looks just like that."""


@dataclass(frozen=True)
class LogRange:
    """Which part of a container's log is wanted."""

    follow: bool = False
    tail: int | None = None
    """Last lines; all where absent."""
    since_seconds: int | None = None
    """Lines of the last seconds; all where absent."""
    since_time: str | None = None
    """Lines from this moment (RFC 3339, whole seconds) on."""

    def query(self, container: str) -> dict[str, str]:
        """The parameters of the API, with a time stamp before each line."""
        wanted = {
            "container": container,
            "timestamps": "true",
            "follow": "true" if self.follow else None,
            "tailLines": self.tail,
            "sinceSeconds": self.since_seconds,
            "sinceTime": self.since_time,
        }
        return {key: str(value) for key, value in wanted.items() if value is not None}


class Server:
    """The API server behind a connection. Methods raise RemoteError, with one line for the user."""

    def __init__(self, connection: Connection, namespace: str | None = None):
        self._connection = connection
        self.namespace = namespace or connection.namespace

    def run(self, name: str) -> Manifest | None:
        """The run as it is now; None where there is none."""
        try:
            return self._json(Asked("get", PLURAL, self.namespace, name), "GET", self._runs(self.namespace, name))
        except Missing:
            return None

    def runs(self, namespace: str | None) -> list[Manifest]:
        """All runs of a namespace, or of all namespaces (None)."""
        return self._list(Asked("list", PLURAL, namespace), self._runs(namespace), {})

    def apply_run(self, body: Manifest, *, dry_run: bool) -> Manifest:
        """Make the run what `body` says (server-side apply); returns it as it is then."""
        name = body["metadata"]["name"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        # JSON is YAML.
        return self._json(
            Asked("patch", PLURAL, self.namespace, name),
            "PATCH",
            self._runs(self.namespace, name),
            query,
            json.dumps(body),
            "application/apply-patch+yaml",
        )

    def set_suspend(self, name: str, suspend: bool) -> Manifest:
        """Suspend a run or resume it; returns it as it is then."""
        return self._json(
            Asked("patch", PLURAL, self.namespace, name),
            "PATCH",
            self._runs(self.namespace, name),
            {"fieldManager": FIELD_MANAGER},
            json.dumps({"spec": {"runPolicy": {"suspend": suspend}}}),
            "application/merge-patch+json",
        )

    def delete_run(self, name: str, uid: str) -> None:
        """Delete this very run, its objects after it; nothing happens where it is gone already."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            self._json(
                Asked("delete", PLURAL, self.namespace, name),
                "DELETE",
                self._runs(self.namespace, name),
                {},
                json.dumps(options),
                "application/json",
            )
        except Missing:
            return

    def pods(self, name: str) -> list[Manifest]:
        """All pods of a run, of whichever attempt."""
        path = f"/api/v1/namespaces/{_part(self.namespace)}/pods"
        return self._list(Asked("list", "pods", self.namespace), path, {"labelSelector": f"{names.RUN_LABEL}={name}"})

    def events(self, name: str, uid: str) -> list[Manifest]:
        """The Events about this very run."""
        path = f"/api/v1/namespaces/{_part(self.namespace)}/events"
        about = f"involvedObject.name={name},involvedObject.uid={uid}"
        return self._list(Asked("list", "events", self.namespace), path, {"fieldSelector": about})

    @contextmanager
    def log(self, pod: str, container: str, wanted: LogRange) -> Iterator[Iterator[bytes]]:
        """The lines of a container's log as they arrive, each with its time stamp. Ends where the API server ends."""
        path = f"/api/v1/namespaces/{_part(self.namespace)}/pods/{_part(pod)}/log"
        asked = Asked("get", "pods/log", self.namespace, pod)
        response = self._send(asked, "GET", path, wanted.query(container), read_seconds=LOG_SILENCE_SECONDS)
        try:
            yield self._lines(asked, response)
        finally:
            # Not given back to the pool: what is left unread would never end.
            response.close()

    def _lines(self, asked: Asked, response: BaseHTTPResponse) -> Iterator[bytes]:
        with self._answers(asked):
            yield from response

    def _runs(self, namespace: str | None, name: str | None = None) -> str:
        where = "" if namespace is None else f"/namespaces/{_part(namespace)}"
        return f"/apis/{GROUP}/{VERSION}{where}/{PLURAL}{'' if name is None else '/' + _part(name)}"

    def _list(self, asked: Asked, path: str, query: Mapping[str, str]) -> list[Manifest]:
        items: list[Manifest] = []
        page: dict[str, str] = {}
        while True:
            answer = self._json(asked, "GET", path, {"limit": str(PAGE), **query, **page})
            items += answer.get("items") or []
            token = (answer.get("metadata") or {}).get("continue")
            if not token:
                return items
            page = {"continue": token}

    def _json(
        self,
        asked: Asked,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: str | None = None,
        content_type: str | None = None,
    ) -> Manifest:
        with self._answers(asked):
            data = self._send(asked, method, path, query or {}, body, content_type).data
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise Unreachable(f"{self._connection.cluster} does not answer as an API server does") from error
        if not isinstance(answer, dict):
            raise Unreachable(f"{self._connection.cluster} does not answer as an API server does")
        return answer

    def _send(
        self,
        asked: Asked,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: str | None = None,
        content_type: str | None = None,
        read_seconds: float = READ_SECONDS,
    ) -> BaseHTTPResponse:
        """The answer, its body unread; one that is no success raises."""
        from urllib3 import Timeout

        api = self._connection.api
        headers = {"Accept": "application/json, */*"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        with self._answers(asked):
            method, url, headers, _, _ = api.param_serialize(
                method, path, query_params=list(query.items()), header_params=headers, auth_settings=["BearerToken"]
            )
            response: BaseHTTPResponse = api.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else body.encode(),
                headers=headers,
                preload_content=False,
                timeout=Timeout(connect=CONNECT_SECONDS, read=read_seconds),
            )
            if response.status >= 300:
                raise refusal(asked, response.status, response.data, self._connection.cluster)
        return response

    @contextmanager
    def _answers(self, asked: Asked) -> Iterator[None]:
        """Turns what goes wrong on the way into our errors."""
        from urllib3.exceptions import HTTPError

        try:
            yield
        except RemoteError:
            raise
        except (HTTPError, OSError) as error:
            raise no_answer(error, self._connection.cluster) from error


def _part(text: str) -> str:
    """Text from the command line as one part of a path."""
    return quote(text, safe="")
