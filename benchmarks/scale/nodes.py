"""Simulates the scheduler, one large node and all trainers for thousands of pods, in a separate process.

    python -m benchmarks.scale.nodes KUBECONFIG ADDRESS

Every pod of a run is bound, runs and is ready; a deleted pod is gone at once. All pods have the loopback ADDRESS, where a
trainer answers whose progress never changes.
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from benchmarks.scale.api import Api, ApiFailure
from seele_operator.plan.names import METRICS_PORT

NODE = "node-of-all"
HEARTBEAT_SECONDS = 2.0
RETRY_SECONDS = 0.5
PROGRESS = {
    "step": 3,
    "steps": 20,
    "phase": "train",
    "reward": 0.5,
    "accuracy": 0.5,
    "hintRate": 0.25,
    "etaSeconds": 60.0,
}

Pod = dict[str, Any]
"""Its metadata."""


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def running(address: str) -> dict[str, Any]:
    """The status of a running, ready pod."""
    ready = [
        {"type": kind, "status": "True", "lastTransitionTime": now()}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    where = {"hostIP": "127.0.0.1", "podIP": address, "podIPs": [{"ip": address}]}
    return {"phase": "Running", "startTime": now(), "conditions": ready, **where}


class Nodes:
    """What the cluster does to pods."""

    def __init__(self, api: Api, address: str) -> None:
        self._api = api
        self._address = address
        self._started: set[str] = set()
        self._removed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def join(self) -> None:
        """Add the node."""
        with contextlib.suppress(ApiFailure):
            await self._api.request(
                "POST", "api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
            )
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}
        capacity = {"cpu": "100000", "memory": "100000Gi", "pods": "100000"}
        status = {"conditions": [ready], "capacity": capacity, "allocatable": capacity}
        path = f"api/v1/nodes/{NODE}/status"
        await self._api.request("PATCH", path, {"status": status}, "application/merge-patch+json")

    async def beat(self) -> None:
        """Renew the node's lease."""
        path = f"apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"
        while True:
            renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": NODE},
                "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": renewed},
            }
            with contextlib.suppress(ApiFailure, aiohttp.ClientError):
                await self._api.request("PATCH", path, lease, "application/apply-patch+yaml", fieldManager="node")
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def follow(self) -> None:
        """Act as scheduler and kubelet until cancelled."""
        async for kind, metadata in self._api.pods():
            uid = metadata["uid"]
            if kind == "DELETED":
                self._started.discard(uid)
                self._removed.discard(uid)
            elif metadata.get("deletionTimestamp"):
                if uid not in self._removed:
                    self._removed.add(uid)
                    self._begin(self._remove, metadata)
            elif uid not in self._started:
                self._started.add(uid)
                self._begin(self._start, metadata)

    def _begin(self, work: Callable[[Pod], Awaitable[None]], pod: Pod) -> None:
        task = asyncio.create_task(self._persist(work, pod))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _persist(work: Callable[[Pod], Awaitable[None]], pod: Pod) -> None:
        """Repeat it until the API server answers or the pod is gone."""
        while True:
            try:
                await work(pod)
            except ApiFailure as error:
                if error.code in (404, 409):
                    return
            except aiohttp.ClientError:
                pass
            else:
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _start(self, metadata: Pod) -> None:
        path = _path(metadata)
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        binding = {"metadata": {"name": metadata["name"], "uid": metadata["uid"]}, "target": target}
        with contextlib.suppress(ApiFailure):  # it may be bound already, or gone, which the next request finds out
            await self._api.request("POST", f"{path}/binding", {"apiVersion": "v1", "kind": "Binding", **binding})
        change = {"metadata": {"uid": metadata["uid"]}, "status": running(self._address)}
        await self._api.request("PATCH", f"{path}/status", change, "application/merge-patch+json")

    async def _remove(self, metadata: Pod) -> None:
        await self._api.request(
            "DELETE", _path(metadata), {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        )


def _path(metadata: Pod) -> str:
    return f"api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


async def _progress(_: web.Request) -> web.Response:
    return web.json_response(PROGRESS)


async def main(kubeconfig: Path, address: str) -> None:
    """Run until killed."""
    app = web.Application()
    app.router.add_get("/progress", _progress)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, METRICS_PORT).start()
    async with Api(kubeconfig, in_flight=24) as api:
        nodes = Nodes(api, address)
        await nodes.join()
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(nodes.beat())
            group.create_task(nodes.follow())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
