"""Which cluster, namespace and credentials a command uses: the conventions of kubectl."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seele_operator.api.problems import nearest
from seele_operator.client.errors import BadInput

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the credentials that Kubernetes gives it."""
DEFAULT_NAMESPACE = "default"
CONNECTIONS = 64
"""Open connections that are kept: one for each container whose log is followed."""


@dataclass(frozen=True)
class Target:
    """What the user said about the cluster: `--kubeconfig`, `--context` and `--namespace`."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None

    def command(self, *words: str) -> str:
        """`seele ...` as the user would type it for the same cluster and namespace."""
        flags = (("--kubeconfig", self.kubeconfig), ("--context", self.context), ("-n", self.namespace))
        return shlex.join(["seele", *words, *(part for flag, value in flags if value for part in (flag, value))])

    def in_namespace(self, namespace: str, default: str) -> Target:
        """The same cluster, with `namespace` named where a command would look elsewhere (in `default`) by itself."""
        return replace(self, namespace=namespace if self.namespace or namespace != default else None)


@dataclass(frozen=True)
class Connection:
    """A cluster, and how to speak to it."""

    api: ApiClient
    namespace: str
    """Where commands look: that of `--namespace`, of the context, or `default`."""
    default_namespace: str
    """Where commands look without `--namespace`."""
    cluster: str
    """The cluster in words for error messages: its address, and the context that named it."""


@dataclass(frozen=True)
class _Context:
    name: str
    namespace: str | None


def connect(target: Target, environment: Mapping[str, str] | None = None) -> Connection:
    """Find the cluster as kubectl does. Nothing is sent yet. Raises BadInput for a configuration that cannot be used."""
    environment = os.environ if environment is None else environment
    try:
        from kubernetes.client import ApiClient, Configuration
    except ImportError as error:
        raise BadInput("the Kubernetes client is not installed here: pip install 'seele[operator]'") from error

    configuration = Configuration()
    # Errors are ours to report, at once; urllib3 would retry three times and log each.
    configuration.retries = False
    configuration.connection_pool_maxsize = CONNECTIONS
    files = _files(target, environment)
    context = _context(files, target.context)
    if context is not None:
        _load_files(files, context, configuration)
        default, named = context.namespace or DEFAULT_NAMESPACE, f"context {context.name}"
    elif target.kubeconfig is None and target.context is None and "KUBERNETES_SERVICE_HOST" in environment:
        default, named = _load_service_account(configuration), "this pod's service account"
    else:
        raise BadInput(_no_cluster(files, target, environment))
    api = ApiClient(configuration)
    return Connection(api, target.namespace or default, default, f"{configuration.host} ({named})")


def _files(target: Target, environment: Mapping[str, str]) -> list[Path]:
    """Files that exist, in order of precedence. One that is named by option has to exist, as with kubectl."""
    if target.kubeconfig is not None:
        path = Path(target.kubeconfig).expanduser()
        if not path.is_file():
            raise BadInput(f"--kubeconfig: {path}: no such file; give the path of a kubeconfig")
        return [path]
    listed = [Path(part).expanduser() for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [path for path in listed or [Path.home() / ".kube" / "config"] if path.is_file()]


def _context(files: list[Path], wanted: str | None) -> _Context | None:
    """The context to use; None where no file names one. The first file that says something about a thing wins."""
    known: dict[str, str | None] = {}
    current: str | None = None
    for path in files:
        content = _content(path)
        current = current or content.get("current-context") or None
        for name, namespace in _contexts(content):
            known.setdefault(name, namespace)
    if wanted is not None:
        if wanted in known:
            return _Context(wanted, known[wanted])
        raise BadInput(f"--context: {wanted} is in no kubeconfig; {_remedy(wanted, known)}")
    if current is None:
        if known:
            raise BadInput(f"kubeconfig: no current context; give --context, one of {', '.join(sorted(known))}")
        return None
    if current not in known:
        raise BadInput(f"kubeconfig: the current context {current} does not exist; {_remedy(current, known)}")
    return _Context(current, known[current])


def _content(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"kubeconfig: {path} cannot be read: {error.strerror}; check its permissions") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"kubeconfig: {path} is not YAML; correct it, or give another with --kubeconfig") from error
    if content is not None and not isinstance(content, Mapping):
        raise BadInput(f"kubeconfig: {path} is no kubeconfig; give another with --kubeconfig")
    return content or {}


def _contexts(content: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    entries = content.get("contexts")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
            inner = entry.get("context")
            yield entry["name"], inner.get("namespace") or None if isinstance(inner, Mapping) else None


def _remedy(wanted: str, known: Mapping[str, str | None]) -> str:
    near = nearest(wanted, list(known))
    if near:
        return f"did you mean {near}?"
    return f"use one of {', '.join(sorted(known))}" if known else "the kubeconfig has no contexts at all"


def _load_files(files: list[Path], context: _Context, configuration: Configuration) -> None:
    import yaml
    from kubernetes.config import ConfigException, load_kube_config

    try:
        load_kube_config(  # type: ignore[no-untyped-call]
            config_file=os.pathsep.join(map(str, files)), context=context.name, client_configuration=configuration
        )
    except (ConfigException, yaml.YAMLError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        where = ", ".join(map(str, files))
        raise BadInput(f"kubeconfig: context {context.name} cannot be used ({where}): {reason}") from error
    if not configuration.verify_ssl:
        import urllib3

        # The user has said so in the kubeconfig; a warning with each request helps nobody.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def _load_service_account(configuration: Configuration) -> str:
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise BadInput(
            f"no kubeconfig, and this pod's service account cannot be used: {error}; give --kubeconfig"
        ) from error
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or DEFAULT_NAMESPACE
    except OSError:
        return DEFAULT_NAMESPACE


def _no_cluster(files: list[Path], target: Target, environment: Mapping[str, str]) -> str:
    if target.context is not None:
        return f"--context: {target.context} is in no kubeconfig; set KUBECONFIG, or give --kubeconfig"
    if files:
        return f"kubeconfig: {', '.join(map(str, files))} names no cluster; give another with --kubeconfig"
    said = environment.get("KUBECONFIG")
    looked = f"KUBECONFIG={said} does not exist" if said else "there is no ~/.kube/config"
    return f"no cluster to speak to: {looked}; set KUBECONFIG, or give --kubeconfig"
