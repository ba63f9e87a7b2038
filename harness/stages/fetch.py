"""Download one file: bounded, resumed, and verified before it has its name.

What arrives goes to `NAME.part`, and gets its name by one rename after the caller's check. An
attempt goes on where the one before it ended, if the server still has the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from harness.base.errors import CheckpointError
from harness.base.files import open_binary, open_regular
from harness.base.locks import LockTimeout, OnWait, locked

if TYPE_CHECKING:
    import httpx2

_CONNECT_S = 15.0  # a firewall that drops packets is noticed sooner than a slow server
_MOST_REDIRECTS = 5
_LONGEST_TEXT = 300  # characters of a URL or a reason in a message
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that another attempt may not meet

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Limits:
    """Bounds of one download.

    timeout_s: no byte for so long ends an attempt.
    deadline_s: the whole call ends after so long, waiting for another process included.
    retries: further attempts in a row that get no further than those before.
    pause_s: pause before a retry.
    most_bytes: a longer file is refused.
    """

    timeout_s: float = 60.0
    deadline_s: float = 3600.0
    retries: int = 4
    pause_s: float = 5.0
    most_bytes: int = 2 << 30


DEFAULTS = Limits()


def fetch(
    url: str,
    destination: Path,
    *,
    verify: Callable[[Path], None],
    progress: OnProgress = lambda done, total: None,
    on_wait: OnWait | None = None,
    limits: Limits = DEFAULTS,
) -> Path:
    """Fetch `url` (https or http) to `destination` and return it; at once when it is there.

    Two processes never download one file twice: the second waits for the first and takes its
    result. What `verify` refuses is set aside as `NAME.refused-SHA8`, where SHA8 are the first
    digits of its sha256; a wrong file at `destination` is set aside and fetched anew.

    Args:
        verify: raises `CheckpointError` for another file; its message completes "NAME was
            refused: ".
        progress: gets the bytes that are there and their number in all, from any thread.
        on_wait: gets the holder of the lock, in words, every few seconds of waiting.

    Raises:
        CheckpointError: the file was not fetched or was refused.
    """
    job = _Download(url, destination, progress, limits)
    ends = time.monotonic() + limits.deadline_s
    lock = destination.with_name(f"{destination.name}.lock")
    what = f"the download of {destination.name}"
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, timeout_s=limits.deadline_s, what=what, on_wait=on_wait):
            if os.path.lexists(destination):
                try:
                    verify(destination)
                    return destination
                except CheckpointError:
                    job.set_aside(destination)
            try:
                job.run(ends)
                job.publish(verify)
            finally:
                job.part.unlink(missing_ok=True)
    except LockTimeout as error:
        raise job.failure(f"{error.holder} did not end within {limits.deadline_s:g} s") from error
    except _Fault as fault:
        raise job.failure(fault.message) from fault
    except OSError as error:  # of the disk; those of the network become a `_Fault`
        place = error.filename or destination.parent
        raise job.failure(f"{place}: {error.strerror or error}") from error
    return destination


def shown(url: str) -> str:
    """`url` for messages: without user, password and the values of its query."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        text = urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return "(a URL that cannot be read)"
    return _one_line(text + ("?..." if parts.query else ""))


class _Fault(Exception):
    """Why an attempt failed; `again`: another one may go better."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.message, self.again = message, again


@dataclass
class _Download:
    """One file on its way; `fetch` holds its lock."""

    url: str
    destination: Path
    progress: OnProgress
    limits: Limits
    validator: str = ""  # of what the part is a part of, for `If-Range`; empty: it cannot go on
    total: int = 0

    @property
    def part(self) -> Path:
        return self.destination.with_name(f"{self.destination.name}.part")

    def run(self, ends: float) -> None:
        """Get the whole file into the part, in as many attempts as it takes."""
        import httpx2

        if not self.url.lower().startswith(("https://", "http://")):
            raise _Fault("it must begin with https:// or http://")
        furthest = failures = 0
        while True:
            try:
                return self._attempt(ends)
            except _Fault as error:
                fault = error
            except httpx2.TransportError as error:
                # A host that never answered is not asked again: each case would cost a minute
                # without a network.
                unreached = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                reason = _one_line(f"{type(error).__name__}: {error}")
                fault = _Fault(reason, again=self.total > 0 or not unreached)
            except (httpx2.InvalidURL, ValueError, ImportError, RuntimeError):
                fault = _Fault("its URL, or that of the proxy, cannot be used")
            size = self._size()
            failures = 0 if size > furthest else failures + 1
            furthest = max(furthest, size)
            # Whatever a connection that the deadline closed under its reader was called.
            if time.monotonic() + (self.limits.pause_s if fault.again else 0.0) >= ends:
                raise _Fault(f"it did not end within {self.limits.deadline_s:g} s")
            if not fault.again:
                raise fault
            if failures > self.limits.retries:
                raise _Fault(f"{fault.message}, after {failures} attempts")
            time.sleep(self.limits.pause_s)

    def publish(self, verify: Callable[[Path], None]) -> None:
        """Verify the part and give it the file's name."""
        try:
            verify(self.part)
        except CheckpointError as error:
            aside = self.set_aside(self.part)
            raise CheckpointError(
                f"{self.destination.name} from {shown(self.url)} was refused: {error.message}; "
                f"it was not opened and is set aside as {aside}",
                remedy=self._by_hand(),
            ) from error
        with open_binary(self.part) as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.destination)

    def set_aside(self, path: Path) -> Path:
        """Take a refused file out of the way, under a name that says which file it is."""
        with open_binary(path) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        aside = self.destination.with_name(f"{self.destination.name}.refused-{sha256[:8]}")
        os.replace(path, aside)
        return aside

    def failure(self, reason: str) -> CheckpointError:
        where = f"{self.destination.name} could not be fetched from {shown(self.url)}"
        return CheckpointError(f"{where}: {reason}", remedy=self._by_hand())

    def _by_hand(self) -> str:
        return (
            f"download it by hand from {shown(self.url)} into a folder DIR that is given by "
            "`--checkpoints=DIR`"
        )

    def _attempt(self, ends: float) -> None:
        """One request. The part is the whole file afterwards, or an exception is raised."""
        import httpx2

        have = self._size() if self.validator else 0
        headers = {"User-Agent": "acceptance-tests", "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self.validator}
        client = httpx2.Client(
            # OpenSSL's own certificates, so that SSL_CERT_FILE names others.
            verify=ssl.create_default_context(),
            timeout=httpx2.Timeout(
                self.limits.timeout_s, connect=min(self.limits.timeout_s, _CONNECT_S)
            ),
        )
        # At the deadline the connection is closed under the reader, also one that drips.
        alarm = threading.Timer(ends - time.monotonic(), client.close)
        alarm.daemon = True
        alarm.start()
        try:
            with client, contextlib.closing(self._open(client, headers)) as response:
                if response.status_code == 206 and have:
                    # Of the same file, by `If-Range`; perhaps of another place in it.
                    rest = f"bytes {have}-{self.total - 1}/{self.total}"
                    if response.headers.get("Content-Range") != rest:
                        self.part.unlink(missing_ok=True)
                        raise _Fault("the server went on at another place", again=True)
                else:
                    self._begin(response)
                    have = 0
                flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if have else os.O_TRUNC)
                with open(open_regular(self.part, flags), "ab") as file:
                    for chunk in response.iter_raw():
                        have += len(chunk)
                        file.write(chunk)
                        self.progress(have, self.total)
        finally:
            alarm.cancel()
        if have != self.total:
            raise _Fault(f"it ended after {have} of {self.total} bytes", again=True)

    def _open(self, client: httpx2.Client, headers: dict[str, str]) -> httpx2.Response:
        """Return the last response of a chain of redirects, its body unread."""
        request = client.build_request("GET", self.url, headers=headers)
        for _ in range(_MOST_REDIRECTS + 1):
            response = client.send(request, stream=True)
            if response.next_request is None:
                return response
            response.close()  # unread: a redirect may have an endless body
            target = response.next_request.url
            schemes = ("https",) if request.url.scheme == "https" else ("https", "http")
            if target.scheme not in schemes:
                raise _Fault(f"it redirects to {shown(str(target))}, which is not followed")
            request = response.next_request
        raise _Fault(f"more than {_MOST_REDIRECTS} redirects")

    def _begin(self, response: httpx2.Response) -> None:
        """Refuse a reply that is no whole file; otherwise begin a new part with it."""
        status, headers = response.status_code, response.headers
        if status != 200:
            reason = f"HTTP {status} ({response.reason_phrase or 'unknown status'})"
            raise _Fault(reason, again=status in _PASSING)
        if headers.get("Content-Type", "").startswith("text/html"):
            raise _Fault("it is a web page (a login, or a notice?), not a file")
        length = headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _Fault("the server does not say how long it is: its end could not be told")
        if int(length) > self.limits.most_bytes:
            size, most = int(length) / 1e6, self.limits.most_bytes / 1e6
            raise _Fault(f"a file of more than {most:.1f} MB is refused; it has {size:.1f} MB")
        self.validator, self.total = _validator(headers), int(length)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def _validator(headers: httpx2.Headers) -> str:
    """A strong ETag or a date, for `If-Range`, which takes no weak tag (RFC 9110, 13.1.5)."""
    etag = str(headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_TEXT]
