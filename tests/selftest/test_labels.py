"""Label files of every kind; the development kit's numbers are never read as class indices."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import DataError
from harness.images.dataset import find_image_set
from tests.selftest.image_folders import (
    DEVKIT_ORDER,
    LABELS,
    WNIDS,
    clsloc,
    error_of,
    ground_truth,
    lines,
    message_of,
    name,
    put_images,
    put_text,
)

KIT = "ILSVRC2012_devkit_t12/data"
TRUTH = f"{KIT}/ILSVRC2012_validation_ground_truth.txt"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five images, and the kit's numbers for them without a list of the classes."""
    put_images(tmp_path / "val")
    put_text(tmp_path / TRUTH, ground_truth())
    return tmp_path


# The development kit.


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (f"{KIT}/map_clsloc.txt", clsloc()),
        ("val/map_clsloc.txt", "".join(sorted(clsloc().splitlines(keepends=True)))),
        ("synsets.txt", "\n".join(DEVKIT_ORDER)),
        ("imagenet_lsvrc_2015_synsets.txt", "".join(f"{w} a name\r\n" for w in DEVKIT_ORDER)),
    ],
    ids=["kit", "lines in another order", "bare", "names"],
)
def test_numbers_become_indices_by_way_of_the_wnid(root: Path, where: str, text: str) -> None:
    error = error_of(root)
    assert "order of their own" in error.message
    assert "meta.mat" in error.remedy and "map_clsloc.txt" in error.remedy
    put_text(root / where, text)
    found = find_image_set(root)
    assert (found.labels, found.label_source) == (LABELS, TRUTH)
    assert tuple(int(number) - 1 for number in ground_truth().split()) != LABELS
    # A part of the images has its own lines.
    for number in (1, 3, 4):
        (root / "val" / name(number)).unlink()
    found = find_image_set(root)
    assert (found.names, found.labels) == ((name(2), name(5)), (970, 999))
    assert found.labels_without_image == 3
    # Nobody needs a list of the classes who has `val_label.txt`.
    put_text(root / "val_label.txt", lines())
    assert find_image_set(root).label_source == "val_label.txt"


@pytest.mark.parametrize("numbered", [False, True])
def test_a_sorted_list_does_not_give_the_order_of_the_numbers(root: Path, numbered: bool) -> None:
    """With it number n would be index n - 1, the reading that scores near zero."""
    put_text(root / "synsets.txt", clsloc(WNIDS) if numbered else "\n".join(WNIDS))
    assert "synsets.txt has the WNIDs sorted" in message_of(root)
    put_text(root / KIT / "map_clsloc.txt", clsloc())
    assert find_image_set(root).labels == LABELS


@pytest.mark.parametrize("place", ["kit", "kit/data", "."])
def test_the_kits_file_is_known_by_its_content(tmp_path: Path, place: str) -> None:
    put_images(tmp_path / "images")
    put_text(tmp_path / "kit" / "mine.txt", ground_truth())
    put_text(tmp_path / place / "map_clsloc.txt", clsloc())
    assert find_image_set(tmp_path / "images", tmp_path / "kit" / "mine.txt").labels == LABELS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("65\n970\n230\n0\n999\n", r"0 (line 4)"),
        ("65\n970\n1001\n1\n999\n", r"1001 (line 3)"),
        ("65\n\n970\n230\n1\n999\n", "line 2 of"),
        ("65\n970\n230\n", "2 of 5 images have no label"),
        (f"65\n970\n{'9' * 5000}\n", "malformed"),
    ],
)
def test_numbers_that_are_not_the_kits(root: Path, text: str, said: str) -> None:
    put_text(root / KIT / "map_clsloc.txt", clsloc())
    put_text(root / TRUTH, text)
    assert said in message_of(root)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n".join(DEVKIT_ORDER[1:]), "999 WNIDs"),
        ("\n".join([*DEVKIT_ORDER[1:], DEVKIT_ORDER[1]]), "999 different ones"),
        (clsloc().replace(" 7 ", " 8 "), "not 1..1000"),
        (clsloc().replace(" 7 some_name", ""), "not 1..1000"),
        (clsloc() + "tench\n", "malformed"),
    ],
)
def test_a_list_that_is_not_the_thousand(root: Path, text: str, said: str) -> None:
    put_text(root / "synsets.txt", text)
    assert said in message_of(root)


# The kit's `meta.mat`.


def meta(order: tuple[str, ...] = DEVKIT_ORDER) -> np.ndarray[Any, Any]:
    """Synsets as SciPy reads them: the thousand, then those that group them, in no order."""
    groups = [f"n{9_000_000 + number:08d}" for number in range(860)]
    rows = [(number, wnid, "words", 0) for number, wnid in enumerate((*order, *groups), 1)]
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    return np.array(rows[::-1], dtype=kind)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"synsets": meta()}, ""),
        ({}, "cannot be read as the development kit's: KeyError"),
        ({"synsets": meta((*DEVKIT_ORDER[1:], "tench"))}, "does not hold the 1000 classes"),
        ({"synsets": meta(WNIDS)}, "has the WNIDs sorted"),
    ],
)
def test_meta_mat_gives_the_order(root: Path, content: dict[str, Any], said: str) -> None:
    file = root / KIT / "meta.mat"
    importlib.import_module("scipy.io").savemat(file, content, do_compression=True)
    if said:
        assert said in message_of(root)
    else:
        assert find_image_set(root).labels == LABELS
    # A text is read first, and alone where it gives the order.
    put_text(file, "MATLAB 5.0 MAT-file")
    assert "meta.mat cannot be read" in message_of(root)
    put_text(root / KIT / "map_clsloc.txt", clsloc())
    assert find_image_set(root).labels == LABELS


# Kaggle's copy.


def solution(labels: Sequence[int] = LABELS) -> str:
    """Kaggle's file: its images in no order, with the boxes of each."""
    rows = [f"{name(n)[:-5]},{WNIDS[label]} 1 2 30 40 " for n, label in enumerate(labels, 1)]
    return "\n".join(["ImageId,PredictionString", *reversed(rows), ""])


@pytest.mark.parametrize("named", [".", "ILSVRC/Data/CLS-LOC", "ILSVRC/Data/CLS-LOC/val"])
def test_kaggles_copy_is_found_and_labelled(tmp_path: Path, named: str) -> None:
    put_images(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val")
    put_text(tmp_path / "LOC_val_solution.csv", solution())
    numbers = "".join(f"{name(n)[:-5]} {n}\n" for n in range(1, 6))  # of images, not of classes
    put_text(tmp_path / "ILSVRC" / "ImageSets" / "CLS-LOC" / "val.txt", numbers)
    assert "has 5 WNIDs, not 1000" in message_of(tmp_path / named)
    put_text(tmp_path / "LOC_synset_mapping.txt", "".join(f"{w} some, name\n" for w in WNIDS))
    found = find_image_set(tmp_path / named)
    assert found.labels == LABELS
    assert found.label_source.endswith("LOC_val_solution.csv")
    put_text(tmp_path / "LOC_val_solution.csv", solution().replace(WNIDS[970], "n99999999"))
    assert "no classes of" in message_of(tmp_path / named)
    put_text(tmp_path / "LOC_val_solution.csv", solution().replace(f",{WNIDS[970]}", ""))
    assert "malformed" in message_of(tmp_path / named)
    assert "line 5 " in message_of(tmp_path / named)


def test_kaggles_whole_file_needs_no_list(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_text(tmp_path / "LOC_val_solution.csv", solution(range(1000)))
    assert find_image_set(tmp_path).labels == (0, 1, 2, 3, 4)


# Other names.


@pytest.mark.parametrize("prefix", ["", "val/", "n01440764/"])
def test_a_list_with_or_without_folders(tmp_path: Path, prefix: str) -> None:
    put_images(tmp_path / "val")
    put_text(tmp_path / "val.txt", "".join(f"{prefix}{line}\n" for line in lines().splitlines()))
    assert find_image_set(tmp_path, tmp_path / "val.txt").labels == LABELS


def test_a_label_file_of_hundreds_of_megabytes_is_not_read(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_text(tmp_path / "mine", lines())
    os.truncate(tmp_path / "mine", 200 << 20)  # a hole: it takes no disk
    with pytest.raises(DataError, match="is larger than 32 MiB"):
        find_image_set(tmp_path, tmp_path / "mine")


def test_json_is_known_by_its_content(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    labels = {name(number).split(".")[0]: label for number, label in enumerate(LABELS, 1)}
    put_text(tmp_path / "mine", json.dumps(labels))
    assert find_image_set(tmp_path, tmp_path / "mine").labels == LABELS
