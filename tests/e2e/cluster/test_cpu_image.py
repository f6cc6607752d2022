"""The image for machines without a GPU, built from the Dockerfile: the quickstart, with nothing of this machine in its pods."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster.applied_runs import ClusterRun
from tests.e2e.cluster.clusters import Cluster
from tests.e2e.cluster.installed_operator import installed_cluster
from tests.e2e.cluster.single_node import PLAIN_RUNTIME
from tests.e2e.runs import held_out
from tests.support.built_image import built_image

BUILD = "SEELE_E2E_IMAGES"

pytestmark = [
    pytest.mark.disturbance,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not os.environ.get(BUILD), reason=f"builds an image of 4.5 GB, for 60 GB of disk, where {BUILD} is set"
    ),
]

PLAIN = {"podTemplate": {"spec": {"runtimeClassName": PLAIN_RUNTIME}}}


@pytest.fixture(scope="module")
def cluster(machine: Path) -> Iterator[Cluster]:
    """A cluster with the chart's operator, whose node has the built image under the name that the quickstart asks for."""
    trainer = built_image("trainer-cpu")
    print(f"trainer-cpu: {trainer.size / 1e9:.2f} GB unpacked, with its base")
    with installed_cluster(machine, built_image("operator")) as (found, _):
        assert found.node is not None
        found.node.load_image(trainer.archive)
        yield found


def test_the_quickstart_trains_in_the_built_image(
    submit: Callable[[str, Mapping[str, Any]], ClusterRun], cluster: Cluster
) -> None:
    run = submit("built", {"trainer": PLAIN, "rollout": PLAIN})
    run.reach_step(1, 600)
    for pod in ("built-trainer-0", "built-rollout-0"):
        process = run.processes(pod)[0]
        assert Path(process.exe()).name.startswith("python3")
        mounts = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
        assert {line.split()[4] for line in mounts if line.split()[4].startswith(("/usr", "/opt"))} == set()
        memory = sum(one.memory_info().rss for one in run.processes(pod))
        print(f"{pod}: {memory / 1e6:.0f} MB of memory")
    done = run.reach_phase("Succeeded", 1200)
    assert (done["step"], done["attempt"], done["restarts"]) == (80, 1, 0)
    before, *_, after = held_out(run.folder)
    print(f"held-out {before:.1%} → {after:.1%}")
    assert after - before >= 0.8
