"""sha256 of image files, kept in the store: nobody wants to hash 50,000 files every night."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from harness.base.errors import DataError, StoreError, some
from harness.base.host import cores
from harness.base.stages import Stage
from harness.base.store import Store, file_digest

COPY_AGAIN = "copy the files again, or take them out of the set"
_KIND, _FILE = Stage.VERIFY, "digests.txt"


def digests_of(store: Store, files: Sequence[Path]) -> list[str]:
    """Return the digest of each file, in order; hashed anew where a path, a size or a time of
    change is another than when the store was told. A store that cannot be written is only slower.
    Raises `DataError`: files that cannot be read, by name.
    """
    known = hashlib.sha256(os.fsencode("\n".join(_each(_state, files)))).hexdigest()
    inputs = {"files": known}
    if (entry := store.get(_KIND, inputs)) is not None:
        return entry.file(_FILE).read_text().split()
    with ThreadPoolExecutor(cores()) as pool:
        digests = _each(file_digest, files, pool.map)

    def write(staging: Path) -> str:
        (staging / _FILE).write_text("\n".join(digests))
        return ""

    with suppress(StoreError):
        store.get_or_build(_KIND, inputs, write, about=f"digests of {len(files)} images")
    return digests


def _state(file: Path) -> str:
    s = file.stat()
    return f"{os.fspath(file)} {s.st_size}-{s.st_mtime_ns}-{s.st_ctime_ns}-{s.st_ino}"


def _each(
    ask: Callable[[Path], str],
    files: Iterable[Path],
    mapped: Callable[..., Iterable[str | DataError]] = map,
) -> list[str]:
    """Ask of each file. Raises `DataError` of all that cannot be read."""

    def tried(file: Path) -> str | DataError:
        try:
            return ask(file)
        except OSError as error:
            why = f"image {file}: cannot be read: {error.strerror or error}"
            return DataError(why, remedy=COPY_AGAIN)

    answers = list(mapped(tried, files))
    if refused := [one for one in answers if isinstance(one, DataError)]:
        raise unusable(refused)
    return [one for one in answers if isinstance(one, str)]


def unusable(errors: Sequence[DataError]) -> DataError:
    """Return one error for all images that cannot be used."""
    files = [file for error in errors for file in error.files or (error.message,)]
    one = errors[0] if len(files) == 1 else None
    text = one.message if one else f"{len(files):,} images cannot be used: {some(files)}"
    return DataError(text, remedy=one.remedy if one else COPY_AGAIN, files=files)
