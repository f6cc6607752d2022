"""A free port of this machine for every port that a pod declares."""

import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence

from seele_operator.plan.names import Manifest

PortKey = tuple[str, int]
"""Name of a pod, and a port that one of its containers declares."""

HOST = "127.0.0.1"
SEARCHED = 2000
"""Ports tried above the declared one."""


class NoFreePort(RuntimeError):
    """No port near the declared one is free on this machine."""


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
    """Local ports for `wanted`, the declared number itself if it is free, reserved inside the context. Raises NoFreePort.

    A server takes a minute to start and binds its port only then, so a test of the port alone would be out of date. A
    socket that is bound with SO_REUSEADDR and does not listen keeps out other reservations and outgoing connections, but
    admits a server that sets SO_REUSEADDR too, as servers do.
    """
    with contextlib.ExitStack() as held:
        yield {key: _reserve(key[1], held) for key in wanted}


def _reserve(first: int, held: contextlib.ExitStack) -> int:
    for port in range(first, min(first + SEARCHED, 65536)):
        if _bindable(port):
            guard = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            guard.bind((HOST, port))
            return port
    raise NoFreePort(f"no free port from {first} on: stop some programs that listen on {HOST}")


def _bindable(port: int) -> bool:
    """Whether the port is free, on this address and on all addresses; one of our reservations counts as taken."""
    for host in (HOST, "0.0.0.0"):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
