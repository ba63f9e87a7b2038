"""Small pictures of images whose predictions flipped, kept in the run directory.

They are made when a run writes its report, while its images are at hand, and lie in `thumbs/`
under names that are ours: a later rendering needs no images, and reads no file that a record
names. An image is only opened below the root that the record gives, through no link out of it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import stat
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from harness.base import files
from harness.base.errors import RecordError
from harness.records.lines import RunCheckLine
from harness.records.observed import ImagesInfo
from harness.records.reader import RunRecords

THUMBS = "thumbs"
EDGE = 96  # pixels
QUALITY = 60
LARGEST = 12_000  # bytes of one thumbnail
PAGE_TOTAL = 400_000  # characters of all thumbnails on a page
FOR_EACH = 20  # of one case or check
MOST_MADE = 200
MOST_SECONDS = 20.0
MOST_FOLDERS = 200_000  # entries looked at for one image that is not in the root itself
MAX_FILE = 64 << 20
MAX_PIXELS = 100_000_000
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
_JPEG = b"\xff\xd8\xff"


def file_name(images: ImagesInfo, name: str) -> str:
    """Return what the thumbnail of an image of a set is called: a digest, whatever its name."""
    key = f"{images.digest}\0{name}"
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()[:32] + ".jpg"


def images_of(records: RunRecords, check: RunCheckLine) -> ImagesInfo | None:
    """Return the image set that a check over accuracy cases speaks of."""
    for case in records.cases:
        if (case.check, case.model, case.target) == ("accuracy", check.model, check.target):
            return case.images
    return None


# Making ----------------------------------------------------------------------------------------


def make(records: RunRecords) -> int:
    """Make the thumbnails that the run's report will show; those that are there are kept.

    Returns how many were made. An image that cannot be read has none: nothing here is an error.
    """
    folder = records.directory / THUMBS
    deadline = time.monotonic() + MOST_SECONDS
    made = 0
    for images, name in _wanted(records):
        if made >= MOST_MADE or time.monotonic() > deadline:
            break
        target = folder / file_name(images, name)
        if target.exists():
            continue
        picture = thumbnail(images, name)
        if picture and _write(target, picture):
            made += 1
    return made


def _wanted(records: RunRecords) -> Iterator[tuple[ImagesInfo, str]]:
    flipped: list[tuple[ImagesInfo | None, list[str]]] = [
        (images_of(records, check), [one.name for one in check.verdict.batch_flips])
        for check in records.checks
        if check.verdict is not None
    ]
    flipped += [
        (case.images, [one.name for one in case.accuracy.fidelity.flips])
        for case in records.cases
        if case.accuracy is not None and case.accuracy.fidelity is not None
    ]
    seen = set()
    for images, names in flipped:
        for name in names[:FOR_EACH] if images is not None else ():
            if images is not None and (key := file_name(images, name)) not in seen:
                seen.add(key)
                yield images, name


def thumbnail(images: ImagesInfo, name: str) -> bytes:
    """Return a JPEG of at most `EDGE` pixels a side; empty when the image cannot be had."""
    path = _below_root(images, name)
    if path is None:
        return b""
    try:
        # A pipe must not be waited for, nor a link followed that came after the check.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as stream:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_FILE:
                return b""
            return _small(stream)
    except OSError:
        return b""


def _below_root(images: ImagesInfo, name: str) -> Path | None:
    """The image's file, resolved: in the root, or in a folder at most two levels below it."""
    root = images.root
    if not os.path.isabs(root) or "\0" in root + name:
        return None
    if not name or name in (".", "..") or "/" in name:
        return None  # records name files without their folder
    try:
        top = Path(root).resolve(strict=True)
        if top == Path(top.anchor):
            return None
        for folder in _folders(top):
            path = folder / name
            if path.exists():
                found = path.resolve(strict=True)
                return found if found.is_relative_to(top) else None
    except (OSError, RuntimeError, ValueError):
        pass
    return None


def _folders(top: Path) -> Iterator[Path]:
    """The folder, those in it, and those in these: a class folder of a split is no deeper."""
    level = [top]
    left = MOST_FOLDERS
    for depth in range(3):
        yield from level
        if depth == 2:
            return
        deeper: list[Path] = []
        for folder in level:
            with os.scandir(folder) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        break
                    if entry.is_dir(follow_symlinks=False):
                        deeper.append(Path(entry.path))
        level = sorted(deeper)


def _small(stream: io.BufferedReader) -> bytes:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(stream, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return b""
                image.draft("RGB", (EDGE, EDGE))
                small = image.convert("RGB")
            small.thumbnail((EDGE, EDGE))
            out = io.BytesIO()
            small.save(out, "JPEG", quality=QUALITY)
    except Exception:  # a decoder of a damaged file may raise anything; there is no thumbnail then
        return b""
    picture = out.getvalue()
    return picture if len(picture) <= LARGEST else b""


def _write(target: Path, picture: bytes) -> bool:
    with contextlib.suppress(OSError, RecordError):
        target.parent.mkdir(exist_ok=True)
        files.replace_file(target, picture)
        return True
    return False


# Showing ---------------------------------------------------------------------------------------


class Thumbs:
    """The thumbnails of a run directory as data URIs, within what a page may hold."""

    def __init__(self, directory: Path, total: int = PAGE_TOTAL) -> None:
        self._folder = directory / THUMBS
        self._left = total
        with contextlib.suppress(OSError, ValueError):
            self._there = self._folder.is_dir() and not self._folder.is_symlink()
            return
        self._there = False

    def uri(self, images: ImagesInfo | None, name: str) -> str:
        """Return `data:image/jpeg;base64,...`; empty where there is none, or the page is full."""
        if not self._there or images is None:
            return ""
        picture = self._read(self._folder / file_name(images, name))
        text = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}" if picture else ""
        if len(text) > self._left:
            return ""
        self._left -= len(text)
        return text

    def _read(self, path: Path) -> bytes:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as stream:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return b""
                picture = stream.read(LARGEST + 1)
        except OSError:
            return b""
        return picture if picture.startswith(_JPEG) and len(picture) <= LARGEST else b""
