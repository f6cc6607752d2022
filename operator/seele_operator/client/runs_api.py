"""The API server as a user of the cluster sees it: SeeleRuns, and the pods, logs and events of a run."""

import contextlib
import shlex
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seele_operator.api.seelerun import API_VERSION, KIND
from seele_operator.client.errors import BadInput, Missing, Request, Unreachable, user_error
from seele_operator.kube.cluster import PLURALS, path_of
from seele_operator.kube.connection import ApiConnection, ContentType
from seele_operator.kube.errors import ClusterError, NoCluster, Target, error_of
from seele_operator.kube.kubeconfig import ClusterAccess, find_cluster
from seele_operator.plan import names
from seele_operator.plan.names import Manifest

FIELD_MANAGER = "seele-cli"
"""Owner of the fields that these commands set."""
PAGE = 500
"""Objects requested at once."""
REQUEST_SECONDS = 30.0
LOG_SILENCE_SECONDS = 60.0
"""After this time without a line a log is requested again, because a connection that died silently looks the same."""


@dataclass(frozen=True)
class ClusterOptions:
    """The options that name the cluster: `--kubeconfig`, `--context` and `--namespace`."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True)
class LogRange:
    """Which part of a container's log to read."""

    follow: bool = False
    tail: int | None = None
    """Last lines; all if unset."""
    since_seconds: int | None = None
    """Lines of the last seconds; all if unset."""
    since_time: str | None = None
    """Lines from this time on (RFC 3339, whole seconds)."""

    def query(self, container: str) -> dict[str, str]:
        """The parameters of the API, with a timestamp before each line."""
        parameters = {
            "container": container,
            "timestamps": "true",
            "follow": "true" if self.follow else None,
            "tailLines": self.tail,
            "sinceSeconds": self.since_seconds,
            "sinceTime": self.since_time,
        }
        return {key: str(value) for key, value in parameters.items() if value is not None}


class RunsApi:
    """The API server, and the namespace that a command works in. Requests raise CommandError, with one line for the user."""

    def __init__(
        self, options: ClusterOptions, access: ClusterAccess, connection: ApiConnection, namespace: str | None
    ):
        self.namespace = namespace or options.namespace or access.namespace
        self._options = options
        self._access = access
        self._connection = connection

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    def command(self, *words: str) -> str:
        """`seele ...` as the user would type it for the same cluster and namespace."""
        options = self._options
        namespace = self.namespace if options.namespace or self.namespace != self._access.namespace else None
        flags = (("--kubeconfig", options.kubeconfig), ("--context", options.context), ("-n", namespace))
        return shlex.join(["seele", *words, *(part for flag, value in flags if value for part in (flag, value))])

    async def run(self, name: str) -> Manifest | None:
        """The run as it is now; None if it does not exist."""
        try:
            return await self._request("get", self.namespace, Target(API_VERSION, KIND, name))
        except Missing:
            return None

    async def runs(self, namespace: str | None) -> list[Manifest]:
        """All runs of a namespace, or of all namespaces (None)."""
        return await self._list(namespace, Target(API_VERSION, KIND), {})

    async def apply_run(self, body: Manifest, *, dry_run: bool) -> Manifest:
        """Make the run what `body` says (server-side apply); returns the run after the change."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        target = Target(API_VERSION, KIND, body["metadata"]["name"])
        return await self._request("patch", self.namespace, target, query, body, "application/apply-patch+yaml")

    async def set_suspend(self, name: str, suspend: bool) -> Manifest:
        """Suspend or resume a run; returns the run after the change."""
        body = {"spec": {"runPolicy": {"suspend": suspend}}}
        target, query = Target(API_VERSION, KIND, name), {"fieldManager": FIELD_MANAGER}
        return await self._request("patch", self.namespace, target, query, body, "application/merge-patch+json")

    async def delete_run(self, name: str, uid: str) -> None:
        """Delete the run with this uid, and its objects in the background; does nothing if it is gone already."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        with contextlib.suppress(Missing):
            await self._request("delete", self.namespace, Target(API_VERSION, KIND, name), {}, options)

    async def pods(self, name: str) -> list[Manifest]:
        """All pods of a run, of any attempt."""
        return await self._list(self.namespace, Target("v1", "Pod"), {"labelSelector": f"{names.RUN_LABEL}={name}"})

    async def events(self, name: str, uid: str) -> list[Manifest]:
        """The Events about the run with this uid."""
        selector = f"involvedObject.name={name},involvedObject.uid={uid}"
        return await self._list(self.namespace, Target("v1", "Event"), {"fieldSelector": selector})

    async def log(self, pod: str, container: str, part: LogRange) -> AsyncGenerator[bytes]:
        """The lines of a container's log as they arrive, each with its timestamp, until the API server ends them."""
        target = Target("v1", "Pod", pod)
        path = path_of(target, self.namespace, "log")
        lines = self._connection.lines(target, path, part.query(container), silence_seconds=LOG_SILENCE_SECONDS)
        with self._errors(Request("get", "pods/log", self.namespace)):
            async with contextlib.aclosing(lines):
                async for line in lines:
                    yield line

    async def _list(self, namespace: str | None, target: Target, query: Mapping[str, str]) -> list[Manifest]:
        items: list[Manifest] = []
        page: dict[str, str] = {}
        while True:
            answer = await self._request("list", namespace, target, {"limit": str(PAGE), **query, **page})
            items += answer.get("items") or []
            token = (answer.get("metadata") or {}).get("continue")
            if not token:
                return items
            page = {"continue": token}

    async def _request(
        self,
        verb: str,
        namespace: str | None,
        target: Target,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: ContentType = "application/json",
    ) -> Manifest:
        method = "GET" if verb == "list" else verb.upper()
        path = path_of(target, namespace)
        with self._errors(Request(verb, PLURALS[target.kind], namespace)):
            answer = await self._connection.request(
                method, path, body, query=query, content_type=content_type, seconds=REQUEST_SECONDS
            )
            if answer.code >= 300:
                raise error_of(target, answer)
        if not answer.body:
            raise Unreachable(f"{self._access.cluster} does not answer as an API server does")
        return dict(answer.body)

    @contextlib.contextmanager
    def _errors(self, request: Request) -> Iterator[None]:
        try:
            yield
        except ClusterError as error:
            raise user_error(error, request, self._access.cluster) from error


def connect(options: ClusterOptions, namespace: str | None = None) -> RunsApi:
    """Find the cluster as kubectl does; `namespace` is that of the user's file. Nothing is sent yet. Raises BadInput."""

    def find() -> ClusterAccess:
        return find_cluster(options.kubeconfig, options.context, save_tokens=True)

    try:
        access = find()
        connection = ApiConnection(access.configuration, lambda: find().configuration)
    except NoCluster as error:
        raise BadInput(str(error)) from error
    return RunsApi(options, access, connection, namespace)
