"""The operator's image, really built; and with a played buildah, what tools/images.sh does where registries answer and where
they do not."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from built_image import SCRIPT, built_image

pytestmark = pytest.mark.integration

LARGEST = 250e6
"""Bytes of the operator's image, unpacked and with its base."""
VERSION: str = tomllib.loads(SCRIPT.parents[1].joinpath("pyproject.toml").read_text())["project"]["version"]
PINNED = next(
    line.partition("=")[2]
    for line in SCRIPT.parents[1].joinpath("Dockerfile").read_text().splitlines()
    if line.startswith("ARG PYTHON_IMAGE=")
)
BUILDAH = """#!/bin/bash
echo "$*" >>"$PLAYED/calls"
case " $* " in
  *" pull "*) [ -e "$PLAYED/registry" ] || exit 125; touch "$PLAYED/pulled" ;;
  *" inspect "*"{{.FromImageID}}"*) cat "$PLAYED/id" 2>/dev/null || echo 1 ;;
  *" inspect "*localhost/*) [ -e "$PLAYED/own" ] ;;
  *" inspect "* | *" image "*) [ -e "$PLAYED/pulled" ] ;;
  *" commit "*) touch "$PLAYED/own" ;;
  *" from "*) echo working-container ;;
  *" push "*) archive=${*: -1}; archive=${archive#docker-archive:}; echo "an image" >"${archive%%:*}" ;;
  *" build "*) echo "STEP 7 of it"; [ ! -e "$PLAYED/broken" ] ;;
esac
"""
DEBOOTSTRAP = """#!/bin/bash
echo "debootstrap $*" >>"$PLAYED/calls"
for word in "$@"; do case $word in */.base-*) mkdir -p "$word/usr/share/doc" ;; esac; done
"""


class Played:
    """The script with tools that only note down what they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        (folder / "bin").mkdir()
        self.tool("buildah", BUILDAH)
        self.tool("debootstrap", DEBOOTSTRAP)
        self.tool("id", "#!/bin/bash\necho 0\n")

    def tool(self, name: str, script: str) -> None:
        """Put a program in front of the machine's own."""
        path = self.folder / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def state(self, name: str, text: str = "") -> None:
        """Something that the played tools look for."""
        (self.folder / name).write_text(text)

    def run(self, *targets: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        own = {"PATH": path, "PLAYED": str(self.folder), "SEELE_CACHE": str(self.cache), **environment}
        return subprocess.run([SCRIPT, *targets], capture_output=True, text=True, env={**os.environ, **own})

    def calls(self, word: str) -> list[str]:
        """Command lines with `word` in them, and forget all of them."""
        path = self.folder / "calls"
        found = [line for line in path.read_text().splitlines() if word in line.split()]
        path.unlink()
        return found


@pytest.fixture
def played(tmp_path: Path) -> Played:
    """A machine with played tools."""
    return Played(tmp_path)


@pytest.mark.timeout(1200)  # the first time a base is made, too
def test_the_operators_image_is_small_and_says_what_it_is() -> None:
    image = built_image("operator")

    print(f"the operator's image: {image.size / 1e6:.0f} MB unpacked, base included")
    assert image.size <= LARGEST
    assert (image.config["User"], image.config["Entrypoint"], image.config["Cmd"]) == (
        "1000:1000",
        ["seele"],
        ["operator"],
    )
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "seele-operator"
    assert labels["org.opencontainers.image.version"] == VERSION
    assert len(labels["org.opencontainers.image.revision"]) == 40


def test_the_base_is_pulled_where_its_registry_answers(played: Played) -> None:
    played.state("registry")
    done = played.run("operator")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(played.cache / "images" / "seele-operator.tar")]
    (build,) = played.calls("build")
    assert f"--build-arg PYTHON_IMAGE={PINNED}" in build
    assert f"--target operator --tag ghcr.io/seele-dev/seele-operator:{VERSION}" in build


def test_where_no_registry_answers_a_base_is_made_once(played: Played) -> None:
    first = played.run("operator")

    assert first.returncode == 0, first.stderr
    assert f"no registry answers for {PINNED}" in first.stderr
    assert len(played.calls("debootstrap")) == 1
    assert played.run("operator").returncode == 0
    calls = (played.folder / "calls").read_text()
    assert "debootstrap" not in calls
    (build,) = played.calls("build")
    assert "--build-arg PYTHON_IMAGE=localhost/seele-base:bookworm" in build


def test_a_base_that_was_asked_for_is_never_replaced_by_another(played: Played) -> None:
    done = played.run("operator", SEELE_PYTHON_IMAGE="registry.example.org/python:3.11")

    assert done.returncode == 2
    assert done.stderr.strip() == "images: SEELE_PYTHON_IMAGE=registry.example.org/python:3.11 cannot be pulled"
    assert not played.calls("build")


def test_an_archive_is_written_again_only_for_another_image(played: Played) -> None:
    played.run("operator")
    assert len(played.calls("push")) == 1
    played.run("operator")
    assert not played.calls("push")
    played.state("id", "2")
    played.run("operator")
    assert len(played.calls("push")) == 1


def test_a_build_that_fails_says_why_and_is_no_fault_of_the_machine(played: Played) -> None:
    played.state("registry")
    played.state("broken")
    done = played.run("trainer")

    assert done.returncode == 1
    assert "STEP 7 of it" in done.stderr
    assert f"ghcr.io/seele-dev/seele:{VERSION} could not be built" in done.stderr


def test_refusals_say_what_to_do(played: Played) -> None:
    assert "there is no image trainers; say operator, trainer or trainer-cpu" in played.run("trainers").stderr
    assert "say operator, trainer or trainer-cpu" in played.run().stderr
    played.tool("id", "#!/bin/bash\necho 1000\n")
    done = played.run("trainer-cpu")
    assert done.returncode == 2
    assert "docker build --target trainer-cpu ." in done.stderr
    assert not (played.folder / "calls").exists()
