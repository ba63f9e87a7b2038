"""Download one file: bounded, resumed, and verified before it has its name.

What arrives goes to `NAME.part`, which gets the name by one rename after the caller's check. An
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
    retries: further attempts in a row that get no further, each after a pause of `pause_s`.
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
) -> None:
    """Fetch `url` (https or http) to `destination`, unless the right file is there.

    Two processes never download one file twice: the second waits for the first and takes its
    result. What `verify` refuses is set aside as `NAME.refused-SHA8`, where SHA8 are the first
    digits of its sha256.

    Args:
        verify: raises `CheckpointError` for another file; its message completes "NAME was
            refused: ".
        progress: gets the bytes that are there and their number in all.
        on_wait: gets the holder of the lock, in words, every few seconds of waiting.

    Raises `CheckpointError`: the file was not fetched or was refused.
    """
    ends = time.monotonic() + limits.deadline_s
    name, source = destination.name, shown(url)
    part = destination.with_name(f"{name}.part")
    remedy = f"download it by hand from {source} into a folder DIR: `--checkpoints=DIR`"
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with locked(
            destination.with_name(f"{name}.lock"),
            timeout_s=limits.deadline_s,
            what=f"the download of {name}",
            on_wait=on_wait,
        ):
            if os.path.lexists(destination):
                try:
                    return verify(destination)
                except CheckpointError:
                    _set_aside(destination, destination)
            try:
                _download(url, _Part(part), progress, limits, ends)
                verify(part)
                return os.replace(part, destination)
            except CheckpointError as error:
                aside = _set_aside(part, destination)
                reason = f"{error.message}; it was not opened and is set aside as {aside}"
                refused = f"{name} from {source} was refused: {reason}"
                raise CheckpointError(refused, remedy=remedy) from error
            finally:
                part.unlink(missing_ok=True)
    except LockTimeout as error:
        reason = f"{error.holder} did not end within {limits.deadline_s:g} s"
    except _Fault as error:
        reason = error.message
    except OSError as error:  # of the disk; those of the network become a `_Fault`
        reason = f"{error.filename or destination.parent}: {error.strerror or error}"
    raise CheckpointError(f"{name} could not be fetched from {source}: {reason}", remedy=remedy)


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


def _set_aside(path: Path, destination: Path) -> Path:
    """Take a refused file out of the way, under a name that says which file it is."""
    with open_binary(path) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    aside = destination.with_name(f"{destination.name}.refused-{sha256[:8]}")
    os.replace(path, aside)
    return aside


@dataclass
class _Part:
    """What has arrived; `validator` says of which file, for `If-Range`: empty, it cannot go on."""

    path: Path
    validator: str = ""

    def size(self) -> int:
        return self.path.stat().st_size if self.validator and self.path.exists() else 0


def _download(url: str, part: _Part, progress: OnProgress, limits: Limits, ends: float) -> None:
    """Get the whole file into the part, in as many attempts as it may take."""
    import httpx2

    if not url.lower().startswith(("https://", "http://")):
        raise _Fault("it must begin with https:// or http://")
    furthest = failures = 0
    while failures <= limits.retries:
        try:
            return _attempt(url, part, progress, limits, ends)
        except _Fault as error:
            fault = error
        except httpx2.TransportError as error:
            # A host that never answered is not asked again: each case would cost a minute
            # without a network.
            unreached = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            again = furthest > 0 or not unreached
            fault = _Fault(_one_line(f"{type(error).__name__}: {error}"), again=again)
        except (httpx2.InvalidURL, ValueError, ImportError, RuntimeError):
            fault = _Fault("its URL, or that of the proxy, cannot be used")
        # Whatever a connection that the deadline closed under its reader was called.
        if time.monotonic() + (limits.pause_s if fault.again else 0.0) >= ends:
            raise _Fault(f"it did not end within {limits.deadline_s:g} s")
        if not fault.again:
            raise fault
        size = part.size()
        failures = 0 if size > furthest else failures + 1
        furthest = max(furthest, size)
        time.sleep(limits.pause_s)
    raise _Fault(f"{fault.message}, after {failures} attempts")


def _attempt(url: str, part: _Part, progress: OnProgress, limits: Limits, ends: float) -> None:
    """One request. The part is the whole file afterwards, or an exception is raised."""
    import httpx2

    have = part.size()
    rest = {"Range": f"bytes={have}-", "If-Range": part.validator} if have else {}
    client = httpx2.Client(
        # OpenSSL's own certificates, so that SSL_CERT_FILE names others.
        verify=ssl.create_default_context(),
        headers={"User-Agent": "acceptance-tests", "Accept-Encoding": "identity", **rest},
        timeout=httpx2.Timeout(limits.timeout_s, connect=min(limits.timeout_s, _CONNECT_S)),
    )
    # At the deadline the connection is closed under the reader, also one that drips.
    alarm = threading.Timer(ends - time.monotonic(), client.close)
    alarm.daemon = True
    alarm.start()
    try:
        with client, contextlib.closing(_open(client, url)) as response:
            if response.status_code == 206 and have:
                total = _end_of_rest(response, part, have)
            else:
                have, total = 0, _length(response, limits.most_bytes)
                part.validator = _validator(response.headers)
            flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if have else os.O_TRUNC)
            with open(open_regular(part.path, flags), "ab") as file:
                for chunk in response.iter_raw():
                    have += len(chunk)
                    file.write(chunk)
                    progress(have, total)
                file.flush()
                os.fsync(file.fileno())
    finally:
        alarm.cancel()


def _open(client: httpx2.Client, url: str) -> httpx2.Response:
    """Return the last response of a chain of redirects, its body unread."""
    request = client.build_request("GET", url)
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


def _length(response: httpx2.Response, most: int) -> int:
    """Return how many bytes the file has; refuse a reply that is no whole file."""
    status, headers = response.status_code, response.headers
    if status != 200:
        reason = f"HTTP {status} ({response.reason_phrase or 'unknown status'})"
        raise _Fault(reason, again=status in _PASSING)
    if headers.get("Content-Type", "").startswith("text/html"):
        raise _Fault("it is a web page (a login, or a notice?), not a file")
    length = headers.get("Content-Length", "")
    if not length.isdecimal():
        raise _Fault("the server does not say how long it is: its end could not be told")
    if int(length) > most:
        size = int(length) / 1e6
        raise _Fault(f"a file of more than {most / 1e6:.1f} MB is refused; it has {size:.1f} MB")
    return int(length)


def _end_of_rest(response: httpx2.Response, part: _Part, have: int) -> int:
    """Return how many bytes the whole file has of which the rest comes."""
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else 0
    # Of the same file, by `If-Range`; perhaps of another place in it.
    if response.headers.get("Content-Range") != f"bytes {have}-{total - 1}/{total}":
        part.validator = ""
        raise _Fault("the server went on at another place", again=True)
    return total


def _validator(headers: httpx2.Headers) -> str:
    """A strong ETag or a date, for `If-Range`, which takes no weak tag (RFC 9110, 13.1.5)."""
    etag = str(headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_TEXT]
