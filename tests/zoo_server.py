"""A server on this machine that can misbehave in every way, and what `fetch` says of it."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.catalogue import MIRROR
from ssl_platform.zoo.fetch import fetch


def checkpoint_bytes(value: float) -> bytes:
    buffer = io.BytesIO()
    torch.save({"conv1.weight": torch.full((64_000,), value)}, buffer)
    return buffer.getvalue()


CONTENT, OTHER = checkpoint_bytes(1.0), checkpoint_bytes(2.0)


class Handler(BaseHTTPRequestHandler):
    """Serves a file with ranges; ``server`` holds its faults and what was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        server.logins.append(self.headers.get("Authorization"))
        self.close_connection = True
        if not server.answers:
            return self._send_file()
        status, name, value = server.answers.pop(0)
        self.send_response(status)
        self.send_header(name, value)
        self.end_headers()

    def _send_file(self):
        server, start = self.server, 0
        content, wanted = server.content, self.headers.get("Range")
        if wanted and (self.headers.get("If-Range") == server.tag or server.ignores_if_range):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {start + server.shift}-{len(content) - 1}/{len(content)}"
            )
        else:
            self.send_response(200)
        if server.tells_length:
            self.send_header("Content-Length", str(len(content) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start:end])
        self.wfile.flush()
        if server.stalls:
            self.rfile.read(1)  # until the other side has had enough

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server, and an empty cache in ``tmp_path / "cache"``."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(MIRROR, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # closing it waits for them
    server.content, server.tag, server.cuts, server.asked = CONTENT, '"v1"', [], []
    server.shift = 0  # of the range that is told
    server.answers, server.logins = [], []
    server.tells_length, server.ignores_if_range, server.stalls = True, False, False
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def url(server):
    return f"{server.url}/a.pth"


def refusal(url, *args, **options):
    with pytest.raises(CheckpointError) as caught:
        fetch(url, *args, **options)
    assert str(caught.value).startswith(f"{url}: ") and "\n" not in str(caught.value)
    return str(caught.value)
