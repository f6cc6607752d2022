"""The log of a container, which may write anything: little of it is held in memory."""

from pathlib import Path

import pytest
from aiohttp import web

from seele_operator.kube.cluster import LOG_LINE_BYTES, LOG_LINES, Cluster
from seele_operator.kube.connection import LONGEST_LINE, ApiConnection
from seele_operator.kube.errors import Target
from seele_operator.plan.objects import ClusterFeatures
from tests.support.fake_api_server import NAMESPACE, FakeApiServer

POD = Target("v1", "Pod", "run-rollout-0")
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CAUSE = b"ValueError: head_dim=16 is not supported"


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(b"x" * (64 << 20), id="one line of 64 MiB"),
        pytest.param(b"x\n" * (4 << 20), id="four million lines"),
        pytest.param(b"\xff\x00" * 1000 + b"\n", id="not text"),
    ],
)
async def test_the_end_of_a_log_is_read_within_bounds(tmp_path: Path, written: bytes) -> None:
    with FakeApiServer() as server:
        server.refusals["/log"] = lambda: web.Response(body=written + b"\n" + CAUSE)
        connection = await ApiConnection.open(str(server.kubeconfig(tmp_path)))
        async with Cluster(connection, ClusterFeatures("policy/v1"), lambda: True) as cluster:
            log = await cluster.read_log(NAMESPACE, "run-rollout-0", "rollout")
            stream = connection.lines(POD, f"{PODS}/run-rollout-0/log", {}, silence_seconds=10)
            longest = max([len(line) async for line in stream])

    lines = log.split("\n")
    assert lines[-1] == CAUSE.decode()
    assert len(lines) <= LOG_LINES
    assert max(map(len, lines)) <= LOG_LINE_BYTES
    # What arrives at once is added before the line is given out.
    assert longest < 2 * LONGEST_LINE
