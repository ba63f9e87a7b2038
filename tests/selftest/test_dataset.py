"""Image sets: every layout of the guides is found, every planted mistake is named."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import DataError
from harness.base.terms import WHOLE_SET
from harness.images import dataset, layouts, textfiles
from harness.images.dataset import FIRST_LABELS, ImageSet, check, check_files, find_image_set
from tests.selftest.image_folders import (
    LABELS,
    error_of,
    image_set,
    lines,
    message_of,
    name,
    put_images,
    put_text,
)

JSON = "imagenet_labels_fixres.json"


def as_json(labels: Sequence[Any] = LABELS) -> str:
    return json.dumps({f"ILSVRC2012_val_{n:08d}": label for n, label in enumerate(labels, 1)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put_images(tmp_path / "val")
    put_text(tmp_path / "val_label.txt", lines())
    return tmp_path


# What is found.


@pytest.mark.parametrize(
    "folder", ["", "val", "ILSVRC2012_img_val", "validation", "val/val", "ILSVRC/Data/CLS-LOC/val"]
)
@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("val_label.txt", lines()),
        (JSON, as_json()),
        ("ILSVRC2012_devkit_t12/val_label.txt", lines()),
    ],
)
def test_the_layouts_of_the_guides(tmp_path: Path, folder: str, source: str, text: str) -> None:
    put_images(tmp_path / folder)
    put_text(tmp_path / source, text)
    found = find_image_set(tmp_path)
    assert found.names == tuple(name(number) for number in range(1, 6))
    assert found.paths == tuple(tmp_path / folder / name(number) for number in range(1, 6))
    assert (found.labels, found.layout, found.label_source) == (LABELS, "flat folder", source)


def named_file(root: Path) -> None:
    put_text(root / "elsewhere" / "mine.txt", lines())
    put_text(root / "val_label.txt", "garbage")


HARMLESS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "labels above the folder": (lambda root: None, "val", ""),
    "a file that is named": (named_file, "", "elsewhere/mine.txt"),
    "line ends and a byte order mark": (
        lambda root: (root / "val_label.txt").write_bytes(
            b"\xef\xbb\xbf" + lines().replace("\n", "\r\n\r\n").replace(" ", "  ").encode()
        ),
        "",
        "",
    ),
    "no images": (
        lambda root: [
            (root / "val" / other).write_bytes(b"x")
            for other in ("Thumbs.db", "._ILSVRC2012_val_00000001.JPEG", "README.txt")
        ],
        "",
        "",
    ),
    "a link to the folder": (
        lambda root: (root / "ILSVRC2012_img_val").symlink_to("val"),
        "",
        "",
    ),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_does_no_harm(case: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, folder, labels = HARMLESS[case]
    right = find_image_set(root)
    change(root)
    monkeypatch.chdir(root / folder)  # a relative folder, too
    entries = layouts.entries
    monkeypatch.setattr(  # nothing depends on the order that a file system gives
        layouts, "entries", lambda path: sorted(entries(path), key=lambda e: e.name[::-1])
    )
    for where in (root / folder, Path()):
        found = find_image_set(where, root / labels if labels else None)
        assert (found.names, found.labels, found.digest) == (right.names, LABELS, right.digest)
        assert os.path.basename(found.label_source) == os.path.basename(labels or "val_label.txt")


def test_a_part_of_the_images_beside_the_whole_list_is_a_set(root: Path) -> None:
    whole = find_image_set(root)
    for number in (1, 3, 5):
        (root / "val" / name(number)).unlink()
    found = find_image_set(root)
    assert (found.names, found.labels) == ((name(2), name(4)), (970, 0))
    part = whole.part([3, 1, 3])
    assert (part.names, part.paths, part.labels) == (found.names, found.paths, found.labels)
    assert part.digest == found.digest != whole.digest
    assert whole.part(range(5)) == whole
    assert whole.digest == hashlib.sha256(lines().encode()).hexdigest()
    described = "2 images of 2 classes (flat folder), labels from val_label.txt, which has 3 more"
    assert found.describe() == described
    assert whole.part([1]).describe().startswith("1 image of 1 class (")


def test_images_of_ones_own_are_a_set_of_their_own(tmp_path: Path) -> None:
    for file in ("a cat.png", "tree.v2.jpg", "notes.txt"):
        (tmp_path / file).write_bytes(b"x")
    assert "no labels for the 2 images" in message_of(tmp_path)
    put_text(tmp_path / "val_label.txt", "tree.v2.jpg 970\na cat.png 282\n")
    found = find_image_set(tmp_path)
    assert (found.names, found.labels) == (("a cat.png", "tree.v2.jpg"), (282, 970))
    assert (found.own_set, found.part([1]).own_set, found.part([0, 1]) == found) == (2, 2, True)
    (tmp_path / "n01440764_18.JPEG").write_bytes(b"x")
    assert "named as training images" in message_of(tmp_path)


def test_a_picture_beside_the_images_is_none_of_them(root: Path) -> None:
    (root / "overview.png").write_bytes(b"x")
    found = find_image_set(root)
    assert (found.labels, found.own_set, found.part([1]).own_set) == (LABELS, 0, 0)


@pytest.mark.parametrize("folder", ["", "val"])
def test_a_picture_beside_class_folders_is_none_of_them(tmp_path: Path, folder: str) -> None:
    for file in ("preview.png", Path(folder, "cat/1.png"), Path(folder, "dog/1.png")):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    found = find_image_set(tmp_path)
    assert (found.classes, found.names) == (("cat", "dog"), ("cat/1.png", "dog/1.png"))


@pytest.mark.parametrize("others", [1, 4])
def test_images_of_ones_own_among_imagenets_are_refused(root: Path, others: int) -> None:
    """One name alone must not hold the others against what is published, or excuse the rest."""
    for number in range(others, 5):
        (root / "val" / name(number)).rename(root / "val" / f"cat-{number}.JPEG")
    text = lines()
    for number in range(others, 5):
        text = text.replace(name(number), f"cat-{number}.JPEG")
    put_text(root / "val_label.txt", text)
    found = find_image_set(root)
    with pytest.raises(DataError, match=f"{5 - others} of them are not named as ImageNet's"):
        check(found)
    assert found.own_set == 5


# What is wrong with a folder.


def replaced(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a broken link": (lambda root: (root / "val" / name(6)).symlink_to("nowhere"), name(6)),
    "two of one name": (
        lambda root: (root / "val" / name(2).replace("JPEG", "png")).touch(),
        "same name, apart from the suffix",
    ),
    "two folders": (
        lambda root: put_images(root / "ILSVRC2012_img_val"),
        "more than one place: ",
    ),
    "no label": (
        lambda root: put_images(root / "val", range(6, 13)),
        "7 of 12 images have no label in ",
    ),
    "no labels at all": (
        lambda root: (root / "val_label.txt").rename(root / "mine.csv"),
        "(there: mine.csv)",
    ),
    "labels that are a pipe": (  # not waited for
        lambda root: replaced(root / "val_label.txt", os.mkfifo),
        "is not a file",
    ),
    "lists that disagree": (
        lambda root: put_text(root / JSON, as_json((65, 970, 231, 0, 999))),
        f"{JSON} disagree on ILSVRC2012_val_00000003",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_refused(case: str, root: Path) -> None:
    change, said = FOLDERS[case]
    change(root)
    assert said in message_of(root)


def test_no_folder_and_an_unknown_layout(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in message_of(tmp_path / "file")
    (tmp_path / "file").unlink()
    assert "holds nothing" in message_of(tmp_path)
    (tmp_path / "validation" / "tench").mkdir(parents=True)
    assert f"nor in {tmp_path / 'validation'}, which holds tench" in message_of(tmp_path)
    (tmp_path / "validation" / "tench").rmdir()
    (tmp_path / "validation").rmdir()
    for wnid in range(8):
        (tmp_path / f"n0144076{wnid}").mkdir()
    assert "n01440760" in message_of(tmp_path) and "and 5 more" in message_of(tmp_path)


def test_what_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(textfiles, "open_binary", refuse)
    message = message_of(root)
    assert "Permission denied" in message and str(root) in message


# What is wrong with labels.

THIRD = "ILSVRC2012_val_00000003"
TWICE = ", ".join(f'"ILSVRC2012_val_{n:08d}": 1' for n in (1, 2, 3, 4, 5, 2))


def second(line: str) -> str:
    text = lines().split("\n")
    return "\n".join([text[0], line, *text[2:]])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        *(
            ("val_label.txt", second(line), "line 2 ")
            for line in (
                name(2),
                f"{name(2)} 970 1",
                f"{name(2)} 65.0",
                f"{name(2)} ٦٥",
                f"{name(2)} {'9' * 5000}",
                "490",
            )
        ),
        *(
            ("val_label.txt", lines((65, 970, bad, 0, 999)), f"{bad} (line 3)")
            for bad in (1000, -1)
        ),
        ("val_label.txt", lines() + f"{name(2)} 970\n", "ILSVRC2012_val_00000002 (line 6)"),
        ("val_label.txt", "cat\n" * 50_000, "and 49997 more"),
        ("val_label.txt", lines().encode("utf-16"), "is not text"),
        ("val_label.txt", "", "holds no label"),
        (JSON, as_json((65, 970, 1000, 0, 999)), f"1000 ({THIRD})"),
        *(
            (JSON, as_json((65, 970, bad, 0, 999)), f"{THIRD} is {said}")
            for bad, said in (("65", '"65"'), (True, "true"))
        ),
        (JSON, f"{{{TWICE}}}", "more than one label"),
        (JSON, "[" * 100_000, "not JSON"),
        (JSON, "[65, 970]", "no JSON object"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_label_file_that_is_refused(tmp_path, file, content, said):
    put_images(tmp_path)
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    message = message_of(tmp_path)
    assert said in message and len(message) < 400


def test_a_list_that_counts_from_one_or_only_numbers_the_images(root: Path) -> None:
    """The latter is the competition's `ImageSets/CLS-LOC/val.txt`."""
    numbers = "".join(f"ILSVRC2012_val_{number:08d} {number}\n" for number in range(1, 1101))
    for text in (lines((66, 971, 231, 1, 1000)), numbers):
        put_text(root / "val_label.txt", text)
        error = error_of(root)
        assert "counts from 1" in error.remedy and "numbers the images" in error.remedy


# The class order of real ImageNet, checked before any inference.


def test_labels_of_absent_images_are_checked_too(root: Path) -> None:
    """A part without the known images, beside a list that has them in another order."""
    for number in (1, 2, 3):
        (root / "val" / name(number)).unlink()
    put_text(root / "val_label.txt", lines((65, 970, 231, 0, 999)))
    found = find_image_set(root)
    with pytest.raises(DataError, match="ILSVRC2012_val_00000003 is 231, not 230"):
        check(found.part([1]))


@pytest.mark.parametrize("kind", ["empty", "gone", "pipe", "folder"])
def test_files_that_cannot_be_images_are_named(root: Path, kind: str) -> None:
    found = find_image_set(root)
    check_files(found)
    bad = root / "val" / name(4)
    bad.unlink()
    if kind == "empty":
        bad.touch()
    elif kind == "pipe":
        os.mkfifo(bad)
    elif kind == "folder":
        bad.mkdir()
    with pytest.raises(DataError, match=rf"1 of 5 files .*: {name(4)} \(") as caught:
        check_files(found)
    assert caught.value.remedy
    check_files(found.part([0, 1, 2, 4]))


# The whole set.


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """As a whole set, with 2 images of each class in place of 50."""
    assert (WHOLE_SET, dataset.IMAGES_PER_CLASS) == (50_000, 50)
    monkeypatch.setattr(dataset, "WHOLE_SET", 2000)
    monkeypatch.setattr(dataset, "IMAGES_PER_CLASS", 2)
    others = [*FIRST_LABELS, *(label for label in range(1000) if label not in FIRST_LABELS)]
    return image_set((*FIRST_LABELS, *others, *others[len(FIRST_LABELS) :]))


def test_the_whole_set_has_as_many_images_of_each_class(whole: ImageSet) -> None:
    assert check(whole).known == 15
    with pytest.raises(DataError, match=r"class 0 has 3, class 999 has 1") as caught:
        check(replace(whole, labels=(*whole.labels[:-1], 0)))
    assert "sort the images again" in caught.value.remedy


def test_the_whole_set_has_imagenet_s_names(whole: ImageSet) -> None:
    def named(*names: str) -> ImageSet:
        return replace(whole, names=(*whole.names[: -len(names)], *names))

    with pytest.raises(DataError, match=r"2,000 images in /imagenet, but 1 of them .*zebra"):
        check(named("zebra.JPEG"))
    with pytest.raises(DataError, match="but 1 of them"):
        check(named(name(2001)))
    photos = [f"photo_{number:05d}.JPEG" for number in range(2000)]
    with pytest.raises(DataError, match="but 2,000 of them"):
        check(named(*photos))
    check(named(*photos).part(range(1999)))  # is a part
