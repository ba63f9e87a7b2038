"""Images sorted into WNID folders: the class index is never guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.base.errors import DataError
from harness.images import dataset
from harness.images.dataset import FIRST_LABELS, ImageSet, check, find_image_set
from tests.selftest.image_folders import (
    LABELS,
    WNIDS,
    clsloc,
    error_of,
    ground_truth,
    lines,
    message_of,
    name,
    put_images,
    put_sorted,
    put_text,
)

BY_NUMBER = dict(enumerate(LABELS, 1))
THEIRS = sorted(WNIDS[label] for label in LABELS)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real labels of the first fifteen images, in a thousand folders. Read only."""
    root = tmp_path_factory.mktemp("imagenet")
    put_sorted(root / "val", dict(enumerate(FIRST_LABELS, 1)))
    return root


def test_a_thousand_folders_are_their_own_labels(thousand: Path) -> None:
    found = find_image_set(thousand)
    assert found.names == tuple(name(number) for number in range(1, 16))
    assert found.labels == FIRST_LABELS
    assert found.paths[0] == thousand / "val" / WNIDS[65] / name(1)
    assert found.layout == "1000 WNID folders"
    assert found.label_source == "the names of the 1000 WNID folders"
    assert found.describe() == (
        "15 images of 15 classes (1000 WNID folders), "
        "labels from the names of the 1000 WNID folders"
    )
    check(found)
    assert find_image_set(thousand / "val").digest == found.digest


@pytest.mark.parametrize("bad", [1, 15])
def test_an_image_in_the_folder_of_another_class_is_to_be_sorted_again(
    tmp_path: Path, bad: int
) -> None:
    """A thousand folders are in the right order: no list of labels would help."""
    labels = [label + 1 if at < bad else label for at, label in enumerate(FIRST_LABELS)]
    put_sorted(tmp_path, dict(enumerate(labels, 1)))
    with pytest.raises(DataError, match="these images have another class") as caught:
        check(find_image_set(tmp_path))
    assert f"{name(1)} is 66, not 65" in caught.value.message
    assert "sort the images again" in caught.value.remedy
    assert "list" not in caught.value.remedy


def test_uneven_folders_are_to_be_sorted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [label for label in range(1000) if label not in FIRST_LABELS]
    whole = ImageSet(
        root=Path("/imagenet"),
        names=tuple(name(number) for number in range(1, 1001)),
        paths=tuple(Path(name(number)) for number in range(1, 1001)),
        labels=(*FIRST_LABELS, 1, *others[1:]),
        layout="1000 WNID folders",
        label_source="the names of the 1000 WNID folders",
        by_folders=True,
    )
    monkeypatch.setattr(dataset, "WHOLE_SET", 1000)
    monkeypatch.setattr(dataset, "IMAGES_PER_CLASS", 1)
    with pytest.raises(DataError, match="class 0 has 0, class 1 has 2") as caught:
        check(whole)
    assert "sort the images again" in caught.value.remedy


def test_a_label_file_must_agree_with_the_thousand(thousand: Path, tmp_path: Path) -> None:
    right = tmp_path / "right.txt"
    put_text(right, lines(FIRST_LABELS))
    found = find_image_set(thousand, right)
    assert found.labels == FIRST_LABELS
    assert found.label_source.endswith("right.txt")
    wrong = tmp_path / "wrong.txt"
    put_text(wrong, lines((66, *FIRST_LABELS[1:])))
    message = message_of(thousand, wrong)
    assert "disagrees with the WNID folders" in message
    assert f"ILSVRC2012_val_00000001 in {WNIDS[65]} (65) has 66" in message


def test_the_kit_is_not_needed_beside_a_thousand_folders(tmp_path: Path) -> None:
    put_sorted(tmp_path / "val", BY_NUMBER)
    put_text(tmp_path / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", "1\n")
    assert find_image_set(tmp_path).labels == LABELS


def test_fewer_folders_do_not_say_the_index(tmp_path: Path) -> None:
    """torchvision would call the third of five folders class 2."""
    put_sorted(tmp_path, BY_NUMBER, THEIRS)
    error = error_of(tmp_path)
    assert "5 WNID folders, not 1000" in error.message
    assert "cannot be known" in error.message
    assert "val_label.txt" in error.remedy


def test_one_folder_too_many(tmp_path: Path) -> None:
    put_sorted(tmp_path, BY_NUMBER, [*WNIDS, "n99999999"])
    assert "1001 WNID folders, not 1000" in message_of(tmp_path)


@pytest.mark.parametrize("order", ["sorted", "devkit"])
def test_fewer_folders_beside_a_list_of_the_classes(tmp_path: Path, order: str) -> None:
    put_sorted(tmp_path / "val", BY_NUMBER, THEIRS)
    text = clsloc() if order == "devkit" else "\n".join(WNIDS)
    put_text(tmp_path / "synsets.txt", text)
    assert find_image_set(tmp_path).labels == LABELS
    (tmp_path / "val" / "n00000001").mkdir()
    assert "no classes of" in message_of(tmp_path)


def test_fewer_folders_beside_a_label_file(tmp_path: Path) -> None:
    put_sorted(tmp_path / "val", BY_NUMBER, THEIRS)
    put_text(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path)
    assert found.labels == LABELS
    assert found.label_source == "val_label.txt"
    assert found.layout == "5 WNID folders"


def test_fewer_folders_beside_the_kit(tmp_path: Path) -> None:
    put_sorted(tmp_path / "val", BY_NUMBER, THEIRS)
    data = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    put_text(data / "ILSVRC2012_validation_ground_truth.txt", ground_truth())
    put_text(data / "map_clsloc.txt", clsloc())
    assert find_image_set(tmp_path).labels == LABELS


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((65, 970, 230, 1000 - 1, 0), "in the order of their WNIDs"),  # two classes changed places
        ((65, 970, 970, 0, 999), "in the order of their WNIDs"),  # two folders, one class
    ],
)
def test_a_label_file_against_the_order_of_the_folders(
    tmp_path: Path, labels: tuple[int, ...], said: str
) -> None:
    put_sorted(tmp_path / "val", BY_NUMBER, THEIRS)
    put_text(tmp_path / "val_label.txt", lines(labels))
    assert said in message_of(tmp_path)


def test_one_folder_two_classes(tmp_path: Path) -> None:
    put_sorted(tmp_path / "val", {**BY_NUMBER, 6: 65}, THEIRS)
    put_text(tmp_path / "val_label.txt", lines((*LABELS, 66)))
    message = message_of(tmp_path)
    assert f"ILSVRC2012_val_00000006 in {WNIDS[65]} (65) has 66" in message


def test_one_image_in_two_folders(tmp_path: Path) -> None:
    put_sorted(tmp_path, BY_NUMBER, THEIRS)
    (tmp_path / WNIDS[970] / name(1)).write_bytes(b"x")
    message = message_of(tmp_path)
    assert "same name" in message
    assert f"{WNIDS[65]}/{name(1)} and {WNIDS[970]}/{name(1)}" in message


def test_half_sorted_images(tmp_path: Path) -> None:
    put_sorted(tmp_path, {1: 65, 2: 970}, THEIRS)
    put_images(tmp_path, range(3, 6))
    error = error_of(tmp_path)
    assert "more than one place" in error.message
    assert "sort the rest" in error.remedy


def test_two_layouts_in_two_folders(tmp_path: Path) -> None:
    put_sorted(tmp_path / "val", BY_NUMBER, THEIRS)
    put_images(tmp_path / "ILSVRC2012_img_val")
    error = error_of(tmp_path)
    assert "val (5 WNID folders)" in error.message
    assert "name the one" in error.remedy


@pytest.mark.parametrize("folder", [WNIDS[0], "."])
def test_training_images_are_refused(tmp_path: Path, folder: str) -> None:
    put_images(tmp_path / folder, [1])
    put_text(tmp_path / "val_label.txt", lines() + f"{WNIDS[0]}_18.JPEG 0\n")
    (tmp_path / folder / f"{WNIDS[0]}_18.JPEG").write_bytes(b"x")
    assert "1 images in" in message_of(tmp_path)
    assert "named as training images" in message_of(tmp_path)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    put_sorted(tmp_path, BY_NUMBER, THEIRS)
    (tmp_path / WNIDS[65] / os.fsdecode(b"a\xff.JPEG")).write_bytes(b"x")
    message = message_of(tmp_path)
    assert "not UTF-8" in message
    assert "udcff" in message
    message.encode()
