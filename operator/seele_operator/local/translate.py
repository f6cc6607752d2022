"""Translates the manifest of a pod into commands for this machine. Pure: folders, ports and environment are arguments."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seele_operator.local.ports import HOST, PortKey
from seele_operator.plan import names
from seele_operator.plan.names import Manifest
from seele_trainer.rollout.vllm_command import SERVE, SERVE_MODULE

KEPT_FROM_MACHINE = frozenset({"HOME", "USER", "HF_HOME", "SEELE_GRACE_SECONDS"})
"""Variables that keep this machine's value: its user already has a home folder and a cache of models, and says how long a
stop may take by a second Ctrl-C."""
BIND_HOST = "SEELE_BIND_HOST"
DEFAULT_GRACE_SECONDS = 30


@dataclass(frozen=True)
class Probe:
    """An HTTP probe with Kubernetes' defaults; times in seconds."""

    url: str
    delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    failure_threshold: int = 3
    success_threshold: int = 1


def parse_probe(container: Manifest, kind: str, ports: Mapping[int, int]) -> Probe | None:
    """The HTTP probe of a container under the key `kind`, with its local port; None if it has none."""
    given = container.get(kind)
    if given is None or "httpGet" not in given:
        return None
    request = given["httpGet"]
    by_name = {port["name"]: port["containerPort"] for port in container.get("ports", ()) if "name" in port}
    declared = by_name.get(request["port"], request["port"])
    return Probe(
        url=f"http://{HOST}:{ports[declared]}{request.get('path', '/')}",
        delay=given.get("initialDelaySeconds", 0),
        period=given.get("periodSeconds", 10),
        timeout=given.get("timeoutSeconds", 1),
        failure_threshold=given.get("failureThreshold", 3),
        success_threshold=given.get("successThreshold", 1),
    )


class CannotRunHere(ValueError):
    """A pod needs something that this machine does not have. The message names the pod and the remedy."""


@dataclass(frozen=True)
class Command:
    """The command of one container, with its complete environment."""

    container: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class LocalPod:
    """A pod that can run on this machine."""

    name: str
    role: str
    index: int
    init: tuple[Command, ...]
    main: Command
    ports: Mapping[str, int]
    """Local ports by the names of the declared ones."""
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None
    grace_seconds: float
    notes: tuple[str, ...] = ()
    """Differences from a cluster, in words for the user."""


@dataclass(frozen=True)
class Machine:
    """What replaces the cluster for the pods."""

    run_folder: Path
    python: str
    """The interpreter for `python3` and `seele`."""
    environment: Mapping[str, str]
    """Inherited by every container."""
    ports: Mapping[PortKey, int]

    @property
    def hugging_face_folder(self) -> str:
        """This user's own cache of models and data sets."""
        home = self.environment.get("HF_HOME")
        return home or str(Path(self.environment.get("HOME", "~")).expanduser() / ".cache" / "huggingface")

    def config_folder(self, config_map: str) -> Path:
        """The folder for the files of a config map."""
        return self.run_folder / "plan" / config_map


def translate(pod: Manifest, all_pods: Sequence[Manifest], machine: Machine) -> LocalPod:
    """The commands of `pod`, one of `all_pods`, on `machine`. Raises CannotRunHere."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    labels = pod["metadata"].get("labels", {})
    main, *others = spec["containers"]
    rewrite = Rewriting(all_pods, machine.ports)
    local_ports = {number: machine.ports[name, number] for number in _declared_ports(main)}
    return LocalPod(
        name=name,
        role=labels.get(names.ROLE_LABEL, "rollout"),
        index=int(labels.get(names.INDEX_LABEL, 0)),
        init=tuple(
            _command(container, pod, rewrite, machine, {})
            for container in spec.get("initContainers", ())
            if container["name"] != names.PREPARE_FOLDER
        ),
        main=_command(main, pod, rewrite, machine, local_ports),
        ports={port["name"]: local_ports[port["containerPort"]] for port in main.get("ports", ()) if "name" in port},
        startup=parse_probe(main, "startupProbe", local_ports),
        readiness=parse_probe(main, "readinessProbe", local_ports),
        liveness=parse_probe(main, "livenessProbe", local_ports),
        grace_seconds=float(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)),
        notes=tuple(
            f"{name}: container {other['name']!r} has an image of its own and is not run here" for other in others
        ),
    )


class Rewriting:
    """Replaces the addresses of pods in a text by addresses of this machine."""

    def __init__(self, pods: Iterable[Manifest], ports: Mapping[PortKey, int]):
        self._ports = ports
        self._pods = {_address(pod): pod["metadata"]["name"] for pod in pods}
        hosts = "|".join(re.escape(host) for host in sorted(self._pods, key=len, reverse=True)) or "(?!)"
        # A namespace and the cluster's domain may follow the service.
        self._pattern = re.compile(rf"(?<![\w.-])({hosts})(?:\.[a-z0-9-]+)*:(\d+)\b")

    def __call__(self, text: str) -> str:
        """`text` with every `<pod>.<service>[.<namespace>...]:<port>` of a known pod and port replaced."""
        return self._pattern.sub(self._local, text)

    def _local(self, match: re.Match[str]) -> str:
        port = self._ports.get((self._pods[match[1]], int(match[2])))
        return match[0] if port is None else f"{HOST}:{port}"


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' expansion: `$(NAME)` becomes the variable's value if it exists, `$$` a single `$`."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] is None else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([A-Za-z_.-][\w.-]*)\)", value, text)


def move_paths(text: str, folders: Mapping[str, str]) -> str:
    """`text` with every path below a mount replaced by the path below the local folder."""
    if not folders:
        return text
    mounts = "|".join(re.escape(mount.rstrip("/")) for mount in sorted(folders, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({mounts})(?![\w.-])", lambda match: folders[match[1]], text)


def files_of(config_maps: Iterable[Manifest], machine: Machine, pods: Sequence[Manifest]) -> dict[Path, str]:
    """The files of the config maps, with addresses and the run's folder rewritten."""
    rewrite = Rewriting(pods, machine.ports)
    folders = {names.RUN_FOLDER: str(machine.run_folder)}
    return {
        machine.config_folder(config_map["metadata"]["name"]) / key: move_paths(rewrite(text), folders)
        for config_map in config_maps
        for key, text in config_map.get("data", {}).items()
    }


def _address(pod: Manifest) -> str:
    spec = pod["spec"]
    host = spec.get("hostname", pod["metadata"]["name"])
    return f"{host}.{spec['subdomain']}" if "subdomain" in spec else host


def _declared_ports(container: Manifest) -> list[int]:
    return [port["containerPort"] for port in container.get("ports", ())]


def _command(
    container: Manifest, pod: Manifest, rewrite: Rewriting, machine: Machine, ports: Mapping[int, int]
) -> Command:
    if not container.get("command"):
        raise CannotRunHere(
            f"{pod['metadata']['name']}: container {container['name']!r} has no command, only an image; "
            "give it a command, or run this in a cluster"
        )
    folders = _folders(container, pod["spec"], machine)
    own = {
        BIND_HOST: HOST,
        **{
            entry["name"]: str(ports[int(entry["value"])])
            for entry in container.get("env", ())
            if entry["name"].endswith("_PORT") and entry.get("value", "").isdigit() and int(entry["value"]) in ports
        },
    }
    variables: dict[str, str] = {}
    for entry in container.get("env", ()):
        value = own.get(entry["name"], _value(entry, pod))
        if value is not None and entry["name"] not in KEPT_FROM_MACHINE:
            variables[entry["name"]] = move_paths(rewrite(expand(value, variables)), folders)
    environment = {**machine.environment, **variables}
    first, *rest = [
        move_paths(rewrite(expand(argument, environment)), folders)
        for argument in (*container["command"], *container.get("args", ()))
    ]
    return Command(container["name"], (*_program(first, machine.python), *rest), environment)


def _program(name: str, python: str) -> tuple[str, ...]:
    modules = {"seele": "seele_operator.cli", SERVE[0]: SERVE_MODULE}
    if name in modules:
        return (python, "-m", modules[name])
    return (python,) if name in {"python", "python3"} else (name,)


def _value(entry: Mapping[str, Any], pod: Manifest) -> str | None:
    """The value of an environment variable; None if only a cluster knows it, so that the inherited value is kept."""
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value", ""))
    fields = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"].get("namespace", "default"),
        "status.podIP": HOST,
        "status.hostIP": HOST,
    }
    return fields.get(source.get("fieldRef", {}).get("fieldPath", ""))


def _folders(container: Manifest, spec: Manifest, machine: Machine) -> dict[str, str]:
    """Local folders by mount path. Memory and scratch volumes are the same on every machine: /dev/shm and /tmp."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    folders: dict[str, str] = {}
    for mount in container.get("volumeMounts", ()):
        path = mount["mountPath"].rstrip("/")
        volume = volumes.get(mount["name"], {})
        if path == names.RUN_FOLDER:
            folders[path] = str(machine.run_folder)
        elif path == names.HUGGING_FACE_FOLDER:
            folders[path] = machine.hugging_face_folder
        elif "configMap" in volume:
            folders[path] = str(machine.config_folder(volume["configMap"]["name"]))
        elif "hostPath" in volume:
            folders[path] = os.path.normpath(volume["hostPath"]["path"])
    return folders
