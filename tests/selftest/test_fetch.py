"""Downloads against a server of this machine that cuts, drips, hangs, lies and redirects."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from harness.base.errors import CheckpointError
from harness.stages.checkpoint import obtain_checkpoint
from harness.stages.fetch import fetch, shown

ROOT = Path(__file__).parents[2]
# The first byte is a pickle's, so that it passes for a file of PyTorch.
CONTENT = b"\x80" + random.Random(1).randbytes(149_999)
OTHER = b"\x80" + random.Random(2).randbytes(149_999)
CUT = 50_000
DATE = email.utils.formatdate(1_600_000_000, usegmt=True)
PAGE = b"<!DOCTYPE html><title>Log in</title>" + b" " * 500


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------------------------- the server


class Handler(BaseHTTPRequestHandler):
    """One request, answered by the next of the site's behaviours."""

    server: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site = self.server
        with site.guard:
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
        self.guard = threading.Lock()
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/models/w.pth"

    @property
    def ranges(self) -> list[str | None]:
        return [request.get("Range") for request in self.requests]

    def handle_error(self, *arguments: Any) -> None:
        pass


def file(
    content: bytes = CONTENT,
    *,
    etag: str | None = '"one"',
    modified: str | None = DATE,
    ranges: bool = True,
    heed_if_range: bool = True,
    cut: int | None = None,
    wait: threading.Event | None = None,
    kind: str = "application/octet-stream",
    said: int | None = None,
    chunk_s: float = 0.0,
    content_range: str | None = None,
) -> Behaviour:
    """A file; `cut` bytes of each reply arrive, `said` is the length it claims."""

    def answer(handler: Handler) -> None:
        if wait is not None:
            wait.wait(5)
        asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        same = not heed_if_range or condition is None or condition in (etag, modified)
        body, begin = content, 0
        if asked and ranges and same:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                handler.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
                return
            body = content[begin:]
        span = content_range or f"bytes {begin}-{len(content) - 1}/{len(content)}"
        handler.head(
            206 if begin else 200,
            Content_Type=kind,
            Content_Length=len(body) if said is None else said,
            ETag=etag,
            Last_Modified=modified,
            Content_Range=span if begin else None,
        )
        body = body[:cut]
        for position in range(0, len(body), 10_000):
            handler.wfile.write(body[position : position + 10_000])
            if chunk_s:
                time.sleep(chunk_s)

    return answer


def status(code: int, body: bytes = b"", **headers: Any) -> Behaviour:
    def answer(handler: Handler) -> None:
        handler.head(code, Content_Length=len(body), **headers)
        handler.wfile.write(body)

    return answer


def chunked(content: bytes = CONTENT, *, ended: bool = True, etag: str = '"one"') -> Behaviour:
    def answer(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked", ETag=etag)
        for position in range(0, len(content), 40_000):
            piece = content[position : position + 40_000]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if ended:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def raw(*pieces: bytes, pause_s: float = 0.0, hang: bool = False) -> Behaviour:
    """Bytes as they are, in place of HTTP."""

    def answer(handler: Handler) -> None:
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(pause_s)
        if hang:
            handler.rfile.read(1)  # until the client goes

    return answer


def hang(handler: Handler) -> None:
    handler.rfile.read(1)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


@dataclass
class Getter:
    """`fetch` into a folder with short limits, and what it called."""

    folder: Path
    site: Site
    content: bytes = CONTENT
    verified: list[str] = field(default_factory=list)
    shown: list[tuple[int, int | None]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "w.pth"

    @property
    def part(self) -> Path:
        return self.folder / "w.pth.part"

    def verify(self, path: Path) -> None:
        self.verified.append(path.name)
        assert path == self.path or not self.path.exists()
        if path.read_bytes() != self.content:
            raise CheckpointError("its sha256 is this, expected that")

    def __call__(self, url: str | None = None, **options: Any) -> Path:
        limits = {"timeout_s": 2.0, "deadline_s": 10.0, "retries": 2, "pause_s": 0.0, **options}
        return fetch(
            url or self.site.url,
            self.path,
            verify=self.verify,
            progress=lambda done, total: self.shown.append((done, total)),
            **limits,
        )

    def fails(self, url: str | None = None, **options: Any) -> str:
        """The message; nothing may have the file's name then, and nothing ends in two lines."""
        with pytest.raises(CheckpointError) as caught:
            self(url, **options)
        assert not self.path.exists()
        message = caught.value.message
        assert "\n" not in message and message.isprintable()
        assert "`--checkpoints=DIR`" in caught.value.remedy
        assert "by hand" in caught.value.remedy
        return message

    @property
    def left(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir() if not p.name.endswith(".lock"))


@pytest.fixture
def get(site: Site, tmp_path: Path) -> Getter:
    return Getter(tmp_path / "cache", site)


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


# --------------------------------------------------------------------------------- it arrives


def test_file_arrives_and_is_verified_before_it_has_its_name(get: Getter, site: Site) -> None:
    assert get() == get.path
    assert get.path.read_bytes() == CONTENT
    assert get.verified == ["w.pth.part"]
    assert get.left == ["w.pth"]
    assert [total for _, total in get.shown] == [len(CONTENT)] * len(get.shown)
    done = [count for count, _ in get.shown]
    assert done == sorted(done) and done[-1] == len(CONTENT) and len(done) > 1
    assert site.requests[0]["Accept-Encoding"] == "identity"


def test_file_that_is_there_is_verified_and_not_fetched(get: Getter, site: Site) -> None:
    get()
    get()
    assert len(site.requests) == 1 and get.verified == ["w.pth.part", "w.pth"]


def test_wrong_file_in_its_place_is_set_aside_and_fetched_anew(get: Getter, site: Site) -> None:
    get.folder.mkdir()
    get.path.write_bytes(OTHER)
    get()
    aside = f"w.pth.refused-{sha256(OTHER)[:8]}"
    assert get.left == ["w.pth", aside] and (get.folder / aside).read_bytes() == OTHER
    get.path.write_bytes(OTHER)
    site.behaviours = [status(404)]
    assert aside in get.fails()


def test_file_of_unannounced_length_arrives_in_chunks(get: Getter, site: Site) -> None:
    site.behaviours = [chunked()]
    assert get().read_bytes() == CONTENT
    assert {total for _, total in get.shown} == {None}


def test_empty_file_is_for_the_digest_to_refuse(get: Getter, site: Site) -> None:
    site.behaviours = [file(b"")]
    assert "was refused" in get.fails()


def test_second_one_waits_and_takes_the_result(get: Getter, site: Site) -> None:
    gate = threading.Event()
    site.behaviours = [file(wait=gate)]
    results: list[Path] = []
    others = [Getter(get.folder, site) for _ in range(3)]
    threads = [threading.Thread(target=lambda g=g: results.append(g())) for g in others]
    for thread in threads:
        thread.start()
    until(lambda: bool(site.requests))
    gate.set()
    for thread in threads:
        thread.join(10)
    assert results == [get.path] * 3 and len(site.requests) == 1


def test_waiting_for_another_ends_with_its_name(get: Getter, site: Site) -> None:
    site.behaviours = [hang]
    other = threading.Thread(target=lambda: get.fails(timeout_s=0.8, retries=0))
    other.start()
    until(lambda: bool(site.requests))
    message = Getter(get.folder, site).fails(deadline_s=0.1)
    assert "the download of w.pth" in message and "did not end within 0.1 s" in message
    other.join(10)


# ------------------------------------------------------------------------------------ resuming


def test_cut_replies_are_resumed_where_they_ended(get: Getter, site: Site) -> None:
    site.behaviours = [file(cut=CUT)]
    assert get(retries=0).read_bytes() == CONTENT, "each attempt gets further: none is a failure"
    assert site.ranges == [None, "bytes=50000-", "bytes=100000-"]
    assert [request.get("If-Range") for request in site.requests] == [None, '"one"', '"one"']
    assert get.left == ["w.pth"]


def test_server_that_ignores_ranges_is_begun_anew(get: Getter, site: Site) -> None:
    site.behaviours = [file(ranges=False, cut=CUT), file(ranges=False)]
    assert get().read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=50000-"]


def test_attempts_that_get_no_further_are_counted(get: Getter, site: Site) -> None:
    site.behaviours = [file(ranges=False, cut=CUT)]
    message = get.fails(retries=2)
    assert "it ended after 50000 of 150000 bytes" in message and "w.pth.part" in message
    assert len(site.requests) == 4, "the first one got further, three more did not"
    assert get.part.stat().st_size == CUT and not get.verified


def test_server_that_gives_a_byte_each_time_is_given_up(get: Getter, site: Site) -> None:
    site.behaviours = [file(cut=1)]
    get.fails(retries=2)
    assert site.ranges == [None, "bytes=1-", "bytes=2-"]


def test_part_without_a_validator_is_not_resumed(get: Getter, site: Site) -> None:
    site.behaviours = [file(etag=None, modified=None, cut=CUT), file(etag=None, modified=None)]
    assert get().read_bytes() == CONTENT
    assert site.ranges == [None, None]


def test_nobody_is_sent_to_go_on_where_that_cannot_be(get: Getter, site: Site) -> None:
    site.behaviours = [file(etag=None, modified=None, cut=CUT)]
    assert "of it are in" not in get.fails(retries=0)
    site.behaviours = [file(cut=CUT)]
    assert "of it are in" in get.fails(retries=0)


def test_weak_tag_is_no_validator(get: Getter, site: Site) -> None:
    weak = 'W/"one"'
    site.behaviours = [
        file(etag=weak, modified=None, cut=CUT),
        file(etag=weak, cut=CUT),
        file(etag=weak),
    ]
    get()
    assert [request.get("If-Range") for request in site.requests] == [None, None, DATE]


def test_changed_file_is_not_glued(get: Getter, site: Site) -> None:
    site.behaviours = [file(OTHER, cut=CUT), file(etag='"two"')]
    get()
    assert site.requests[1]["Range"] == "bytes=50000-" and get.path.read_bytes() == CONTENT


def test_changed_file_is_not_glued_where_if_range_is_ignored(get: Getter, site: Site) -> None:
    site.behaviours = [
        file(OTHER, cut=CUT),
        file(etag='"two"', heed_if_range=False),
        file(etag='"two"'),
    ]
    assert get().read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=50000-", None]
    assert len(get.verified) == 1, "it was the tag that told, not the digest"


def test_pieces_of_two_files_under_one_tag_are_fetched_once_more(get: Getter, site: Site) -> None:
    site.behaviours = [file(OTHER, cut=CUT), file()]
    assert get().read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=50000-", None]
    assert get.left == ["w.pth"]


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        ("bytes 0-99999/150000", 100_000),
        ("bytes 50001-149999/150000", 99_999),
        ("bytes 50000-149999/150001", 100_000),
        ("bytes 50000-150000/150000", 100_001),
        ("bytes 50000-149999/150000", 99_000),
        ("bytes 50000-149999/*", 100_000),
        ("bytes 50000-49999/150000", 0),
        ("lines 3-4/5", 100_000),
        ("bytes", 100_000),
    ],
)
def test_range_that_was_not_asked_for_is_not_glued(
    answer: str, length: int, get: Getter, site: Site
) -> None:
    lie = file(OTHER, content_range=answer, said=length)
    site.behaviours = [file(cut=CUT), lie, file()]
    assert get().read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=50000-", None]
    assert len(get.verified) == 1, "it was the range that told, not the digest"


def test_part_longer_than_the_file_is_dropped(get: Getter, site: Site) -> None:
    site.behaviours = [file(OTHER * 2, cut=200_000), file(heed_if_range=False)]
    assert get().read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=200000-", None]


def test_killed_download_goes_on(get: Getter, site: Site) -> None:
    site.behaviours = [file(chunk_s=0.3), file()]
    get.folder.mkdir()
    code = (
        "import sys; from pathlib import Path; from harness.stages.fetch import fetch\n"
        "fetch(sys.argv[1], Path(sys.argv[2]), verify=lambda path: None)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, site.url, str(get.path)], cwd=ROOT)
    try:
        until(lambda: get.part.exists() and get.part.stat().st_size > 0)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    had = get.part.stat().st_size
    assert 0 < had < len(CONTENT) and get.left == ["w.pth.part", "w.pth.part.json"]
    assert get().read_bytes() == CONTENT
    assert site.ranges == [None, f"bytes={had}-"]


def test_killed_before_the_rename_needs_no_server(get: Getter, site: Site) -> None:
    left_behind(get, site, CONTENT)
    assert get().read_bytes() == CONTENT and site.requests == []


def test_whole_part_that_is_wrong_is_fetched_once_more(get: Getter, site: Site) -> None:
    left_behind(get, site, OTHER)
    assert get().read_bytes() == CONTENT and site.ranges == [None]


def left_behind(get: Getter, site: Site, part: bytes, **changes: Any) -> None:
    get.folder.mkdir(exist_ok=True)
    get.part.write_bytes(part)
    note = {
        "url_sha256": sha256(site.url.encode()),
        "etag": '"one"',
        "last_modified": None,
        "total": len(CONTENT),
        **changes,
    }
    (get.folder / "w.pth.part.json").write_text(json.dumps(note))


@pytest.mark.parametrize(
    "note",
    [
        None,
        "",
        "[]",
        "3",
        "{",
        "{}",
        '{"etag": "\\"one\\""}',
        "\x00\xff",
        "[" * 5000,
        {"url_sha256": "0" * 64},
        {"etag": 3},
        {"total": "150000"},
        {"total": True},
        {"total": 10},
    ],
    ids=str,
)
def test_part_with_a_bad_note_is_not_used(note: Any, get: Getter, site: Site) -> None:
    left_behind(get, site, OTHER[:CUT], **(note if isinstance(note, dict) else {}))
    path = get.folder / "w.pth.part.json"
    if note is None:
        path.unlink()
    elif isinstance(note, str):
        path.write_bytes(note.encode("latin-1"))
    assert get().read_bytes() == CONTENT and site.ranges == [None]


def test_random_cuts_give_the_right_file_or_an_error(get: Getter, site: Site) -> None:
    for seed in range(40):
        rng = random.Random(seed)
        served = [
            file(
                rng.choice((CONTENT, CONTENT, OTHER, OTHER[:70_000])),
                etag=rng.choice(('"one"', '"two"', None)),
                ranges=rng.random() < 0.8,
                heed_if_range=rng.random() < 0.7,
                cut=rng.choice((None, 0, 1, rng.randrange(150_000))),
                said=rng.choice((None, None, rng.randrange(200_000))),
            )
            for _ in range(4)
        ]
        site.requests.clear()
        site.behaviours = served
        with contextlib.suppress(CheckpointError):
            get()
            assert get.path.read_bytes() == CONTENT
        for path in get.folder.iterdir():
            path.unlink()


# ------------------------------------------------------------------------------- what is refused


def test_other_file_is_set_aside_and_both_digests_are_said(get: Getter, site: Site) -> None:
    site.behaviours = [file(OTHER)]
    message = get.fails()
    aside = f"w.pth.refused-{sha256(OTHER)[:8]}"
    assert "its sha256 is this, expected that" in message and aside in message
    assert "was not opened" in message
    assert get.left == [aside] and len(site.requests) == 1


def test_length_that_is_too_short_is_noticed(get: Getter, site: Site) -> None:
    """The first bytes would pass for a whole file."""
    get.content = CONTENT[:60_000]
    site.behaviours = [file(said=60_000)]
    assert "sent more than the 60000 bytes it announced" in get.fails()
    assert get.left == [] and not get.verified


def test_length_that_is_too_long_is_noticed(get: Getter, site: Site) -> None:
    site.behaviours = [file(said=150_001)]
    assert "it ended after 150000 of 150001 bytes" in get.fails(retries=1)
    assert not get.verified


@pytest.mark.parametrize("length", ["-5", "many", ""])
def test_reply_without_an_end_is_refused(length: str, get: Getter, site: Site) -> None:
    line = f"Content-Length: {length}\r\n" if length else ""
    site.behaviours = [raw(f"HTTP/1.1 200 OK\r\n{line}\r\n".encode() + CONTENT)]
    assert "does not say how long it is" in get.fails()


def test_chunks_that_break_off_are_not_the_file(get: Getter, site: Site) -> None:
    site.behaviours = [chunked(ended=False)]
    get.content = CONTENT
    assert "it ended early" in get.fails(retries=1)
    assert not get.verified


@pytest.mark.parametrize("answer", [file(), chunked()], ids=["length", "chunks"])
def test_file_past_the_limit_is_refused(answer: Behaviour, get: Getter, site: Site) -> None:
    site.behaviours = [answer]
    assert "more than 0.1 MB is refused" in get.fails(most_bytes=100_000)
    assert get.left == [] and len(site.requests) == 1


def test_compressed_reply_is_refused(get: Getter, site: Site) -> None:
    site.behaviours = [status(200, b"x", Content_Encoding="gzip")]
    assert "compressed, unasked" in get.fails()


def test_web_page_is_refused_and_costs_no_part(get: Getter, site: Site) -> None:
    site.behaviours = [file(cut=CUT), file(PAGE, kind="text/html; charset=utf-8", ranges=False)]
    assert "it is a web page" in get.fails()
    assert get.part.read_bytes() == CONTENT[:CUT]
    site.behaviours = [file()]
    assert get().read_bytes() == CONTENT and site.ranges[-1] == "bytes=50000-"


@pytest.mark.parametrize("code", [204, 206, 304, 400, 401, 403, 404, 410, 416, 599])
def test_status_that_stays_is_met_once(code: int, get: Getter, site: Site) -> None:
    site.behaviours = [status(code)]
    assert f"HTTP {code} (" in get.fails()
    assert len(site.requests) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_status_that_passes_is_met_again(code: int, get: Getter, site: Site) -> None:
    site.behaviours = [status(code), status(code), file()]
    assert get(retries=2).read_bytes() == CONTENT
    site.requests.clear()
    get.path.unlink()
    site.behaviours = [status(code)]
    assert f"HTTP {code} (" in get.fails(retries=2)
    assert len(site.requests) == 3


# ---------------------------------------------------------------------------------------- time


def test_server_that_hangs_before_its_headers(get: Getter, site: Site) -> None:
    site.behaviours = [hang]
    assert "nothing came for 0.2 s" in get.fails(timeout_s=0.2, retries=1)
    assert len(site.requests) == 2


def test_server_that_hangs_after_its_headers(get: Getter, site: Site) -> None:
    site.behaviours = [raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", hang=True)]
    assert "nothing came for 0.2 s" in get.fails(timeout_s=0.2, retries=0)


def test_server_that_hangs_once_is_asked_again(get: Getter, site: Site) -> None:
    site.behaviours = [hang, file()]
    assert get(timeout_s=0.2).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 999\r\n\r\n"],
    ids=["head", "body"],
)
def test_server_that_drips_meets_the_deadline(start: bytes, get: Getter, site: Site) -> None:
    """Each byte comes in time; headers as slow as that end in no timeout at all."""
    site.behaviours = [raw(start, *[b"a"] * 2000, pause_s=0.02)]
    began = time.monotonic()
    assert get.fails(timeout_s=0.3, deadline_s=0.4).endswith("did not end within 0.4 s")
    assert time.monotonic() - began < 20 and len(site.requests) == 1


def test_deadline_tells_the_last_reason(get: Getter, site: Site) -> None:
    site.behaviours = [status(503)]
    message = get.fails(deadline_s=0.2, retries=100, pause_s=0.05)
    assert "did not end within 0.2 s" in message and "HTTP 503" in message


def test_server_that_keeps_the_connection_is_not_waited_for(get: Getter, site: Site) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
    site.behaviours = [raw(head + CONTENT, hang=True)]
    began = time.monotonic()
    assert get(timeout_s=30.0, deadline_s=60.0).read_bytes() == CONTENT
    assert time.monotonic() - began < 15


# ------------------------------------------------------------------------- no reply, no HTTP


def test_name_without_an_address(get: Getter, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fail(*arguments: Any, **options: Any) -> None:
        asked.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    message = get.fails("http://publisher.example/w.pth")
    assert "http://publisher.example/w.pth" in message and "not known here" in message
    assert len(asked) == 1, "without a network, no case of a run must wait for retries"


def test_refused_connection(get: Getter) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        assert "connection was refused" in get.fails(f"http://127.0.0.1:{taken.getsockname()[1]}/w")


def test_host_that_drops_packets(get: Getter) -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # a full queue takes no connection, and says nothing
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        message = get.fails(f"http://127.0.0.1:{full.getsockname()[1]}/w", timeout_s=0.3)
        assert "no connection within 0.3 s" in message


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((), "closed the connection"),
        ((b"SSH-2.0-x\r\n",), "not HTTP (BadStatusLine)"),
        ((b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000,), "not HTTP (LineTooLong)"),
        ((b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200,), "not HTTP (HTTPException)"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",), "ended early"),
    ],
    ids=["nothing", "ssh", "long", "many", "chunk"],
)
def test_reply_that_is_no_http(
    pieces: tuple[bytes, ...], said: str, get: Getter, site: Site
) -> None:
    site.behaviours = [raw(*pieces)]
    assert said in get.fails(retries=1)


def test_tls_where_there_is_none(get: Getter, site: Site) -> None:
    assert "TLS failed: " in get.fails(site.url.replace("http:", "https:"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://publisher.example/w.pth", "its scheme must be http, https or file"),
        ("/etc/passwd", "its scheme must be"),
        ("", "its scheme must be"),
        ("http://[::1/w.pth", "cannot be read"),
        ("http://a:b:c/w.pth", "cannot be read"),
        ("http:///w.pth", "no host given"),
        ("http://" + "a" * 300 + "/w.pth", ""),
        ("http://a..b/w.pth", ""),
    ],
)
def test_url_that_cannot_be_used(url: str, said: str, get: Getter) -> None:
    with pytest.raises(CheckpointError) as caught:
        fetch(url, get.path, verify=get.verify, timeout_s=1, retries=0)
    assert said in caught.value.message and caught.value.message.isprintable()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://[", "nonsense"])
def test_proxy_that_cannot_be_used(
    proxy: str, get: Getter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", proxy)
    get.fails()


def test_proxy_is_asked(get: Getter, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{site.server_port}")
    assert get("http://publisher.example/w.pth").read_bytes() == CONTENT
    assert site.requests[0]["path"] == "http://publisher.example/w.pth"


def test_odd_characters_of_a_url_are_sent_as_codes(get: Getter, site: Site) -> None:
    get(site.url + "/ä b\r\nX: y?q=ü c#part")
    assert site.requests[0]["path"] == "/models/w.pth/%C3%A4%20bX:%20y?q=%C3%BC%20c"


# ----------------------------------------------------------------------------------- redirects


def test_redirects_are_followed(get: Getter, site: Site) -> None:
    host = f"http://127.0.0.1:{site.server_port}"
    site.behaviours = [
        status(302, Location="/other/w.pth"),
        status(307, Location=f"{host}/third?signature=secret"),
        file(),
    ]
    assert get().read_bytes() == CONTENT
    assert [r["path"] for r in site.requests] == [
        "/models/w.pth",
        "/other/w.pth",
        "/third?signature=secret",
    ]


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("file:///etc/passwd", "redirects to file:///etc/passwd, which is not followed"),
        ("FILE:///etc/passwd", "which is not followed"),
        ("ftp://publisher.example/w", "which is not followed"),
        ("javascript:0", "which is not followed"),
        ("http://[", "a URL that cannot be read"),
        ("https://x:y:z/", "a URL that cannot be read"),
        ("", "redirects to nowhere"),
        (None, "redirects to nowhere"),
        ("/models/w.pth", "more than 5 redirects"),
    ],
)
def test_redirect_that_is_not_followed(
    location: str | None, said: str, get: Getter, site: Site
) -> None:
    site.behaviours = [status(301, Location=location)]
    assert said in get.fails()


def test_body_of_a_redirect_is_not_read(get: Getter, site: Site) -> None:
    def endless(handler: Handler) -> None:
        handler.head(302, Location="/w.pth")
        while True:
            handler.wfile.write(bytes(100_000))

    site.behaviours = [endless, file()]
    assert get().read_bytes() == CONTENT


def test_user_and_password_are_sent_to_their_host_alone_and_not_shown(
    get: Getter, site: Site
) -> None:
    url = site.url.replace("http://", "http://us%40er:pass-word@")
    other = f"http://localhost:{site.server_port}/w.pth"
    site.behaviours = [status(302, Location="/b"), status(302, Location=other), status(403)]
    with pytest.raises(CheckpointError) as caught:
        get(url)
    assert "pass-word" not in str(caught.value) and "er:" not in str(caught.value)
    sent = [request.get("Authorization") for request in site.requests]
    assert sent == ["Basic dXNAZXI6cGFzcy13b3Jk"] * 2 + [None]
    site.behaviours = [file(cut=CUT), status(403)]
    site.requests.clear()
    get.fails(url)
    assert "pass-word" not in (get.folder / "w.pth.part.json").read_text()


def test_shown_url_keeps_secrets() -> None:
    assert shown("https://me:secret@host:8/a.pth?sig=1#x") == "https://host:8/a.pth?..."
    assert shown("http://[::1") == "(a URL that cannot be read)"
    assert shown("http://h/\x1b[31m").isprintable()


@pytest.fixture
def tls_site(site: Site, tmp_path: Path) -> Site:
    """The same server with TLS and a certificate of its own."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    site.socket = context.wrap_socket(site.socket, server_side=True)
    site.scheme = "https"
    return site


def test_tls_certificate_is_checked(
    get: Getter, tls_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "its TLS certificate is bad: self" in get.fails()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert get().read_bytes() == CONTENT
    get.path.unlink()
    tls_site.behaviours = [status(302, Location="http://127.0.0.1/w.pth")]
    assert "redirects from https to http (http://127.0.0.1/w.pth)" in get.fails()
    tls_site.behaviours = [file(chunk_s=0.1)]
    assert "did not end within 0.3 s" in get.fails(deadline_s=0.3)


# ---------------------------------------------------------------------------------------- disk


def test_full_disk_is_said_before_the_download(
    get: Getter, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "No space left on device: 0.1 MB needed, 0.1 MB free" in get.fails()


def test_disk_that_fills_up_keeps_a_part(get: Getter, site: Site) -> None:
    """A limit on the size of files stands in for a full disk."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from harness.base.errors import CheckpointError; from harness.stages.fetch import fetch\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))\n"
        "try: fetch(sys.argv[1], Path(sys.argv[2]), verify=print)\n"
        "except CheckpointError as error: print(error.message)"
    )
    command = [sys.executable, "-c", code, site.url, str(get.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "File too large" in done.stdout, done
    assert get.part.read_bytes() == CONTENT[:70_000]
    assert get().read_bytes() == CONTENT and site.ranges == [None, "bytes=70000-"]


def test_folder_that_cannot_be_made(get: Getter) -> None:
    get.folder.write_bytes(b"")
    with pytest.raises(CheckpointError, match="could not be fetched"):
        get()


# --------------------------------------------------------------------------------------- file:


def test_file_url(get: Getter, tmp_path: Path) -> None:
    source = tmp_path / "ä b.pth"
    source.write_bytes(CONTENT)
    assert get(source.as_uri()).read_bytes() == CONTENT
    assert get.shown[-1] == (len(CONTENT), len(CONTENT)) and get.left == ["w.pth"]
    get.path.unlink()
    assert "is refused" in get.fails(source.as_uri(), most_bytes=1000)
    source.write_bytes(OTHER)
    assert "was refused" in get.fails(source.as_uri())


def test_file_url_that_is_no_file(get: Getter, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "No such file" in get.fails((tmp_path / "none").as_uri())
    assert "not a regular file" in get.fails((tmp_path / "pipe").as_uri())
    assert "directory" in get.fails(tmp_path.as_uri())
    assert "not a regular file" in get.fails("file:///dev/zero")
    assert "of this machine" in get.fails("file://server/share/w.pth")
    assert "null" in get.fails("file:///a%00b")


def test_file_that_grows_while_it_is_copied(get: Getter, tmp_path: Path) -> None:
    source = tmp_path / "w.pth"
    source.write_bytes(CONTENT)
    grown = []

    def grow(done: int, total: int | None) -> None:
        grown.append(done)
        with source.open("ab") as stream:
            stream.write(b"more")

    with pytest.raises(CheckpointError, match="changed while it was copied"):
        fetch(source.as_uri(), get.path, verify=get.verify, progress=grow, retries=1, pause_s=0)
    assert grown and get.left == []


# ------------------------------------------------------------------------------ checkpoints


@dataclass(frozen=True)
class Spec:
    """What the catalog would say of a file."""

    url: str | None
    file: str = "w.pth"
    md5: str | None = None
    sha256: str | None = sha256(CONTENT)
    sha256_prefix: str | None = None
    layout: str = "plain"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    (tmp_path / "users").mkdir()
    return tmp_path / "users"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def obtain(
    spec: Spec, folders: list[Path], cache: Path | None, offline: bool = False
) -> tuple[Path, str]:
    path, digests = obtain_checkpoint(
        spec, folders, cache=cache, offline=offline, timeout_s=2, deadline_s=10, retries=0
    )
    assert digests.sha256 == sha256(path.read_bytes())
    return path, digests.sha256


def refused(*arguments: Any, **options: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        obtain(*arguments, **options)
    assert "\n" not in caught.value.message and caught.value.remedy
    return caught.value


def test_users_file_comes_first_then_the_cache_then_the_url(
    site: Site, users: Path, cache: Path
) -> None:
    spec = Spec(site.url)
    assert obtain(spec, [users], cache)[0] == cache / "w.pth" and len(site.requests) == 1
    assert obtain(spec, [users], cache)[0] == cache / "w.pth"
    assert obtain(spec, [users], cache, offline=True)[0] == cache / "w.pth"
    (users / "w.pth").write_bytes(CONTENT)
    assert obtain(spec, [users], cache)[0] == users / "w.pth" and len(site.requests) == 1


def test_users_wrong_file_stays_and_is_not_replaced(site: Site, users: Path, cache: Path) -> None:
    (users / "w.pth").write_bytes(OTHER)
    error = refused(Spec(site.url), [users], cache)
    assert sha256(OTHER) in error.message and sha256(CONTENT) in error.message
    assert "stays where it is" in error.message
    assert os.listdir(users) == ["w.pth"] and site.requests == [] and not cache.exists()


def test_wrong_file_in_the_cache_is_fetched_again_once(site: Site, cache: Path) -> None:
    cache.mkdir()
    (cache / "w.pth").write_bytes(OTHER)
    error = refused(Spec(site.url), [], cache, offline=True)
    assert sha256(OTHER) in error.message and "`--offline`" in error.message
    assert obtain(Spec(site.url), [], cache)[1] == sha256(CONTENT)
    assert (cache / f"w.pth.refused-{sha256(OTHER)[:8]}").exists()
    site.behaviours, site.requests = [file(OTHER)], []
    (cache / "w.pth").write_bytes(b"damaged")
    refused(Spec(site.url), [], cache)
    assert len(site.requests) == 1 and not (cache / "w.pth").exists()


def test_nothing_is_fetched_where_it_may_not_be(site: Site, users: Path, cache: Path) -> None:
    for error, reason in (
        (refused(Spec(site.url), [users], cache, offline=True), "`--offline` was given"),
        (refused(Spec(None), [users], cache), "it has no URL"),
        (refused(Spec(site.url), [users], None), "no cache folder"),
    ):
        assert "not there" in error.message and reason in error.message
        assert str(users) in error.message
    assert site.requests == [] and not cache.exists()
    with pytest.raises(CheckpointError, match="not a bare file name"):
        obtain(Spec(site.url, file="../w.pth"), [], cache)


@pytest.mark.parametrize(
    ("digests", "accepted"),
    [
        ({"md5": hashlib.md5(CONTENT, usedforsecurity=False).hexdigest().upper()}, True),
        ({"sha256_prefix": sha256(CONTENT)[:8].upper()}, True),
        ({"sha256_prefix": sha256(OTHER)[:8]}, False),
        ({"md5": "0" * 32, "sha256": sha256(CONTENT)}, False),
    ],
)
def test_fetched_file_is_held_against_every_digest(
    digests: dict[str, str], accepted: bool, site: Site, cache: Path
) -> None:
    spec = Spec(**{"url": site.url, "sha256": None, **digests})  # type: ignore[arg-type]
    if accepted:
        assert obtain(spec, [], cache)[0] == cache / "w.pth"
    else:
        message = refused(spec, [], cache).message
        assert all(d in message for d in digests.values() if d != sha256(CONTENT))
        assert not (cache / "w.pth").exists()


@pytest.mark.parametrize("digest", [None, sha256(CONTENT)])
def test_login_page_is_refused_with_and_without_a_digest(
    digest: str | None, site: Site, cache: Path
) -> None:
    site.behaviours = [file(PAGE)]
    message = refused(Spec(site.url, sha256=digest), [], cache).message
    assert "is a web page, not weights: '<!DOCTYPE html>" in message
    assert digest is None or (digest in message and sha256(PAGE) in message)
    assert not (cache / "w.pth").exists()
    assert (cache / f"w.pth.refused-{sha256(PAGE)[:8]}").read_bytes() == PAGE


def test_file_without_a_digest_is_taken_when_it_begins_like_one(site: Site, cache: Path) -> None:
    assert obtain(Spec(site.url, sha256=None), [], cache)[1] == sha256(CONTENT)
    assert obtain(Spec(site.url, sha256=None), [], cache)[1] == sha256(CONTENT)
    assert len(site.requests) == 1
    (cache / "w.pth").write_bytes(b"")
    assert "is empty" in refused(Spec(None, sha256=None), [], cache).message


def test_checkpoint_from_a_file_url(users: Path, cache: Path) -> None:
    (users / "elsewhere.pth").write_bytes(CONTENT)
    spec = Spec((users / "elsewhere.pth").as_uri())
    assert obtain(spec, [users], cache)[0] == cache / "w.pth"
    assert urlsplit(spec.url or "").path in refused(spec, [], users / "other", offline=True).remedy
