"""A small server that streams chat completions as vLLM and llama.cpp do, for tests that start servers of their own.

`python tiny_server.py --port N`. It answers with the last message, word by word. Options that it does not know it takes
for those of the server that it stands for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    per_word = 0.0
    is_mute = False

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        sys.stdout.write(f"access {format % args}\n")

    def do_GET(self) -> None:
        if self.path == "/health":
            self._say({"status": "ok"})
        elif self.path == "/v1/models":
            self._say({"object": "list", "data": [{"id": "tiny", "object": "model", "max_model_len": 4096}]})
        elif self.path == "/props":
            self._say({"total_slots": 4, "default_generation_settings": {"n_ctx": 4096}})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions" or self.is_mute:
            threading.Event().wait(None if self.is_mute else 0)
            self.send_error(404)
            return
        words = str(asked["messages"][-1]["content"]).split()[: asked.get("max_tokens") or None]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in words:
            self._event({"choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]})
            time.sleep(self.per_word)
        usage = {"prompt_tokens": 3, "completion_tokens": len(words), "total_tokens": 3 + len(words)}
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, more: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", **more}).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _say(self, what: dict[str, Any]) -> None:
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class TinyServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up; that is what the tests do."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parallel", "--max-num-seqs", type=int, default=1)
    parser.add_argument("--start-delay", type=float, default=0.0)
    parser.add_argument("--per-word", type=float, default=0.0)
    parser.add_argument("--crash-after", type=float, help="seconds until it ends with status 3")
    parser.add_argument("--fork-grandchild", action="store_true", help="leave one in a session of its own")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--mute", action="store_true", help="take requests and never answer")
    parser.add_argument("--loud", action="store_true", help="print a long line, an escape and a line without an end")
    parser.add_argument("--taken-once", help="the first time, say that the port is in use; a file that marks that")
    return parser.parse_known_args()[0]


def _take_it_for_taken(mark: str) -> None:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    sys.exit("OSError: [Errno 98] Address already in use")


def _be_loud() -> None:
    sys.stdout.write("x" * 10_000 + "\nan \x1b[2J escape\n50 %\r100 %\n\udcff")
    sys.stdout.flush()


def main() -> None:
    options = _options()
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.taken_once:
        _take_it_for_taken(options.taken_once)
    if options.loud:
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        _be_loud()
    if options.fork_grandchild:
        # Twice, so that the middle one's end leaves an orphan that nobody's group or session has.
        sleeper = "import subprocess,sys; subprocess.Popen([sys.executable,'-c','import time; time.sleep(600)'],"
        subprocess.run([sys.executable, "-c", f"{sleeper}start_new_session=True)"], start_new_session=True, check=True)
    if options.crash_after is not None:
        timer = threading.Timer(options.crash_after, lambda: os._exit(3))
        timer.daemon = True
        timer.start()
    time.sleep(options.start_delay)
    Handler.per_word, Handler.is_mute = options.per_word, options.mute
    with TinyServer(("127.0.0.1", options.port), Handler) as server:
        print("listening at", options.port, flush=True)  # noqa: T201 - as servers do
        server.serve_forever()


if __name__ == "__main__":
    main()
