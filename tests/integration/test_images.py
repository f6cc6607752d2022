"""The operator's image, really built; and tools/images.sh with a fake buildah, with and without a registry."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tests.support.built_image import SCRIPT, built_image

MAX_IMAGE_BYTES = 250e6
"""Of the operator's image, unpacked and with its base."""
VERSION: str = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
PINNED = next(
    line.partition("=")[2]
    for line in (REPOSITORY / "Dockerfile").read_text().splitlines()
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
APT_GET = """#!/bin/bash
[ "$1" = install ] || exit 0
mkdir "$PLAYED/installing" || touch "$PLAYED/collided"
echo "apt-get $*" >>"$PLAYED/calls"
sleep 0.3
for word in "$@"; do if [ -e "$PLAYED/packages/$word" ]; then cp "$PLAYED/packages/$word" "$PLAYED/bin/"; fi; done
rmdir "$PLAYED/installing"
"""


class Played:
    """The script with fake tools that record how they are called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        (folder / "bin").mkdir()
        self.tool("buildah", BUILDAH)
        self.tool("debootstrap", DEBOOTSTRAP)
        self.tool("id", "#!/bin/bash\necho 0\n")
        self.path = f"{folder / 'bin'}:{os.environ['PATH']}"

    def to_be_installed(self, *names: str) -> None:
        """Simulate a machine without some tools, and an apt-get that installs them."""
        system, packages = self.folder / "system", self.folder / "packages"
        system.mkdir()
        packages.mkdir()
        for folder in reversed(os.environ["PATH"].split(":")):
            for program in Path(folder).glob("*"):
                (system / program.name).unlink(missing_ok=True)
                (system / program.name).symlink_to(program)
        for name in names:
            (system / name).unlink(missing_ok=True)
            (self.folder / "bin" / name).rename(packages / name)
        self.tool("apt-get", APT_GET)
        self.path = f"{self.folder / 'bin'}:{system}"

    def tool(self, name: str, script: str) -> None:
        """Replace a program of the machine."""
        path = self.folder / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def state(self, name: str, text: str = "") -> None:
        """Set a state for the fake tools."""
        (self.folder / name).write_text(text)

    def start(self, *targets: str, **environment: str) -> subprocess.Popen[str]:
        """Start the script."""
        own = {"PATH": self.path, "PLAYED": str(self.folder), "SEELE_CACHE": str(self.cache), **environment}
        return subprocess.Popen(
            [SCRIPT, *targets],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **own},
        )

    def run(self, *targets: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        started = self.start(*targets, **environment)
        output, errors = started.communicate()
        return subprocess.CompletedProcess(started.args, started.returncode, output, errors)

    def calls(self, word: str) -> list[str]:
        """Recorded command lines that contain `word`; clears the record."""
        path = self.folder / "calls"
        found = [line for line in path.read_text().splitlines() if word in line.split()]
        path.unlink()
        return found


@pytest.fixture
def played(tmp_path: Path) -> Played:
    """A machine with fake tools."""
    return Played(tmp_path)


@pytest.mark.timeout(1200)  # the first time also makes a base
def test_the_operators_image_is_small_and_labelled() -> None:
    image = built_image("operator")

    print(f"the operator's image: {image.size / 1e6:.0f} MB unpacked, base included")
    assert image.size <= MAX_IMAGE_BYTES
    assert (image.config["User"], image.config["Entrypoint"], image.config["Cmd"]) == (
        "1000:1000",
        ["seele"],
        ["operator"],
    )
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "seele-operator"
    assert labels["org.opencontainers.image.version"] == VERSION
    assert len(labels["org.opencontainers.image.revision"]) == 40


def test_the_base_is_pulled_if_its_registry_answers(played: Played) -> None:
    played.state("registry")
    done = played.run("operator")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(played.cache / "images" / "seele-operator.tar")]
    (build,) = played.calls("build")
    assert f"--build-arg PYTHON_IMAGE={PINNED}" in build
    assert f"--target operator --tag ghcr.io/seele-dev/seele-operator:{VERSION}" in build


def test_without_a_registry_a_base_is_made_once(played: Played) -> None:
    first = played.run("operator")

    assert first.returncode == 0, first.stderr
    assert f"{PINNED} cannot be pulled: making a base" in first.stderr
    assert len(played.calls("debootstrap")) == 1
    assert played.run("operator").returncode == 0
    calls = (played.folder / "calls").read_text()
    assert "debootstrap" not in calls
    (build,) = played.calls("build")
    assert "--build-arg PYTHON_IMAGE=localhost/seele-base:bookworm" in build


def test_a_requested_base_is_never_replaced(played: Played) -> None:
    done = played.run("operator", SEELE_PYTHON_IMAGE="registry.example.org/python:3.11")

    assert done.returncode == 2
    assert done.stderr.strip() == "images: SEELE_PYTHON_IMAGE=registry.example.org/python:3.11 cannot be pulled"
    assert not played.calls("build")


def test_debootstrap_is_installed_only_without_a_registry(played: Played) -> None:
    played.to_be_installed("debootstrap")
    played.state("registry")
    assert played.run("operator").returncode == 0
    assert not played.calls("apt-get")

    (played.folder / "registry").unlink()
    (played.folder / "pulled").unlink()
    done = played.run("operator")
    assert done.returncode == 0, done.stderr
    (installed,) = [line for line in (played.folder / "calls").read_text().splitlines() if line.startswith("apt-get")]
    assert installed.split()[-1] == "debootstrap"


def test_concurrent_calls_do_not_run_apt_at_the_same_time(played: Played) -> None:
    played.to_be_installed("buildah")
    played.state("registry")
    both = [played.start("operator") for _ in range(2)]
    errors = [started.communicate()[1] for started in both]

    assert [started.returncode for started in both] == [0, 0], errors
    assert not (played.folder / "collided").exists()


def test_a_tool_that_cannot_be_installed_is_reported_as_a_limit_of_the_machine(played: Played) -> None:
    played.to_be_installed("buildah")
    played.tool("apt-get", "#!/bin/bash\nexit 100\n")
    done = played.run("operator")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "images: buildah is missing, and apt-get cannot install it"


def test_nothing_is_built_without_the_settings_of_pip(played: Played) -> None:
    played.state("registry")
    played.tool("python-without-pip", "#!/bin/bash\nexit 1\n")
    done = played.run("operator", PYTHON=str(played.folder / "bin" / "python-without-pip"))

    assert done.returncode == 2
    assert done.stderr.strip() == "images: tools/pip_settings.py cannot read the settings of pip"
    assert not played.calls("build")


def test_an_archive_is_written_again_only_if_the_image_changes(played: Played) -> None:
    played.run("operator")
    assert len(played.calls("push")) == 1
    played.run("operator")
    assert not played.calls("push")
    played.state("id", "2")
    played.run("operator")
    assert len(played.calls("push")) == 1


def test_a_failed_build_reports_why_and_is_not_a_limit_of_the_machine(played: Played) -> None:
    played.state("registry")
    played.state("broken")
    done = played.run("trainer")

    assert done.returncode == 1
    assert "STEP 7 of it" in done.stderr
    assert f"ghcr.io/seele-dev/seele:{VERSION} could not be built" in done.stderr


def test_refusals_say_what_to_do(played: Played) -> None:
    assert "there is no image trainers: use operator, trainer or trainer-cpu" in played.run("trainers").stderr
    assert "use operator, trainer or trainer-cpu" in played.run().stderr
    played.tool("id", "#!/bin/bash\necho 1000\n")
    done = played.run("trainer-cpu")
    assert done.returncode == 2
    assert "docker build --target trainer-cpu ." in done.stderr
    assert not (played.folder / "calls").exists()
