"""Small pictures of images whose predictions flipped, kept in the run directory.

They are made when a run writes its report, while its images are at hand, and lie in `thumbs/`
under names that are ours: a later rendering needs no images, and reads no file that a record
names. An image is only opened below the root that the record gives, through no link out of it.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import hashlib
import io
import os
import stat
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.base import files
from harness.base.errors import RecordError
from harness.records.lines import RunCheckLine
from harness.records.measurements import Flip
from harness.records.observed import ImagesInfo
from harness.records.reader import RunRecords
from harness.records.verdicts import BatchFlip

THUMBS = "thumbs"
EDGE = 96  # pixels
QUALITY = 60
LARGEST = 12_000  # bytes of one thumbnail
PAGE_TOTAL = 400_000  # characters of all thumbnails on a page
FOR_EACH = 20  # of one case or check
MOST_MADE = 200
MOST_SECONDS = 20.0
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
    with contextlib.suppress(OSError, RecordError):
        for images, name in _wanted(records):
            target = folder / file_name(images, name)
            if made >= MOST_MADE or time.monotonic() > deadline:
                break
            if not target.exists() and (picture := thumbnail(images, name)):
                folder.mkdir(exist_ok=True)
                files.replace_file(target, picture)
                made += 1
    return made


def _wanted(records: RunRecords) -> Iterator[tuple[ImagesInfo, str]]:
    flipped: list[tuple[ImagesInfo | None, Sequence[BatchFlip | Flip]]] = [
        (images_of(records, check), check.verdict.batch_flips)
        for check in records.checks
        if check.verdict is not None
    ]
    flipped += [
        (case.images, case.accuracy.fidelity.flips)
        for case in records.cases
        if case.accuracy is not None and case.accuracy.fidelity is not None
    ]
    for images, flips in flipped:
        if images is not None:
            yield from ((images, flip.name) for flip in flips[:FOR_EACH])


def thumbnail(images: ImagesInfo, name: str) -> bytes:
    """Return a JPEG of at most `EDGE` pixels a side; empty when the image cannot be had."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        path = _below_root(images, name)
        if path is not None:
            with _regular(path) as stream:
                return _small(stream)
    return b""


def _below_root(images: ImagesInfo, name: str) -> Path | None:
    """The image's file, resolved: in the root, or in a folder at most two levels below it."""
    # Records name files without their folder.
    if not os.path.isabs(images.root) or name in ("", ".", "..") or "/" in name:
        return None
    top = Path(images.root).resolve(strict=True)
    if top == Path(top.anchor):
        return None
    for folder in ("", "*/", "*/*/"):  # a class folder of a split is no deeper
        for path in top.glob(folder + glob.escape(name)):
            found = path.resolve(strict=True)
            if found.is_relative_to(top):
                return found
    return None


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file that is not too large.

    Raises:
        OSError: it is another; a pipe is not waited for, nor a link followed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as stream:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_FILE:
            raise OSError(f"{path} is no regular file of at most {MAX_FILE} bytes")
        yield stream


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


# Showing ---------------------------------------------------------------------------------------


class Thumbs:
    """The thumbnails of a run directory as data URIs, within what a page may hold."""

    def __init__(self, directory: Path, total: int = PAGE_TOTAL) -> None:
        self._folder = directory / THUMBS
        self._there = self._folder.is_dir() and not self._folder.is_symlink()
        self._left = total

    def uri(self, images: ImagesInfo | None, name: str) -> str:
        """Return `data:image/jpeg;base64,...`; empty where there is none, or the page is full."""
        if not self._there or images is None:
            return ""
        try:
            with _regular(self._folder / file_name(images, name)) as stream:
                picture = stream.read(LARGEST + 1)
        except OSError:
            return ""
        text = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
        if not picture.startswith(_JPEG) or len(picture) > LARGEST or len(text) > self._left:
            return ""
        self._left -= len(text)
        return text
