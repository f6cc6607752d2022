"""Gives pip in an image build the package sources of pip on this machine.

`pip_settings.py FOLDER` writes FOLDER/pip.conf, and prints arguments for `buildah build`, one per line, that mount it and
the local folders and certificates that it names. Mounts leave no trace in the image's layers.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

CONFIG = "/etc/pip.conf"
"""pip's global configuration file on Debian and Ubuntu."""
OURS = {
    "disable-pip-version-check",
    "no-cache-dir",
    "require-virtualenv",
    "user",
    "target",
    "prefix",
    "log",
    "config-file",
}
"""Settings that are about this machine, not about package sources."""


def settings(listed: str) -> dict[str, str]:
    """Settings in the output of `pip config list`; the command's section overrides the global one, the environment both."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        key, separator, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if separator and section in found and name not in OURS:
            found[section][name] = str(ast.literal_eval(value))
    return {name: value for part in found.values() for name, value in part.items() if value.strip()}


def local_paths(values: Mapping[str, str]) -> list[Path]:
    """Local folders and files in the settings, as paths or file:// URLs."""
    words = [word for value in values.values() for word in re.split(r"\s+", value)]
    named = [Path(unquote(urlsplit(word).path)) if word.startswith("file://") else Path(word) for word in words]
    # The pages of a local index, in its folder `simple`, link to files next to that folder.
    whole = {path.parent if path.name == "simple" else path for path in named if path.is_absolute()}
    return sorted(path for path in whole if path.exists())


def pip_conf(values: Mapping[str, str]) -> str:
    """The settings as a file."""
    return "[global]\n" + "".join(f"{name} = {' '.join(value.split())}\n" for name, value in sorted(values.items()))


def _main(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    values = settings(listed)
    if not values:
        return
    file = folder.resolve() / "pip.conf"
    file.write_text(pip_conf(values))
    file.chmod(0o644)
    for source, target in [(file, CONFIG), *((path, path) for path in local_paths(values))]:
        sys.stdout.write(f"--volume={source}:{target}:ro\n")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
