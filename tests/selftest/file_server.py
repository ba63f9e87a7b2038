"""A file server of this machine that cuts, drips, hangs, lies and redirects."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

# The first byte is a pickle's, so that it passes for a file of PyTorch.
CONTENT = b"\x80" + random.Random(1).randbytes(149_999)
OTHER = b"\x80" + random.Random(2).randbytes(149_999)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers a request by the next of the site's behaviours."""

    server: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site = self.server
        site.requests.append({"path": self.path, **dict(self.headers)})
        position = min(len(site.requests), len(site.behaviours)) - 1
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client may be gone
            site.behaviours[position](self)

    def head(self, status: int, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


Behaviour = Callable[[Handler], None]


class Site(ThreadingHTTPServer):
    """A server on an ephemeral port; the last behaviour answers all further requests."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours: list[Behaviour] = [file()]
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/w.pth"

    @property
    def ranges(self) -> list[str | None]:
        return [request.get("Range") for request in self.requests]

    def handle_error(self, *arguments: Any) -> None:
        pass


def file(
    content: bytes = CONTENT,
    *,
    etag: str | None = '"one"',
    modified: str | None = None,
    ranges: bool = True,
    cut: int | None = None,
    kind: str = "application/octet-stream",
    chunk_s: float = 0.0,
    content_range: str | None = None,
) -> Behaviour:
    """A file of which `cut` bytes of each reply arrive."""

    def answer(handler: Handler) -> None:
        asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        same = condition in (etag, modified)
        begin = int(asked[len("bytes=") : -1]) if asked and ranges and same else 0
        span = content_range or f"bytes {begin}-{len(content) - 1}/{len(content)}"
        handler.head(
            206 if begin else 200,
            Content_Type=kind,
            Content_Length=len(content) - begin,
            ETag=etag,
            Last_Modified=modified,
            Content_Range=span if begin else None,
        )
        body = content[begin:][:cut]
        for position in range(0, len(body), 10_000):
            handler.wfile.write(body[position : position + 10_000])
            time.sleep(chunk_s)

    return answer


def status(code: int, **headers: Any) -> Behaviour:
    return lambda handler: handler.head(code, Content_Length=0, **headers)


def raw(*pieces: bytes, pause_s: float = 0.0, hang: bool = False) -> Behaviour:
    """Bytes as they are, in place of HTTP."""

    def answer(handler: Handler) -> None:
        for piece in pieces:
            handler.wfile.write(piece)
            time.sleep(pause_s)
        if hang:
            handler.rfile.read(1)  # until the client goes

    return answer


@contextlib.contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server that is reached without a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Site() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
