"""A labelled image set: find it in a folder, read its labels, check that they belong together.

A layout is a recogniser: a function of the folder and an optional label file that gives the set,
or `None` where it sees another layout. It raises `DataError` where it knows the layout and
something in it is wrong. `find_image_set` tries them in order: a new layout is a new function.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import DataError, some

CLASS_COUNT = 1000
"""Labels count from 0 to 999, in the order of the sorted WordNet identifiers."""

VAL_LABEL = "val_label.txt"
FIXRES_LABELS = "imagenet_labels_fixres.json"
DEVKIT = "ILSVRC2012_devkit_t12"

# The right classes of ILSVRC2012_val_00000001 to 15, from the synset of each validation image
# (tensorflow/models, research/slim/datasets/imagenet_2012_validation_synset_labels.txt) and its
# place in the sorted list of synsets.
FIRST_LABELS = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332, 109, 286, 370, 757, 595)
WHOLE_SET = 50_000
IMAGES_PER_CLASS = 50

_IMAGE_FOLDERS = (".", "val", "ILSVRC2012_img_val")
_VAL_NAME = re.compile(r"ILSVRC2012_val_\d+\.jpe?g", re.IGNORECASE)
_IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
_LINE = re.compile(r"(\S+)\s+([+-]?\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes, sorted by file name.

    names: file names without folder, unique also without their suffix.
    paths: the files, in the order of `names`.
    labels: class indices in 0..999, in the order of `names`.
    layout: how the images lie in `root`, in words.
    label_source: where the labels come from, relative to `root`.
    """

    root: Path
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    layout: str
    label_source: str

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over the lines `NAME LABEL`: which images, not their bytes."""
        digest = hashlib.sha256()
        for name, label in zip(self.names, self.labels, strict=True):
            digest.update(os.fsencode(f"{name} {label}\n"))
        return digest.hexdigest()

    def select(self, limit: int | None = None) -> ImageSet:
        """The first `limit` images by name; all of them where there are no more, or for `None`.

        ImageNet's validation images are numbered in random order, so the first are a fair sample.

        Raises:
            DataError: `limit` is below 1.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise DataError(
                f"{limit} images were asked for", remedy="ask for at least one, or for no limit"
            )
        return replace(
            self,
            names=self.names[:limit],
            paths=self.paths[:limit],
            labels=self.labels[:limit],
        )


def find_image_set(root: Path, labels: Path | None = None) -> ImageSet:
    """The labelled images in the folder `root`; `labels` names their label file.

    A list of labels may cover more than the images: a part of ImageNet beside the whole list is
    a set. Without `labels` the file is looked for beside the images and above them.

    Raises:
        DataError: `root` or a file is absent or cannot be read, no layout is recognised, there
            is no image, an image has no label or two, a label is not a class, or a line is
            malformed.
    """
    try:
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            raise DataError(f"the image folder {root} {what}", remedy=_WHAT_IS_WANTED)
        for recognise in RECOGNISERS:
            found = recognise(root, labels)
            if found is not None:
                return found
        inside = some(sorted(entry.name for entry in _entries(root)))
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be read: {error.strerror or error}",
            remedy="make it readable for this user, or name another folder",
        ) from error
    raise DataError(
        f"no known layout of images in {root}, which holds {inside or 'nothing'}",
        remedy=_WHAT_IS_WANTED,
    )


def check_class_order(image_set: ImageSet) -> None:
    """Refuse real ImageNet labels in another class order than that of the sorted identifiers.

    For real sets only: a generated set has the same file names and classes of its own. Looks at
    the images of which the right class is known, and at the counts when the set is whole.

    Raises:
        DataError: a known label is another, or the classes of the whole set are uneven.
    """
    known = {f"ILSVRC2012_val_{n:08d}": label for n, label in enumerate(FIRST_LABELS, 1)}
    pairs = [
        (name, label, known[_stem(name)])
        for name, label in zip(image_set.names, image_set.labels, strict=True)
        if _stem(name) in known
    ]
    wrong = [f"{name} is {label}, not {right}" for name, label, right in pairs if label != right]
    if wrong:
        shifted = all(label == right + 1 for _, label, right in pairs)
        raise DataError(
            f"the labels in {image_set.label_source} are not in ImageNet's class order: "
            f"{some(wrong)}",
            remedy="the list counts from 1: subtract one from every label"
            if shifted
            else "use labels that count from 0 in the order of the sorted WordNet identifiers; "
            "the numbers of the development kit (ILSVRC2012_ID) are in another order",
        )
    if len(image_set) == WHOLE_SET:
        counts = Counter(image_set.labels)
        uneven = [
            f"class {label} has {counts[label]}"
            for label in range(CLASS_COUNT)
            if counts[label] != IMAGES_PER_CLASS
        ]
        if uneven:
            raise DataError(
                f"ImageNet has {IMAGES_PER_CLASS} validation images of each class; by "
                f"{image_set.label_source} {some(uneven)}",
                remedy="replace the label file",
            )


def flat_folder(root: Path, labels: Path | None) -> ImageSet | None:
    """`ILSVRC2012_val_*.JPEG` in one folder: `root`, `root/val` or `root/ILSVRC2012_img_val`.

    Labels: `val_label.txt` (guides 000, 002, 003, 004) or `imagenet_labels_fixres.json` (guide
    001), in the folder of the images, beside it, or in the development kit's folder there.
    """
    # One folder under two names, by a link, is one folder.
    folders = list(
        {
            folder.resolve(): folder
            for folder in (root / name for name in _IMAGE_FOLDERS)
            if folder.is_dir()
            and any(_VAL_NAME.fullmatch(entry.name) for entry in _entries(folder))
        }.values()
    )
    if not folders:
        return None
    if len(folders) > 1:
        raise DataError(
            f"images in more than one folder: {', '.join(map(str, folders))}",
            remedy="name the one that is meant",
        )
    folder = folders[0]
    paths = _images(folder)
    source, labels_by_stem = _labels_of(folder, labels, [_stem(path.name) for path in paths])
    return ImageSet(
        root=root,
        names=tuple(path.name for path in paths),
        paths=tuple(paths),
        labels=tuple(labels_by_stem[_stem(path.name)] for path in paths),
        layout="flat folder",
        label_source=os.path.relpath(source, root),
    )


Recogniser = Callable[[Path, Path | None], ImageSet | None]

RECOGNISERS: tuple[Recogniser, ...] = (flat_folder,)

_WHAT_IS_WANTED = (
    "name a folder that holds ILSVRC2012_val_*.JPEG, itself or in val/ or ILSVRC2012_img_val/, "
    f"with {VAL_LABEL} or {FIXRES_LABELS} beside that"
)


def _images(folder: Path) -> list[Path]:
    """Every image of a folder, sorted by name. A name that begins with a dot is no image."""
    entries = [
        entry
        for entry in _entries(folder)
        if entry.name.lower().endswith(_IMAGE_SUFFIXES) and not entry.name.startswith(".")
    ]
    odd = sorted(entry.name for entry in entries if not entry.is_file())
    if odd:
        raise DataError(
            f"named as images in {folder}, but no files (a folder or a broken link?): {some(odd)}",
            remedy="take them away, or put the files in their place",
        )
    names = sorted(entry.name for entry in entries)
    twice = [stem for stem, count in Counter(map(_stem, names)).items() if count > 1]
    if twice:
        raise DataError(
            f"images of the same name in {folder}, apart from the suffix: {some(twice)}",
            remedy="keep one of each",
        )
    return [folder / name for name in names]


def _labels_of(
    folder: Path, labels: Path | None, stems: Sequence[str]
) -> tuple[Path, dict[str, int]]:
    """The label file of the images in `folder`, and the label of each image by its stem."""
    if labels is not None:
        return labels, _read_for(labels, stems)
    sources = [path for path in _label_files(folder) if path.exists()]
    if not sources:
        raise DataError(
            f"no labels for the {len(stems)} images in {folder}",
            remedy=f"put {VAL_LABEL} or {FIXRES_LABELS} beside them, or name the label file",
        )
    first = _read_for(sources[0], stems)
    for other in sources[1:]:
        second = _read_for(other, stems)
        differ = [stem for stem in stems if first[stem] != second[stem]]
        if differ:
            raise DataError(
                f"{sources[0]} and {other} disagree on {some(differ)}",
                remedy="remove the wrong one, or name the label file",
            )
    return sources[0], first


def _label_files(folder: Path) -> Iterator[Path]:
    for place in (folder, folder.absolute().parent):
        for name in (VAL_LABEL, FIXRES_LABELS):
            yield place / name
        yield place / DEVKIT / VAL_LABEL


def _read_for(path: Path, stems: Sequence[str]) -> dict[str, int]:
    read = _read_json if path.suffix.lower() == ".json" else _read_lines
    labels = read(path, _text(path))
    missing = [stem for stem in stems if stem not in labels]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(stems)} images have no label in {path}: {some(missing)}",
            remedy="use the label file of these images, or take the images out of the set",
        )
    return {stem: labels[stem] for stem in stems}


def _read_lines(path: Path, text: str) -> dict[str, int]:
    """`val_label.txt`: lines of a file name, a space and a class index."""
    pairs: list[tuple[str, str, int]] = []
    malformed: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            malformed.append(f"line {number} {line.strip()[:60]!r}")
        else:
            pairs.append((f"line {number}", _stem(match[1]), int(match[2])))
    if malformed:
        raise DataError(
            f"malformed in {path}: {some(malformed)}",
            remedy="each line is a file name, a space and a class index: "
            "`ILSVRC2012_val_00000001.JPEG 65`",
        )
    return _checked(path, pairs)


def _read_json(path: Path, text: str) -> dict[str, int]:
    """Guide 001's `imagenet_labels_fixres.json`: an object of stems and class indices."""
    try:
        # As pairs: `json` would keep the last of two equal keys in silence.
        data = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", remedy="copy the file again") from error
    remedy = 'each entry is a name and a whole number: {"ILSVRC2012_val_00000001": 65, ...}'
    if not isinstance(data, _Pairs):
        raise DataError(f"{path} holds no JSON object", remedy=remedy)
    # A string would never equal a prediction: FixRes_postprocess.py scores it 0 in silence.
    malformed = [
        f"{name} is {'no number' if isinstance(value, list) else json.dumps(value)[:60]}"
        for name, value in data
        if type(value) is not int
    ]
    if malformed:
        raise DataError(f"labels that are no integers in {path}: {some(malformed)}", remedy=remedy)
    return _checked(path, [(name, _stem(name), value) for name, value in data])


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, duplicates included."""


def _checked(path: Path, entries: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """Labels by stem from (where, stem, label)."""
    labels: dict[str, int] = {}
    twice: list[str] = []
    outside: list[str] = []
    for where, stem, label in entries:
        if stem in labels:
            twice.append(f"{stem} ({where})")
        if not 0 <= label < CLASS_COUNT:
            outside.append(f"{label} ({where})")
        labels[stem] = label
    if twice:
        raise DataError(
            f"more than one label for an image in {path}: {some(twice)}",
            remedy="keep one of each",
        )
    if outside:
        raise DataError(
            f"no classes of 0..{CLASS_COUNT - 1} in {path}: {some(outside)}",
            remedy=_outside_remedy(labels),
        )
    if not labels:
        raise DataError(f"{path} holds no label", remedy="copy the file again")
    return labels


def _outside_remedy(labels: Mapping[str, int]) -> str:
    if min(labels.values()) >= 1 and max(labels.values()) == CLASS_COUNT:
        return (
            "the list counts from 1, as the development kit's does, which is in another class "
            "order besides: use labels in the order of the sorted WordNet identifiers"
        )
    return "replace the label file"


def _stem(name: str) -> str:
    # Up to the first dot, as the guides' scripts cut it.
    return name.split(".", 1)[0]


def _text(path: Path) -> str:
    # A pipe would be waited for for ever.
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise DataError(f"the label file {path} {what}", remedy="name the label file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the label file {path} is not text: {error.reason} at byte {error.start}",
            remedy="copy the file again",
        ) from error


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)
