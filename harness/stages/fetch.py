"""Downloads: one file from a URL into its place, resumed, bounded, verified before it has a name.

What arrives goes to `NAME.part`, with a note `NAME.part.json` of what it is a part of. It gets
its name by one rename, after its length was checked against the server's and after the caller's
check of its digests; nothing here looks into it. A kill leaves the part, and the next call goes
on from there if the server still has the same file. Redirects, lengths and ranges are the
server's claims and are checked; what a claim cannot settle, the digests do.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.client
import io
import json
import math
import os
import re
import shutil
import socket
import ssl
import stat
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn
from urllib.error import URLError
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

from harness.base.errors import CheckpointError
from harness.base.locks import LockTimeout, OnWait, locked

SCHEMES = ("http", "https", "file")
MOST_BYTES = 2 << 30
TIMEOUT_S = 60.0
DEADLINE_S = 3600.0
RETRIES = 4
PAUSE_S = 1.0

# A firewall that drops packets is noticed sooner than a server that thinks for long.
_LONGEST_CONNECT_S = 15.0
_LONGEST_PAUSE_S = 10.0
# A server told to close that does not is not waited for; one that sends on has lied before this.
_LINGER_S = 0.2
_MOST_REDIRECTS = 5
_CHUNK_BYTES = 1 << 16
_FURTHER_BYTES = 1 << 15  # what an attempt must add at least not to count as a failure
_LONGEST_SHOWN = 300  # characters of a URL in a message
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that another attempt may not meet
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")

OnProgress = Callable[[int, int | None], None]


def fetch(
    url: str,
    destination: Path,
    *,
    verify: Callable[[Path], None],
    progress: OnProgress | None = None,
    timeout_s: float = TIMEOUT_S,
    deadline_s: float = DEADLINE_S,
    retries: int = RETRIES,
    pause_s: float = PAUSE_S,
    most_bytes: int = MOST_BYTES,
    on_wait: OnWait | None = None,
) -> Path:
    """The file at `url` as `destination`, which is returned; at once when it is there and right.

    Two processes never download one file twice: the second waits for the first and takes its
    result. What `verify` refuses is set aside as `NAME.refused-SHA8`, where the first eight digits
    of its sha256 stand for SHA8; a wrong file that was at `destination` is set aside and fetched
    anew.

    Args:
        url: http, https or file. A user and a password in it are sent, and never printed.
        verify: raises `CheckpointError` for a file that is not the one that is meant. Its message
            completes "NAME was refused: ".
        progress: gets the bytes that are there and their number in all, None where the server
            does not say; called for each chunk of at most 64 KiB.
        timeout_s: no byte for so long ends an attempt.
        deadline_s: the whole call ends after so long; resolving a name may take longer.
        retries: further attempts in a row that get no further than those before, or hardly.
        pause_s: pause before the first retry; it doubles, up to 10 s.
        most_bytes: a longer file is refused.
        on_wait: gets the holder of the lock, in words, every few seconds of waiting.

    Raises:
        CheckpointError: the file was not got or was refused; one line, and what to do.
    """
    job = _Download(url, destination, progress, timeout_s, retries, pause_s, most_bytes)
    began = time.monotonic()
    try:
        if job.scheme not in SCHEMES:
            job.fail(f"its scheme must be {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
        destination.parent.mkdir(parents=True, exist_ok=True)
        lock = destination.with_name(f"{destination.name}.lock")
        what = f"the download of {destination.name}"
        with locked(lock, timeout_s=deadline_s, what=what, on_wait=on_wait):
            if os.path.lexists(destination):
                try:
                    verify(destination)
                    return destination
                except CheckpointError:
                    job.replaced = job.set_aside(destination)
            with _Watch(began + deadline_s, deadline_s, timeout_s) as watch:
                job.run(watch, verify)
    except LockTimeout as error:
        job.fail(f"{error.holder} did not end within {deadline_s:g} s")
    except OSError as error:  # of the disk alone: those of the network are told where they occur
        job.fail(f"{error.filename or destination.parent}: {error.strerror or error}")
    return destination


def shown(url: str) -> str:
    """`url` for messages: without user, password and the values of its query."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        text = urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return "(a URL that cannot be read)"
    text += "?..." if parts.query else ""
    return "".join(c if c.isprintable() else "?" for c in text)[:_LONGEST_SHOWN]


class _FaultError(Exception):
    """Why an attempt failed; `again`: another one may go better."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.message = message
        self.again = again


@dataclass(frozen=True)
class _Note:
    """What a part is a part of. The URL is kept as a digest, since it may hold a password."""

    url_sha256: str
    etag: str | None
    last_modified: str | None
    total: int | None

    @property
    def validator(self) -> str | None:
        """For `If-Range`, which takes no weak tag (RFC 9110, section 13.1.5)."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class _Watch:
    """Cuts the connection at the deadline, wherever the client stands: amid headers too.

    A socket's timeout ends one wait, not a server that sends a byte a second.
    """

    def __init__(self, ends: float, deadline_s: float, timeout_s: float) -> None:
        self.deadline_s = deadline_s
        self.timeout_s = timeout_s
        self.expired = False
        self._ends = ends
        self._timer = threading.Timer(max(0.0, self.left_s), self._cut)
        self._timer.daemon = True
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None

    @property
    def left_s(self) -> float:
        return self._ends - time.monotonic()

    @property
    def reached(self) -> bool:
        """Whether the last connection came about."""
        return self._socket is not None

    def __enter__(self) -> _Watch:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()

    def connecting(self, connection: http.client.HTTPConnection) -> None:
        self._connection, self._socket = connection, None

    def connected(self, sock: socket.socket) -> None:
        """From here on `timeout_s` counts. The client lets go of its socket; we do not."""
        sock.settimeout(self.timeout_s)
        self._socket = sock
        if self.expired:
            raise TimeoutError

    def linger(self) -> None:
        """Wait only shortly from here on."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.settimeout(min(_LINGER_S, self.timeout_s))

    def check(self, last: str = "") -> None:
        """Raises `_FaultError` after the deadline; `last` is what the last attempt met."""
        if self.expired or self.left_s <= 0:
            late = f"it did not end within {self.deadline_s:g} s"
            raise _FaultError(f"{late}; the last attempt: {last}" if last else late, again=False)

    def _cut(self) -> None:
        self.expired = True
        for sock in (self._socket, getattr(self._connection, "sock", None)):
            if sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own, which takes its state from under a reader.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    """A connection that a `_Watch` can cut."""

    watch: _Watch

    def connect(self) -> None:
        self.watch.connecting(self)
        super().connect()
        self.watch.connected(self.sock)


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    """The same with TLS; the handshake counts as connecting."""


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http and https. Redirects and statuses are left to the caller."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._plain, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._tls, request)

    def _plain(self, host: str, /, **options: Any) -> _Connection:
        connection = _Connection(host, **options)
        connection.watch = self._watch
        return connection

    def _tls(self, host: str, /, **options: Any) -> _TlsConnection:
        connection = _TlsConnection(host, context=ssl.create_default_context(), **options)
        connection.watch = self._watch
        return connection


class _Download:
    """One file on its way; `fetch` holds its lock."""

    def __init__(
        self,
        url: str,
        destination: Path,
        progress: OnProgress | None,
        timeout_s: float,
        retries: int,
        pause_s: float,
        most_bytes: int,
    ) -> None:
        self.url = url
        self.destination = destination
        self.part = destination.with_name(f"{destination.name}.part")
        self.note = destination.with_name(f"{destination.name}.part.json")
        self._progress = progress
        self._timeout_s = timeout_s
        self._connect_s = min(timeout_s, _LONGEST_CONNECT_S)
        self._retries = retries
        self._pause_s = pause_s
        self._most_bytes = most_bytes
        self.replaced: Path | None = None  # what was at the destination
        self._answered = False  # whether any server ever answered
        self._glued = False  # whether the part is of more than one reply
        try:
            self._split: SplitResult = urlsplit(url)
            _origin(self._split)
        except ValueError:
            self.fail("the URL cannot be read")
        self.scheme = self._split.scheme.lower()

    # The whole ---------------------------------------------------------------------------

    def run(self, watch: _Watch, verify: Callable[[Path], None]) -> None:
        """Download, verify, and give the file its name."""
        for anew in (False, True):
            self._get(watch)
            try:
                verify(self.part)
                break
            except CheckpointError as error:
                if self._glued and not anew:
                    # The pieces may be of two files under one tag: once more, from the start.
                    self._discard()
                    continue
                aside = self.set_aside(self.part)
                self.note.unlink(missing_ok=True)
                raise CheckpointError(
                    f"{self.destination.name} from {shown(self.url)} was refused: "
                    f"{error.message}; it was not opened and is set aside as {aside}",
                    remedy=self._by_hand(),
                ) from error
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.destination)
        self.note.unlink(missing_ok=True)

    def set_aside(self, path: Path) -> Path:
        """Take a refused file out of the way, under a name that says which file it is."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        aside = self.destination.with_name(f"{self.destination.name}.refused-{sha256[:8]}")
        os.replace(path, aside)
        return aside

    def fail(self, reason: str) -> NoReturn:
        """Raises `CheckpointError`: one line, and what to do."""
        note = self._read_note()
        # Without a validator nobody knows whether the rest would be of the same file.
        kept = self._size() if note is not None and note.validator is not None else 0
        where = f"{self.destination.name} could not be fetched from {shown(self.url)}"
        again = ""
        if self.replaced is not None:
            where += f" (in place of a wrong file, now {self.replaced})"
        if kept:
            where += f" ({_mb(kept)} of it are in {self.part})"
            again = "run again to go on from there, or "
        raise CheckpointError(f"{where}: {reason}", remedy=again + self._by_hand())

    def _by_hand(self) -> str:
        return (
            f"download it by hand from {shown(self.url)} into a folder DIR that is given by "
            "`--checkpoints=DIR`"
        )

    # Attempts ----------------------------------------------------------------------------

    def _get(self, watch: _Watch) -> None:
        """The whole file in the part, in as many attempts as it takes and may take."""
        furthest, failures, last = self._size(), 0, ""
        while True:
            try:
                watch.check(last)
                if self.scheme == "file":
                    self._copy(watch)
                else:
                    self._attempt(watch)
                return
            except _FaultError as fault:
                if not fault.again:
                    self.fail(fault.message)
                last = fault.message
                size = self._size()
                failures = 0 if size >= furthest + _FURTHER_BYTES else failures + 1
                furthest = max(furthest, size)
                if failures > self._retries:
                    tries = f", after {failures} attempts" if failures > 1 else ""
                    self.fail(fault.message + tries)
                pause = min(self._pause_s * 2 ** max(0, failures - 1), _LONGEST_PAUSE_S)
                time.sleep(max(0.0, min(pause, watch.left_s)))

    def _attempt(self, watch: _Watch) -> None:
        """One request. Raises `_FaultError` unless the part is the whole file then."""
        note = self._read_note()
        have = self._size() if note is not None else 0
        if note is not None and have and note.total == have:
            self._glued = True  # for all that is known
            return
        if note is None or note.validator is None or have > (note.total or math.inf):
            self._discard()
            note, have = None, 0
        with contextlib.closing(self._request(watch, have, note)) as reply:
            self._answered = True
            start, total = self._judge(reply, have, note)
            self._receive(watch, reply, start, total)

    def _judge(
        self, reply: http.client.HTTPResponse, have: int, note: _Note | None
    ) -> tuple[int, int | None]:
        """Where the reply's body begins in the file, and the file's length if it is known.

        A part that the reply does not go on with is discarded.
        """
        status = reply.status
        encoding = reply.headers.get("Content-Encoding", "identity").strip().lower()
        etag, modified = reply.headers.get("ETag"), reply.headers.get("Last-Modified")
        if status == 206 and note is not None and have:
            total = self._judge_range(reply, have, note)
            # A reply to If-Range may leave them out (RFC 9110, section 15.3.7).
            other = etag not in (None, note.etag) or modified not in (None, note.last_modified)
            if total is None or other or encoding != "identity":
                self._discard()
                raise _FaultError("the server went on with another file or place", again=True)
            self._glued = True
            return have, total
        if status == 416 and have:
            self._discard()
            raise _FaultError("the server's file is shorter than the part that is here", again=True)
        if status != 200:
            phrase = http.client.responses.get(status, "unknown status")
            raise _FaultError(f"HTTP {status} ({phrase})", again=status in _PASSING)
        if reply.headers.get_content_type() == "text/html":
            # Before the part is discarded: a login page must not cost what is there.
            raise _FaultError("it is a web page (a login, or a notice?), not a file", again=False)
        if not reply.chunked and reply.length is None:
            raise _FaultError(
                "the server does not say how long it is, so that an end cannot be told from a "
                "broken connection",
                again=False,
            )
        if encoding != "identity":
            raise _FaultError("the server sent it compressed, unasked", again=False)
        total = None if reply.chunked else reply.length
        if total is not None and total > self._most_bytes:
            raise _FaultError(self._over(total), again=False)
        self._discard()
        self._write_note(_Note(_sha256(self.url), etag, modified, total))
        self._glued = False
        return 0, total

    def _judge_range(self, reply: http.client.HTTPResponse, have: int, note: _Note) -> int | None:
        """The file's length from `Content-Range`, None where it is not what was asked for."""
        found = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
        if found is None:
            return None
        first, last, total = (int(group) for group in found.groups())
        if first != have or not first <= last < total or note.total not in (None, total):
            return None
        if not reply.chunked and reply.length != last - first + 1:
            return None
        return total

    def _receive(
        self, watch: _Watch, reply: http.client.HTTPResponse, start: int, total: int | None
    ) -> None:
        self._require_room(start, total)
        # Past the response for a plain body: it would not see bytes beyond the length it was told.
        stream: Any = reply if reply.chunked else reply.fp
        left = math.inf if reply.chunked or reply.length is None else reply.length
        have = start
        with self.part.open("ab" if start else "wb") as file:
            while left > 0:
                watch.check()
                with self._told(watch):
                    chunk = stream.read1(int(min(_CHUNK_BYTES, left)))
                if not chunk:
                    break
                have, left = have + len(chunk), left - len(chunk)
                if have > (self._most_bytes if total is None else total):
                    self._too_long(total)
                file.write(chunk)
                self._report(have, total)
        watch.check()  # a cut connection looks like an end
        if total is not None and have < total:
            raise _FaultError(f"it ended after {have} of {total} bytes", again=True)
        if not reply.chunked and self._goes_on(watch, reply.fp):
            self._too_long(total)

    def _goes_on(self, watch: _Watch, stream: io.BufferedIOBase) -> bool:
        """Whether more comes than the length that was announced."""
        watch.linger()
        try:
            return bool(stream.read1(1))
        except OSError:
            return False

    def _too_long(self, total: int | None) -> NoReturn:
        self._discard()
        if total is None:
            raise _FaultError(self._over(None), again=False)
        raise _FaultError(f"the server sent more than the {total} bytes it announced", again=False)

    def _over(self, total: int | None) -> str:
        length = f"; it has {_mb(total)}" if total is not None else ""
        return f"a file of more than {_mb(self._most_bytes)} is refused{length}"

    def _require_room(self, have: int, total: int | None) -> None:
        if total is None:
            return
        free = shutil.disk_usage(self.destination.parent).free
        if free < total - have:
            raise OSError(
                errno.ENOSPC,
                f"{os.strerror(errno.ENOSPC)}: {_mb(total - have)} needed, {_mb(free)} free",
                str(self.destination.parent),
            )

    def _report(self, have: int, total: int | None) -> None:
        if self._progress is not None:
            self._progress(have, total)

    # Requests ----------------------------------------------------------------------------

    def _request(self, watch: _Watch, have: int, note: _Note | None) -> http.client.HTTPResponse:
        """The last reply of a chain of redirects."""
        opener = urllib.request.OpenerDirector()
        opener.add_handler(urllib.request.ProxyHandler())
        opener.add_handler(_Handler(watch))
        opener.add_handler(urllib.request.UnknownHandler())  # raises: a proxy of another kind
        split = self._split
        for _ in range(_MOST_REDIRECTS + 1):
            host = split.netloc.rpartition("@")[2]
            request = urllib.request.Request(  # noqa: S310 -- the scheme is checked
                urlunsplit(
                    (split.scheme, host, quote(split.path, _SAFE), quote(split.query, _SAFE), "")
                ),
                headers={"User-Agent": "acceptance-tests", "Accept-Encoding": "identity"},
            )
            if _origin(split) == _origin(self._split) and "@" in self._split.netloc:
                request.add_unredirected_header("Authorization", _basic(self._split))
            if have and note is not None and note.validator:
                request.add_unredirected_header("Range", f"bytes={have}-")
                request.add_unredirected_header("If-Range", note.validator)
            watch.check()
            with self._told(watch):
                reply: http.client.HTTPResponse = opener.open(request, timeout=self._connect_s)
            if reply.status not in _REDIRECTS:
                return reply
            reply.close()  # unread: a redirect may have an endless body
            split = next_hop(split, reply.headers.get("Location"))
        raise _FaultError(f"more than {_MOST_REDIRECTS} redirects", again=False)

    @contextlib.contextmanager
    def _told(self, watch: _Watch) -> Iterator[None]:
        """Errors of the network within the block as a `_FaultError` in words."""
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError) as raised:
            watch.check()
            error: object = raised
            while isinstance(error, URLError):
                error = error.reason
            # A host that never answered is not asked again: without a network, every case of a
            # run would wait.
            again = self._answered
            match error:
                case ssl.SSLCertVerificationError():
                    text, again = f"its TLS certificate is bad: {error.verify_message}", False
                case ssl.SSLError():
                    text = f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
                case socket.gaierror():
                    text = f"the name of its host is not known here (no network?): {error.strerror}"
                case ConnectionRefusedError():
                    text = "the connection was refused"
                case TimeoutError() if watch.reached:
                    text, again = f"nothing came for {self._timeout_s:g} s", True
                case TimeoutError():
                    text = f"no connection within {self._connect_s:g} s"
                case ConnectionError():
                    text, again = "the server closed the connection", True
                case http.client.IncompleteRead():
                    text, again = "it ended early", True
                case http.client.InvalidURL() | ValueError():
                    text, again = "its URL, or that of the proxy, cannot be used", False
                case http.client.HTTPException():
                    text, again = f"the reply is not HTTP ({type(error).__name__})", True
                case OSError():
                    text = error.strerror or str(error) or type(error).__name__
                case _:
                    text = str(error)
            line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
            raise _FaultError(line[:_LONGEST_SHOWN], again=again) from raised

    def _copy(self, watch: _Watch) -> None:
        """A file of this machine; never resumed."""
        self._discard()
        if self._split.netloc.lower() not in ("", "localhost"):
            raise _FaultError("a file: URL must be of this machine: file:///...", again=False)
        source = unquote(self._split.path)
        try:
            file = open(source, "rb", opener=_without_waiting)  # noqa: SIM115 -- closed below
        except (OSError, ValueError) as error:
            raise _FaultError(
                getattr(error, "strerror", None) or str(error), again=False
            ) from error
        with file, self.part.open("wb") as part:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _FaultError("it is not a regular file", again=False)
            if status.st_size > self._most_bytes:
                raise _FaultError(self._over(status.st_size), again=False)
            self._require_room(0, status.st_size)
            have = 0
            while chunk := file.read(_CHUNK_BYTES):
                watch.check()
                have += len(chunk)
                if have > status.st_size:
                    break
                part.write(chunk)
                self._report(have, status.st_size)
        if have != status.st_size:
            self._discard()
            raise _FaultError("it changed while it was copied", again=True)

    # The part ----------------------------------------------------------------------------

    def _size(self) -> int:
        try:
            return self.part.stat().st_size
        except OSError:
            return 0

    def _discard(self) -> None:
        # The part first: a part must never be beside another's note.
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _write_note(self, note: _Note) -> None:
        self.note.write_text(json.dumps(asdict(note)) + "\n", encoding="utf-8")

    def _read_note(self) -> _Note | None:
        """The note of the part; None where it is not one, or is of another URL."""
        try:
            data = json.loads(self.note.read_text(encoding="utf-8"))
            note = _Note(**data)
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        texts = (note.etag, note.last_modified)
        if not all(text is None or isinstance(text, str) for text in texts):
            return None
        if note.total is not None and type(note.total) is not int:
            return None
        return note if note.url_sha256 == _sha256(self.url) else None


_SAFE = "/%:@!$&'()*+,;=~-._?"  # what a URL may hold as it is; all else becomes %XX


def next_hop(split: SplitResult, location: str | None) -> SplitResult:
    """Where a redirect leads. Raises `_FaultError` where it must not lead."""
    if not location:
        raise _FaultError("it redirects to nowhere", again=False)
    try:
        target = urlsplit(urljoin(urlunsplit(split), location))
        _origin(target)
    except ValueError as error:
        raise _FaultError("it redirects to a URL that cannot be read", again=False) from error
    to = shown(urlunsplit(target))
    if target.scheme not in ("http", "https") or not target.hostname:
        raise _FaultError(f"it redirects to {to}, which is not followed", again=False)
    if split.scheme == "https" and target.scheme == "http":
        raise _FaultError(f"it redirects from https to http ({to}); not followed", again=False)
    return target


def _origin(split: SplitResult) -> tuple[str, str | None, int | None]:
    scheme = split.scheme.lower()
    return scheme, split.hostname, split.port or {"http": 80, "https": 443}.get(scheme)


def _basic(split: SplitResult) -> str:
    pair = f"{unquote(split.username or '')}:{unquote(split.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would be waited for


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
