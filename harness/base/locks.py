"""Locks between processes: `flock` on files that name their holders.

The kernel frees such a lock when the last process that has the descriptor is gone, however it
went. A child that inherits the descriptor holds the lock too. Lock files are never deleted: two
processes would then hold "the" lock on two files of one name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.base.files import now, open_regular

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.1
NOTICE_S = 5.0  # between two calls of `on_wait`
NAMES_BYTES = 16 * 1024  # a lock file of shared holders is started afresh past this size
FOLDER_FOR_ALL = 0o1777  # as /tmp: everybody makes lock files there, nobody removes another's
SHARED = Path("/var/lib/npu-acceptance/leases")  # only root can make it

OnWait = Callable[[str], None]


class LockTimeout(TimeoutError):
    """A lock that was not free in time; `holder` says who has it, in words."""

    def __init__(self, path: Path, holder: str, seconds: float) -> None:
        super().__init__(f"{path} was not free within {seconds:g} s: held by {holder}")
        self.path = path
        self.holder = holder
        self.seconds = seconds


class FileLock:
    """One lock file, held shared or exclusive by this object or not at all.

    Two objects exclude each other within one process as between two. Not for sharing between
    threads. `for_all`: the folder may be one that the users of the host share. Only root's or our
    own is used; who may write there may lock there, whatever the umask.
    """

    def __init__(self, path: Path, *, for_all: bool = False) -> None:
        self.path = path
        self._for_all = for_all
        self._fd: int | None = None
        self._exclusive = False
        self._token = ""

    @property
    def fd(self) -> int:
        """Return the descriptor; a child that inherits it (`pass_fds`) holds the lock too."""
        assert self._fd is not None, f"{self.path} is not held"
        return self._fd

    def acquire(
        self,
        *,
        exclusive: bool = True,
        timeout_s: float = math.inf,
        what: str,
        on_wait: OnWait | None = None,
        notice_s: float = NOTICE_S,
    ) -> None:
        """Take the lock; `what` tells those who wait what it is held for.

        A blocking `flock` has no timeout: this one polls, with short pauses. `on_wait` gets the
        holder, in words, every `notice_s` seconds of waiting.

        Raises:
            LockTimeout: it was not free within `timeout_s` seconds.
            OSError: the file cannot be made or locked.
        """
        assert self._fd is None, f"{self.path} is held already"
        began = time.monotonic()
        notice = began + notice_s
        pause = FIRST_PAUSE_S
        fd = _open(self.path, self._for_all)
        try:
            while True:
                if _try(fd, exclusive):
                    if _is_current(fd, self.path):
                        break
                    # A cleaner deleted the file while we waited: others lock its successor.
                    os.close(fd)
                    fd = -1
                    fd = _open(self.path, self._for_all)
                moment = time.monotonic()
                if moment - began >= timeout_s:
                    raise LockTimeout(self.path, holder_of(self.path), timeout_s)
                if on_wait is not None and moment >= notice:
                    on_wait(holder_of(self.path))
                    notice = moment + notice_s
                time.sleep(max(0.0, min(pause, began + timeout_s - moment)))
                pause = min(1.5 * pause, LONGEST_PAUSE_S)
            token = secrets.token_hex(8)
            _sign(fd, exclusive=exclusive, what=what, token=token)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        self._fd, self._exclusive, self._token = fd, exclusive, token

    def release(self) -> None:
        """Free the lock, also where children inherited it; safe to call twice."""
        self._end(unlock=True)

    def leave(self) -> None:
        """Close our descriptor alone: children that inherited the lock go on holding it."""
        self._end(unlock=False)

    def _end(self, *, unlock: bool) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            _unsign(fd, self._token, alone=self._exclusive and unlock)
            if unlock:
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    exclusive: bool = True,
    timeout_s: float = math.inf,
    what: str,
    on_wait: OnWait | None = None,
    for_all: bool = False,
) -> Iterator[FileLock]:
    """Hold the lock at `path` during a `with` block; see `FileLock`."""
    lock = FileLock(path, for_all=for_all)
    lock.acquire(exclusive=exclusive, timeout_s=timeout_s, what=what, on_wait=on_wait)
    try:
        yield lock
    finally:
        lock.release()


@dataclass(frozen=True)
class _Holder:
    """What a holder wrote into the lock file."""

    pid: int
    host: str
    what: str
    since: str
    token: str

    def __str__(self) -> str:
        stopped = ", which is stopped: kill -CONT goes on with it" if self._is_stopped() else ""
        return f"{self.what} (process {self.pid} on {self.host}, since {self.since}{stopped})"

    def _is_stopped(self) -> bool:
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return False
        return self.host == socket.gethostname() and stat.rpartition(b") ")[2][:1] in (b"T", b"t")

    def may_live(self) -> bool:
        # Of another container it is not ours to see.
        return self.host != socket.gethostname() or os.path.exists(f"/proc/{self.pid}")


def holder_of(path: Path) -> str:
    """Return who holds the lock at `path`, in words, as far as the file tells. For messages."""
    living, gone = _read_holders(path)
    if living:
        return " and ".join(map(str, living))
    if gone:
        return f"what is left of {gone[-1]}: that process is done, a child of it may not be"
    return "a process that left no name"


def left_behind(path: Path) -> str:
    """Return whose children hold the lock at `path` after its own end, in words.

    Empty where the lock is free, or where somebody who took it may live.
    """
    try:
        fd = _open_existing(path)
    except FileNotFoundError:
        return ""
    try:
        free = _try(fd, exclusive=False)
    finally:
        os.close(fd)
    return "" if free or _read_holders(path)[0] else holder_of(path)


def lease_folder() -> Path:
    """Return the folder of device locks where none is named: what the users of this host share, if
    root has made it, else our own.
    """
    user = os.geteuid()
    if SHARED.is_dir() or (user == 0 and os.access(SHARED.parents[1], os.W_OK)):
        return SHARED
    home = Path(os.path.expanduser("~"))
    with contextlib.suppress(OSError):
        if home.stat().st_uid == user:  # others cannot prepare anything there
            return home / ".local" / "state" / "npu-acceptance" / f"leases-{socket.gethostname()}"
    return Path("/tmp", f"npu-acceptance-leases-{user}")  # noqa: S108 - refused if it is another's


def shared(folder: Path) -> bool:
    """Return whether other users can lock in a folder, or will as soon as it is made."""
    try:
        return bool(folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    except OSError:
        return os.geteuid() == 0


def _open(path: Path, for_all: bool) -> int:
    if not for_all:
        path.parent.mkdir(parents=True, exist_ok=True)
    folder = _folder_for_all(path.parent) if for_all else None
    name = path if folder is None else Path(path.name)
    try:
        try:
            return _open_existing(name, folder)
        except FileNotFoundError:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
            fd = open_regular(name, flags, dir_fd=folder)
        if folder is not None:
            with contextlib.suppress(OSError):  # a file system without modes
                os.fchmod(fd, os.fstat(folder).st_mode & 0o666)
        return fd
    except FileExistsError:  # somebody else was faster
        return _open_existing(name, folder)
    finally:
        if folder is not None:
            os.close(folder)


def _open_existing(path: Path, folder: int | None = None) -> int:
    # Without O_CREAT: in a sticky directory the kernel refuses it for the existing file of
    # another user (fs.protected_regular).
    try:
        return open_regular(path, os.O_RDWR | os.O_APPEND, dir_fd=folder)
    except PermissionError:  # another user's file: it can be locked, but not signed
        return open_regular(path, own=True, dir_fd=folder)


def _folder_for_all(folder: Path) -> int:
    """Return a descriptor of a folder in which nobody but root can remove a lock of ours.

    It is made with its parents where it is absent: by root for every user, else for us alone.
    Raises `OSError`: it is a link or cannot be made, or others could remove our locks.
    """
    ours = os.geteuid()
    for path in () if folder.is_dir() else (*reversed(folder.parents), folder):
        try:
            path.mkdir()
        except OSError:  # of a folder that is there some file systems say something else first
            if not path.is_dir():
                raise
        else:
            with contextlib.suppress(OSError):
                whole = FOLDER_FOR_ALL if ours == 0 else 0o700
                path.chmod(whole if path == folder else 0o755)
    fd = os.open(folder, os.O_PATH | os.O_NOFOLLOW)
    at = os.fstat(fd)
    # The group of a folder of our own is often ours alone.
    writers = stat.S_IWOTH | (stat.S_IWGRP if at.st_uid == 0 else 0)
    problem = ""
    if not stat.S_ISDIR(at.st_mode):
        problem = "it is a link, or no folder"
    elif at.st_uid not in (0, ours):
        problem = f"it belongs to user {at.st_uid}, who could remove a lock that is held"
    elif at.st_mode & writers and not at.st_mode & stat.S_ISVTX:
        problem = "without the sticky bit who may write in it could remove a lock that is held"
    if problem:
        os.close(fd)
        raise PermissionError(errno.EPERM, problem, str(folder))
    return fd


def _try(fd: int, exclusive: bool) -> bool:
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_current(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


# The names are written while the lock is held, one JSON line for each taking and one for each
# leaving. Whatever goes wrong with them only makes a message poorer, hence the suppressed errors.


def _sign(fd: int, *, exclusive: bool, what: str, token: str) -> None:
    holder = _Holder(os.getpid(), socket.gethostname(), what, now(), token)
    with contextlib.suppress(OSError):
        if exclusive or os.fstat(fd).st_size > NAMES_BYTES:
            os.ftruncate(fd, 0)
        os.write(fd, json.dumps(asdict(holder)).encode() + b"\n")


def _unsign(fd: int, token: str, *, alone: bool) -> None:
    with contextlib.suppress(OSError):
        if alone:
            os.ftruncate(fd, 0)
        else:
            os.write(fd, json.dumps({"left": token}).encode() + b"\n")


def _read_holders(path: Path) -> tuple[list[_Holder], list[_Holder]]:
    """Return holders that seem to live, and those that left or died, in the order of taking."""
    try:
        with open(open_regular(path, own=True), "rb") as file:
            lines = file.read(4 * NAMES_BYTES).splitlines()
    except OSError:
        return [], []
    holders: dict[str, _Holder] = {}
    left: set[str] = set()
    for line in lines:
        try:
            data: dict[str, Any] = json.loads(line)
            if "left" in data:
                left.add(str(data["left"]))
            else:
                holder = _Holder(**data)
                holders[holder.token] = holder
        except (ValueError, KeyError, TypeError):  # half a line, or not ours
            continue
    here = [holder for token, holder in holders.items() if token not in left and holder.may_live()]
    return here, [holder for holder in holders.values() if holder not in here]
