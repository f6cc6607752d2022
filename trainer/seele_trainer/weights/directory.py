"""Where policy versions lie on the shared volume: a model folder for each, and a marker that names the current one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from seele_trainer.run_folder.attempt import Attempt
from seele_trainer.run_folder.durable import put_in_place, write_file

_MARKER = "CURRENT"
_VERSION_FOLDER = re.compile(r"version-(\d+)")


class WeightsDirectory:
    """The folder `weights` of a run: `initial/`, `version-N/`, and the file `CURRENT` naming the served version.

    An attempt at the run exports a version to `staged(version)` and then publishes it.
    """

    def __init__(self, root: Path, attempt: Attempt) -> None:
        self._root = root
        self._attempt = attempt

    def staged(self, version: int) -> Path:
        """Where this attempt exports a version: aside, for a newer attempt may have made another of that number."""
        return self._root / f"version-{version}.attempt-{self._attempt.number}"

    def folder(self, version: int) -> Path:
        """The model folder of a version, whether it exists or not."""
        return self._root / f"version-{version}"

    def publish(self, version: int) -> Path:
        """Put what was exported in its place and name it as the current version, by atomic renames.

        Raises FileNotFoundError where the version was never exported, Superseded where a newer attempt has begun.
        """
        self._attempt.check()
        folder, staged = self.folder(version), self.staged(version)
        if (staged / "config.json").is_file():
            put_in_place(staged, folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is not a model folder: export version {version} before it is published")
        write_file(self._root / _MARKER, f"{version}\n")
        return folder

    def current(self) -> int | None:
        """The published version, or None before the first."""
        try:
            version = int((self._root / _MARKER).read_text())
        except FileNotFoundError:
            return None
        return version if self.folder(version).is_dir() else None

    def versions(self) -> list[int]:
        """Versions that have a folder, ascending."""
        if not self._root.is_dir():
            return []
        found = (_VERSION_FOLDER.fullmatch(entry.name) for entry in self._root.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def prune(self, keep: int) -> None:
        """Delete version folders but the `keep` that were written last; the published one always stays.

        What exports that were killed left goes too, so none may be going on. Raises Superseded where a newer attempt
        has begun, whose folders these are now.

        The newest by time, not by number: a run that resumed counts again from its checkpoint, and the folders of the
        attempt that was lost are then the older ones.
        """
        if keep < 1:
            raise ValueError(f"keep at least the weights that are served, not {keep} versions")
        self._attempt.check()
        by_age = sorted(self.versions(), key=lambda version: self.folder(version).stat().st_mtime_ns)
        current = self.current()
        for version in by_age[:-keep]:
            if version != current:
                shutil.rmtree(self.folder(version))
        for pattern in (".version-*", "version-*.attempt-*"):
            for left in self._root.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)
