"""The trainer's HTTP server: /metrics and /rollout/metrics for Prometheus, /progress for people and the operator, and
/healthz for probes.

It runs in separate threads and answers while the main thread computes.
"""

import errno
import logging
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

from seele_trainer.telemetry import rollout_metrics
from seele_trainer.telemetry.recorder import Recorder
from seele_trainer.telemetry.rollout_metrics import SharedAnswer
from seele_trainer.termination import ExpectedFailure

logger = logging.getLogger(__name__)

CLIENT_TIMEOUT_SECONDS = 10
"""How long a stalled client can occupy a thread."""


class TelemetryServerError(ExpectedFailure):
    """The HTTP server cannot start. The message names the address and the variable to change."""


class TelemetryServer:
    """Serves a run's telemetry until `close`. Port 0 picks a free port, which is then in `port`."""

    def __init__(self, recorder: Recorder, host: str, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._server = _Server((host, port), _handler(recorder, clock))
        except OverflowError as error:
            raise TelemetryServerError(f"{port} is not a port: set SEELE_HTTP_PORT to 1 … 65535") from error
        except OSError as error:
            reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            raise TelemetryServerError(
                f"cannot serve metrics on {host}:{port}: {reason}. Set SEELE_HTTP_PORT to a free port (0 picks one)"
            ) from error
        self.host = host
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="telemetry server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # The library's method resolves the host's name, which takes seconds without a name server.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Usually a client that hung up.
        logger.debug("request from %s failed", client_address, exc_info=True)


def _handler(recorder: Recorder, clock: Callable[[], float]) -> type[BaseHTTPRequestHandler]:
    # Many clients may scrape, but the servers are busy with rollouts.
    rollout_servers = SharedAnswer(
        lambda: generate_latest(rollout_metrics.collect(recorder.servers())),
        clock=clock,
    )

    def metrics(headers: Mapping[str, str]) -> tuple[HTTPStatus, str, bytes]:
        encode, content_type = choose_encoder(headers.get("Accept", ""))
        return HTTPStatus.OK, content_type, encode(recorder.registry)

    def rollout_metrics_text(_: Mapping[str, str]) -> tuple[HTTPStatus, str, bytes]:
        # Always in the original format: in OpenMetrics the library writes `vllm_` for `vllm:`.
        return HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, rollout_servers.get()

    def progress(_: Mapping[str, str]) -> tuple[HTTPStatus, str, bytes]:
        return HTTPStatus.OK, "application/json", recorder.progress().model_dump_json(by_alias=True).encode()

    def health(_: Mapping[str, str]) -> tuple[HTTPStatus, str, bytes]:
        problem = recorder.problem()
        status = HTTPStatus.OK if problem is None else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "text/plain; charset=utf-8", f"{problem or 'ok'}\n".encode()

    routes: dict[str, Callable[[Mapping[str, str]], tuple[HTTPStatus, str, bytes]]] = {
        "/metrics": metrics,
        "/rollout/metrics": rollout_metrics_text,
        "/progress": progress,
        "/healthz": health,
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = CLIENT_TIMEOUT_SECONDS

        def do_GET(self) -> None:
            route = routes.get(urlsplit(self.path).path)
            if route is None:
                known = ", ".join(routes)
                status, content_type, body = HTTPStatus.NOT_FOUND, "text/plain", f"not found; try {known}\n".encode()
            else:
                status, content_type, body = route(self.headers)  # type: ignore[arg-type]
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            logger.debug(format, *args)

    return Handler
