"""Prints requirements for pip, one per line, from pyproject.toml and requirements.lock in the current folder.

    python3 tools/requirements.py wanted operator     # those of the package and its extra `operator`, with open versions
    python3 tools/requirements.py locked              # all of requirements.lock except developers' tools
    python3 tools/requirements.py version torch       # the version that tools/setup.sh installs

The Docker build runs this before it installs anything, so it uses only Python's standard library.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

DEVELOPERS = "dev"
"""The extra that is in no image."""


def wanted(project: str, extras: Iterable[str]) -> list[str]:
    """Requirements of the package and of `extras`. Raises ValueError for an unknown extra."""
    table = tomllib.loads(project)["project"]
    optional = table["optional-dependencies"]
    found = list(table["dependencies"])
    for extra in extras:
        if extra not in optional:
            raise ValueError(f"there is no extra {extra!r}; pyproject.toml has {', '.join(optional)}")
        found += optional[extra]
    return list(dict.fromkeys(found))


def locked(lock: str, project: str) -> list[str]:
    """Pins of the lock without the developers' extra, pytest plugins and stubs.

    The few packages that only these require stay, since a lock does not record which package requires another.
    """
    tools = {
        _name(requirement) for requirement in tomllib.loads(project)["project"]["optional-dependencies"][DEVELOPERS]
    }
    pins = [line.strip() for line in lock.splitlines() if line.strip() and not line.startswith("#")]
    return [pin for pin in pins if _name(pin) not in tools and not _name(pin).startswith(("pytest-", "types-"))]


def pinned(script: str, package: str) -> str:
    """The version of `package` that tools/setup.sh installs. Raises ValueError if it has none."""
    found = re.search(rf"^{package}_version=(\S+)$", script, re.MULTILINE)
    if found is None:
        raise ValueError(f"tools/setup.sh has no line {package}_version=…")
    return found[1]


def _name(requirement: str) -> str:
    """The normalised package name."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]).lower()


def _main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["wanted", *extras]:
                lines = wanted(Path("pyproject.toml").read_text(), extras)
            case ["locked"]:
                lines = locked(Path("requirements.lock").read_text(), Path("pyproject.toml").read_text())
            case ["version", package]:
                lines = [pinned(Path("tools/setup.sh").read_text(), package)]
            case _:
                raise ValueError("usage: requirements.py wanted EXTRA… | locked | version PACKAGE")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"requirements: {error}\n")
        return 2
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
