"""sha256 of image files, remembered: nobody wants to hash 50,000 unchanged files every night."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from harness.base.errors import DataError, RecordError, some
from harness.base.files import regular_text, replace_file
from harness.base.host import cores
from harness.base.store import file_digest

T = TypeVar("T")
COPY_AGAIN = "copy the files again, or take them out of the set"


@dataclass(frozen=True)
class FileDigests:
    """A folder of digests by path, size and times of change, a JSON file for each list of images,
    after the digest of its text.

    One that is damaged or cannot be written is only a slower start.
    """

    folder: Path

    def of(self, files: Sequence[Path]) -> list[str]:
        """Return the digest of each file, in order.

        Raises:
            DataError: files that cannot be read, by name.
        """
        names = [os.fspath(file) for file in files]
        listed = hashlib.sha256(os.fsencode("\0".join(names))).hexdigest()[:32]
        memory = self.folder / f"{listed}.json"
        stats = _all(_tried(Path.stat, file) for file in files)
        keys = [
            f"{name} {s.st_size}-{s.st_mtime_ns}-{s.st_ctime_ns}-{s.st_ino}"
            for name, s in zip(names, stats, strict=True)
        ]
        known = _recalled(memory)
        missing = [i for i, key in enumerate(keys) if key not in known]
        with ThreadPoolExecutor(cores()) as pool:
            digests = _all(pool.map(partial(_tried, file_digest), [files[i] for i in missing]))
        known |= {keys[i]: digest for i, digest in zip(missing, digests, strict=True)}
        found = {key: known[key] for key in keys}
        if missing:
            with suppress(OSError, RecordError):
                self.folder.mkdir(parents=True, exist_ok=True)
                text = json.dumps(found)
                replace_file(memory, f"{_digest(text)}\n{text}")
        return [found[key] for key in keys]


def _recalled(memory: Path) -> dict[str, str]:
    try:
        written, _, text = regular_text(memory).partition("\n")
    except (OSError, ValueError):
        return {}
    digests: dict[str, str] = json.loads(text) if _digest(text) == written else {}
    return digests


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tried(ask: Callable[[Path], T], file: Path) -> T | DataError:
    try:
        return ask(file)
    except OSError as error:
        why = f"image {file}: cannot be read: {error.strerror or error}"
        return DataError(why, remedy=COPY_AGAIN)


def _all(answers: Iterable[T | DataError]) -> list[T]:
    """Return the answers. Raises `DataError`, of all that are one."""
    given = list(answers)
    if refused := [one for one in given if isinstance(one, DataError)]:
        raise unusable(refused)
    return [one for one in given if not isinstance(one, DataError)]


def unusable(errors: Sequence[DataError]) -> DataError:
    """Return one error for all images that cannot be used."""
    files = [file for error in errors for file in error.files or (error.message,)]
    one = errors[0] if len(files) == 1 else None
    text = one.message if one else f"{len(files):,} images cannot be used: {some(files)}"
    return DataError(text, remedy=one.remedy if one else COPY_AGAIN, files=files)
