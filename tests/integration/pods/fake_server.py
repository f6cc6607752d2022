"""A rollout server as the executor sees one: real processes, a real port, no model. Only the standard library."""

import argparse
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--ready-when", type=Path, help="answers 503 until this file exists")
parser.add_argument("--child", action="store_true", help="has a child with another environment, as vLLM's engine has")
parser.add_argument("--exit", type=int, help="exit with this code instead of serving")
parser.add_argument("--log", type=Path, help="write the lines of this file before exiting")
parser.add_argument("--ready-first", action="store_true", help="answers for a second before it exits")
options, _flags_of_vllm = parser.parse_known_args()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/die":
            os._exit(9)
        ready = options.ready_when is None or options.ready_when.exists()
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())

    def log_message(self, *details: object) -> None:
        pass


print("server starting", flush=True)
if options.ready_first:
    answering = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    threading.Thread(target=answering.serve_forever, daemon=True).start()
    time.sleep(1)
if options.exit is not None:
    print("cannot load the model" if options.log is None else options.log.read_text(), flush=True)
    sys.exit(options.exit)
if options.child:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], env={})
server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
print(f"serving at {time.time()}", flush=True)
server.serve_forever()
