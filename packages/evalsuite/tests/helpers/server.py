"""A server with OpenAI's chat interface on loopback that behaves as its rule says. Only for tests."""

import json
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODELS = {"data": [{"id": "tiny-vlm", "root": "/models/tiny", "max_model_len": 512}]}


def completion(text: str, tokens: int = 1) -> bytes:
    body = {
        "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": tokens},
    }
    return json.dumps(body).encode()


class Handler(BaseHTTPRequestHandler):
    """`server.rule(text, nth)` says what to do with the nth try of a question: bytes to send, a status, or a word."""

    def do_GET(self):
        self.server.keys.append(self.headers.get("Authorization"))
        self.send(200, json.dumps(MODELS).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        text = body["messages"][0]["content"][-1]["text"]
        self.server.tries[text] += 1
        with self.server.counting:
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
        try:
            self.behave(self.server.rule(text, self.server.tries[text]))
        finally:
            with self.server.counting:
                self.server.under_way -= 1

    def behave(self, what):
        if isinstance(what, bytes):
            self.send(200, what)
        elif isinstance(what, int):
            self.send(what, b"busy", {"Retry-After": "0"})
        elif what == "hang":
            self.server.closing.wait(20)
        elif what == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(400):
                if self.server.closing.wait(0.05):
                    break
                self.wfile.write(b" ")
        elif what == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except (OSError, ValueError):  # the client went away
            time.sleep(0)


@contextmanager
def served(rule):
    """The server, under `url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None
    server.daemon_threads = True
    server.rule, server.bodies, server.keys, server.tries = rule, [], [], Counter()
    server.closing, server.counting = threading.Event(), threading.Lock()
    server.under_way = server.most = 0
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
