"""Access to the API server: leases, permissions, outages, and all kinds of credentials."""

import asyncio
import base64
import time
from pathlib import Path

import pytest
from kubernetes.config import incluster_config

from seele_operator.api.events import RunEvent
from seele_operator.kube import cluster as cluster_module
from seele_operator.kube import kubeconfig as kubeconfigs
from seele_operator.kube.cluster import Cluster
from seele_operator.kube.connection import ApiConnection
from seele_operator.kube.errors import ClusterUnavailable, NoCluster, NotLeading
from tests.integration.cluster.bodies import ACCOUNT, NOW, Body, config_of, owner, pod_of, refused, uid
from tests.support.control_plane import ControlPlane, write_kubeconfig
from tests.support.kubernetes_api import KubernetesApi


async def test_without_the_lease_nothing_is_written(kubeconfig: Path, admin: KubernetesApi, run: Body) -> None:
    metadata = run["metadata"]
    namespace, pod = metadata["namespace"], pod_of(run)
    existing = admin.create(pod_of(run, "r-rollout-0"))
    admin.create(config_of(run, a="1"))
    leading = False
    async with await Cluster.connect(str(kubeconfig), allowed=lambda: leading) as cluster:
        writes = [
            cluster.patch_status(namespace, "r", metadata["resourceVersion"], {"phase": "Failed"}),
            cluster.create_pod(pod),
            cluster.delete_pod(namespace, "r-rollout-0", uid(existing)),
            cluster.adopt_pod(namespace, "r-rollout-0", uid(existing), owner(run)),
            cluster.ensure(config_of(run, a="2"), uid(run)),
            cluster.delete_object(config_of(run), uid(run)),
            cluster.delete_run(namespace, "r", uid(run)),
        ]
        for write in writes:
            with pytest.raises(NotLeading):
                await write
        await cluster.post_event(run, RunEvent("Normal", "Running", "step 1"), NOW)
        assert await cluster.read_run(namespace, "r") is not None
        assert [body["metadata"]["name"] for body in admin.list("pods", namespace)] == ["r-rollout-0"]
        assert (admin.get("configmaps", "r-config", namespace) or {})["data"] == {"a": "1"}
        assert admin.list("events", namespace) == []
        leading = True
        assert await cluster.create_pod(pod) is not None


async def test_a_missing_permission_is_reported_in_the_api_servers_words(
    control_plane: ControlPlane, namespace: str
) -> None:
    powerless = control_plane.kubeconfig("powerless", control_plane.service_account_token("default", namespace))
    async with await Cluster.connect(str(powerless)) as cluster:
        refusal = await refused(cluster.each_pod(namespace, lambda pod: None))
    assert refusal.reason == "Forbidden"
    assert f'cannot list resource "pods" in API group "" in the namespace "{namespace}"' in refusal.message


async def test_an_outage_is_reported_and_ends(
    control_plane: ControlPlane, kubeconfig: Path, cluster: Cluster, run: Body
) -> None:
    namespace = run["metadata"]["namespace"]
    control_plane.stop_api_server()
    try:
        with pytest.raises(ClusterUnavailable):
            await cluster.read_run(namespace, "r")
        with pytest.raises(ClusterUnavailable):
            await Cluster.connect(str(kubeconfig))
        await cluster.post_event(run, RunEvent("Normal", "Running", "step 1"), NOW)
    finally:
        control_plane.start_api_server()
    assert await cluster.create_pod(pod_of(run)) is not None


async def test_a_server_that_accepts_and_never_answers(tmp_path: Path) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = await ApiConnection.open(str(kubeconfig_of(tmp_path, f"http://127.0.0.1:{port}", {"token": "t"})))
    began = time.monotonic()
    with pytest.raises(ClusterUnavailable, match=r"GET /version: no answer within 0\.3 s"):
        await connection.request("GET", "/version", seconds=0.3)
    assert time.monotonic() - began < 2
    await connection.close()
    server.close()


def kubeconfig_of(folder: Path, url: str, user: Body, certificate_authority: Path | None = None) -> Path:
    cluster: Body = {"server": url}
    if certificate_authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode(certificate_authority.read_bytes()).decode()
    return write_kubeconfig(folder / "config", cluster, user)


async def test_a_rotated_token_is_read_again(
    control_plane: ControlPlane, kubeconfig: Path, tmp_path: Path, run: Body
) -> None:
    token = tmp_path / "token"
    token.write_text("expired\n")
    config = kubeconfig_of(tmp_path, control_plane.url, {"tokenFile": str(token)}, control_plane.certificate_authority)
    cluster = Cluster(connection := await ApiConnection.open(str(config)), cluster_module.ClusterFeatures())
    with pytest.raises(ClusterUnavailable, match="Unauthorized"):
        await cluster.read_run(run["metadata"]["namespace"], "r")
    token.write_text(control_plane.service_account_token(ACCOUNT, "seele-system") + "\n")
    connection._reloaded = -1e9  # a while later
    assert await cluster.read_run(run["metadata"]["namespace"], "r") is not None
    await cluster.close()


async def test_a_plugin_supplies_credentials_and_new_ones_after_a_401(
    control_plane: ControlPlane, kubeconfig: Path, tmp_path: Path, run: Body
) -> None:
    token = tmp_path / "token"
    token.write_text("expired")
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\n"
        'echo "{\\"apiVersion\\": \\"client.authentication.k8s.io/v1beta1\\", \\"kind\\": \\"ExecCredential\\", '
        f'\\"status\\": {{\\"token\\": \\"$(cat {token})\\"}}}}"\n'
        f"printf {control_plane.service_account_token(ACCOUNT, 'seele-system')} > {token}\n"
    )
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": str(plugin)}}
    config = kubeconfig_of(tmp_path, control_plane.url, user, control_plane.certificate_authority)
    # Its first token is rejected, its second one accepted.
    async with await Cluster.connect(str(config)) as cluster:
        assert await cluster.read_run(run["metadata"]["namespace"], "r") is not None


async def test_the_cluster_named_by_kubeconfig(kubeconfig: Path, run: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with await Cluster.connect() as cluster:
        assert await cluster.read_run(run["metadata"]["namespace"], "r") is not None


async def test_the_cluster_that_a_pod_runs_in(
    control_plane: ControlPlane, kubeconfig: Path, run: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(control_plane.service_account_token(ACCOUNT, "seele-system"))
    host, port = control_plane.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(kubeconfigs, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(control_plane.certificate_authority))
    async with await Cluster.connect() as cluster:
        assert await cluster.read_run(run["metadata"]["namespace"], "r") is not None


async def test_no_cluster_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for where in ({}, {"kubeconfig": str(tmp_path / "none")}, {"kubeconfig": str(kubeconfig), "context": "none"}):
        with pytest.raises(NoCluster):
            await Cluster.connect(**where)


async def test_requests_are_reported_with_their_codes_and_seconds(kubeconfig: Path, run: Body) -> None:
    seen: list[tuple[str, int, float]] = []
    namespace = run["metadata"]["namespace"]
    async with await Cluster.connect(str(kubeconfig), on_request=lambda *request: seen.append(request)) as cluster:
        await cluster.read_pod(namespace, "none")
        assert [(method, code) for method, code, _ in seen] == [("GET", 200), ("GET", 404)]
        assert all(0 < seconds < 10 for _, _, seconds in seen)
        await asyncio.gather(*(cluster.read_run(namespace, "r") for _ in range(500)))
        assert [(method, code) for method, code, _ in seen[2:]] == [("GET", 200)] * 500
