"""A trainer as the executor sees one: waits for the servers, takes steps, saves on SIGTERM."""

import argparse
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--config", type=Path)
parser.add_argument("--steps", type=int, default=3, help="-1: until it is stopped")
parser.add_argument("--exit", type=int, default=0)
parser.add_argument("--stubborn", action="store_true", help="ignores SIGTERM")
parser.add_argument("--save-seconds", type=float, help="how long it saves what its progress says is unsaved")
parser.add_argument("--kill-server-at", type=int, help="step at which the first server is made to die")
options = parser.parse_args()

folder = Path(os.environ["SEELE_RUN_DIR"])
servers = [url for url in os.environ.get("SEELE_ROLLOUT_URLS", "").split(",") if url]
step = 0
stopping = threading.Event()


def ask(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None


def stop(*_: object) -> None:
    if not options.stubborn:
        stopping.set()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        phase = "rollout" if step else "starting"
        unsaved = step if options.save_seconds is not None and step else None
        progress = {"name": "test", "step": step, "steps": 3, "phase": phase, "reward": 0.5, "unsavedStep": unsaved}
        self.wfile.write(json.dumps(progress).encode())

    def log_message(self, *details: object) -> None:
        pass


signal.signal(signal.SIGTERM, stop)
if "SEELE_HTTP_PORT" in os.environ:
    http = ThreadingHTTPServer((os.environ["SEELE_BIND_HOST"], int(os.environ["SEELE_HTTP_PORT"])), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
if options.config is not None:
    (folder / "config-seen.txt").write_text(options.config.read_text())
while servers and not all(ask(f"{url}/health") for url in servers):
    time.sleep(0.05)
(folder / "servers-seen-at.txt").write_text(str(time.time()))
while step != options.steps and not stopping.is_set():
    if step == options.kill_server_at:
        first = ask(f"{servers[0]}/pid")
        ask(f"{servers[0]}/die")
        while ask(f"{servers[0]}/pid") in {None, first}:
            time.sleep(0.05)
        print("WARNING the server is back", flush=True)
    step += 1
    print(f"step {step}", flush=True)
    stopping.wait(0.3)
if stopping.is_set():
    time.sleep(options.save_seconds or 0.0)
    (folder / "saved.txt").write_text(str(step))
    sys.exit(0)
# A real one evaluates and exports here, with the last step shown meanwhile.
stopping.wait(1.0 if "SEELE_HTTP_PORT" in os.environ else 0.0)
if options.exit:
    print("ERROR something went wrong", flush=True)
sys.exit(options.exit)
