"""tools/helm.sh: where it looks for helm, and what it accepts."""

import hashlib
import platform
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support import REPOSITORY

VERSION = "v3.18.6"
COMMANDS = "bash chmod curl dirname flock gzip mkdir mktemp mv rm sha256sum tar uname"
MACHINE = {"x86_64": "linux-amd64", "aarch64": "linux-arm64"}.get(platform.machine(), "")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The only folder on PATH: what the script calls, without helm and npm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in COMMANDS.split():
        (folder / name).symlink_to(next(Path(at) / name for at in ("/usr/bin", "/bin") if (Path(at) / name).exists()))
    return folder


def fake_helm(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/bash\n[ "$1" = version ] && echo {version}\n')
    path.chmod(0o755)
    return path


def found(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": str(tmp_path / "bin"), "SEELE_CACHE": str(tmp_path / "cache")}
    given["SEELE_HELM_DOWNLOADS"] = f"file://{tmp_path}/downloads"
    return subprocess.run(
        [REPOSITORY / "tools" / "helm.sh"], env={**given, **environment}, capture_output=True, text=True
    )


def offer(tmp_path: Path, *, checksum: str = "") -> None:
    """An official download."""
    helm = fake_helm(tmp_path / "made" / MACHINE / "helm", f"{VERSION}+g1")
    name = f"helm-{VERSION}-{MACHINE}.tar.gz"
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with tarfile.open(downloads / name, "w:gz") as archive:
        archive.add(helm, f"{MACHINE}/helm")
    sum_ = checksum or hashlib.sha256((downloads / name).read_bytes()).hexdigest()
    (downloads / f"{name}.sha256sum").write_text(f"{sum_}  {name}\n")


@pytest.mark.usefixtures("tools")
def test_seele_helm_is_used_if_it_is_recent(tmp_path: Path) -> None:
    recent, old = fake_helm(tmp_path / "recent", "v4.1.0"), fake_helm(tmp_path / "old", "v3.5.4+g1")

    assert found(tmp_path, SEELE_HELM=str(recent)).stdout == f"{recent}\n"
    refused = found(tmp_path, SEELE_HELM=str(old))
    assert refused.returncode == 1
    assert refused.stderr == f"helm: SEELE_HELM={old} is not helm 3.6 or newer\n"


def test_a_recent_helm_on_the_path_comes_before_the_cache(tmp_path: Path, tools: Path) -> None:
    cached = fake_helm(tmp_path / "cache" / "helm" / "helm", "v3.6.2")
    on_path = fake_helm(tools / "helm", "v3.10.0")
    assert found(tmp_path).stdout == f"{on_path}\n"

    fake_helm(on_path, "v2.17.0")
    assert found(tmp_path).stdout == f"{cached}\n"


@pytest.mark.usefixtures("tools")
@pytest.mark.skipif(not MACHINE, reason=f"there is no helm to download for {platform.machine()}")
def test_a_download_is_kept(tmp_path: Path) -> None:
    offer(tmp_path)
    first = found(tmp_path)

    assert first.stdout == f"{tmp_path}/cache/helm/helm\n"
    (tmp_path / "downloads").rename(tmp_path / "away")
    assert found(tmp_path).stdout == first.stdout


@pytest.mark.usefixtures("tools")
@pytest.mark.skipif(not MACHINE, reason=f"there is no helm to download for {platform.machine()}")
def test_a_download_with_a_wrong_checksum_is_not_used(tmp_path: Path) -> None:
    offer(tmp_path, checksum="0" * 64)
    refused = found(tmp_path)

    assert refused.returncode == 1
    assert f"the checksum of helm-{VERSION}-{MACHINE}.tar.gz is wrong" in refused.stderr
    assert not (tmp_path / "cache" / "helm" / "helm").exists()


@pytest.mark.usefixtures("tools")
def test_without_helm_it_says_what_to_do(tmp_path: Path) -> None:
    refused = found(tmp_path)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "install helm, or set SEELE_HELM" in refused.stderr
