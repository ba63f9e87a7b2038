"""Image sets: every layout of the guides is found, every planted mistake is named."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError
from harness.images import dataset
from harness.images.dataset import (
    FIRST_LABELS,
    ImageSet,
    check_class_order,
    find_image_set,
)

LABELS = (65, 970, 230, 0, 999)


def name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def put_images(folder: Path, numbers: Sequence[int] = range(1, 6)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in reversed(numbers):
        (folder / name(number)).write_bytes(b"x")


def lines(labels: Sequence[int] = LABELS) -> str:
    return "".join(f"{name(number)} {label}\n" for number, label in enumerate(labels, 1))


def as_json(labels: Sequence[Any] = LABELS) -> str:
    return json.dumps({f"ILSVRC2012_val_{n:08d}": label for n, label in enumerate(labels, 1)})


def put_labels(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def message_of(root: Path, labels: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        find_image_set(root, labels)
    assert caught.value.remedy
    return caught.value.message


# What is found.


@pytest.mark.parametrize("folder", ["", "val", "ILSVRC2012_img_val"])
@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("val_label.txt", lines()),
        ("imagenet_labels_fixres.json", as_json()),
        ("ILSVRC2012_devkit_t12/val_label.txt", lines()),
    ],
)
def test_the_layouts_of_the_guides(tmp_path: Path, folder: str, source: str, text: str) -> None:
    put_images(tmp_path / folder)
    put_labels(tmp_path / source, text)
    found = find_image_set(tmp_path)
    assert found.names == tuple(name(number) for number in range(1, 6))
    assert found.paths == tuple(tmp_path / folder / name(number) for number in range(1, 6))
    assert found.labels == LABELS
    assert found.layout == "flat folder"
    assert found.label_source == source
    assert len(found) == 5


def test_labels_above_the_folder_that_was_named(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_labels(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path / "val")
    assert found.labels == LABELS
    assert found.label_source == "../val_label.txt"
    assert found.digest == find_image_set(tmp_path).digest


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_images(tmp_path / "val")
    put_labels(tmp_path / "val_label.txt", lines())
    monkeypatch.chdir(tmp_path / "val")
    assert find_image_set(Path()).labels == LABELS


def test_a_label_file_that_is_named_wins(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_labels(tmp_path / "val_label.txt", "garbage")
    put_labels(tmp_path / "elsewhere" / "mine.txt", lines())
    found = find_image_set(tmp_path, tmp_path / "elsewhere" / "mine.txt")
    assert found.labels == LABELS
    assert found.label_source == "elsewhere/mine.txt"


def test_two_label_files_must_agree(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_labels(tmp_path / "val_label.txt", lines())
    put_labels(tmp_path / "imagenet_labels_fixres.json", as_json())
    assert find_image_set(tmp_path).label_source == "val_label.txt"
    put_labels(tmp_path / "imagenet_labels_fixres.json", as_json((65, 970, 231, 0, 999)))
    message = message_of(tmp_path)
    assert "disagree on ILSVRC2012_val_00000003" in message
    assert "imagenet_labels_fixres.json" in message


def test_a_part_of_the_images_beside_the_whole_list_is_a_set(tmp_path: Path) -> None:
    put_images(tmp_path / "val", [2, 4])
    put_labels(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path)
    assert found.names == (name(2), name(4))
    assert found.labels == (970, 0)


def test_line_ends_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    put_images(tmp_path)
    text = lines().replace("\n", "\r\n").replace(" ", "  ") + "\r\n"
    (tmp_path / "val_label.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert find_image_set(tmp_path).labels == LABELS


def test_what_is_no_image_is_left_alone(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_labels(tmp_path / "val_label.txt", lines())
    for other in ("Thumbs.db", "._ILSVRC2012_val_00000001.JPEG", "README.txt"):
        (tmp_path / "val" / other).write_bytes(b"x")
    assert len(find_image_set(tmp_path)) == 5


def test_one_folder_under_two_names_is_one_folder(tmp_path: Path) -> None:
    put_images(tmp_path / "ILSVRC2012_img_val")
    put_labels(tmp_path / "val_label.txt", lines())
    (tmp_path / "val").symlink_to("ILSVRC2012_img_val")
    assert find_image_set(tmp_path).labels == LABELS


def test_the_order_is_by_name_whatever_the_file_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", lines())
    entries = dataset._entries
    monkeypatch.setattr(
        dataset, "_entries", lambda folder: sorted(entries(folder), key=lambda e: e.name[::-1])
    )
    found = find_image_set(tmp_path)
    assert found.names == tuple(sorted(found.names))
    assert found.labels == LABELS


def test_digest_is_over_names_and_labels(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path)
    assert found.digest == hashlib.sha256(lines().encode()).hexdigest()
    assert found.select(4).digest != found.digest
    swapped = (found.labels[1], found.labels[0], *found.labels[2:])
    assert replace(found, labels=swapped).digest != found.digest


def test_select_takes_the_first_by_name(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path)
    part = found.select(limit=2)
    assert (part.names, part.labels) == ((name(1), name(2)), (65, 970))
    assert part.paths == found.paths[:2]
    assert found.select(limit=5) == found.select() == found.select(limit=99) == found
    for limit in (0, -3):
        with pytest.raises(DataError, match="asked for"):
            found.select(limit=limit)


# What is wrong with a folder.


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in message_of(tmp_path / "file")


def test_an_empty_folder_and_an_unknown_layout(tmp_path: Path) -> None:
    assert "holds nothing" in message_of(tmp_path)
    (tmp_path / "val").mkdir()
    for wnid in range(8):
        (tmp_path / f"n0144076{wnid}").mkdir()
    message = message_of(tmp_path)
    assert "n01440760" in message
    assert "and 6 more" in message


def test_images_in_two_folders(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_images(tmp_path / "ILSVRC2012_img_val")
    put_labels(tmp_path / "val_label.txt", lines())
    assert "more than one folder" in message_of(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "broken link"])
def test_an_image_that_is_no_file(tmp_path: Path, kind: str) -> None:
    put_images(tmp_path, range(1, 5))
    put_labels(tmp_path / "val_label.txt", lines())
    if kind == "folder":
        (tmp_path / name(5)).mkdir()
    else:
        (tmp_path / name(5)).symlink_to("nowhere")
    assert name(5) in message_of(tmp_path)


def test_two_images_of_one_name(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", lines())
    (tmp_path / "ILSVRC2012_val_00000002.png").write_bytes(b"x")
    message = message_of(tmp_path)
    assert "same name" in message
    assert "ILSVRC2012_val_00000002" in message


@pytest.mark.parametrize("what", ["scandir", "read_text"])
def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", lines())

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os if what == "scandir" else Path, what, refuse)
    message = message_of(tmp_path)
    assert "Permission denied" in message
    assert str(tmp_path) in message


# What is wrong with labels.


def test_images_without_label(tmp_path: Path) -> None:
    put_images(tmp_path, range(1, 13))
    put_labels(tmp_path / "val_label.txt", lines())
    (tmp_path / "cat.jpg").write_bytes(b"x")
    message = message_of(tmp_path)
    assert "8 of 13 images have no label" in message
    assert "ILSVRC2012_val_00000006" in message
    assert "cat" in message or "and 5 more" in message


def test_no_labels_at_all(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    assert "no labels for the 5 images" in message_of(tmp_path)
    assert "does not exist" in message_of(tmp_path, tmp_path / "mine.txt")
    (tmp_path / "val_label.txt").mkdir()
    assert "is not a file" in message_of(tmp_path)


def test_a_pipe_for_labels_is_not_waited_for(tmp_path: Path) -> None:
    put_images(tmp_path)
    os.mkfifo(tmp_path / "val_label.txt")
    assert "is not a file" in message_of(tmp_path)


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (2, f"{name(2)}"),
        (2, f"{name(2)} 970 1"),
        (2, f"{name(2)} nine"),
        (2, f"{name(2)} 65.0"),
        (2, f"{name(2)} ٦٥"),
        (2, f"{name(2)} {'9' * 5000}"),
        (2, f"{name(2)},970"),
        (2, "490"),
    ],
)
def test_malformed_lines_are_counted_from_one(tmp_path: Path, number: int, line: str) -> None:
    text = lines().split("\n")
    text[number - 1] = line
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", "\n".join(text))
    message = message_of(tmp_path)
    assert "malformed" in message
    assert f"line {number} " in message


def test_many_malformed_lines_are_counted_not_listed(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", "490\n" * 50_000)
    message = message_of(tmp_path)
    assert "and 49997 more" in message
    assert len(message) < 400


@pytest.mark.parametrize("bad", [1000, -1, 100_000])
def test_a_class_outside_the_thousand(tmp_path: Path, bad: int) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", lines((65, 970, bad, 0, 999)))
    assert f"{bad} (line 3)" in message_of(tmp_path)
    put_labels(tmp_path / "labels.json", as_json((65, 970, bad, 0, 999)))
    message = message_of(tmp_path, tmp_path / "labels.json")
    assert f"{bad} (ILSVRC2012_val_00000003)" in message


def test_labels_that_count_from_one_are_recognised(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", lines((66, 971, 231, 1, 1000)))
    with pytest.raises(DataError) as caught:
        find_image_set(tmp_path)
    assert "counts from 1" in caught.value.remedy


def test_two_labels_for_one_image(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "val_label.txt", lines() + f"{name(2)} 970\n")
    assert "ILSVRC2012_val_00000002 (line 6)" in message_of(tmp_path)
    entries = [f'"ILSVRC2012_val_{n:08d}": {label}' for n, label in enumerate(LABELS, 1)]
    put_labels(tmp_path / "two.json", "{" + ", ".join([*entries, entries[1]]) + "}")
    assert "more than one label" in message_of(tmp_path, tmp_path / "two.json")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("65", '"65"'),
        (65.0, "65.0"),
        (True, "true"),
        (None, "null"),
        ([65], "no number"),
        ({"a": 1}, "no number"),
    ],
)
def test_a_label_that_is_no_integer_names_the_image(tmp_path: Path, bad: Any, said: str) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "imagenet_labels_fixres.json", as_json((65, 970, bad, 0, 999)))
    assert f"ILSVRC2012_val_00000003 is {said}" in message_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ('{"a": 1', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[65, 970]", "no JSON object"),
        ("65", "no JSON object"),
        ("{}", "holds no label"),
    ],
)
def test_a_file_that_is_not_the_json_of_guide_001(tmp_path: Path, text: str, said: str) -> None:
    put_images(tmp_path)
    put_labels(tmp_path / "imagenet_labels_fixres.json", text)
    assert said in message_of(tmp_path)


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    put_images(tmp_path)
    (tmp_path / "val_label.txt").write_bytes(b"\x1f\x8b\x08\x00\xff\xfe")
    assert "is not text" in message_of(tmp_path)
    (tmp_path / "val_label.txt").write_bytes(b"")
    assert "holds no label" in message_of(tmp_path)


# The class order of real ImageNet.


def image_set(labels: Sequence[int], first: int = 1) -> ImageSet:
    names = tuple(name(number) for number in range(first, first + len(labels)))
    return ImageSet(
        root=Path("/imagenet"),
        names=names,
        paths=tuple(Path("/imagenet") / each for each in names),
        labels=tuple(labels),
        layout="flat folder",
        label_source="val_label.txt",
    )


def test_the_right_order_passes() -> None:
    check_class_order(image_set(FIRST_LABELS))
    check_class_order(image_set((*FIRST_LABELS, 3, 4)))
    check_class_order(image_set((1, 2, 3), first=1000))


def test_another_order_is_refused() -> None:
    wrong = (*FIRST_LABELS[:1], 7, *FIRST_LABELS[2:])
    with pytest.raises(DataError, match=r"ILSVRC2012_val_00000002\.JPEG is 7, not 970") as caught:
        check_class_order(image_set(wrong))
    assert "WordNet" in caught.value.remedy
    # The known images need not be the first of the part.
    with pytest.raises(DataError, match="not in ImageNet's class order"):
        check_class_order(image_set((1, 2, 3), first=14))


def test_labels_one_too_high_are_recognised() -> None:
    with pytest.raises(DataError) as caught:
        check_class_order(image_set([label + 1 for label in FIRST_LABELS]))
    assert "subtract one" in caught.value.remedy


def test_the_whole_set_has_as_many_images_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (dataset.WHOLE_SET, dataset.IMAGES_PER_CLASS) == (50_000, 50)
    monkeypatch.setattr(dataset, "WHOLE_SET", 2000)
    monkeypatch.setattr(dataset, "IMAGES_PER_CLASS", 2)
    left = [2] * 1000
    for label in FIRST_LABELS:
        left[label] -= 1
    labels = [*FIRST_LABELS, *(label for label in range(1000) for _ in range(left[label]))]
    check_class_order(image_set(labels))
    labels[-1] = 0
    with pytest.raises(DataError, match=r"class 0 has 3, class 999 has 1"):
        check_class_order(image_set(labels))
