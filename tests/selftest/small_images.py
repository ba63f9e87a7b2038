"""Small images, and their crops in a store, for tests of what is fed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.base.store import Store
from harness.catalog.steps import CenterCrop, Normalize, Preprocessing, Resize
from harness.images import preprocess
from harness.images.crops import Crops
from harness.images.dataset import ImageSet

COUNT = 7
IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
STEPS = Preprocessing(
    resize=Resize(op="resize_short", size=14, interpolation="bilinear"),
    crop=CenterCrop(size=12, offset="round"),
    normalize=IMAGENET,
)


def noise(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def put_images(root: Path, count: int = COUNT) -> ImageSet:
    """Small images of several sizes and kinds; BMP files of one size have equally many bytes."""
    root.mkdir(exist_ok=True)
    paths = []
    for index in range(count):
        image = noise(15 + index, 20, index)
        if index % 3 == 1:
            image = image.convert("L")
        path = root / f"{index}.{'png' if index % 3 else 'bmp'}"
        image.save(path)
        paths.append(path)
    return image_set(root, paths)


def image_set(root: Path, paths: list[Path]) -> ImageSet:
    return ImageSet(
        root=root,
        names=tuple(path.name for path in paths),
        paths=tuple(paths),
        labels=tuple(range(len(paths))),
        layout="flat folder",
        label_source="val_label.txt",
    )


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return put_images(tmp_path / "images")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def crops(store: Store, images: ImageSet, pre: Preprocessing) -> Crops:
    """Crops that are all in the store."""
    found = Crops(store, images, pre)
    found.complete()
    return found


def all_rows(found: Crops) -> Any:
    return np.concatenate(found.rows(0, len(found)))


def wanted(images: ImageSet, pre: Preprocessing = STEPS) -> Any:
    return np.stack([preprocess.load_crop(path, pre) for path in images.paths])


def rewrite(path: Path, seed: int) -> None:
    """Other pixels in as many bytes, a second later."""
    before = path.stat()
    with Image.open(path) as image:
        size = image.size
    noise(*size, seed).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    assert path.stat().st_size == before.st_size
