"""Generated images: all kinds of file, the same bytes each time, classes that can be learnt."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from harness.base.errors import DataError
from harness.images.dataset import ImageSet, find_image_set
from harness.images.generated import (
    CLASSES,
    KINDS,
    VERSION,
    kind_of,
    label_slots,
    make_image,
    training_images,
    write_set,
)

COUNT = 62


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    root = tmp_path_factory.mktemp("generated")
    write_set(root, COUNT, seed=3)
    return find_image_set(root)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_every_class_comes_in_forty_images_and_the_order_is_shuffled() -> None:
    slots = label_slots(100, 3)
    assert sorted(slots[:40]) == sorted(slots[40:80]) == list(range(40))
    assert slots[:40] != slots[40:80]
    assert list(slots[:40]) != list(range(40))
    assert label_slots(100, 3)[:50] == label_slots(50, 3)
    assert label_slots(100, 4) != slots


def test_every_kind_of_file_is_in_a_small_set(generated: ImageSet) -> None:
    modes: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    turned = 0
    for path in generated.paths:
        with Image.open(path) as image:
            assert image.format == "JPEG"
            modes[image.mode] += 1
            small, large = sorted(image.size)
            assert large <= 8 * small
            shapes["tiny" if large < 100 else "tall" if image.height > image.width else "wide"] += 1
            assert large <= 40 or 160 <= small <= large <= 520
            exif = dict(image.getexif())
            assert exif in ({}, {0x0112: 6})
            turned += bool(exif)
    assert modes["L"] >= 1
    assert modes["CMYK"] >= 1
    assert modes["RGB"] > COUNT / 2
    assert shapes["tiny"] >= 1
    assert shapes["tall"] >= 1
    assert shapes["wide"] > COUNT / 2
    assert turned >= 1
    assert {kind_of(index) for index in range(50)} == set(KINDS)


def test_workers_and_runs_do_not_change_a_byte(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("again", 1), ("three", 3)):
        write_set(tmp_path / name, 12, seed=5, workers=workers)
    write_set(tmp_path / "other", 12, seed=6)
    one = contents(tmp_path / "one")
    assert len(one) == 13
    assert one == contents(tmp_path / "again") == contents(tmp_path / "three")
    assert one != contents(tmp_path / "other")
    # A longer set begins with the shorter one.
    write_set(tmp_path / "short", 6, seed=5)
    short = contents(tmp_path / "short")
    assert one.pop("val_label.txt").startswith(short.pop("val_label.txt"))
    assert short.items() <= one.items()


def test_the_pixels_of_this_version_never_change() -> None:
    # Pixels, not files: another JPEG library may encode them in other bytes.
    digest = hashlib.sha256()
    for index in range(0, 50, 3):
        digest.update(make_image(0, index, index % 40).tobytes())
    assert (VERSION, digest.hexdigest()[:16]) == (1, "fd187860996aab3b"), (
        "raise VERSION with every change"
    )


def test_training_images_are_balanced_and_not_those_of_the_set() -> None:
    images = list(training_images(1, seed=3))
    assert Counter(label for _, label in images) == dict.fromkeys(CLASSES, 1)
    in_set = {make_image(3, index, index % 40, "landscape").tobytes() for index in range(40)}
    assert not in_set & {image.tobytes() for image, _ in images}


def test_a_set_is_never_mixed_with_other_files(tmp_path: Path) -> None:
    write_set(tmp_path, 2, seed=0)
    with pytest.raises(DataError, match="cannot write"):
        write_set(tmp_path, 2, seed=1)
