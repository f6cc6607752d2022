"""Policy versions on the shared volume: a model folder for each, and a marker that names the current one."""

import re
import shutil
from pathlib import Path

from seele_trainer.run_folder.attempt import Attempt
from seele_trainer.run_folder.durable import put_in_place, write_file

_MARKER = "CURRENT"
_VERSION_FOLDER = re.compile(r"version-(\d+)")


class WeightsDirectory:
    """The folder `weights` of a run: `initial/`, `version-N/`, and the file `CURRENT` with the served version.

    An attempt at the run exports a version to `staged(version)` and then publishes it.
    """

    def __init__(self, root: Path, attempt: Attempt) -> None:
        self._root = root
        self._attempt = attempt

    def staged(self, version: int) -> Path:
        """Where this attempt exports a version: apart, because a newer attempt may have published the same number."""
        return self._root / f"version-{version}.attempt-{self._attempt.number}"

    def folder(self, version: int) -> Path:
        """The model folder of a version, which need not exist."""
        return self._root / f"version-{version}"

    @property
    def decoy(self) -> Path:
        """This attempt's folder for weights that no policy has, which prove that a server loads what it is given."""
        return self._root / f"decoy.attempt-{self._attempt.number}"

    def publish(self, version: int) -> Path:
        """Move an exported version into place and make it the current one, by atomic renames.

        Raises FileNotFoundError if the version was never exported, Superseded if a newer attempt has begun.
        """
        self._attempt.check()
        folder, staged = self.folder(version), self.staged(version)
        if (staged / "config.json").is_file():
            put_in_place(staged, folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is not a model folder: export version {version} before publishing it")
        write_file(self._root / _MARKER, f"{version}\n")
        return folder

    def current(self) -> int | None:
        """The published version; None before the first."""
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
        """Delete all version folders except the `keep` most recent ones and the published one.

        Remains of killed exports and earlier attempts' decoys are deleted too, so no export may be running. The most
        recent by time, not by number: a resumed run counts from its checkpoint again, and the lost attempt's folders are
        the older ones. Raises Superseded if a newer attempt has begun, which then owns the folders.
        """
        if keep < 1:
            raise ValueError(f"keep at least one version, the served one, not {keep}")
        self._attempt.check()
        by_age = sorted(self.versions(), key=lambda version: self.folder(version).stat().st_mtime_ns)
        current = self.current()
        for version in by_age[:-keep]:
            if version != current:
                shutil.rmtree(self.folder(version))
        for pattern in (".version-*", "version-*.attempt-*", ".decoy.*", "decoy.attempt-*"):
            for left in self._root.glob(pattern):
                if left != self.decoy:
                    shutil.rmtree(left, ignore_errors=True)
