"""Relays the address of the service `kubernetes`, at which pods find the API server, to the API server.

It replaces kube-proxy, which would change the packet filter of this machine. Pods need no other service address.
"""

import socket
import socketserver
import subprocess
import threading
from contextlib import suppress

KUBERNETES = ("10.96.0.1", 443)
"""The first address of the service range, which is in the API server's certificate."""


class ServiceAddress:
    """Accepts connections to KUBERNETES on a network device until it is stopped."""

    def __init__(self, device: str, port: int) -> None:
        """`port` is the API server's, on the loopback address."""
        subprocess.run(["ip", "address", "add", f"{KUBERNETES[0]}/32", "dev", device], check=True)
        self._server = _Server(KUBERNETES, _Relay)
        self._server.target = ("127.0.0.1", port)

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    target: tuple[str, int]


class _Relay(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(self.server.target) as there:
            back = threading.Thread(target=_copy, args=(there, self.request), daemon=True)
            back.start()
            _copy(self.request, there)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until the source ends, then close the target for writing."""
    with suppress(OSError):
        while block := source.recv(65536):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
