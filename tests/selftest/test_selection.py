"""Which images are used: the same ones everywhere, and never others than were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import ConfigError, DataError
from harness.images.dataset import ImageSet
from harness.images.selection import Selection
from tests.selftest.image_folders import name


def image_set(count: int = 20) -> ImageSet:
    names = tuple(name(number) for number in range(1, count + 1))
    return ImageSet(
        root=Path("/imagenet"),
        names=names,
        paths=tuple(Path("/imagenet") / each for each in names),
        labels=tuple(7 * number % 1000 for number in range(count)),
        layout="flat folder",
        label_source="val_label.txt",
    )


def numbers(chosen: ImageSet) -> list[int]:
    return [int(each[15:23]) for each in chosen.names]


def test_all_is_the_default() -> None:
    assert Selection().apply(image_set()) == image_set()
    assert Selection().describe() == "all"


@pytest.mark.parametrize("limit", [1, 3, 20, 99])
def test_the_first_by_name(limit: int) -> None:
    whole = image_set()
    chosen = Selection(limit=limit).apply(whole)
    assert chosen.names == whole.names[:limit]
    assert tuple(chosen.paths) == whole.paths[:limit]
    assert chosen.labels == whole.labels[:limit]
    assert Selection(limit=1000).describe() == "the first 1,000 by name"


def test_a_sample_is_the_same_on_every_machine() -> None:
    """Kept as numbers: a change here makes every recorded sample another one."""
    assert numbers(Selection(sample=5).apply(image_set())) == [2, 4, 9, 13, 15]
    assert numbers(Selection(sample=5, seed=7).apply(image_set())) == [4, 6, 8, 14, 16]
    assert Selection(sample=5, seed=7).describe() == "a sample of 5, seed 7"


@given(st.integers(1, 40), st.integers(0, 999_999), st.data())
def test_a_sample_is_without_replacement_and_in_order(
    count: int, seed: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, count))
    whole = image_set(count)
    chosen = Selection(sample=size, seed=seed).apply(whole)
    assert len(set(chosen.names)) == len(chosen) == size
    assert list(chosen.names) == sorted(chosen.names)
    labels = dict(zip(whole.names, whole.labels, strict=True))
    assert chosen.labels == tuple(labels[each] for each in chosen.names)
    with pytest.raises(DataError, match=f"a sample of {count + 1} from {count} images"):
        Selection(sample=count + 1, seed=seed).apply(whole)
    # A larger sample of the same seed holds the smaller one.
    larger = Selection(sample=min(size + 1, count), seed=seed).apply(whole)
    assert set(chosen.names) <= set(larger.names)


def test_a_sample_is_fair() -> None:
    """Over many seeds every image is chosen about equally often: 5 of 20 in 400 seeds, 100."""
    counts = dict.fromkeys(range(1, 21), 0)
    for seed in range(400):
        for number in numbers(Selection(sample=5, seed=seed).apply(image_set())):
            counts[number] += 1
    assert min(counts.values()) > 60
    assert max(counts.values()) < 140


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"limit": 1, "sample": 1}, "--limit and --sample do not go together"),
        ({"limit": 1, "list_file": Path("a")}, "--limit and --image-list"),
        ({"sample": 1, "list_file": Path("a")}, "--sample and --image-list"),
        ({"limit": 0}, "--limit: 0 images"),
        ({"sample": -3}, "--sample: -3 images"),
        ({"sample": 3, "seed": -1}, "--seed: -1 is negative"),
        ({"limit": 3, "seed": 1}, "--seed 1 without a sample"),
        ({"seed": 1}, "--seed 1 without a sample"),
    ],
)
def test_choices_that_make_no_sense(choice: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Selection(**choice)
    assert caught.value.remedy


# Stored lists.


def listed(path: Path, text: str) -> Selection:
    path.write_text(text, encoding="utf-8")
    return Selection(list_file=path)


def test_a_stored_list_gives_the_same_set_again(tmp_path: Path) -> None:
    chosen = Selection(sample=6, seed=2).apply(image_set())
    again = listed(tmp_path / "list.txt", "\n".join(chosen.names))
    assert again.apply(image_set()) == chosen
    assert again.apply(image_set()).digest == chosen.digest
    assert again.describe() == f"the names in {tmp_path / 'list.txt'}"


def test_names_with_and_without_suffix_or_folder_and_comments(tmp_path: Path) -> None:
    text = (
        "# chosen by hand\r\n\r\n"
        f"{name(5)}\r\n"
        "ILSVRC2012_val_00000002   # a fox\r\n"
        f"n01440764/{name(9)}\n"
    )
    chosen = listed(tmp_path / "list.txt", text).apply(image_set())
    assert numbers(chosen) == [2, 5, 9]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{name(1)}\n\ncat.jpg\n", "that no image has: line 3 'cat.jpg'"),
        (f"{name(21)}\n", "that no image has: line 1"),
        (f"{name(1)} 65\n", "that no image has: line 1"),
        ("ILSVRC2012_val_00000001.png\n", "that no image has: line 1"),
        (f"{name(1)}\n{name(2)}\nILSVRC2012_val_00000001\n", r"twice: line 3 .*first in line 1"),
        ("# nothing\n", "names no image"),
        ("", "names no image"),
    ],
)
def test_a_list_of_other_images(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        listed(tmp_path / "list.txt", text).apply(image_set())
    assert caught.value.remedy
