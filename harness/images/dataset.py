"""A labelled image set: find it in a folder, and check that images and labels belong together.

How images lie is known to `layouts.py`, which class each has to `labels.py`, and the order of the
classes to `synsets.py`. Described in `docs/imagenet.md`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.base.errors import DataError, some
from harness.base.terms import WHOLE_SET
from harness.images import labels as image_labels
from harness.images import layouts
from harness.images.layouts import stem
from harness.images.synsets import CLASS_COUNT
from harness.records.observed import SetFindings

# The right classes of ILSVRC2012_val_00000001 to 15, from the synset of each validation image
# (tensorflow/models, research/slim/datasets/imagenet_2012_validation_synset_labels.txt) and its
# place in the sorted list of synsets.
FIRST_LABELS = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332, 109, 286, 370, 757, 595)
IMAGES_PER_CLASS = 50

_KNOWN = {f"ILSVRC2012_val_{number:08d}": label for number, label in enumerate(FIRST_LABELS, 1)}
_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})", re.ASCII)


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes, sorted by file name.

    names: file names without folder, unique also without their suffix; `CLASS/FILE` where folders
        of one's own say the class. `paths` and `labels`, class indices, are in the same order.
    layout: how the images lie in `root`, in words.
    label_source: where the labels come from, relative to `root` or in words.
    labels_without_image: how many labels the source has for images that were not found.
    landmarks: stem and label, by the source, of those images whose right class is known, also
        where the image itself is not in the set.
    classes: names of one's own classes, by index, where folders say them.
    chosen_from: how many images the set has of which these are a part; 0 where these are all.
    """

    root: Path
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    layout: str
    label_source: str
    labels_without_image: int = 0
    landmarks: tuple[tuple[str, int], ...] = ()
    classes: tuple[str, ...] = ()
    chosen_from: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over the lines `NAME LABEL`: which images, not their bytes."""
        pairs = zip(self.names, self.labels, strict=True)
        lines = "".join(f"{name} {label}\n" for name, label in pairs)
        return hashlib.sha256(os.fsencode(lines)).hexdigest()

    @property
    def own_set(self) -> int:
        """How many images the data set has that these are of; 0 where it is ImageNet's by its
        names, which `check` sees to are all or none: of another one no accuracy is published.
        """
        ours = not self.classes and all(map(_is_imagenets, self.names))
        return 0 if ours else self.chosen_from or len(self)

    def part(self, positions: Iterable[int]) -> ImageSet:
        """Return the images at some positions, in the order of the whole."""
        chosen = sorted(set(positions))
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            paths=tuple(self.paths[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            chosen_from=self.chosen_from or (len(self) if len(chosen) < len(self) else 0),
        )

    def class_name(self, label: int) -> str:
        """Return the folder of the class with an index; the index where no folder says it."""
        if not self.classes or label not in self.labels:
            return str(label)
        return self.names[self.labels.index(label)].split("/")[0]

    def of_classes(self, names: Sequence[str], count: int, offset: int = 0) -> ImageSet:
        """Return the images with the indices that they have for a network of `count` classes.

        names: of its classes, by index, where they are known: class folders are found by them, in
            whatever order they lie. offset: what is added to a label for its index; the classes
            before it, which `names` have and folders need not have, are no image's.

        Raises `DataError`: a class that the network does not have.
        """
        if not self.classes:
            pairs = zip(self.names, self.labels, strict=True)
            if beyond := [name for name, label in pairs if label + offset >= count]:
                raise DataError(
                    f"{len(beyond)} of {len(self)} images have a label beyond the {count} classes "
                    f"of the network: {some(beyond)}",
                    remedy="use the images and labels of that network's classes, counted from 0",
                )
            return self
        if not names and len(self.classes) + offset != count:
            raise DataError(
                f"{self.root} has {len(self.classes)} class folders ({some(self.classes)}), the "
                f"network has {count - offset} classes",
                remedy="name the network's own data, or give all its `class_names` in a catalog "
                "of your own (docs/own-models.md)",
            )
        known, first = (names, -offset) if names else (self.classes, 0)
        index = {_composed(name): i for i, name in enumerate(known, first)}
        if unknown := [name for name in self.classes if _composed(name) not in index]:
            raise DataError(
                f"{len(unknown)} of {len(self.classes)} class folders in {self.root} are none of "
                f"the network's classes: {some(unknown)}; it has {some(names)}",
                remedy="rename them as the network's classes, or name its own data",
            )
        own = [index[_composed(name)] for name in self.classes]
        return replace(self, labels=tuple(own[label] for label in self.labels))

    def describe(self) -> str:
        """Describe the set in one line: how many images, their layout, the source of labels."""
        images, classes = len(self), len(set(self.labels))
        text = f"{images:,} image{'s' * (images != 1)} of {classes} class{'es' * (classes != 1)} "
        text += f"({self.layout}), labels from {self.label_source}"
        if self.labels_without_image:
            text += f", which has {self.labels_without_image:,} more"
        return text


def find_image_set(root: Path, labels: Path | None = None) -> ImageSet:
    """Find the labelled images in the folder `root`; `labels` names their label file.

    A list of labels may cover more than the images: a part of ImageNet beside the whole list is a
    set. Without `labels` the file is looked for beside the images and above them. Images in 1000
    WNID folders need none. Raises `DataError`: `root` or a file cannot be read, no layout is
    recognised, or labels that are absent, malformed, no class, or at odds with the WNID folders.
    """
    try:
        layout = layouts.find(root)
        # Of class folders the whole names: `cat/1.png` is another image than `dog/1.png`.
        stems = list(layout.names) if layout.classes else [stem(name) for name in layout.names]
        labelled = image_labels.of_layout(layout, stems, labels)
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be read: {error.strerror or error}",
            remedy="make it readable for this user, or name another folder",
        ) from error
    by_stem, file = labelled.by_stem, labelled.file
    return ImageSet(
        root=root,
        names=layout.names,
        paths=layout.paths,
        labels=tuple(by_stem[name] for name in stems),
        layout=layout.name,
        label_source=os.path.relpath(file, root) if file else f"the {layout.name}",
        labels_without_image=len(by_stem) - len(stems),
        landmarks=tuple((name, by_stem[name]) for name in _KNOWN if name in by_stem),
        classes=layout.classes,
    )


def check(image_set: ImageSet) -> SetFindings:
    """Check everything about a set's labels that can be wrong in real ImageNet.

    For real sets only: a generated set has the same file names and classes of its own. Raises
    `DataError`: images of which the right class is known have another one, some images are named as
    ImageNet's and others not, or 50,000 images have other names or not 50 of each class among them.
    """
    counts, known = Counter(image_set.labels), image_set.landmarks
    if not image_set.classes:
        _check_names(image_set)
    wrong = [f"{n} is {label}, not {_KNOWN[n]}" for n, label in known if label != _KNOWN[n]]
    if wrong:
        remedy = "the list counts from 1: subtract one from every label"
        if any(label != _KNOWN[name] + 1 for name, label in known):
            remedy = (
                "replace the label file, or sort the images again: labels count from 0 in the "
                "order of the sorted WordNet identifiers; the numbers of the development kit "
                "(ILSVRC2012_ID) are in another order"
            )
        raise DataError(
            f"{image_set.label_source} is not in ImageNet's class order, or not of these images: "
            f"{some(wrong)} ({len(wrong)} of the {len(known)} whose class is known)",
            remedy=remedy,
        )
    if len(image_set) >= WHOLE_SET and not image_set.classes:
        uneven = [n for n in range(CLASS_COUNT) if counts[n] != IMAGES_PER_CLASS]
        if uneven:
            listed = some([f"class {label} has {counts[label]}" for label in uneven])
            raise DataError(
                f"ImageNet has {IMAGES_PER_CLASS} validation images of each class; by "
                f"{image_set.label_source} {listed}",
                remedy="replace the label file, or sort the images again",
            )
    return SetFindings(
        images=len(image_set),
        labels_without_image=image_set.labels_without_image,
        classes=len(counts),
        fewest=min(counts.values(), default=0),
        most=max(counts.values(), default=0),
        known=len(known),
    )


def _check_names(image_set: ImageSet) -> None:
    """Refuse a set that is ImageNet's by some of its names, or by its size, and not by all names.

    50,000 images are compared with a published figure, without an eager pass: they must be the
    images that it was published for. So must a part of them, whose figures the published one
    must fit. Others are compared with eager PyTorch alone, whatever they are.
    """
    strange = [name for name in image_set.names if not _is_imagenets(name)]
    if strange and (len(strange) < len(image_set) or len(image_set) >= WHOLE_SET):
        raise DataError(
            f"{len(image_set):,} images in {image_set.root}, but {len(strange):,} of them are not "
            f"named as ImageNet's {WHOLE_SET:,} validation images: {some(strange)}",
            remedy="name the folder of the validation images, with the names that they came with; "
            "keep images of your own in another folder",
        )


def _is_imagenets(name: str) -> bool:
    match = _NUMBERED.fullmatch(stem(name))
    return match is not None and 1 <= int(match[1]) <= WHOLE_SET


def _composed(name: str) -> str:
    """Return a name in one form of Unicode: file systems and files differ in it."""
    return unicodedata.normalize("NFC", name)


def check_files(image_set: ImageSet) -> None:
    """Refuse files that cannot be images, by their sizes alone: nothing is opened.

    What only decoding can tell (truncated, no image) `preprocess.load_crop` reports by name. Raises
    `DataError`: a file is absent, empty, or no regular file.
    """
    refused: list[str] = []
    for name, path in zip(image_set.names, image_set.paths, strict=True):
        try:
            status = path.stat()
        except OSError as error:
            refused.append(f"{name} (cannot be read: {error.strerror or error})")
            continue
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for for ever
            refused.append(f"{name} (not a regular file)")
        elif status.st_size == 0:
            refused.append(f"{name} (empty, 0 bytes)")
    if refused:
        raise DataError(
            f"{len(refused)} of {len(image_set)} files in {image_set.root} are no images: "
            f"{some(refused)}",
            remedy="copy them again, or leave them out of the set",
            files=refused,
        )
