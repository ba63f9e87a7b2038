"""Folders of images, labels and class lists for tests, as people have them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from harness.base.errors import DataError
from harness.images.dataset import FIRST_LABELS, ImageSet, find_image_set

LABELS = (65, 970, 230, 0, 999)
"""Of the first five images; the first three are ImageNet's own."""

WNIDS = tuple(f"n{1_440_764 + 7 * rank:08d}" for rank in range(1000))
"""A thousand WNIDs, sorted: the place of each is its class index."""

DEVKIT_ORDER = tuple(random.Random(4).sample(WNIDS, 1000))
"""The same in an order of their own: the place of each, from 1, is its ILSVRC2012_ID."""


def name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def image_set(labels: Sequence[int], first: int = 1) -> ImageSet:
    """ImageNet's images from number `first` on, by their names, with these labels."""
    numbers = range(first, first + len(labels))
    known = [(n, label) for n, label in zip(numbers, labels, strict=True) if n <= len(FIRST_LABELS)]
    return ImageSet(
        root=Path("/imagenet"),
        names=tuple(name(number) for number in numbers),
        paths=tuple(Path("/imagenet", name(number)) for number in numbers),
        labels=tuple(labels),
        layout="flat folder",
        label_source="val_label.txt",
        landmarks=tuple((f"ILSVRC2012_val_{n:08d}", label) for n, label in known),
    )


def put_images(folder: Path, numbers: Sequence[int] = range(1, 6)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in reversed(numbers):
        (folder / name(number)).write_bytes(b"x")


def put_sorted(folder: Path, labels: Mapping[int, int], wnids: Sequence[str] = WNIDS) -> None:
    """Images by number, each in the folder of its class; a folder for every one of `wnids`."""
    for wnid in wnids:
        (folder / wnid).mkdir(parents=True)
    for number, label in labels.items():
        (folder / WNIDS[label] / name(number)).write_bytes(b"x")


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def lines(labels: Sequence[int] = LABELS) -> str:
    return "".join(f"{name(number)} {label}\n" for number, label in enumerate(labels, 1))


def ground_truth(labels: Sequence[int] = LABELS) -> str:
    """The development kit's file for these class indices."""
    return "".join(f"{DEVKIT_ORDER.index(WNIDS[label]) + 1}\n" for label in labels)


def clsloc(order: Sequence[str] = DEVKIT_ORDER) -> str:
    return "".join(f"{wnid} {number} some_name\n" for number, wnid in enumerate(order, 1))


def message_of(root: Path, labels: Path | None = None) -> str:
    return error_of(root, labels).message


def error_of(root: Path, labels: Path | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        find_image_set(root, labels)
    assert caught.value.remedy
    return caught.value
