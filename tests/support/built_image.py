"""Images that tools/images.sh builds from the Dockerfile, as tests see them: archives on disk."""

from __future__ import annotations

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
"""How the script ends where the machine is the reason, and not the Dockerfile."""


@dataclass(frozen=True)
class BuiltImage:
    """One archive."""

    archive: Path
    config: dict[str, Any]
    """User, Entrypoint, Labels, Healthcheck and the like."""
    size: int
    """Bytes of all files in its layers, those of the base included."""


def built_image(target: str) -> BuiltImage:
    """The image of a target, built if it is not; skips where none can be built on this machine."""
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
