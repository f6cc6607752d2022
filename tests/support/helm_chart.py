"""Helm, and the chart rendered as plain objects."""

import functools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import REPOSITORY

CHART = REPOSITORY / "charts" / "seele-operator"
RELEASE, NAMESPACE = "seele-operator", "seele-system"
NEW, OLD = "v1.30.0", "v1.20.2"
"""Versions of Kubernetes with and without CEL rules."""

Body = dict[str, Any]

try:
    _LOADER: Any = yaml.CSafeLoader
except AttributeError:
    _LOADER = yaml.SafeLoader


@functools.cache
def helm_binary() -> str:
    """Path of helm. Skips if SEELE_SKIP_HELM gives a reason, and fails if there is no helm."""
    if reason := os.environ.get("SEELE_SKIP_HELM"):
        pytest.skip(f"SEELE_SKIP_HELM: {reason}")
    found = subprocess.run([REPOSITORY / "tools" / "helm.sh"], stdout=subprocess.PIPE, text=True)
    assert found.returncode == 0, "tools/helm.sh found no helm; see its output above"
    return found.stdout.strip()


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    return subprocess.run([helm_binary(), *arguments], capture_output=True, text=True)


def helm_done(*arguments: str | Path) -> str:
    """Output of helm. Raises AssertionError with its message if it fails."""
    done = helm(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_file(values: Mapping[str, Any], folder: Path) -> Path:
    """Write a file of values."""
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(dict(values)))
    return path


def rendered(values: Path | None = None, *flags: str, kubernetes: str = NEW) -> list[Body]:
    """The objects that the chart renders."""
    given: tuple[str | Path, ...] = () if values is None else ("--values", values)
    where = ("--namespace", NAMESPACE, "--kube-version", kubernetes)
    return objects(helm_done("template", RELEASE, CHART, *where, *given, *flags))


def objects(text: str) -> list[Body]:
    """The objects of a YAML stream."""
    return [body for body in yaml.load_all(text, Loader=_LOADER) if body]


def one(bodies: list[Body], kind: str, name: str | None = None) -> Body:
    """The only object of a kind, or of a kind and name. Raises AssertionError if there is not exactly one."""
    found = [body for body in bodies if body["kind"] == kind and name in (None, body["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]
