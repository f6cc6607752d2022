"""The only module that talks to the API server about runs: raw JSON bodies in and out, its errors turned into ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from seele_operator.api_errors import (
    ClusterError,
    ClusterUnavailable,
    Conflict,
    Gone,
    NamespaceTerminating,
    NotLeading,
    Refused,
)
from seele_operator.decide import Notice
from seele_operator.names import Manifest


@dataclass(frozen=True)
class ClusterFeatures:
    """What differs between the versions of Kubernetes that are supported."""

    pod_disruption_budget: Literal["policy/v1", "policy/v1beta1"] = "policy/v1"


RequestSeen = Callable[[str, int, float], None]
"""Called after each request with its verb, status code (0: no answer) and seconds."""


class Cluster:
    """The API server, as far as the operator needs it.

    Every method raises ClusterUnavailable where it makes sense to try again later, and every method that writes raises
    NotLeading where this operator may not write.
    """

    features: ClusterFeatures

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | None = None,
        context: str | None = None,
        *,
        allowed: Callable[[], bool] = lambda: True,
        on_request: RequestSeen | None = None,
    ) -> Cluster:
        """Find the API server as kubectl does, and ask it what it supports.

        `allowed` is asked right before every write. Use `async with` or `close()`.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close all connections."""
        raise NotImplementedError

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def read_run(self, namespace: str, name: str) -> Manifest | None:
        """The run as it is now; None where there is none."""
        raise NotImplementedError

    async def read_pod(self, namespace: str, name: str) -> Manifest | None:
        """The pod as it is now; None where there is none."""
        raise NotImplementedError

    async def list_runs(self, namespace: str | None) -> tuple[list[Manifest], str]:
        """All runs of a namespace (None: of all namespaces), and the resourceVersion they are seen at."""
        raise NotImplementedError

    async def list_pods(self, namespace: str | None) -> tuple[list[Manifest], str]:
        """All pods of runs, of a namespace (None: of all namespaces), and the resourceVersion they are seen at."""
        raise NotImplementedError

    async def patch_status(
        self, namespace: str, name: str, resource_version: str, patch: Mapping[str, Any]
    ) -> Manifest:
        """Change the status of a run by a merge patch (of the status alone), if nobody changed the run since it was read.

        Returns the run as it is now. Raises Conflict, Gone or Refused.
        """
        raise NotImplementedError

    async def create_pod(self, manifest: Manifest) -> bool:
        """Create a pod; False where one of its name exists, which is left as it is.

        Raises Refused or NamespaceTerminating.
        """
        raise NotImplementedError

    async def delete_pod(self, namespace: str, name: str, uid: str, grace: int | None = None) -> None:
        """Ask for the deletion of this very pod; nothing happens where it is gone already."""
        raise NotImplementedError

    async def adopt_pod(self, namespace: str, name: str, uid: str, owner: Mapping[str, Any]) -> None:
        """Add an owner reference to this very pod. Raises Gone, Conflict or Refused (it has another controller)."""
        raise NotImplementedError

    async def ensure(self, manifest: Manifest, run_uid: str) -> None:
        """Make an object what the manifest says, if it is the run's (uid `run_uid`), an orphan of the run, or missing.

        Raises Refused (NameTaken where the name belongs to somebody else), Conflict or NamespaceTerminating.
        """
        raise NotImplementedError

    async def delete_object(self, manifest: Manifest, run_uid: str) -> None:
        """Delete the object that the manifest names, if the run (uid `run_uid`) controls it."""
        raise NotImplementedError

    async def delete_run(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very run; its children follow in the background."""
        raise NotImplementedError

    async def post_event(self, run: Mapping[str, Any], notice: Notice, now: datetime) -> None:
        """Tell about the run in a Kubernetes Event; a repeated one is counted up. Never raises: a failure is logged."""
        raise NotImplementedError


__all__ = [
    "Cluster",
    "ClusterError",
    "ClusterFeatures",
    "ClusterUnavailable",
    "Conflict",
    "Gone",
    "NamespaceTerminating",
    "NotLeading",
    "Refused",
    "RequestSeen",
]
