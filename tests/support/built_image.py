"""Images that tools/images.sh builds from the Dockerfile, as archives on disk."""

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support import REPOSITORY

SCRIPT = REPOSITORY / "tools" / "images.sh"
CANNOT = 2
"""The script's exit code if the machine cannot build images."""


@dataclass(frozen=True)
class BuiltImage:
    """An image in an archive."""

    archive: Path
    config: dict[str, Any]
    """User, Entrypoint, Labels, Healthcheck and the like."""
    size: int
    """Bytes of all files in its layers, including the base."""


def built_image(target: str) -> BuiltImage:
    """Build the image of a target, or reuse it; skips if this machine cannot build images."""
    done = subprocess.run([SCRIPT, target], capture_output=True, text=True)
    if done.returncode == CANNOT:
        pytest.skip(f"no image can be built here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return _read(Path(done.stdout.strip()))


def _read(path: Path) -> BuiltImage:
    with tarfile.open(path) as archive:

        def member(name: str) -> IO[bytes]:
            found = archive.extractfile(name)
            assert found is not None, f"{path} has no {name}"
            return found

        (manifest,) = json.load(member("manifest.json"))
        size = 0
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=member(name)) as layer:
                size += sum(entry.size for entry in layer)
        return BuiltImage(path, json.load(member(manifest["Config"]))["config"], size)
