"""Which images are used: the same ones everywhere, and never others than were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import DataError
from harness.base.selection import Selection
from harness.images.dataset import ImageSet
from harness.images.selection import choose
from tests.selftest.image_folders import image_set, name

WHOLE = image_set([7 * number % 1000 for number in range(20)])


def numbers(chosen: ImageSet) -> list[int]:
    return [int(each[15:23]) for each in chosen.names]


@pytest.mark.parametrize(
    ("selection", "chosen", "described"),
    [
        (Selection(), list(range(1, 21)), "all"),
        (Selection(limit=3), [1, 2, 3], "the first 3 by name"),
        (Selection(limit=1000), list(range(1, 21)), "the first 1,000 by name"),
        # Kept as numbers: a change here makes every recorded sample another one.
        (Selection(sample=5), [2, 4, 9, 13, 15], "a sample of 5, seed 0"),
        (Selection(sample=5, seed=7), [4, 6, 8, 14, 16], "a sample of 5, seed 7"),
    ],
)
def test_what_is_chosen(selection: Selection, chosen: list[int], described: str) -> None:
    found = choose(WHOLE, selection)
    assert found == WHOLE.part(number - 1 for number in chosen)
    assert numbers(found) == chosen
    assert selection.describe() == described


@given(st.integers(1, 40), st.integers(0, 999_999), st.data())
def test_a_sample_is_without_replacement_and_grows(count, seed, data):
    size = data.draw(st.integers(1, count))
    whole = image_set([0] * count)
    chosen = choose(whole, Selection(sample=size, seed=seed))
    assert len(set(chosen.names)) == len(chosen) == size
    larger = choose(whole, Selection(sample=min(size + 1, count), seed=seed))
    assert set(chosen.names) <= set(larger.names)
    with pytest.raises(DataError, match=f"a sample of {count + 1} from {count} images"):
        choose(whole, Selection(sample=count + 1, seed=seed))


# Stored lists.


def listed(path: Path, text: str) -> ImageSet:
    path.write_text(text, encoding="utf-8")
    return choose(WHOLE, Selection(list_file=path))


def test_a_stored_list_gives_the_same_set_again(tmp_path: Path) -> None:
    chosen = choose(WHOLE, Selection(sample=6, seed=2))
    again = listed(tmp_path / "list.txt", "\n".join(chosen.names))
    assert again == chosen and again.digest == chosen.digest
    text = (
        "# chosen by hand\r\n\r\n"
        f"{name(5)}\r\n"
        "ILSVRC2012_val_00000002   # a fox\r\n"
        f"n01440764/{name(9)}\n"
    )
    assert numbers(listed(tmp_path / "list.txt", text)) == [2, 5, 9]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{name(1)}\n\ncat.jpg\n", "line 3 'cat.jpg' is no image's"),
        (f"{name(21)}\n", "line 1"),
        (f"{name(1)} 65\n", "line 1"),
        ("ILSVRC2012_val_00000001.png\n", "line 1"),
        (f"{name(1)}\n{name(2)}\nILSVRC2012_val_00000001\n", "line 3 .* stands in line 1"),
        ("# nothing\n", "names no image"),
    ],
)
def test_a_list_of_other_images(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        listed(tmp_path / "list.txt", text)
    assert caught.value.remedy
