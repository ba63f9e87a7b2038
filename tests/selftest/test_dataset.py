"""Image sets: every layout of the guides is found, every planted mistake is named."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import DataError
from harness.base.terms import WHOLE_SET
from harness.images import dataset, layouts
from harness.images.dataset import (
    FIRST_LABELS,
    FilePaths,
    ImageSet,
    check,
    check_files,
    find_image_set,
)
from harness.records.observed import SetFindings
from tests.selftest.image_folders import (
    LABELS,
    lines,
    message_of,
    name,
    put_images,
    put_text,
)


def as_json(labels: Sequence[Any] = LABELS) -> str:
    return json.dumps({f"ILSVRC2012_val_{n:08d}": label for n, label in enumerate(labels, 1)})


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
    put_text(tmp_path / source, text)
    found = find_image_set(tmp_path)
    assert found.names == tuple(name(number) for number in range(1, 6))
    assert tuple(found.paths) == tuple(tmp_path / folder / name(number) for number in range(1, 6))
    assert found.labels == LABELS
    assert found.layout == "flat folder"
    assert found.label_source == source
    assert len(found) == 5


def test_labels_above_the_folder_that_was_named(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_text(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path / "val")
    assert found.labels == LABELS
    assert found.label_source == "../val_label.txt"
    assert found.digest == find_image_set(tmp_path).digest


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_images(tmp_path / "val")
    put_text(tmp_path / "val_label.txt", lines())
    monkeypatch.chdir(tmp_path / "val")
    assert find_image_set(Path()).labels == LABELS


def test_a_label_file_that_is_named_wins(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_text(tmp_path / "val_label.txt", "garbage")
    put_text(tmp_path / "elsewhere" / "mine.txt", lines())
    found = find_image_set(tmp_path, tmp_path / "elsewhere" / "mine.txt")
    assert found.labels == LABELS
    assert found.label_source == "elsewhere/mine.txt"


def test_two_label_files_must_agree(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_text(tmp_path / "val_label.txt", lines())
    put_text(tmp_path / "imagenet_labels_fixres.json", as_json())
    assert find_image_set(tmp_path).label_source == "val_label.txt"
    put_text(tmp_path / "imagenet_labels_fixres.json", as_json((65, 970, 231, 0, 999)))
    message = message_of(tmp_path)
    assert "disagree on ILSVRC2012_val_00000003" in message
    assert "imagenet_labels_fixres.json" in message


def test_a_part_of_the_images_beside_the_whole_list_is_a_set(tmp_path: Path) -> None:
    put_images(tmp_path / "val", [2, 4])
    put_text(tmp_path / "val_label.txt", lines())
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
    put_text(tmp_path / "val_label.txt", lines())
    for other in ("Thumbs.db", "._ILSVRC2012_val_00000001.JPEG", "README.txt"):
        (tmp_path / "val" / other).write_bytes(b"x")
    assert len(find_image_set(tmp_path)) == 5


def test_one_folder_under_two_names_is_one_folder(tmp_path: Path) -> None:
    put_images(tmp_path / "ILSVRC2012_img_val")
    put_text(tmp_path / "val_label.txt", lines())
    (tmp_path / "val").symlink_to("ILSVRC2012_img_val")
    assert find_image_set(tmp_path).labels == LABELS


def test_the_order_is_by_name_whatever_the_file_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_images(tmp_path)
    put_text(tmp_path / "val_label.txt", lines())
    entries = layouts.entries
    monkeypatch.setattr(
        layouts, "entries", lambda folder: sorted(entries(folder), key=lambda e: e.name[::-1])
    )
    found = find_image_set(tmp_path)
    assert found.names == tuple(sorted(found.names))
    assert found.labels == LABELS


def test_digest_is_over_names_and_labels(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_text(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path)
    assert found.digest == hashlib.sha256(lines().encode()).hexdigest()
    assert found.part(range(4)).digest != found.digest
    swapped = (found.labels[1], found.labels[0], *found.labels[2:])
    assert replace(found, labels=swapped).digest != found.digest


def test_a_part_keeps_the_order_of_the_whole(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_text(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path)
    part = found.part([3, 0, 3])
    assert (part.names, part.labels) == ((name(1), name(4)), (65, 0))
    assert tuple(part.paths) == (found.paths[0], found.paths[3])
    assert found.paths[-2:] == tuple(found.paths)[-2:]
    assert isinstance(found.paths, FilePaths)
    folders = found.paths.folders  # one object for all files: 50,000 would take megabytes
    assert all(folder is folders[0] for folder in folders)
    assert found.part(range(5)) == found


def test_a_set_describes_itself(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_text(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path)
    assert found.describe() == "5 images of 5 classes (flat folder), labels from val_label.txt"
    assert found.part([1]).describe().startswith("1 image of 1 class (")
    (tmp_path / "val" / name(5)).unlink()
    assert find_image_set(tmp_path).describe().endswith("val_label.txt, which has 1 more")


# What is wrong with a folder.


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / name(6)).mkdir(), name(6)),
        (lambda folder: (folder / name(6)).symlink_to("nowhere"), name(6)),
        (lambda folder: (folder / "ILSVRC2012_val_00000002.png").touch(), "same name"),
    ],
    ids=["folder", "broken link", "two of one name"],
)
def test_an_image_that_is_none(tmp_path: Path, spoil: Callable[[Path], Any], said: str) -> None:
    put_images(tmp_path)
    put_text(tmp_path / "val_label.txt", lines())
    spoil(tmp_path)
    assert said in message_of(tmp_path)


def test_an_empty_folder_and_an_unknown_layout(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in message_of(tmp_path / "file")
    (tmp_path / "file").unlink()
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
    put_text(tmp_path / "val_label.txt", lines())
    message = message_of(tmp_path)
    assert "more than one place" in message
    assert "val (flat folder)" in message


@pytest.mark.parametrize("what", ["scandir", "read_text"])
def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    put_images(tmp_path)
    put_text(tmp_path / "val_label.txt", lines())

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os if what == "scandir" else Path, what, refuse)
    message = message_of(tmp_path)
    assert "Permission denied" in message
    assert str(tmp_path) in message


# What is wrong with labels.


def test_images_without_label(tmp_path: Path) -> None:
    put_images(tmp_path, range(1, 13))
    put_text(tmp_path / "val_label.txt", lines())
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
    (tmp_path / "val_label.txt").rmdir()
    os.mkfifo(tmp_path / "val_label.txt")  # not waited for
    assert "is not a file" in message_of(tmp_path)


def test_many_malformed_lines_are_counted_not_listed(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_text(tmp_path / "val_label.txt", "cat\n" * 50_000)
    message = message_of(tmp_path)
    assert "and 49997 more" in message
    assert len(message) < 400


def test_labels_that_count_from_one_are_recognised(tmp_path: Path) -> None:
    put_images(tmp_path)
    put_text(tmp_path / "val_label.txt", lines((66, 971, 231, 1, 1000)))
    with pytest.raises(DataError) as caught:
        find_image_set(tmp_path)
    assert "counts from 1" in caught.value.remedy


JSON = "imagenet_labels_fixres.json"
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
                f"{name(2)} nine",
                f"{name(2)} 65.0",
                f"{name(2)} ٦٥",
                f"{name(2)} {'9' * 5000}",
                f"{name(2)},970",
                "490",
            )
        ),
        *(
            ("val_label.txt", lines((65, 970, bad, 0, 999)), f"{bad} (line 3)")
            for bad in (1000, -1, 100_000)
        ),
        ("val_label.txt", lines() + f"{name(2)} 970\n", "ILSVRC2012_val_00000002 (line 6)"),
        ("val_label.txt", b"\x1f\x8b\x08\x00\xff\xfe", "is not text"),
        ("val_label.txt", lines().encode("utf-16"), "is not text"),
        ("val_label.txt", "", "holds no label"),
        (JSON, as_json((65, 970, 1000, 0, 999)), f"1000 ({THIRD})"),
        *(
            (JSON, as_json((65, 970, bad, 0, 999)), f"{THIRD} is {said}")
            for bad, said in (("65", '"65"'), (65.0, "65.0"), (True, "true"), ([65], "[65]"))
        ),
        (JSON, f"{{{TWICE}}}", "more than one label"),
        (JSON, "", "not JSON"),
        (JSON, '{"a": 1', "not JSON"),
        (JSON, "[" * 100_000, "not JSON"),
        (JSON, "[65, 970]", "no JSON object"),
        (JSON, "{}", "holds no label"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_label_file_that_is_refused(
    tmp_path: Path, file: str, content: str | bytes, said: str
) -> None:
    put_images(tmp_path)
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in message_of(tmp_path)


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


def test_another_order_is_refused() -> None:
    wrong = random.Random(1).sample(FIRST_LABELS, len(FIRST_LABELS))
    with pytest.raises(DataError, match="not in ImageNet's class order") as caught:
        check(image_set(wrong))
    assert "WordNet" in caught.value.remedy
    # The known images need not be the first of the part.
    with pytest.raises(DataError, match="not in ImageNet's class order"):
        check(image_set((1, 2, 3), first=14))


@pytest.mark.parametrize("bad", [1, 7])
def test_a_few_wrong_labels_are_not_called_another_order(bad: int) -> None:
    wrong = (FIRST_LABELS[0], *(label + 1 for label in FIRST_LABELS[1 : bad + 1]))
    with pytest.raises(DataError, match=r"ILSVRC2012_val_00000002\.JPEG is 971, not 970") as caught:
        check(image_set((*wrong, *FIRST_LABELS[bad + 1 :])))
    assert "these images have another class by val_label.txt" in caught.value.message
    assert f"({bad} of the 15 whose class is known)" in caught.value.message
    assert "order" not in f"{caught.value}"
    assert caught.value.remedy == "replace the label file"


def test_labels_one_too_high_are_recognised() -> None:
    with pytest.raises(DataError) as caught:
        check(image_set([label + 1 for label in FIRST_LABELS]))
    assert "subtract one" in caught.value.remedy


def test_labels_of_absent_images_are_checked_too(tmp_path: Path) -> None:
    """A part without the known images, beside a list that has them in another order."""
    put_images(tmp_path / "val", [4, 5])
    put_text(tmp_path / "val_label.txt", lines((65, 970, 231, 0, 999)))
    found = find_image_set(tmp_path)
    assert found.landmarks[2] == ("ILSVRC2012_val_00000003", 231)
    with pytest.raises(DataError, match="ILSVRC2012_val_00000003 is 231, not 230"):
        check(found.part([1]))


# The check before any inference.


def test_what_the_check_counts() -> None:
    found = replace(image_set((*FIRST_LABELS, 3, 3)), labels_without_image=49_983)
    assert check(found) == SetFindings(
        images=17, labels_without_image=49_983, classes=16, fewest=1, most=2, known=15
    )
    assert check(image_set(())).classes == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": (65, 970)}, "3 names, 3 files and 2 labels"),
        ({"names": (name(1), name(2), "ILSVRC2012_val_00000002.png")}, "same name"),
        ({"labels": (65, 970, 1000)}, r"00000003\.JPEG is 1000"),
        ({"labels": (65, -1, 230)}, r"00000002\.JPEG is -1"),
        ({"labels": (65, 970, 231)}, "another class"),
        ({"labels": (66, 971, 231)}, "class order"),
    ],
)
def test_what_the_check_refuses(change: dict[str, Any], said: str) -> None:
    right = image_set(FIRST_LABELS[:3])
    check(right)
    check(image_set((*FIRST_LABELS, 3, 4)))
    check(image_set((1, 2, 3), first=1000))
    with pytest.raises(DataError, match=said):
        check(replace(right, **change))


@pytest.mark.parametrize("kind", ["empty", "gone", "pipe", "folder"])
def test_files_that_cannot_be_images_are_named(tmp_path: Path, kind: str) -> None:
    put_images(tmp_path)
    put_text(tmp_path / "val_label.txt", lines())
    found = find_image_set(tmp_path)
    check_files(found)
    bad = tmp_path / name(4)
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
    with pytest.raises(DataError, match=r"class 0 has 3, class 999 has 1"):
        check(replace(whole, labels=(*whole.labels[:-1], 0)))


def test_the_whole_set_has_imagenet_s_names(whole: ImageSet) -> None:
    def named(*names: str) -> ImageSet:
        return replace(whole, names=(*whole.names[: -len(names)], *names))

    with pytest.raises(DataError, match="2,000 images in /imagenet, but 1 of them are not") as one:
        check(named("zebra.JPEG"))
    assert "zebra.JPEG" in one.value.message
    with pytest.raises(DataError, match="but 1 of them"):
        check(named(name(2001)))
    photos = [f"photo_{number:05d}.JPEG" for number in range(2000)]
    with pytest.raises(DataError, match="but 2,000 of them"):
        check(named(*photos))
    check(named(*photos).part(range(1999)))  # is a part
