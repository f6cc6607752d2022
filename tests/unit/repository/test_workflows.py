"""The GitHub workflows: valid, safe, and consistent with the repository."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import REPOSITORY

FILES = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
PLANS: dict[str, dict[Any, Any]] = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
JOBS = [(name, job, body) for name, plan in PLANS.items() for job, body in plan["jobs"].items()]


def _commands() -> str:
    return "\n".join(step["run"] for _, _, body in JOBS for step in body.get("steps", ()) if "run" in step)


def test_they_are_valid_by_githubs_schema() -> None:
    schema = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([sys.executable, *schema, *FILES], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert set(PLANS) == {"ci", "release"}


@pytest.mark.parametrize(("workflow", "job", "body"), JOBS, ids=[f"{workflow}-{job}" for workflow, job, _ in JOBS])
def test_jobs_have_time_limits_pinned_actions_and_no_stored_credentials(
    workflow: str, job: str, body: dict[str, Any]
) -> None:
    if "uses" in body:
        assert (REPOSITORY / body["uses"]).is_file()
        return
    assert 0 < body["timeout-minutes"] <= 120
    for step in body["steps"]:
        action = step.get("uses", "")
        assert not action or re.search(r"@(v\d+|[0-9a-f]{40})$", action), f"{action} is not pinned"
        if action.startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # GitHub pastes an expression into a script as code.
        assert "${{" not in step.get("run", "")


def test_permissions_are_given_to_single_jobs_and_are_minimal() -> None:
    assert PLANS["ci"]["permissions"] == {"contents": "read"}
    assert not any("permissions" in body for body in PLANS["ci"]["jobs"].values())
    assert PLANS["release"]["permissions"] == {}
    written = {
        job: {scope for scope, access in body["permissions"].items() if access == "write"}
        for job, body in PLANS["release"]["jobs"].items()
    }
    assert written == {
        "version": set(),
        "checks": set(),
        "images": {"packages", "id-token", "attestations"},
        "chart": {"packages"},
        "release": {"contents"},
    }


def test_nothing_is_published_before_all_checks_have_passed() -> None:
    jobs = PLANS["release"]["jobs"]

    def before(job: str) -> set[str]:
        needs = jobs[job].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*(before(need) for need in direct))

    assert jobs["checks"]["uses"] == "./.github/workflows/ci.yml"
    publishing = [job for job, body in jobs.items() if "write" in body["permissions"].values()]
    assert sorted(publishing) == ["chart", "images", "release"]
    assert all({"version", "checks"} <= before(job) for job in publishing)


def test_commands_and_paths_that_they_run_exist() -> None:
    commands = _commands()
    targets = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))

    assert {"lint", "e2e"} <= set(re.findall(r"\bmake ([a-z0-9-]+)", commands)) <= targets
    assert ".ci/run" in commands
    for path in re.findall(r"(?<!\S)(\.ci/run|charts/[a-z-]+|manifests/[a-z.-]+)(?!\S)", commands):
        assert (REPOSITORY / path).exists(), path


def test_a_release_builds_the_images_that_the_chart_and_runs_name() -> None:
    values = yaml.safe_load((REPOSITORY / "charts/seele-operator/values.yaml").read_text())
    environment = PLANS["release"]["env"]
    images = PLANS["release"]["jobs"]["images"]
    built = {(entry["target"], entry["image"], entry["suffix"]) for entry in images["strategy"]["matrix"]["include"]}
    (push,) = [step["with"] for step in images["steps"] if step.get("uses", "").startswith("docker/build-push-action@")]

    assert built == {("operator", "seele-operator", ""), ("trainer", "seele", ""), ("trainer-cpu", "seele", "-cpu")}
    assert values["image"]["repository"] == f"{environment['REGISTRY']}/{environment['OWNER']}/seele-operator"
    assert (push["provenance"], push["sbom"], push["push"]) == ("mode=max", True, True)
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert {target for target, _, _ in built} <= set(stages)


def test_a_tag_must_have_the_version_of_package_and_chart(tmp_path: Path) -> None:
    (step,) = [step for step in PLANS["release"]["jobs"]["version"]["steps"] if step.get("id") == "version"]
    version = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None

    def outcome(tag: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": tag, "GITHUB_OUTPUT": str(tmp_path / "output")}
        command = ["bash", "-e", "-c", step["run"]]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)

    done = outcome(f"v{version[1]}")
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "output").read_text() == f"version={version[1]}\n"
    assert outcome("v99.0.0").returncode == 1
