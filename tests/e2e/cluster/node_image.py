"""The image of the test cluster: a root file system of a few directories, into which the machine's programs, the checkout
and its Python environment are mounted read-only. It is made in milliseconds without downloads."""

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Any

USER = 1000
"""User and group of the containers, as in pods.py."""
CHECKOUT = "/opt/seele/checkout"
"""The checkout in containers; not at the machine's path, which a pod's volume may cover."""
_PACKAGES = "/opt/seele/packages"
_PROGRAMS = "opt/seele/bin"
_DIRECTORIES = ("dev", "etc", "etc/seele", "proc", "run", "seele", "seele/run", "sys", "tmp", "usr", "var", "var/tmp")
_FILES = {
    "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\nseele:x:{USER}:{USER}:seele:/tmp:/bin/sh\n",
    "etc/group": f"root:x:0:\nseele:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def mounts(checkout: Path) -> dict[str, Path]:
    """Folders of the machine by their paths in containers: programs, Python, packages, the checkout."""
    same = [Path("/usr"), Path("/etc/alternatives"), Path("/etc/ld.so.cache")]
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        same.append(Path(sys.base_prefix))
    packages = Path(sysconfig.get_path("purelib"))
    return {**{str(path): path for path in same if path.exists()}, CHECKOUT: checkout, _PACKAGES: packages}


def write_image(archive: Path, tags: list[str], checkout: Path) -> None:
    """Write the image as a docker archive under the names `tags`.

    Its working directory is the checkout, and its PATH has `seele` and `python3`.
    """
    layer = _layer(checkout)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": str(USER),
            "WorkingDir": CHECKOUT,
            "Env": [
                f"PATH=/{_PROGRAMS}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                f"PYTHONPATH={CHECKOUT}/operator:{CHECKOUT}/trainer:{_PACKAGES}",
                "LANG=C.UTF-8",
            ],
            # The pause container only waits; other containers set a command.
            "Entrypoint": [_sleep(), "infinity"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "layer.tar", layer)
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def plain_spec(default: dict[str, Any]) -> dict[str, Any]:
    """containerd's base specification of containers with only their image: its default without resource limits, which some
    virtual machines cannot set."""
    return {**default, "process": {key: value for key, value in default["process"].items() if key != "rlimits"}}


def runtime_spec(default: dict[str, Any], checkout: Path) -> dict[str, Any]:
    """The same for containers of our image, with its read-only mounts."""
    ours = [
        {"destination": there, "type": "bind", "source": str(here), "options": ["rbind", "ro"]}
        for there, here in mounts(checkout).items()
    ]
    plain = plain_spec(default)
    return {**plain, "mounts": [*plain["mounts"], *ours]}


def _layer(checkout: Path) -> bytes:
    """The root file system as a tar file."""
    buffer = io.BytesIO()
    directories = dict.fromkeys(_DIRECTORIES)
    for there, here in (*mounts(checkout).items(), ("/" + _PROGRAMS, Path("/usr"))):
        # Parents get permissions for the containers' user, which the machine's folders may lack.
        parts = Path(there).parts[1:] if here.is_dir() else Path(there).parts[1:-1]
        directories.update({"/".join(parts[:end]): None for end in range(1, len(parts) + 1)})
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in sorted(directories):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
            tar.addfile(entry)
        for name in ("bin", "sbin", "lib", "lib64", "lib32"):
            if Path("/", name).is_symlink():
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, str(Path("/", name).readlink())
                tar.addfile(entry)
        for name, text in _FILES.items():
            _add(tar, name, text.encode())
        python = str(Path(sys.executable).resolve())
        for name, command in {"python3": python, "python": python, "seele": f"{python} -m seele_operator.cli"}.items():
            _add(tar, f"{_PROGRAMS}/{name}", f'#!/bin/sh\nexec {command} "$@"\n'.encode(), mode=0o755)
        for path in _linked_files(Path(_sleep())):
            # In the folders that /bin and /lib may link to.
            _add(tar, str(path.parent.resolve() / path.name).lstrip("/"), path.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _sleep() -> str:
    """The program of the pause container, which has none of our mounts."""
    found = shutil.which("sleep")
    assert found is not None, "there is no sleep on PATH"
    return found


def _linked_files(program: Path) -> list[Path]:
    """A program and its shared libraries."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [program, *(Path(path) for path in re.findall(r"(/\S+) \(0x", listed))]


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
