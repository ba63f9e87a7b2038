"""Recognise how image files lie in a folder.

A recogniser is a function of a folder that gives the images in it, or `None` where it sees
another layout. It raises `DataError` where it knows the layout and something in it is wrong. A
new layout is a new function in `RECOGNISERS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import DataError, some
from harness.images.synsets import WNID

FOLDERS = (".", "val", "ILSVRC2012_img_val")
"""Where the images may lie below the folder that is named."""

VAL_NAME = re.compile(r"ILSVRC2012_val_\d+\.jpe?g", re.IGNORECASE | re.ASCII)

WHAT_IS_WANTED = (
    "name a folder that holds ILSVRC2012_val_*.JPEG or the 1000 WNID folders (n01440764/...), "
    "itself or in val/ or ILSVRC2012_img_val/"
)

_SUFFIXES = (".jpeg", ".jpg", ".png")
_TRAINING_NAME = re.compile(r"n\d{8}_\d+\.jpe?g", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Layout:
    """The image files of a folder.

    name: the layout in words.
    paths: sorted by file name; names are unique, also without their suffix.
    wnids: name of the class folder of each file, in the order of `paths`; none in a flat folder.
    folders: every class folder, sorted, those without an image included.
    """

    folder: Path
    name: str
    paths: tuple[Path, ...]
    wnids: tuple[str, ...] = ()
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
        for recognise in RECOGNISERS
        if (layout := recognise(folder)) is not None
    ]
    if not layouts:
        inside = some(sorted(entry.name for entry in entries(root)))
        raise DataError(
            f"no known layout of images in {root}, which holds {inside or 'nothing'}",
            remedy=WHAT_IS_WANTED,
        )
    if len(layouts) > 1:
        listed = ", ".join(f"{layout.folder} ({layout.name})" for layout in layouts)
        half_sorted = len({layout.folder for layout in layouts}) == 1
        raise DataError(
            f"images in more than one place: {listed}",
            remedy="sort the rest of the images too"
            if half_sorted
            else "name the one that is meant",
        )
    return layouts[0]


def flat(folder: Path) -> Layout | None:
    """`ILSVRC2012_val_*.JPEG` in one folder, as all five guides have them."""
    inside = entries(folder)
    if not any(VAL_NAME.fullmatch(entry.name) for entry in inside):
        return None
    return Layout(folder, "flat folder", _images(folder, {folder: inside}))


def wnid_folders(folder: Path) -> Layout | None:
    """The images sorted into folders named by WNID, as torchvision's `ImageNet` has them."""
    folders = sorted(
        entry.name for entry in entries(folder) if WNID.fullmatch(entry.name) and entry.is_dir()
    )
    paths = _images(folder, {folder / name: entries(folder / name) for name in folders})
    if not paths:
        return None
    wnids = tuple(path.parent.name for path in paths)
    plural = "s" if len(folders) > 1 else ""
    return Layout(folder, f"{len(folders)} WNID folder{plural}", paths, wnids, tuple(folders))


Recogniser = Callable[[Path], Layout | None]

RECOGNISERS: tuple[Recogniser, ...] = (flat, wnid_folders)


def stem(name: str) -> str:
    """An image's name without its folder and suffix: up to the first dot, as the guides cut it."""
    return name.rsplit("/", 1)[-1].split(".", 1)[0]


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, in no order."""
    with os.scandir(folder) as iterator:
        return list(iterator)


def _images(root: Path, folders: dict[Path, list[os.DirEntry[str]]]) -> tuple[Path, ...]:
    """Every image of some folders, sorted by name. A name that begins with a dot is no image."""
    images = sorted(
        (
            (folder, entry)
            for folder, inside in folders.items()
            for entry in inside
            if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(".")
        ),
        key=lambda pair: (pair[1].name, pair[1].path),
    )
    paths = tuple(folder / entry.name for folder, entry in images)
    odd = [
        str(path.relative_to(root))
        for path, (_, entry) in zip(paths, images, strict=True)
        if not entry.is_file()
    ]
    if odd:
        raise DataError(
            f"named as images in {root}, but no files (a folder or a broken link?): {some(odd)}",
            remedy="take them away, or put the files in their place",
        )
    training = [path.name for path in paths if _TRAINING_NAME.fullmatch(path.name)]
    if training:
        raise DataError(
            f"{len(training)} images in {root} are named as training images: {some(training)}",
            remedy="name the folder of the validation images: a score on images that the "
            "network was trained on says nothing",
        )
    # Names go into records and lists of images, which are text.
    undecodable = [ascii(path.name) for path in paths if not _is_text(path.name)]
    if undecodable:
        raise DataError(
            f"names of images in {root} that are not UTF-8: {some(undecodable)}",
            remedy="rename them: ImageNet's are ASCII",
        )
    first: dict[str, Path] = {}
    twice: list[str] = []
    for path, (_, entry) in zip(paths, images, strict=True):
        other = first.setdefault(stem(entry.name), path)
        if other is not path:
            twice.append(f"{other.relative_to(root)} and {path.relative_to(root)}")
    if twice:
        raise DataError(
            f"images of the same name in {root}, apart from the suffix: {some(twice)}",
            remedy="keep one of each",
        )
    return paths


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
