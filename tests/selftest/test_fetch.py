"""Downloads against a server of this machine that cuts, drips, hangs, lies and redirects."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import CheckpointError
from harness.stages.fetch import Limits, fetch, shown
from tests.selftest import file_server
from tests.selftest.file_server import (
    CONTENT,
    OTHER,
    Behaviour,
    Handler,
    Site,
    file,
    raw,
    sha256,
    status,
)
from tests.selftest.running import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]
CUT = 50_000
SHORT = Limits(timeout_s=PATIENCE_S, deadline_s=2 * PATIENCE_S, retries=2, pause_s=0.0)
HANG: dict[str, Any] = {"timeout_s": 0.3}  # seconds until a server that says nothing is given up


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with file_server.running(monkeypatch) as server:
        yield server


@dataclass
class Getter:
    """`fetch` into a folder with short limits, and what it called."""

    folder: Path
    site: Site
    verified: list[str] = field(default_factory=list)
    shown: list[tuple[int, int]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "w.pth"

    @property
    def part(self) -> Path:
        return self.folder / "w.pth.part"

    def verify(self, path: Path) -> None:
        self.verified.append(path.name)
        assert path == self.path or not self.path.exists()
        if path.read_bytes() != CONTENT:
            raise CheckpointError("its sha256 is this, expected that")

    def __call__(self, url: str | None = None, **changes: Any) -> bytes:
        progress = lambda done, total: self.shown.append((done, total))  # noqa: E731
        limits = replace(SHORT, **changes)
        url = self.site.url if url is None else url
        fetch(url, self.path, verify=self.verify, progress=progress, limits=limits)
        return self.path.read_bytes()

    def fails(self, url: str | None = None, **changes: Any) -> str:
        """The message; nothing may have the file's name then."""
        with pytest.raises(CheckpointError) as caught:
            self(url, **changes)
        assert not self.path.exists()
        assert caught.value.message.isprintable()
        assert "by hand" in caught.value.remedy and "`--checkpoints=DIR`" in caught.value.remedy
        return caught.value.message

    @property
    def left(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir() if p.suffix != ".lock")


@pytest.fixture
def get(site: Site, tmp_path: Path) -> Getter:
    return Getter(tmp_path / "cache", site)


def test_file_is_verified_before_it_has_its_name_and_fetched_once(get: Getter, site: Site) -> None:
    assert get() == get() == CONTENT
    assert get.verified == ["w.pth.part", "w.pth"] and get.left == ["w.pth"]
    assert get.shown == sorted(get.shown) and get.shown[-1] == (len(CONTENT), len(CONTENT))
    assert [request["Accept-Encoding"] for request in site.requests] == ["identity"]


def test_other_file_is_refused_and_set_aside(get: Getter, site: Site) -> None:
    site.behaviours = [file(OTHER)]
    message, aside = get.fails(), f"w.pth.refused-{sha256(OTHER)[:8]}"
    assert "its sha256 is this, expected that" in message and aside in message
    assert get.left == [aside] and len(site.requests) == 1


def test_second_one_waits_and_takes_the_result(get: Getter, site: Site) -> None:
    gate = threading.Event()
    site.behaviours = [lambda handler: (gate.wait(PATIENCE_S), file()(handler))[1]]
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: bool(site.requests))
    message = Getter(get.folder, site).fails(deadline_s=0.1)
    assert "the download of w.pth" in message and "did not end within 0.1 s" in message
    gate.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == [CONTENT] * 3 and len(site.requests) == 1


# Resuming: what the server does, and the ranges that it is asked for.
DATE = "Sun, 13 Sep 2020 12:26:40 GMT"
REST = f"bytes={CUT}-"
RESUMED: dict[str, tuple[list[Behaviour], list[str | None]]] = {
    "cut replies": ([file(cut=CUT)], [None, REST, "bytes=100000-"]),
    "a date in place of a tag": (
        [file(etag=None, modified=DATE, cut=CUT), file(etag=None, modified=DATE)],
        [None, REST],
    ),
    "no ranges": ([file(cut=CUT), file(ranges=False)], [None, REST]),
    "no validator": ([file(etag=None, cut=CUT), file(etag=None)], [None, None]),
    "a weak tag": ([file(etag='W/"one"', cut=CUT), file(etag='W/"one"')], [None, None]),
    "another file": ([file(OTHER, cut=CUT), file(etag='"two"')], [None, REST]),
    **{
        span: ([file(cut=CUT), file(OTHER, content_range=span), file()], [None, REST, None])
        for span in (
            "bytes 0-99999/150000",
            "bytes 50001-149999/150000",
            "bytes 50000-149999/150001",
            "bytes 50000-149999/*",
            "bytes",
        )
    },
}


@pytest.mark.parametrize("case", RESUMED)
def test_part_is_continued_only_where_the_rest_is_of_the_same_file(case, get, site):
    site.behaviours, ranges = RESUMED[case]
    # Attempts that get further are no failures.
    assert get(retries=0 if case == "cut replies" else 2) == CONTENT
    assert site.ranges == ranges and get.verified == ["w.pth.part"] and get.left == ["w.pth"]


def test_attempts_that_get_no_further_are_counted(get: Getter, site: Site) -> None:
    site.behaviours = [file(cut=CUT), file(cut=1), file(cut=0)]
    assert "after 3 attempts" in get.fails(retries=2)
    assert site.ranges == [None, REST, *["bytes=50001-"] * 3] and not get.verified


def test_part_of_a_killed_process_is_not_used(get: Getter, site: Site) -> None:
    get.folder.mkdir()
    get.part.write_bytes(OTHER[:CUT])
    assert get() == CONTENT and site.ranges == [None]


# Refused at the first reply, and not asked again.
LENGTH = f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\n".encode()
REFUSED: dict[str, tuple[Behaviour, str]] = {
    "no length": (raw(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT), "does not say how long it is"),
    "too large": (file(CONTENT * 2), "more than 0.2 MB is refused"),
    "web page": (file(b"<html>", kind="text/html; charset=utf-8"), "it is a web page"),
    "to a file": (status(301, Location="file:///etc/passwd"), "which is not followed"),
    "to ftp": (status(301, Location="ftp://publisher.example/w"), "which is not followed"),
    "to itself": (status(302, Location="/models/w.pth"), "more than 5 redirects"),
    "nowhere": (status(301), "HTTP 301"),
    **{str(code): (status(code), f"HTTP {code} (") for code in (204, 206, 304, 403, 404, 416)},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_not_asked_for_again(case: str, get: Getter, site: Site) -> None:
    behaviour, said = REFUSED[case]
    site.behaviours = [behaviour]
    assert said in get.fails(most_bytes=200_000)
    assert len(site.requests) == (6 if case == "to itself" else 1) and get.left == []


# What another attempt may not meet.
PASSING: dict[str, tuple[Behaviour, str]] = {
    "hang": (raw(hang=True), "ReadTimeout"),
    "hang after the head": (raw(LENGTH + b"\r\n", hang=True), "ReadTimeout"),
    "closed": (raw(), "disconnected"),
    "no HTTP": (raw(b"SSH-2.0-x\r\n\r\n"), "illegal"),
    **{str(code): (status(code), f"HTTP {code} (") for code in (408, 429, 500, 503)},
}


@pytest.mark.parametrize("case", PASSING)
def test_what_passes_is_asked_for_again_and_bounded(case: str, get: Getter, site: Site) -> None:
    behaviour, said = PASSING[case]
    site.behaviours = [behaviour, file()]
    limits = HANG if "hang" in case else {}
    assert get(retries=20, **limits) == CONTENT  # also from a server that is slow to answer
    get.path.unlink()
    site.behaviours, site.requests = [behaviour], []
    assert said in get.fails(retries=1, **limits)
    assert len(site.requests) == 2


@pytest.mark.parametrize("start", [b"", LENGTH + b"\r\n"], ids=["head", "body"])
def test_server_that_drips_meets_the_deadline(start: bytes, get: Getter, site: Site) -> None:
    """Each byte comes in time, so that no wait for one ends; all would take ten minutes."""
    site.behaviours = [raw(start, *[b"a"] * 30_000, pause_s=0.02)]
    began = time.monotonic()
    assert get.fails(deadline_s=0.4).endswith("did not end within 0.4 s")
    assert time.monotonic() - began < PATIENCE_S and len(site.requests) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://publisher.example/w.pth", "it must begin with https:// or http://"),
        ("file:///etc/passwd", "it must begin with"),
        ("/etc/passwd", "it must begin with"),
        ("http://[::1/w.pth", "cannot be used"),
        ("http://a:b:c/w.pth", "cannot be used"),
    ],
)
def test_url_that_cannot_be_used(url: str, said: str, get: Getter) -> None:
    assert said in get.fails(url)


def test_host_that_does_not_answer_is_asked_once(get, monkeypatch):
    asked = []

    def no_name(*arguments: Any, **options: Any) -> None:
        asked.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", no_name)
        get.folder.mkdir()
        get.part.write_bytes(OTHER)  # of a killed process
        assert "Name or service not known" in get.fails("http://publisher.example/w.pth")
    assert len(asked) == 1, "without a network, no case of a run must wait for retries"
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # a full queue takes no connection, and says nothing
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/w"
        assert "ConnectTimeout" in get.fails(url, timeout_s=0.3)


def test_proxy_is_asked(get: Getter, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{site.server_port}")
    assert get("http://publisher.example/w.pth") == CONTENT
    assert site.requests[0]["path"] == "http://publisher.example/w.pth"
    get.path.unlink()
    monkeypatch.setenv("http_proxy", "nonsense://me:secret@x")
    assert "or that of the proxy, cannot be used" in get.fails("http://publisher.example/w.pth")


def test_redirects_are_followed_their_bodies_unread(get: Getter, site: Site) -> None:
    def endless(handler: Handler) -> None:
        handler.head(302, Location="/other/w.pth")
        while True:
            handler.wfile.write(bytes(100_000))

    host = f"http://127.0.0.1:{site.server_port}"
    site.behaviours = [endless, status(307, Location=f"{host}/third?signature=secret"), file()]
    assert get() == CONTENT
    paths = [request["path"] for request in site.requests]
    assert paths == ["/models/w.pth", "/other/w.pth", "/third?signature=secret"]


def test_password_is_sent_to_its_host_alone_and_not_shown(get: Getter, site: Site) -> None:
    url = site.url.replace("http://", "http://us%40er:pass-word@")
    other = f"http://localhost:{site.server_port}/w.pth"
    site.behaviours = [status(302, Location="/b"), status(302, Location=other), status(403)]
    with pytest.raises(CheckpointError) as caught:
        get(url)
    assert "pass-word" not in str(caught.value) and "er:" not in str(caught.value)
    sent = [request.get("Authorization") for request in site.requests]
    assert sent == ["Basic dXNAZXI6cGFzcy13b3Jk"] * 2 + [None]
    assert shown("https://me:secret@host:8/a.pth?sig=1#x") == "https://host:8/a.pth?..."
    assert shown("http://[::1") == "(a URL that cannot be read)"
    assert shown("http://h/\x1b[31m").isprintable()


def test_tls_certificate_is_checked_and_https_is_not_left(get, site, tmp_path, monkeypatch):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    command = f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    command += " -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    command += f" -keyout {tmp_path}/key.pem -out {tmp_path}/cert.pem"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    site.socket = context.wrap_socket(site.socket, server_side=True)
    url = site.url.replace("http", "https")
    assert "CERTIFICATE_VERIFY_FAILED" in get.fails(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert get(url) == CONTENT
    get.path.unlink()
    site.behaviours = [status(302, Location="http://127.0.0.1/w.pth")]
    assert "redirects to http://127.0.0.1/w.pth, which is not followed" in get.fails(url)


def test_disk_that_fills_up_keeps_no_part(get: Getter, site: Site) -> None:
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
    assert get.left == [] and get() == CONTENT
