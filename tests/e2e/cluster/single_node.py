"""A node of a Kubernetes cluster on this machine: kubelet, containerd, runc and a bridge, in separate namespaces."""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import psutil
import yaml

from tests.e2e.cluster.cluster_dns import DOMAIN
from tests.e2e.cluster.node_image import plain_spec, runtime_spec, write_image
from tests.support import REPOSITORY
from tests.support.control_plane import free_port
from tests.support.waiting import wait_for

CHECKOUT = REPOSITORY
NAME = "seele-node"
PAUSE = "localhost/seele-pause:e2e"
"""Image of the sandbox of every pod; a different name, since a test may load another image with the first name."""
IMAGES = ["ghcr.io/seele-dev/seele:0.1.0-cpu", PAUSE]
BRIDGE = "seele-e2e"
SUBNET = "10.199.77.0/24"
ADDRESS = "10.199.77.1"
"""Address of the bridge, which is the node's address."""
SERVICES = "10.96.0.0/16"
"""The control plane's --service-cluster-ip-range."""
PLAIN_RUNTIME = "plain"
"""Handler, used by a RuntimeClass, of containers that have only their image and no mounts of this machine."""
CGROUP = "seele-e2e"
_CGROUPS = Path("/sys/fs/cgroup")


class Node:
    """A single node; `start` returns when it can run containers, and `close` leaves nothing behind."""

    def __init__(self, folder: Path, binaries: Path, kubeconfig: Path) -> None:
        """`folder` is the node's, on a disk; `binaries` has the kubelet."""
        self._folder = folder
        self._kubelet = binaries / "kubelet"
        self._kubeconfig = kubeconfig
        self._namespace: subprocess.Popen[str] | None = None
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start everything except the kubelet, and load the image."""
        self._folder.mkdir(parents=True, exist_ok=True)
        _make_bridge()
        _make_cgroups()
        self._enter_namespaces()
        self._start_containerd()

    def start_kubelet(self) -> None:
        """Start the kubelet, also after `kill_kubelet`."""
        command = [str(self._kubelet), f"--config={self._kubelet_config()}", f"--kubeconfig={self._kubeconfig}"]
        command += [f"--root-dir={self._folder}/kubelet", f"--cert-dir={self._folder}/pki"]
        command += [f"--hostname-override={NAME}", f"--node-ip={ADDRESS}"]
        endpoint = f"--container-runtime-endpoint=unix://{self._socket}"
        # Before 1.24 another runtime was built in.
        old = _minor_version(self._kubelet) < 24
        command += ["--container-runtime=remote", endpoint] if old else [endpoint]
        self._start("kubelet", command)

    def kill_kubelet(self) -> None:
        """Kill the kubelet, as if the node froze or lost its network: containers continue."""
        self._end("kubelet")

    def log(self, daemon: str) -> str:
        """The end of a daemon's log."""
        path = self._folder / f"{daemon}.log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else ""

    def container_logs(self) -> Iterator[tuple[str, str]]:
        """The names and ends of all container logs that the kubelet still has."""
        for path in sorted((self._folder / "log" / "pods").glob("*/*/*.log")):
            yield "/".join(path.parts[-3:-1]), path.read_text(errors="replace")[-4000:]

    def volume(self, path: str) -> Path:
        """The folder on this machine of a hostPath below /var/lib."""
        return self._folder / "lib" / Path(path).relative_to("/var/lib")

    def load_image(self, archive: Path) -> None:
        """Load an image."""
        load = [*self._ctr, "images", "import", f"--snapshotter={_snapshotter(self._folder)}", str(archive)]
        loaded = subprocess.run(load, capture_output=True, text=True)
        assert loaded.returncode == 0, f"the image {archive} cannot be loaded: {loaded.stderr}{self.log('containerd')}"
        # Otherwise the kernel writes everything half a minute later, and blocks etcd meanwhile.
        os.sync()

    def close(self) -> None:
        """End all containers and daemons, and remove everything from this machine."""
        for name in list(self._daemons):
            self._end(name)
        if self._namespace is not None:
            assert self._namespace.stdin is not None
            self._namespace.stdin.close()
            self._namespace.wait(30)
        _remove_cgroups()
        _remove_bridge()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return self._folder / "containerd.sock"

    @property
    def _ctr(self) -> list[str]:
        return ["ctr", "--address", str(self._socket), "--namespace", "k8s.io"]

    def _enter_namespaces(self) -> None:
        script = Path(__file__).with_name("namespace.sh")
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
        self._namespace = subprocess.Popen(
            [*unshare, "bash", str(script), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file("namespace"),
            text=True,
        )
        assert self._namespace.stdout is not None
        ready = self._namespace.stdout.readline() == "ready\n"
        assert ready, f"the node's namespaces cannot be created: {self.log('namespace')}"

    def _start(self, name: str, command: Sequence[str]) -> None:
        assert self._namespace is not None
        first = psutil.Process(self._namespace.pid).children()[0].pid
        inside = ["nsenter", f"--target={first}", "--mount", "--pid", "--", *command]
        self._daemons[name] = subprocess.Popen(inside, stdout=self._log_file(name), stderr=subprocess.STDOUT)

    def _end(self, name: str) -> None:
        """Kill a daemon; nsenter, its parent outside the namespace, then ends too."""
        nsenter = self._daemons.pop(name)
        for daemon in psutil.Process(nsenter.pid).children() if nsenter.poll() is None else ():
            daemon.kill()
        nsenter.wait(30)

    def _log_file(self, name: str) -> IO[bytes]:
        return (self._folder / f"{name}.log").open("ab")

    def _start_containerd(self) -> None:
        spec = json.loads(subprocess.run(["ctr", "oci", "spec"], capture_output=True, check=True).stdout)
        spec_file, plain_file = self._folder / "container.json", self._folder / "plain.json"
        spec_file.write_text(json.dumps(runtime_spec(spec, CHECKOUT)))
        plain_file.write_text(json.dumps(plain_spec(spec)))
        cni = self._folder / "cni"
        cni.mkdir(exist_ok=True)
        (cni / "10-bridge.conflist").write_text(json.dumps(_network(self._folder)))
        config = self._folder / "containerd.toml"
        config.write_text(_containerd_config(self._folder, self._socket, spec_file, plain_file, cni))
        self._start("containerd", ["containerd", "--config", str(config)])
        wait_for(self._containerd_answers, lambda: f"containerd answers:\n{self.log('containerd')}")
        archive = self._folder / "image.tar"
        write_image(archive, IMAGES, CHECKOUT)
        self.load_image(archive)

    def _containerd_answers(self) -> bool:
        assert self._daemons["containerd"].poll() is None, self.log("containerd")
        return subprocess.run([*self._ctr, "version"], capture_output=True).returncode == 0

    def _kubelet_config(self) -> Path:
        resolv = self._folder / "resolv.conf"
        resolv.write_text("")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "port": free_port(ADDRESS),
            "healthzPort": 0,
            "readOnlyPort": 0,
            # The API server reads logs without a certificate; only this machine and its pods can reach the address.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": False,
            "clusterDNS": [ADDRESS],
            "clusterDomain": DOMAIN,
            "resolvConf": str(resolv),
            "volumePluginDir": str(self._folder / "plugins"),
            # The node must not evict pods because of the machine's disk.
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": 8,
        }
        path = self._folder / "kubelet.yaml"
        path.write_text(yaml.safe_dump(config))
        return path


def _network(folder: Path) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "dataDir": str(folder / "addresses"),
            "ranges": [[{"subnet": SUBNET}]],
            "routes": [{"dst": SERVICES}],
        },
    }
    return {"cniVersion": "0.3.1", "name": BRIDGE, "plugins": [bridge]}


def _containerd_config(folder: Path, socket_path: Path, spec: Path, plain: Path, cni: Path) -> str:
    return f"""version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket_path}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Otherwise containers need CAP_SYS_RESOURCE, which many virtual machines lack.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{_snapshotter(folder)}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{spec}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{PLAIN_RUNTIME}]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{plain}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugin_folder()}"
    conf_dir = "{cni}"
"""


@functools.cache
def _snapshotter(folder: Path) -> str:
    """containerd's snapshotter: overlayfs if the disk supports it, otherwise native, which copies every layer."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        layers = [Path(temporary, name) for name in ("lower", "upper", "work", "merged")]
        for layer in layers:
            layer.mkdir()
        lower, upper, work, merged = layers
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
        return "overlayfs" if subprocess.run(mount, capture_output=True).returncode == 0 else "native"


def plugin_folder() -> Path | None:
    """The folder of the network plugins: Debian's, or the usual one."""
    folders = [Path("/usr/lib/cni"), Path("/opt/cni/bin")]
    return next(
        (folder for folder in folders if (folder / "bridge").exists() and (folder / "host-local").exists()), None
    )


def _make_bridge() -> None:
    _remove_bridge()
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{ADDRESS}/{SUBNET.split('/')[1]}", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")


def _remove_bridge() -> None:
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, check=False)


def _cgroup_hierarchies() -> list[Path]:
    """Roots of the cgroup hierarchies: many in version 1, one in version 2."""
    if (_CGROUPS / "cgroup.procs").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if not path.is_symlink() and (path / "cgroup.procs").exists()]


def _make_cgroups() -> None:
    _remove_cgroups()
    for root in _cgroup_hierarchies():
        (root / CGROUP).mkdir(exist_ok=True)
        # Otherwise all containers together would have the weight of one process of the machine.
        for weight, value in (("cpu.shares", 8192), ("cpu.weight", 800)):
            if (root / CGROUP / weight).exists():
                (root / CGROUP / weight).write_text(str(value))


def _remove_cgroups() -> None:
    """Remove our cgroups, waiting for the kernel to notice that their processes are gone."""
    for root in _cgroup_hierarchies():
        for folder, _, _ in os.walk(root / CGROUP, topdown=False):
            for _ in range(100):
                try:
                    Path(folder).rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.05)


def _minor_version(kubelet: Path) -> int:
    words = subprocess.run([str(kubelet), "--version"], capture_output=True, text=True, check=True).stdout.split()
    return int(words[-1].split(".")[1])


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)
