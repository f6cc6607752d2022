"""A Hugging Face hub with one model, on this machine, that counts its requests."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MODEL = "tests/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
STARTED = "/test/started"
"""A request for this path says that the start is over. From then on the hub answers 429."""


class FakeHub:
    """Serves `folder` as the model `MODEL`. `early` and `late` are the requests before and after the start was over."""

    def __init__(self, folder: Path) -> None:
        self.early: list[str] = []
        self.late: list[str] = []
        self.started = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub._answer(self, folder)

            def do_HEAD(self) -> None:
                hub._answer(self, folder)

            def do_POST(self) -> None:
                hub._answer(self, folder)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> "Iterator[FakeHub]":
        """Serve in a thread."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, folder: Path) -> None:
        path = unquote(urlsplit(request.path).path)
        if path == STARTED:
            self.started = True
            return _send(request, 200, b"{}")
        (self.late if self.started else self.early).append(f"{request.command} {request.path}")
        if self.started:
            return _send(request, 429, b"{}")
        files = sorted(file for file in folder.iterdir() if file.is_file())
        if path.startswith(f"/api/models/{MODEL}/tree/"):
            listed = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _etag(file)} for file in files
            ]
            return _send(request, 200, json.dumps(listed).encode())
        if path.startswith(f"/api/models/{MODEL}"):
            model = {"id": MODEL, "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}
            return _send(request, 200, json.dumps(model).encode())
        prefix, _, name = path.rpartition("/")
        file = folder / name
        if prefix.startswith(f"/{MODEL}/resolve/") and file in files:
            return _send(request, 200, file.read_bytes(), ETag=f'"{_etag(file)}"')
        return _send(request, 404, b"{}", **{"X-Error-Code": "EntryNotFound"})


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


def _send(request: BaseHTTPRequestHandler, status: int, content: bytes, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(content)), "X-Repo-Commit": COMMIT, **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)
