"""Where the cluster is and who we are, by kubectl's conventions: kubeconfig files, or the service account of the pod."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from seele_operator.api.types import nearest
from seele_operator.kube.errors import NoCluster

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts the credentials of a pod."""
DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True)
class ClusterAccess:
    """A cluster, and the credentials for it."""

    configuration: Configuration
    namespace: str
    """That of the context or of the pod, else `default`."""
    cluster: str
    """The cluster in words for error messages: its address, and what named it."""


@dataclass(frozen=True)
class _Context:
    name: str
    namespace: str | None


def find_cluster(
    kubeconfig: str | None = None, context: str | None = None, *, save_tokens: bool = False
) -> ClusterAccess:
    """Find the cluster by `kubeconfig`, else KUBECONFIG or ~/.kube/config, else the pod's service account.

    Sends nothing to the cluster, but a plugin in the kubeconfig may take a while. With `save_tokens`, a token that had
    to be refreshed is written back to the kubeconfig. Raises NoCluster.
    """
    configuration = Configuration()
    files = _files(kubeconfig)
    found = _find_context(files, context)
    if found is not None:
        _load_files(files, found, configuration, save_tokens)
        namespace, source = found.namespace or DEFAULT_NAMESPACE, f"context {found.name}"
    elif kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        _load_service_account(configuration)
        namespace, source = own_namespace() or DEFAULT_NAMESPACE, "this pod's service account"
    else:
        raise NoCluster(_no_cluster(files, context))
    return ClusterAccess(configuration, namespace, f"{configuration.host} ({source})")


def own_namespace() -> str | None:
    """The namespace of the pod this process runs in; None outside a cluster."""
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _files(kubeconfig: str | None) -> list[Path]:
    """The files that exist, in order of precedence. One that is named by option must exist, as with kubectl."""
    if kubeconfig is not None:
        path = Path(kubeconfig).expanduser()
        if not path.is_file():
            raise NoCluster(f"--kubeconfig: {path}: no such file; give the path of a kubeconfig")
        return [path]
    listed = [Path(part).expanduser() for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [path for path in listed or [Path.home() / ".kube" / "config"] if path.is_file()]


def _find_context(files: list[Path], wanted: str | None) -> _Context | None:
    """The context to use; None if no file names one. For each setting, the first file that has it wins."""
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
        raise NoCluster(f"--context: {wanted} is in no kubeconfig; {_remedy(wanted, known)}")
    if current is None:
        if known:
            raise NoCluster(f"kubeconfig: no current context; give --context, one of {', '.join(sorted(known))}")
        return None
    if current not in known:
        raise NoCluster(f"kubeconfig: the current context {current} does not exist; {_remedy(current, known)}")
    return _Context(current, known[current])


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoCluster(f"kubeconfig: {path} cannot be read: {error.strerror}; check its permissions") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NoCluster(f"kubeconfig: {path} is not YAML; correct it, or give another with --kubeconfig") from error
    if content is not None and not isinstance(content, Mapping):
        raise NoCluster(f"kubeconfig: {path} is not a kubeconfig; give another with --kubeconfig")
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
    return f"use one of {', '.join(sorted(known))}" if known else "the kubeconfig has no contexts"


def _load_files(files: list[Path], context: _Context, configuration: Configuration, save_tokens: bool) -> None:
    try:
        # The synchronous loader: unlike the asynchronous one it shows what a plugin asks its user.
        load_kube_config(  # type: ignore[no-untyped-call]
            config_file=os.pathsep.join(map(str, files)),
            context=context.name,
            client_configuration=configuration,
            persist_config=save_tokens,
        )
    except (ConfigException, yaml.YAMLError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        where = ", ".join(map(str, files))
        raise NoCluster(f"kubeconfig: context {context.name} cannot be used ({where}): {reason}") from error
    # It would run the plugin in the event loop; the connection loads expired credentials again in a thread.
    configuration.refresh_api_key_hook = None


def _load_service_account(configuration: Configuration) -> None:
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise NoCluster(
            f"no kubeconfig, and this pod's service account cannot be used: {error}; give --kubeconfig"
        ) from error


def _no_cluster(files: list[Path], context: str | None) -> str:
    if context is not None:
        return f"--context: {context} is in no kubeconfig; set KUBECONFIG, or give --kubeconfig"
    if files:
        return f"kubeconfig: {', '.join(map(str, files))} names no cluster; give another with --kubeconfig"
    listed = os.environ.get("KUBECONFIG")
    searched = f"KUBECONFIG={listed} does not exist" if listed else "there is no ~/.kube/config"
    return f"no cluster configured: {searched}; set KUBECONFIG, or give --kubeconfig"
