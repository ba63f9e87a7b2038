"""The shared store: compiled models by a URL that fsspec reaches, behind the store of each host.

An entry is one object, `URL/v1/compile/KEY.parcel`. What is taken is verified by its manifest
before the host's store publishes it. Nothing that happens here ends a run: it builds what it cannot
take.
"""

from __future__ import annotations

import contextlib
import queue
import re
import secrets
import shutil
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.base import files, processes
from harness.base.errors import ConfigError, StoreError
from harness.base.stages import Stage
from harness.base.store import MANIFEST, Entry, read_entry
from harness.base.text import first_line
from harness.stages import parcels

T = TypeVar("T")
ANSWER_S = 60.0  # for an answer of any kind
BYTES_PER_S = 1e6  # the slowest transfer that is waited for
MAX_BYTES = 4 << 30  # of a parcel, which is held in memory
_PIN = re.compile(r"([0-9a-f]{32}) ([0-9a-f]{64})( .*)?")
_NO_ENTRY = (OSError, ValueError, TypeError, RecursionError, tarfile.TarError, StoreError)


@dataclass
class SharedStore:
    """A `store.Second`. `pins`: keys with the only digest that is taken; then nothing is written.

    `off`: a folder of the run that remembers what the medium refused. `note` tells people.
    """

    url: str
    pins: dict[str, str] | None
    off: Path
    note: Callable[[str], None]
    answer_s: float = ANSWER_S

    def take(self, kind: str, key: str, staging: Path) -> Entry | None:
        """Put the files of an entry into `staging` and return it; None where it is not taken."""
        if kind != Stage.COMPILE or (self.pins is not None and key not in self.pins):
            return None
        name = _name(kind, key)
        size = self._try("read", self.answer_s, lambda: _size(self.url, name))
        if size is None:
            return None
        seconds = self.answer_s + size / BYTES_PER_S
        data = self._try("read", seconds, lambda: _download(self.url, name))
        if data is None:
            return None
        # Named as what is built: if this process dies, it goes with that.
        aside = staging.with_name(f"{staging.name}0")
        try:
            aside.mkdir()
            parcels.unpack(aside, data)
            entry = read_entry(aside, kind, key)
            if self.pins is not None and entry.digest != self.pins[key]:
                raise ValueError(f"its digest {entry.digest} is not the pinned one")
            if MANIFEST in entry.files:
                raise ValueError(f"it has a file {MANIFEST}")
            for file in entry.files:
                (staging / file).parent.mkdir(parents=True, exist_ok=True)
                entry.file(file).rename(staging / file)
        except _NO_ENTRY as error:
            self.note(f"{name} of the shared store is not used: {first_line(error)}; built here")
            return None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return entry

    def give(self, entry: Entry) -> None:
        """Write an entry that was built here, for the other hosts."""
        if entry.kind != Stage.COMPILE or self.pins is not None:
            return
        place = Path(*entry.directory.parts[-3:])
        seconds = self.answer_s + entry.bytes / BYTES_PER_S

        def write() -> None:
            data = parcels.pack(entry.directory.parents[2], place)
            _upload(self.url, _name(entry.kind, entry.key), data)

        self._try("written", seconds, write)

    def _try(self, what: str, seconds: float, do: Callable[[], T]) -> T | None:
        """Do it in a thread, which nobody waits for once the time is over; None where it failed.

        Then it is said, and not tried again in this run, by none of its processes.
        """
        mark = self.off / f"shared-store-{what}"
        if mark.exists() or (self.off / "shared-store-read").exists():
            return None
        ended: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                ended.put((do(), None))
            except Exception as error:  # of any medium's library
                ended.put((None, error))

        threading.Thread(target=work, name="shared store", daemon=True).start()
        result, error = _wait(ended, seconds)
        if error is not None:
            try:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch(exist_ok=False)
            except FileExistsError:
                return None  # another process has said so
            then = "built here" if what == "read" else "what is built here stays here"
            why = first_line(error)
            self.note(f"the shared store {self.url} cannot be {what}: {why}; {then}")
        return result


def read_pins(path: Path | None) -> dict[str, str] | None:
    """Return the digest of each key that a file pins, as `cache pins` prints it.
    Raises `ConfigError`: it cannot be read, or a line is none.
    """
    if path is None:
        return None
    try:
        lines = files.regular_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--shared-store-pins={path} cannot be read: {error}", remedy="name a text file"
        ) from error
    pins = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        pin = _PIN.fullmatch(line.strip())
        if pin is None:
            raise ConfigError(
                f"{path}, line {number}: no pin", remedy="`python -m harness cache pins` has them"
            )
        pins[pin[1]] = pin[2]
    return pins


def _wait(
    ended: queue.SimpleQueue[tuple[T | None, Exception | None]], seconds: float
) -> tuple[T | None, Exception | None]:
    until = time.monotonic() + seconds
    while not processes.ending.is_set():
        with contextlib.suppress(queue.Empty):
            return ended.get(timeout=max(0.0, min(0.5, until - time.monotonic())))
        if time.monotonic() >= until:
            return None, TimeoutError(f"no answer within {seconds:.0f} s")
    return None, None


# The medium ----------------------------------------------------------------------------------


def _name(kind: str, key: str) -> str:
    return f"v1/{kind}/{key}.parcel"


def _open(url: str, name: str) -> tuple[Any, str]:
    """Return the file system of a URL and the object's path there."""
    from fsspec.core import url_to_fs  # it and what it brings are loaded when they are asked for

    system, root = url_to_fs(url)
    return system, f"{root.rstrip('/')}/{name}"


def _size(url: str, name: str) -> int | None:
    """Return the bytes of an object; None where there is none."""
    system, path = _open(url, name)
    try:
        size = system.info(path)["size"]
    except FileNotFoundError:
        return None
    if not isinstance(size, int) or size > MAX_BYTES:
        raise ValueError(f"{name} has {size} bytes")
    return size


def _download(url: str, name: str) -> bytes:
    system, path = _open(url, name)
    data = system.cat_file(path)
    assert isinstance(data, bytes)
    return data


def _upload(url: str, name: str, data: bytes) -> None:
    """Write an object so that no reader sees half of it."""
    from fsspec import AbstractFileSystem

    system, path = _open(url, name)
    if type(system).mv is AbstractFileSystem.mv:  # a copy: an object appears whole with its put
        system.pipe_file(path, data)
        return
    part = f"{path}.{secrets.token_hex(8)}.part"
    system.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        system.pipe_file(part, data)
        system.mv(part, path)
    except Exception:
        with contextlib.suppress(Exception):
            system.rm_file(part)
        if not system.exists(path):  # else another host was first, where a move replaces nothing
            raise
