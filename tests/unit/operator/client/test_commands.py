"""The commands for clusters as a user meets them: conflicting options, what a deletion keeps, a live page."""

import base64
import io
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from seele_operator.client import runs as following
from seele_operator.client.control import consequences
from seele_operator.client.errors import BadInput
from seele_operator.client.logs import seconds_of
from seele_operator.client.runs import see
from seele_operator.client.runs_api import ClusterOptions, connect
from seele_operator.client.status import show_run
from tests.support.client_bodies import RUNNING, Body, pod_body, run_body, seele
from tests.support.fake_api_server import FakeApiServer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.02)


@pytest.mark.parametrize(
    "words",
    [
        ["submit", "-f", "run.yaml", "--dry-run", "--wait"],
        ["status", "quick", "-A"],
        ["status", "-w", "-o", "json"],
        ["submit", "-f", "none.yaml"],
        ["logs", "quick", "--since", "yesterday"],
    ],
)
def test_conflicting_options_are_one_line_before_anything_is_sent(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/none")
    result = seele(*words)

    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert "KUBECONFIG" not in result.stderr


async def test_a_live_page_ends_with_the_run(server: FakeApiServer) -> None:
    server.runs["quick"] = run_body(phase="Running", attempt=1, step=3)
    server.pods = [pod_body("trainer", 0, RUNNING)]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=30)

    class Ending(dict[str, Body]):
        """The run is over when it is looked at for the third time."""

        looks = 0

        def get(self, name: str, default: Body | None = None) -> Body | None:  # type: ignore[override]
            self.looks += 1
            return run_body(phase="Succeeded", attempt=1, step=60) if self.looks > 2 else self[name]

    server.runs = Ending(server.runs)
    connected = connect(ClusterOptions())
    await show_run(connected, "quick", console, watch=True, output="table")
    await connected.close()
    shown = screen.getvalue()
    assert shown.index(" 3/60") < shown.index(" 60/60")
    assert "quick-trainer-0" in shown


def test_a_reader_that_has_seen_enough_ends_it_quietly(server: FakeApiServer) -> None:
    server.runs["quick"] = run_body(phase="Running", attempt=1)
    server.pods = [pod_body("trainer", 0, RUNNING)]
    server.write("quick-trainer-0", "trainer", *[("2026-11-22T10:00:00Z", "x" * 200)] * 5_000, ended=True)
    command = [sys.executable, "-m", "seele_operator.cli", "logs", "quick"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"trainer-0")
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ({}, ["  deletes the run's folder (checkpoints, report, final model), which is inside its pod"]),
        (
            {
                "run": {"persistentVolumeClaim": {"claimName": "disk"}},
                "huggingFaceCache": {"hostPath": {"path": "/hf"}},
            },
            [
                "  keeps claim disk with the run's folder (checkpoints, report, final model)",
                "  keeps /hf on the node with the Hugging Face cache",
            ],
        ),
        (
            {"run": {"persistentVolumeClaimTemplate": {"size": "1Gi"}}},
            [
                "  keeps claim quick-run with the run's folder (checkpoints, report, final model); "
                "a run of the same name continues from it"
            ],
        ),
        (
            {"run": {"persistentVolumeClaimTemplate": {"size": "1Gi", "retention": "Delete"}}},
            ["  deletes claim quick-run with the run's folder (checkpoints, report, final model)"],
        ),
    ],
)
def test_a_deletion_states_what_it_keeps(storage: Body, said: list[str]) -> None:
    body = run_body(phase="Running", step=12)
    body["spec"]["storage"] = storage
    first, *rest = consequences(see(body))

    assert first.startswith("SeeleRun quick in namespace default (Running, step 12/60), with its pods")
    assert rest == said


def test_the_next_command_names_the_same_cluster_and_namespace(server: FakeApiServer, tmp_path: Path) -> None:
    def command(options: ClusterOptions, namespace: str | None = None) -> str:
        return connect(options, namespace).command("status", "quick")

    (tmp_path / "my files").mkdir()
    kubeconfig = str(server.kubeconfig(tmp_path / "my files"))
    assert command(ClusterOptions(kubeconfig=kubeconfig)) == f"seele status quick --kubeconfig '{kubeconfig}'"
    assert command(ClusterOptions(namespace="team")) == "seele status quick -n team"

    assert command(ClusterOptions(context="fake")) == "seele status quick --context fake"
    assert command(ClusterOptions(), "team") == "seele status quick -n team"
    assert command(ClusterOptions(), "default") == "seele status quick"
    assert command(ClusterOptions(namespace="default")) == "seele status quick -n default"


def test_certificates_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    cluster = {"server": "https://a:1", "certificate-authority-data": base64.b64encode(b"nonsense").decode()}
    content = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a"}}],
        "clusters": [{"name": "a", "cluster": cluster}],
    }
    (tmp_path / "bad").write_text(yaml.safe_dump(content))
    result = seele("status", "--kubeconfig", str(tmp_path / "bad"))

    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert "kubeconfig: certificates for https://a:1 cannot be used" in result.stderr


@pytest.mark.parametrize(("since", "seconds"), [("45s", 45), ("90", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800)])
def test_times_are_read(since: str, seconds: int) -> None:
    assert seconds_of(since) == seconds


@pytest.mark.parametrize("since", ["", "0", "0s", "m", "10x", "-5m", "30m1h", "1.5h"])
def test_what_is_not_a_duration_is_refused(since: str) -> None:
    with pytest.raises(BadInput, match="write it like 45s, 10m or 1h30m"):
        seconds_of(since)
