"""Recognise how image files lie in a folder: ImageNet's two ways, and two of one's own."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import DataError, some
from harness.images.synsets import WNID

FOLDERS = (
    *("val", "ILSVRC2012_img_val", "validation", "val/val"),
    "ILSVRC/Data/CLS-LOC/val",  # Kaggle's copy
)
"""Where the images may lie below the folder that is named, besides itself."""

WHAT_IS_WANTED = (
    "name a folder that holds ILSVRC2012_val_*.JPEG or the 1000 WNID folders (n01440764/...), "
    f"itself or in {', '.join(FOLDERS)}, or images of your own in a folder for each class, or with "
    "their label file"
)

_VAL_NAME = re.compile(r"ILSVRC2012_val_\d+(_n\d{8})?\.jpe?g", re.IGNORECASE | re.ASCII)
_WNID_IN_NAME = re.compile(r"(?<=^ILSVRC2012_val_\d{8})_(n\d{8})(?=\.|$)", re.ASCII)
_SUFFIXES = (".jpeg", ".jpg", ".png")
_OTHERS = (".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")  # ImageFolder takes most
_TRAINING_NAME = re.compile(r"n\d{8}_\d+(_n\d{8})?\.jpe?g", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Layout:
    """The image files of a folder.

    name: the layout in words.
    paths: sorted by file name, which is unique, also without its suffix; with `classes` by class.
    wnids: every class, sorted, that folders have (those without an image included) or that all
        file names have; empty where neither say the classes.
    classes: names of class folders of one's own, sorted as torchvision's `ImageFolder` does.
    """

    folder: Path
    name: str
    paths: tuple[Path, ...]
    wnids: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images: of their files, with the folder of the class where it says that."""
        if self.classes:
            return tuple(f"{path.parent.name}/{path.name}" for path in self.paths)
        return tuple(path.name for path in self.paths)


def find(root: Path) -> Layout:
    """Return the one layout of images in `root` or in one of `FOLDERS` below it. Raises
    `DataError`: no folder, no layout or more than one, or something wrong in the one there is;
    `OSError`: a folder that cannot be read.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"the image folder {root} {what}", remedy=WHAT_IS_WANTED)
    places = (root / name for name in (".", *FOLDERS))
    # One folder under two names, by a link, is one folder.
    folders = tuple({place.resolve(): place for place in places if place.is_dir()}.values())
    found = [one for place in folders for one in (_flat(place), _wnid_folders(place)) if one]
    # Last, and flat folders after class folders: a picture of a README is no data set.
    refused: list[DataError] = []
    for recognise in (_class_folders, _own):
        for place in () if found else folders:
            try:
                found += [one for one in (recognise(place),) if one]
            except DataError as error:
                refused.append(error)
    if refused and not found:
        raise refused[0]
    if not found:
        looked = ", nor in ".join(f"{place}, which holds {_content(place)}" for place in folders)
        raise DataError(f"no known layout of images in {looked}", remedy=WHAT_IS_WANTED)
    if len(found) > 1:
        listed = ", ".join(f"{layout.folder} ({layout.name})" for layout in found)
        raise DataError(
            f"images in more than one place: {listed}",
            remedy="name the one that is meant, or sort the rest of the images too",
        )
    return found[0]


def _flat(folder: Path) -> Layout | None:
    """Return `ILSVRC2012_val_*.JPEG` in one folder, as all five guides have them.

    In Hugging Face's archive each name has its WNID: `ILSVRC2012_val_00000001_n01751748.JPEG`.
    """
    if not any(_VAL_NAME.fullmatch(entry.name) for entry in entries(folder)):
        return None
    paths = _images(folder, [folder])
    if not all(_WNID_IN_NAME.search(path.name) for path in paths):
        return Layout(folder, "flat folder", paths)
    wnids = sorted({wnid_of(path) for path in paths})
    return Layout(folder, _counted(wnids, "WNID{} in the file names"), paths, tuple(wnids))


def _wnid_folders(folder: Path) -> Layout | None:
    """Return the images sorted into folders named by WNID, as torchvision's `ImageNet` has them."""
    names = sorted(e.name for e in entries(folder) if WNID.fullmatch(e.name) and e.is_dir())
    paths = _images(folder, [folder / name for name in names])
    if not paths:
        return None
    _refuse_left_out(folder, names)
    return Layout(folder, _counted(names, "WNID folder{}"), paths, tuple(names))


def _class_folders(folder: Path) -> Layout | None:
    """Return the images of one's own that are sorted into a folder for each class.

    Images of two classes may have the same name.
    """
    names = sorted(e.name for e in entries(folder) if e.is_dir() and not e.name.startswith("."))
    images = {name: _images(folder, [folder / name], own=True) for name in names}
    if not any(images.values()):
        return None
    if empty := [name for name in names if not images[name]]:
        raise DataError(
            f"{len(empty)} of {len(names)} class folders in {folder} have no image: {some(empty)}",
            remedy="put images into them, or take them away: each folder is a class",
        )
    _refuse_left_out(folder, names)
    if len(names) < 2:
        raise DataError(
            f"{folder} has one class folder alone, {names[0]}: two classes are the least",
            remedy="name the folder that holds the class folders",
        )
    paths = tuple(path for name in names for path in images[name])
    return Layout(folder, f"{len(names)} class folders", paths, classes=tuple(names))


def _own(folder: Path) -> Layout | None:
    """Return the images of a folder, whatever they are called: a data set of one's own."""
    paths = _images(folder, [folder])
    return Layout(folder, "flat folder of your own images", paths) if paths else None


def _counted(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what.format('s' if len(names) > 1 else '')}"


def _content(folder: Path) -> str:
    return some(sorted(_printable(entry.name) for entry in entries(folder))) or "nothing"


def wnid_of(path: Path) -> str:
    """Return the WNID in an image's name, else the name of its folder."""
    match = _WNID_IN_NAME.search(path.name)
    return match[1] if match else path.parent.name


def plain(name: str) -> str:
    """Return an image's file name without a WNID in it."""
    return _WNID_IN_NAME.sub("", name)


def stem(name: str) -> str:
    """Return an image's plain name without folder and suffix: up to the first dot, as the guides
    cut it.
    """
    return plain(name.rsplit("/", 1)[-1]).split(".", 1)[0]


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, in no order."""
    with os.scandir(folder) as iterator:
        return list(iterator)


def _images(root: Path, folders: Sequence[Path], *, own: bool = False) -> tuple[Path, ...]:
    """Return every image of some folders, sorted by name; one that begins with a dot is none.

    own: of one's own classes, whose images no label file names without their suffix.
    """
    images = [
        entry
        for folder in folders
        for entry in entries(folder)
        if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(".")
    ]
    images.sort(key=lambda entry: (entry.name, entry.path))
    names = {entry.path: os.path.relpath(entry.path, root) for entry in images}
    stems = Counter(() if own else (stem(entry.name) for entry in images))
    faults = {
        "are no files, but a folder or a broken link": (
            [entry for entry in images if not entry.is_file()],
            "take them away, or put the files in their place",
        ),
        "are named as training images": (
            [one for one in images if not own and _TRAINING_NAME.fullmatch(one.name)],
            "name the folder of the validation images: a score on images that the network was "
            "trained on says nothing",
        ),
        "have names that are not UTF-8": (  # names go into records, which are text
            [entry for entry in images if not _is_text(names[entry.path])],
            "rename them in UTF-8",
        ),
        "have the same name, apart from the suffix": (
            [entry for entry in images if stems[stem(entry.name)] > 1],
            "keep one of each",
        ),
    }
    for what, (wrong, remedy) in faults.items():
        if wrong:
            listed = some([_printable(names[entry.path]) for entry in wrong])
            raise DataError(
                f"{len(wrong)} of {len(images)} images in {root} {what}: {listed}", remedy=remedy
            )
    return tuple(Path(entry.path) for entry in images)


def _refuse_left_out(root: Path, names: Sequence[str]) -> None:
    """Refuse images that torchvision's `ImageFolder` would take and that are not taken here."""
    if left_out := sorted(path for name in names for path in _left_out(root, name)):
        raise DataError(
            f"{len(left_out)} images in the class folders of {root} are no JPEG or PNG, or lie "
            f"in folders below: {some(left_out)}",
            remedy="convert them, move them into the folder of their class, or take them away",
        )


def _left_out(root: Path, name: str) -> Iterator[str]:
    for place, folders, files in os.walk(root / name):
        folders[:] = [one for one in folders if not one.startswith(".")]
        suffixes = _OTHERS if Path(place) == root / name else (*_SUFFIXES, *_OTHERS)
        for file in files:
            if file.lower().endswith(suffixes) and not file.startswith("."):
                yield _printable(os.path.relpath(os.path.join(place, file), root))


def _is_text(name: str) -> bool:
    return _printable(name) == name


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()
