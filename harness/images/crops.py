"""The crop cache: each image decoded once for each distinct geometry, kept as uint8.

A chunk holds up to `CHUNK` crops, `uint8[n, S, S, 3]`, as one immutable entry of the store: it is
verified, memory-mapped and shared by batch sizes, models with equal geometry, processes and later
runs. Filling is resumable, since each chunk is published by itself. Normalising is not part of a
chunk: a quarter of the bytes, and two models may differ in mean and std alone.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.artifacts.store import Entry, Store, file_digest, source_digest
from harness.errors import DataError
from harness.images import preprocess
from harness.images.dataset import ImageSet
from harness.images.steps import Preprocessing

CHUNK = 1024

UInt8 = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Crops:
    """Crops of an image set in its order; `chunks` are memory-mapped `uint8[n, S, S, 3]`."""

    names: tuple[str, ...]
    size: int
    chunks: tuple[UInt8, ...]
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, start: int, stop: int) -> list[UInt8]:
        """Views of the crops `start:stop`, one for each chunk that they touch."""
        found = []
        while start < stop:
            chunk, offset = divmod(start, CHUNK)
            count = min(stop - start, len(self.chunks[chunk]) - offset)
            found.append(self.chunks[chunk][offset : offset + count])
            start += count
        return found


class FileDigests:
    """sha256 of image files, remembered by path, size and time of change.

    Nobody wants to hash 50,000 unchanged files every night. A memory that is damaged, busy or
    cannot be written is only a slower start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, files: Sequence[Path]) -> list[str]:
        """Digest of each file, in order. Raises `OSError` for a file that cannot be read."""
        stats = [file.stat() for file in files]
        signatures = [f"{s.st_size}-{s.st_mtime_ns}-{s.st_ino}" for s in stats]
        known = self._recall([str(file) for file in files])
        missing = [
            i for i, file in enumerate(files) if known.get(str(file), ("", ""))[0] != signatures[i]
        ]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            fresh = dict(
                zip(missing, pool.map(file_digest, [files[i] for i in missing]), strict=True)
            )
        if fresh:
            self._remember([(str(files[i]), signatures[i], sha) for i, sha in fresh.items()])
        return [fresh[i] if i in fresh else known[str(file)][1] for i, file in enumerate(files)]

    def _recall(self, paths: Sequence[str]) -> dict[str, tuple[str, str]]:
        """What is remembered: signature and digest by path."""
        known: dict[str, tuple[str, str]] = {}

        def select(connection: sqlite3.Connection) -> None:
            for start in range(0, len(paths), 500):
                part = paths[start : start + 500]
                marks = ",".join("?" * len(part))
                # Only placeholders are put into the text; the paths are parameters.
                query = f"SELECT path, signature, sha256 FROM digests WHERE path IN ({marks})"  # noqa: S608
                for path, signature, sha in connection.execute(query, part):
                    known[path] = (signature, sha)

        self._use(select)
        return known

    def _remember(self, rows: Sequence[tuple[str, str, str]]) -> None:
        self._use(
            lambda connection: connection.executemany(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows
            )
        )

    def _use(self, step: Callable[[sqlite3.Connection], object]) -> None:
        """One transaction with the memory, given up where it fails."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=60)) as connection, connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS digests "
                    "(path TEXT PRIMARY KEY, signature TEXT, sha256 TEXT)"
                )
                step(connection)
        except (sqlite3.Error, OSError, UnicodeError) as error:  # a path need not be UTF-8
            # Its subclasses mean a file that is busy, full or read-only; this one a damaged file.
            if type(error) is sqlite3.DatabaseError:
                with suppress(OSError):
                    self._path.unlink()


def crops(
    store: Store,
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    using_host: Callable[[], AbstractContextManager[None]] = nullcontext,
    progress: Progress | None = None,
) -> Crops:
    """Crops of every image, decoded where the store has none; `using_host` is held meanwhile.

    Raises:
        DataError: an image that cannot be read or decoded, by name.
    """
    try:
        digests = FileDigests(store.root / "digests.sqlite").of(images.paths)
    except OSError as error:
        raise DataError(
            f"image {error.filename or images.root}: cannot be read: {error.strerror or error}",
            remedy="copy the file again, or take it out of the set",
        ) from error
    geometry = preprocessing.model_dump(include={"resize", "crop"})
    entries: list[Entry] = []
    for start in range(0, len(images), CHUNK):
        paths = images.paths[start : start + CHUNK]
        content = hashlib.sha256("\n".join(digests[start : start + CHUNK]).encode()).hexdigest()
        inputs = {
            "images": content,
            "count": len(paths),
            "geometry": geometry,
            "pillow": metadata.version("pillow"),
            "recipe": source_digest("harness.images.preprocess", "harness.images.steps"),
        }

        def build(staging: Path, paths: Sequence[Path] = paths, start: int = start) -> str:
            with using_host():
                return _decode(staging, paths, preprocessing, start, len(images), progress)

        entries.append(store.get_or_build("crops", inputs, build))
    chunks = tuple(
        np.load(entry.file("crops.npy"), mmap_mode="r", allow_pickle=False) for entry in entries
    )
    return Crops(images.names, preprocessing.size, chunks, tuple(entries))


def _decode(
    staging: Path,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    done: int,
    total: int,
    progress: Progress | None,
) -> str:
    size = preprocessing.size
    out = np.lib.format.open_memmap(
        staging / "crops.npy", mode="w+", dtype=np.uint8, shape=(len(paths), size, size, 3)
    )

    def one(index: int) -> None:
        out[index] = preprocess.load_crop(paths[index], preprocessing)

    # Pillow releases the interpreter lock while it decodes and resizes: threads suffice.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for index, _ in enumerate(pool.map(one, range(len(paths)))):
            if progress is not None:
                progress(done + index + 1, total)
    out.flush()
    return f"{len(paths)} images, {preprocessing.describe()}"
