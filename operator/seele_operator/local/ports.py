"""A free port of this machine for every port that a pod declares."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence

from seele_operator.plan.names import Manifest

PortKey = tuple[str, int]
"""Name of a pod, and a port that one of its containers declares."""

HOST = "127.0.0.1"
SEARCHED = 2000
"""Ports that are tried above the wished one, before giving up."""


class NoFreePort(RuntimeError):
    """No port near the wished one can be bound on this machine."""


def declared(pods: Iterable[Manifest]) -> list[PortKey]:
    """Every port that the containers of `pods` declare."""
    return [
        (pod["metadata"]["name"], port["containerPort"])
        for pod in pods
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    ]


@contextlib.contextmanager
def reserved(wanted: Sequence[PortKey]) -> Iterator[Mapping[PortKey, int]]:
    """Local ports for `wanted`, the declared number itself where it is free, kept from others inside the context.

    A server takes a minute to start and binds its port only then, so a mere test would be out of date. A socket that is
    bound with SO_REUSEADDR and does not listen keeps out other tests and outgoing connections, and lets in a server
    that sets SO_REUSEADDR too, as servers do. Raises NoFreePort.
    """
    with contextlib.ExitStack() as held:
        yield {key: _reserve(key[1], held) for key in wanted}


def _reserve(wished: int, held: contextlib.ExitStack) -> int:
    for port in range(wished, min(wished + SEARCHED, 65536)):
        if _bindable(port):
            guard = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            guard.bind((HOST, port))
            return port
    raise NoFreePort(f"no free port from {wished} on: end some programs that listen on {HOST}")


def _bindable(port: int) -> bool:
    """Whether nobody has the port, on this address or on all addresses. A reservation of ours counts as taken."""
    for host in (HOST, "0.0.0.0"):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
