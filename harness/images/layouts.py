"""Recognise how image files lie in a folder.

A recogniser is a function of a folder that gives the images in it, or `None` where it sees
another layout. It raises `DataError` where it knows the layout and something in it is wrong.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import DataError, some
from harness.images.synsets import WNID

FOLDERS = (".", "val", "ILSVRC2012_img_val")
"""Where the images may lie below the folder that is named."""

WHAT_IS_WANTED = (
    "name a folder that holds ILSVRC2012_val_*.JPEG or the 1000 WNID folders (n01440764/...), "
    "itself or in val/ or ILSVRC2012_img_val/, or images of your own and their label file"
)

_VAL_NAME = re.compile(r"ILSVRC2012_val_\d+\.jpe?g", re.IGNORECASE | re.ASCII)
_SUFFIXES = (".jpeg", ".jpg", ".png")
_TRAINING_NAME = re.compile(r"n\d{8}_\d+\.jpe?g", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Layout:
    """The image files of a folder.

    name: the layout in words.
    paths: sorted by file name; names are unique, also without their suffix.
    folders: every class folder, sorted, those without an image included; none in a flat folder.
    """

    folder: Path
    name: str
    paths: tuple[Path, ...]
    folders: tuple[str, ...] = ()


def find(root: Path) -> Layout:
    """Return the one layout of images in `root` or in one of `FOLDERS` below it.

    Raises:
        DataError: no folder, no layout or more than one, or something wrong in the one there is.
        OSError: a folder that cannot be read.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"the image folder {root} {what}", remedy=WHAT_IS_WANTED)
    places = (root / name for name in FOLDERS)
    # One folder under two names, by a link, is one folder.
    folders = {place.resolve(): place for place in places if place.is_dir()}.values()
    layouts = [
        layout
        for folder in folders
        for recognise in (flat, wnid_folders)
        if (layout := recognise(folder)) is not None
    ]
    # Last: a picture of a README beside val/ is no data set.
    layouts = layouts or [layout for folder in folders if (layout := own(folder)) is not None]
    if not layouts:
        inside = some(sorted(entry.name for entry in entries(root)))
        raise DataError(
            f"no known layout of images in {root}, which holds {inside or 'nothing'}",
            remedy=WHAT_IS_WANTED,
        )
    if len(layouts) > 1:
        listed = ", ".join(f"{layout.folder} ({layout.name})" for layout in layouts)
        raise DataError(
            f"images in more than one place: {listed}",
            remedy="name the one that is meant, or sort the rest of the images too",
        )
    return layouts[0]


def flat(folder: Path) -> Layout | None:
    """`ILSVRC2012_val_*.JPEG` in one folder, as all five guides have them."""
    if not any(_VAL_NAME.fullmatch(entry.name) for entry in entries(folder)):
        return None
    return Layout(folder, "flat folder", _images(folder, [folder]))


def own(folder: Path) -> Layout | None:
    """Return the images of a folder, whatever they are called: a data set of one's own."""
    paths = _images(folder, [folder])
    return Layout(folder, "flat folder of your own images", paths) if paths else None


def wnid_folders(folder: Path) -> Layout | None:
    """Return the images sorted into folders named by WNID, as torchvision's `ImageNet` has them."""
    names = sorted(e.name for e in entries(folder) if WNID.fullmatch(e.name) and e.is_dir())
    paths = _images(folder, [folder / name for name in names])
    if not paths:
        return None
    plural = "s" if len(names) > 1 else ""
    return Layout(folder, f"{len(names)} WNID folder{plural}", paths, tuple(names))


def stem(name: str) -> str:
    """An image's name without its folder and suffix: up to the first dot, as the guides cut it."""
    return name.rsplit("/", 1)[-1].split(".", 1)[0]


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, in no order."""
    with os.scandir(folder) as iterator:
        return list(iterator)


def _images(root: Path, folders: Sequence[Path]) -> tuple[Path, ...]:
    """Every image of some folders, sorted by name. A name that begins with a dot is no image."""
    images = [
        entry
        for folder in folders
        for entry in entries(folder)
        if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(".")
    ]
    images.sort(key=lambda entry: (entry.name, entry.path))
    stems = Counter(stem(entry.name) for entry in images)
    faults = {
        "are no files, but a folder or a broken link": (
            [entry for entry in images if not entry.is_file()],
            "take them away, or put the files in their place",
        ),
        "are named as training images": (
            [entry for entry in images if _TRAINING_NAME.fullmatch(entry.name)],
            "name the folder of the validation images: a score on images that the network was "
            "trained on says nothing",
        ),
        "have names that are not UTF-8": (  # names go into records, which are text
            [entry for entry in images if _printable(entry.name) != entry.name],
            "rename them: ImageNet's are ASCII",
        ),
        "have the same name, apart from the suffix": (
            [entry for entry in images if stems[stem(entry.name)] > 1],
            "keep one of each",
        ),
    }
    for what, (wrong, remedy) in faults.items():
        if wrong:
            names = [_printable(os.path.relpath(entry.path, root)) for entry in wrong]
            raise DataError(
                f"{len(wrong)} of {len(images)} images in {root} {what}: {some(names)}",
                remedy=remedy,
            )
    return tuple(Path(entry.path) for entry in images)


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()
