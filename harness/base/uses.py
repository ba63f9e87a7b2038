"""Which entries of a store are in use, by any process: a shared lock on one byte for each.

They are byte ranges of one file, locked by its open description (fcntl(2), F_OFD_SETLK): one
descriptor serves any number of entries, and the kernel frees them with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.base.files import open_regular
from harness.base.locks import LockTimeout

_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid


class Uses:
    """What one store uses, until the object or its process is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._opening = threading.Lock()  # threads of a process share one

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self._fd >= 0:
            close(self._fd)

    def hold(self, name: str) -> None:
        """Mark an entry as used, where the store can be written."""
        for _ in range(100):  # somebody who removes it renames it, and is done
            if self._locked(fcntl.F_RDLCK, name):
                break
            time.sleep(0.01)

    def drop(self, name: str) -> None:
        """Mark an entry as not used by this object."""
        self._locked(fcntl.F_UNLCK, name)

    @contextlib.contextmanager
    def none_of(self, name: str) -> Iterator[None]:
        """Keep others from using an entry for the length of a `with` block.
        Raises `LockTimeout`: somebody uses it.
        """
        if not self._locked(fcntl.F_WRLCK, name):
            raise LockTimeout(self._path, "a process that uses the entry", 0.0)
        try:
            yield
        finally:
            self.drop(name)

    def _locked(self, kind: int, name: str) -> bool:
        """Return whether nobody stands against it."""
        at = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        try:
            with self._opening:
                if self._fd < 0:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._fd = self._opened()
            wanted = struct.pack(_FLOCK, kind, os.SEEK_SET, at, 1, 0)
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, wanted)
        except BlockingIOError:
            return False
        except OSError:  # a file system without such locks, a store of others
            pass
        return True

    def _opened(self) -> int:
        try:
            return open_regular(self._path, os.O_RDWR | os.O_CREAT)
        except PermissionError:  # another user's, which can be marked all the same
            return open_regular(self._path, own=True)
