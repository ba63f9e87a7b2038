"""Images sorted into WNID folders: the class index is never guessed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import DataError
from harness.base.selection import Selection
from harness.images.dataset import FIRST_LABELS, check, find_image_set
from harness.images.selection import choose
from tests.selftest.image_folders import (
    LABELS,
    WNIDS,
    clsloc,
    error_of,
    ground_truth,
    image_set,
    lines,
    message_of,
    name,
    put_images,
    put_sorted,
    put_text,
)

BY_NUMBER = dict(enumerate(LABELS, 1))
THEIRS = sorted(WNIDS[label] for label in LABELS)
KIT = "ILSVRC2012_devkit_t12/data"


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real labels of the first fifteen images, in a thousand folders. Read only."""
    root = tmp_path_factory.mktemp("imagenet")
    put_sorted(root / "val", dict(enumerate(FIRST_LABELS, 1)))
    # Never read: a thousand folders say everything that the kit could add.
    put_text(root / KIT / "ILSVRC2012_validation_ground_truth.txt", "1\n")
    return root


@pytest.fixture
def fewer(tmp_path: Path) -> Path:
    """Five folders with an image each."""
    put_sorted(tmp_path / "val", BY_NUMBER, THEIRS)
    return tmp_path


def test_a_thousand_folders_are_their_own_labels(thousand: Path) -> None:
    found = find_image_set(thousand)
    assert found.names == tuple(name(number) for number in range(1, 16))
    assert found.labels == FIRST_LABELS
    assert found.paths[0] == thousand / "val" / WNIDS[65] / name(1)
    assert found.describe() == (
        "15 images of 15 classes (1000 WNID folders), labels from the 1000 WNID folders"
    )
    check(found)
    assert find_image_set(thousand / "val").digest == found.digest


def test_an_image_in_the_folder_of_another_class_is_to_be_sorted_again(tmp_path: Path) -> None:
    put_sorted(tmp_path, dict(enumerate((66, *FIRST_LABELS[1:]), 1)))
    with pytest.raises(DataError, match="ILSVRC2012_val_00000001 is 66, not 65") as caught:
        check(find_image_set(tmp_path))
    assert "sort the images again" in caught.value.remedy


def name_with_wnid(number: int) -> str:
    return name(number).replace(".", f"_{WNIDS[FIRST_LABELS[number - 1]]}.")


def test_wnids_in_the_names_are_labels(tmp_path: Path) -> None:
    """As in Hugging Face's archive of the validation images."""
    (tmp_path / "val").mkdir()
    for number in range(1, 16):
        (tmp_path / "val" / name_with_wnid(number)).write_bytes(b"x")
    error = error_of(tmp_path)
    assert "has 15 WNIDs in the file names, not 1000" in error.message
    put_text(tmp_path / "LOC_synset_mapping.txt", "\n".join(WNIDS))
    found = find_image_set(tmp_path)
    assert (found.labels, found.own_set) == (FIRST_LABELS, 0)
    assert check(found).known == 15
    # A label file may have the plain names.
    put_text(tmp_path / "val_label.txt", lines(FIRST_LABELS))
    assert find_image_set(tmp_path).label_source == "val_label.txt"
    # A sample has the same images as one of plain names.
    sample = Selection(sample=5, seed=3)
    plain = choose(image_set(FIRST_LABELS), sample)
    assert choose(found, sample).labels == plain.labels
    (tmp_path / "val" / f"{WNIDS[0]}_10026_{WNIDS[0]}.JPEG").write_bytes(b"x")
    assert "named as training images" in message_of(tmp_path)


def test_a_label_file_must_agree_with_the_thousand(thousand: Path, tmp_path: Path) -> None:
    put_text(tmp_path / "labels.txt", lines(FIRST_LABELS))
    found = find_image_set(thousand, tmp_path / "labels.txt")
    assert found.labels == FIRST_LABELS and found.label_source.endswith("labels.txt")
    put_text(tmp_path / "labels.txt", lines((66, *FIRST_LABELS[1:])))
    message = message_of(thousand, tmp_path / "labels.txt")
    assert "disagrees with the WNIDs" in message
    assert f"ILSVRC2012_val_00000001 in {WNIDS[65]} (65) has 66" in message


def test_fewer_folders_do_not_say_the_index(fewer: Path) -> None:
    """torchvision would call the third of five folders class 2."""
    error = error_of(fewer)
    assert "5 WNID folders, not 1000" in error.message and "cannot be known" in error.message
    assert "val_label.txt" in error.remedy


def test_one_folder_too_many(tmp_path: Path) -> None:
    put_sorted(tmp_path, BY_NUMBER, [*WNIDS, "n99999999"])
    assert "1001 WNID folders, not 1000" in message_of(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {"synsets.txt": "\n".join(WNIDS)},
        {"synsets.txt": clsloc()},
        {"val_label.txt": lines()},
        {
            f"{KIT}/ILSVRC2012_validation_ground_truth.txt": ground_truth(),
            f"{KIT}/map_clsloc.txt": clsloc(),
        },
    ],
    ids=["sorted list", "kit's list", "label file", "kit"],
)
def test_fewer_folders_beside_what_says_their_classes(fewer: Path, files: dict[str, str]) -> None:
    for file, text in files.items():
        put_text(fewer / file, text)
    found = find_image_set(fewer)
    assert (found.labels, found.layout) == (LABELS, "5 WNID folders")
    (fewer / "val" / "n00000001").mkdir()
    if "synsets.txt" in files:
        assert "no classes of" in message_of(fewer)
    else:
        assert find_image_set(fewer).labels == LABELS


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "one image in two folders": (
        lambda val: (val / WNIDS[970] / name(1)).write_bytes(b"x"),
        f"same name, apart from the suffix: {WNIDS[65]}/{name(1)}, {WNIDS[970]}/{name(1)}",
    ),
    "half sorted": (lambda val: put_images(val, range(6, 9)), "val (5 WNID folders)"),
    "another layout": (lambda val: put_images(val.parent), "more than one place"),
    "a training image": (
        lambda val: (val / WNIDS[0] / f"{WNIDS[0]}_18.JPEG").write_bytes(b"x"),
        "1 of 6 images in {} are named as training images",
    ),
    "images that would be left out": (
        lambda val: [(val / WNIDS[65] / name).write_bytes(b"x") for name in ("1.webp", "2.bmp")],
        f"2 images in the class folders of {{}} are no JPEG or PNG, or lie in folders below: "
        f"{WNIDS[65]}/1.webp, {WNIDS[65]}/2.bmp",
    ),
    "no text": (
        lambda val: (val / WNIDS[65] / os.fsdecode(b"a\xff.JPEG")).write_bytes(b"x"),
        r"names that are not UTF-8: n01441219/a\udcff.JPEG",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_wrong_with_the_folders(case: str, fewer: Path) -> None:
    change, said = FAULTS[case]
    change(fewer / "val")
    message = message_of(fewer)
    assert said.format(fewer / "val") in message
    message.encode()
