"""sha256 of image files, remembered: nobody wants to hash 50,000 unchanged files every night."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.base.errors import DataError, some
from harness.base.host import cores
from harness.base.store import file_digest

COPY_AGAIN = "copy the files again, or take them out of the set"
T = TypeVar("T")


@dataclass(frozen=True)
class FileDigests:
    """A database of digests by path, size and times of change.

    One that is damaged, busy or cannot be written is only a slower start.
    """

    path: Path

    def of(self, files: Sequence[Path]) -> list[str]:
        """Return the digest of each file, in order.

        Raises:
            DataError: files that cannot be read, by name.
        """
        try:
            stats = [file.stat() for file in files]
            signatures = [f"{s.st_size}-{s.st_mtime_ns}-{s.st_ctime_ns}-{s.st_ino}" for s in stats]
            keys = [(str(f), signature) for f, signature in zip(files, signatures, strict=True)]
            known = self._transaction(lambda database: _recall(database, keys)) or {}
            missing = [i for i, key in enumerate(keys) if key not in known]
            with ThreadPoolExecutor(cores()) as pool:
                digests = list(pool.map(file_digest, [files[i] for i in missing]))
        except OSError as error:
            raise DataError(
                f"image {error.filename or files[0].parent}: cannot be read: "
                f"{error.strerror or error}",
                remedy=COPY_AGAIN,
            ) from error
        fresh = {keys[i]: digest for i, digest in zip(missing, digests, strict=True)}
        if fresh:
            rows = [(*key, digest) for key, digest in fresh.items()]
            self._transaction(
                lambda database: database.executemany(
                    "INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows
                )
            )
        known |= fresh
        return [known[key] for key in keys]

    def _transaction(self, step: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return the result of `step`, or None where the database cannot be used."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS digests "
                    "(path TEXT PRIMARY KEY, signature TEXT, sha256 TEXT)"
                )
                return step(database)
        except (sqlite3.Error, OSError, UnicodeError) as error:  # a path need not be UTF-8
            # Its subclasses mean a file that is busy, full or read-only; this one a damaged file.
            if type(error) is sqlite3.DatabaseError:
                with suppress(OSError):
                    self.path.unlink()
            return None


def _recall(
    database: sqlite3.Connection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    query = "SELECT sha256 FROM digests WHERE path = ? AND signature = ?"
    rows = ((key, database.execute(query, key).fetchone()) for key in keys)
    return {key: row[0] for key, row in rows if row is not None}


def unusable(paths: Sequence[Path], first: DataError) -> DataError:
    """One error for several images that cannot be used; `first` is the first one's."""
    if len(paths) == 1:
        return first
    names = some([path.name for path in paths[1:]])
    return DataError(
        f"{len(paths)} images cannot be used: {first.message}; also {names}", remedy=COPY_AGAIN
    )
