"""Fake trainers for many runs: each an HTTP server on the pod's own loopback address, port 9400."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from seele_operator.plan.names import METRICS_PORT

STEPS = 20


class FakeTrainer:
    """The answers of one trainer; tests change `progress`."""

    def __init__(self, run: str) -> None:
        self.progress: dict[str, Any] = {
            "name": run,
            "step": 0,
            "steps": STEPS,
            "phase": "starting",
            "policyVersion": 0,
        }
        self.pages: dict[str, Callable[[], str]] = {}
        """Texts at other paths, such as /metrics."""

    def at(self, step: int, **more: Any) -> None:
        """Report this many completed steps."""
        self.progress = {**self.progress, "phase": "train", "step": step, "policyVersion": step, **more}

    def answer(self, path: str) -> tuple[int, str]:
        """Status code and body for a path."""
        path = path.split("?")[0]
        if path == "/progress":
            return 200, json.dumps(self.progress)
        if path in self.pages:
            return 200, self.pages[path]()
        return (200, "ok") if path == "/healthz" else (404, "no such route")


class FakeTrainers(AbstractContextManager["FakeTrainers"]):
    """All servers of a test session, in one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-trainers", daemon=True)
        self._servers: dict[str, asyncio.Server] = {}

    def __enter__(self) -> FakeTrainers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for address in list(self._servers):
            self.close(address)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def open(self, address: str, run: str, port: int = METRICS_PORT, tls: ssl.SSLContext | None = None) -> FakeTrainer:
        """Start a trainer at an address of the loopback network."""
        trainer = FakeTrainer(run)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._serve(trainer, reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass  # the client has disconnected
            finally:
                writer.close()

        starting = asyncio.start_server(serve, address, port, ssl=tls)
        self._servers[address] = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        return trainer

    def open_kubelet(self, port: int, certificate: Path) -> FakeTrainer:
        """Start what answers the API server for the nodes: its pages are logs."""
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
        return self.open("127.0.0.1", "kubelet", port, tls)

    def close(self, address: str) -> None:
        """Stop the trainer at an address, so that connections are refused."""
        server = self._servers.pop(address, None)
        if server is not None:
            self._loop.call_soon_threadsafe(server.close)

    @staticmethod
    async def _serve(trainer: FakeTrainer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = request.split()[1]
        code, body = trainer.answer(path)
        data = body.encode()
        kind = "text/plain" if path in trainer.pages else "application/json"
        head = (
            f"HTTP/1.1 {code} {'OK' if code == 200 else 'Error'}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + data)
        await writer.drain()
