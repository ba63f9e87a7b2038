"""A labelled image set: find it in a folder, and check that images and labels belong together.

How the images lie is `layouts.py`'s to know, label files are `labels.py`'s, and the order of the
classes is `synsets.py`'s. What this finds is described in `docs/imagenet.md`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.base.errors import DataError, some
from harness.images import class_folders, layouts
from harness.images import labels as label_files
from harness.images.filepaths import FilePaths
from harness.images.labels import Labels
from harness.images.layouts import Layout, stem
from harness.images.synsets import CLASS_COUNT

# The right classes of ILSVRC2012_val_00000001 to 15, from the synset of each validation image
# (tensorflow/models, research/slim/datasets/imagenet_2012_validation_synset_labels.txt) and its
# place in the sorted list of synsets.
FIRST_LABELS = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332, 109, 286, 370, 757, 595)
WHOLE_SET = 50_000
IMAGES_PER_CLASS = 50

_KNOWN = {f"ILSVRC2012_val_{number:08d}": label for number, label in enumerate(FIRST_LABELS, 1)}
_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})", re.ASCII)


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes, sorted by file name.

    names: file names without folder, unique also without their suffix.
    paths: the files, in the order of `names`.
    labels: class indices in 0..999, in the order of `names`.
    layout: how the images lie in `root`, in words.
    label_source: where the labels come from, relative to `root` or in words.
    labels_without_image: how many labels the source has for images that were not found.
    landmarks: stem and label, by the source, of those images whose right class is known, also
        where the image itself is not in the set.
    """

    root: Path
    names: tuple[str, ...]
    paths: Sequence[Path]
    labels: tuple[int, ...]
    layout: str
    label_source: str
    labels_without_image: int = 0
    landmarks: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.paths, FilePaths):
            object.__setattr__(self, "paths", FilePaths(self.paths, self.names))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over the lines `NAME LABEL`: which images, not their bytes."""
        digest = hashlib.sha256()
        for name, label in zip(self.names, self.labels, strict=True):
            digest.update(os.fsencode(f"{name} {label}\n"))
        return digest.hexdigest()

    def part(self, positions: Iterable[int]) -> ImageSet:
        """The images at some positions, in the order of the whole."""
        chosen = sorted(set(positions))
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            paths=[self.paths[i] for i in chosen],
            labels=tuple(self.labels[i] for i in chosen),
        )

    def describe(self) -> str:
        """One line for people: how many images, how they lie, where their labels come from."""
        classes = len(set(self.labels))
        images = f"{len(self):,} image{'' if len(self) == 1 else 's'}"
        text = f"{images} of {classes} class{'' if classes == 1 else 'es'} ({self.layout})"
        text += f", labels from {self.label_source}"
        if self.labels_without_image:
            text += f", which has {self.labels_without_image:,} more"
        return text


@dataclass(frozen=True)
class Findings:
    """What `check` counted in a set in which nothing is wrong.

    classes: how many classes have an image; `fewest` and `most` are images of one of these.
    known: of how many images the right class is known and was compared.
    """

    images: int
    labels_without_image: int
    classes: int
    fewest: int
    most: int
    known: int


def find_image_set(root: Path, labels: Path | None = None) -> ImageSet:
    """The labelled images in the folder `root`; `labels` names their label file.

    A list of labels may cover more than the images: a part of ImageNet beside the whole list is
    a set. Without `labels` the file is looked for beside the images and above them. Images in
    1000 WNID folders need none.

    Raises:
        DataError: `root` or a file is absent or cannot be read, no layout is recognised, there
            is no image, an image has no label or two, a label is not a class, a line is
            malformed, or the labels disagree with the WNID folders.
    """
    try:
        layout = layouts.find(root)
        stems = [stem(path.name) for path in layout.paths]
        found = _labels_of(layout, stems, labels)
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be read: {error.strerror or error}",
            remedy="make it readable for this user, or name another folder",
        ) from error
    return ImageSet(
        root=root,
        names=tuple(path.name for path in layout.paths),
        paths=layout.paths,
        labels=tuple(found.by_stem[name] for name in stems),
        layout=layout.name,
        label_source=os.path.relpath(found.source, root)
        if isinstance(found.source, Path)
        else found.source,
        labels_without_image=len(found.by_stem) - len(stems),
        landmarks=tuple((name, found.by_stem[name]) for name in _KNOWN if name in found.by_stem),
    )


def check(image_set: ImageSet) -> Findings:
    """Everything about a set's labels that can be wrong in real ImageNet, before any inference.

    For real sets only: a generated set has the same file names and classes of its own.

    Raises:
        DataError: names that are not unique, as many images as ImageNet has of which some are
            not ImageNet's, a label that is no class, or as `check_class_order`.
    """
    if not len(image_set.names) == len(image_set.paths) == len(image_set.labels):
        raise DataError(
            f"{len(image_set.names)} names, {len(image_set.paths)} files and "
            f"{len(image_set.labels)} labels are no image set"
        )
    stems = Counter(map(stem, image_set.names))
    twice = [name for name, count in stems.items() if count > 1]
    if twice:
        raise DataError(f"images of the same name: {some(twice)}", remedy="keep one of each")
    outside = [
        f"{name} is {label}"
        for name, label in zip(image_set.names, image_set.labels, strict=True)
        if not 0 <= label < CLASS_COUNT
    ]
    if outside:
        raise DataError(
            f"no classes of 0..{CLASS_COUNT - 1} in {image_set.label_source}: {some(outside)}",
            remedy="replace the label file",
        )
    check_whole(image_set)
    check_class_order(image_set)
    counts = Counter(image_set.labels)
    return Findings(
        images=len(image_set),
        labels_without_image=image_set.labels_without_image,
        classes=len(counts),
        fewest=min(counts.values(), default=0),
        most=max(counts.values(), default=0),
        known=len(_known_labels(image_set)),
    )


def check_whole(image_set: ImageSet) -> None:
    """Refuse a set that its size would pass for the whole of ImageNet's, and its names do not.

    50,000 images are held against a published figure, with no eager pass beside them: they must
    be the images that it was published for. Fewer are compared with eager PyTorch, whatever
    they are.

    Raises:
        DataError: 50,000 images or more, of which some are not `ILSVRC2012_val_00000001` to
            `..50000`.
    """
    if len(image_set) < WHOLE_SET:
        return
    strange = [name for name in image_set.names if not _is_numbered(stem(name))]
    if strange:
        raise DataError(
            f"{len(image_set):,} images in {image_set.root}, but {len(strange):,} of them are not "
            f"named as ImageNet's {WHOLE_SET:,} validation images: {some(strange)}",
            remedy="name the folder of the validation images, with the names that they came with",
        )


def _is_numbered(name: str) -> bool:
    match = _NUMBERED.fullmatch(name)
    return match is not None and 1 <= int(match[1]) <= WHOLE_SET


def check_class_order(image_set: ImageSet) -> None:
    """Refuse real ImageNet labels in another class order than that of the sorted identifiers.

    For real sets only: a generated set has the same file names and classes of its own. Looks at
    the images of which the right class is known, and at the counts when the set is whole.

    Raises:
        DataError: a known label is another, or the classes of the whole set are uneven. Whether
            the order is wrong or a few images are is told apart.
    """
    pairs = [(name, label, _KNOWN[stem(name)]) for name, label in _known_labels(image_set)]
    wrong = [f"{name} is {label}, not {right}" for name, label, right in pairs if label != right]
    # Another order of the classes leaves hardly any image its class.
    if wrong and (_is_by_folders(image_set) or 2 * len(wrong) <= len(pairs)):
        raise DataError(
            f"these images have another class by {image_set.label_source}: {some(wrong)} "
            f"({len(wrong)} of the {len(pairs)} whose class is known)",
            remedy=_mend(image_set),
        )
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
                remedy=_mend(image_set),
            )


def check_files(image_set: ImageSet) -> None:
    """Refuse files that cannot be images, by their sizes alone: nothing is opened.

    What only decoding can tell (truncated, no image) `preprocess.load_crop` reports by name.

    Raises:
        DataError: a file is absent, empty, or no regular file.
    """
    troubled: list[str] = []
    for name, path in zip(image_set.names, image_set.paths, strict=True):
        try:
            # Opening a pipe would wait for a writer for ever.
            status = path.stat()
        except OSError as error:
            troubled.append(f"{name} (cannot be read: {error.strerror or error})")
            continue
        if not stat.S_ISREG(status.st_mode):
            troubled.append(f"{name} (not a regular file)")
        elif status.st_size == 0:
            troubled.append(f"{name} (empty, 0 bytes)")
    if troubled:
        raise DataError(
            f"{len(troubled)} of {len(image_set)} files in {image_set.root} are no images: "
            f"{some(troubled)}",
            remedy="copy them again, or leave them out of the set",
        )


def _is_by_folders(image_set: ImageSet) -> bool:
    return image_set.label_source == class_folders.source_of(image_set.layout)


def _mend(image_set: ImageSet) -> str:
    if _is_by_folders(image_set):
        return "sort the images again: each belongs in the folder of its own class"
    return "replace the label file"


def _known_labels(image_set: ImageSet) -> list[tuple[str, int]]:
    """The labels of the images of which the right class is known."""
    known = {
        name: label
        for name, label in zip(image_set.names, image_set.labels, strict=True)
        if stem(name) in _KNOWN
    }
    there = {stem(name) for name in known}
    others = [(name, label) for name, label in image_set.landmarks if name not in there]
    return sorted([*known.items(), *others])


def _labels_of(layout: Layout, stems: Sequence[str], named: Path | None) -> Labels:
    places = tuple(label_files.places(layout.folder))
    listed: Labels | None
    if named is not None:
        listed = label_files.read(named, stems, places)
    else:
        # A thousand class folders say everything that the development kit could add.
        listed = label_files.find(layout.folder, stems, devkit=len(layout.folders) != CLASS_COUNT)
    if layout.folders:
        return class_folders.labels_of(layout, stems, listed, places)
    if listed is None:
        raise DataError(
            f"no labels for the {len(stems)} images in {layout.folder}",
            remedy=label_files.WHAT_IS_WANTED,
        )
    return listed
