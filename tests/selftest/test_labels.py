"""Label files of every kind; the development kit's numbers are never read as class indices."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.base.errors import DataError
from harness.images import synsets
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
from tests.selftest.running import ROOT

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
    put_text(root / where, text)
    found = find_image_set(root)
    assert found.labels == LABELS
    assert found.label_source == TRUTH
    naive = tuple(int(number) - 1 for number in ground_truth().split())
    assert naive != LABELS


def test_a_part_of_the_images_has_its_own_lines(root: Path) -> None:
    for number in (1, 3, 4):
        (root / "val" / name(number)).unlink()
    put_text(root / KIT / "map_clsloc.txt", clsloc())
    found = find_image_set(root)
    assert (found.names, found.labels) == ((name(2), name(5)), (970, 999))
    assert found.labels_without_image == 3


def test_numbers_alone_are_refused(root: Path) -> None:
    error = error_of(root)
    assert "order of their own" in error.message
    assert "meta.mat" in error.remedy
    assert "map_clsloc.txt" in error.remedy


@pytest.mark.parametrize("numbered", [False, True])
def test_a_sorted_list_does_not_give_the_order_of_the_numbers(root: Path, numbered: bool) -> None:
    """With it number n would be index n - 1, the reading that scores near zero."""
    put_text(root / "synsets.txt", clsloc(WNIDS) if numbered else "\n".join(WNIDS))
    message = message_of(root)
    assert "synsets.txt has the WNIDs sorted" in message
    put_text(root / KIT / "map_clsloc.txt", clsloc())
    assert find_image_set(root).labels == LABELS


def test_two_lists_must_agree(root: Path) -> None:
    put_text(root / KIT / "map_clsloc.txt", clsloc())
    put_text(root / "synsets.txt", "\n".join(reversed(DEVKIT_ORDER)))
    assert "different orders" in message_of(root)


@pytest.mark.parametrize("place", ["kit", "kit/data", "."])
def test_the_kits_file_is_known_by_its_content(tmp_path: Path, place: str) -> None:
    put_images(tmp_path / "images")
    put_text(tmp_path / "kit" / "mine.txt", ground_truth())
    put_text(tmp_path / place / "map_clsloc.txt", clsloc())
    assert find_image_set(tmp_path / "images", tmp_path / "kit" / "mine.txt").labels == LABELS


def test_other_labels_come_before_the_kits(root: Path) -> None:
    """Nobody needs a list of the classes who has `val_label.txt`."""
    put_text(root / "val_label.txt", lines())
    assert find_image_set(root).label_source == "val_label.txt"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("65\n970\n230\n0\n999\n", r"0 (line 4)"),
        ("65\n970\n1001\n1\n999\n", r"1001 (line 3)"),
        ("65\n\n970\n230\n1\n999\n", "line 2 of"),
        ("65\n970\n230\n", "2 of 5 images have no label"),
        ("65\n970\n-1\n", "malformed"),
        (f"{'9' * 5000}\n", "malformed"),
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
        (clsloc(DEVKIT_ORDER[1:]), "not 1..1000"),
        (clsloc().replace(" 7 ", " 8 "), "not 1..1000"),
        (clsloc().replace(" 7 ", " 0 "), "not 1..1000"),
        (clsloc().replace(" 7 some_name", ""), "not 1..1000"),
        (clsloc() + "tench\n", "malformed"),
        ("", "0 WNIDs"),
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


def pretend_scipy(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def loadmat(path: str, *, squeeze_me: bool) -> Any:
        assert squeeze_me
        assert Path(path).is_file()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def load(module: str) -> Any:
        assert module == "scipy.io"
        return SimpleNamespace(loadmat=loadmat)

    monkeypatch.setattr(importlib, "import_module", load)


def test_meta_mat_gives_the_order(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_text(root / KIT / "meta.mat", "MATLAB 5.0")
    pretend_scipy(monkeypatch, {"synsets": meta()})
    assert find_image_set(root).labels == LABELS


def test_a_meta_mat_that_scipy_writes_and_reads(tmp_path: Path) -> None:
    io = importlib.import_module("scipy.io")
    io.savemat(tmp_path / "meta.mat", {"synsets": meta()}, do_compression=True)
    assert synsets.read_meta(tmp_path / "meta.mat") == DEVKIT_ORDER
    put_text(tmp_path / "broken" / "meta.mat", "MATLAB 5.0 MAT-file")
    with pytest.raises(DataError, match="not the development kit's"):
        synsets.read_meta(tmp_path / "broken" / "meta.mat")


def test_without_scipy_the_remedy_says_what_to_do(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}")

    put_text(root / KIT / "meta.mat", "MATLAB 5.0")
    monkeypatch.setattr(importlib, "import_module", refuse)
    error = error_of(root)
    assert "SciPy" in error.message
    assert "pip install -r requirements.txt" in error.remedy
    # It is among them: a development kit as it is unpacked must do.
    pins = (ROOT / "requirements" / "base.txt").read_text().splitlines()
    assert any(pin.startswith("scipy==") for pin in pins)
    put_text(root / KIT / "map_clsloc.txt", clsloc())
    assert find_image_set(root).labels == LABELS


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ValueError("Unknown mat file type"), "Unknown mat file type"),
        ({}, "KeyError"),
        ({"synsets": np.zeros(3)}, "IndexError"),
        ({"synsets": meta()[:1700]}, "does not hold the 1000 classes"),
        ({"synsets": meta((*DEVKIT_ORDER[1:], "tench"))}, "does not hold the 1000 classes"),
        ({"synsets": meta(WNIDS)}, "has the WNIDs sorted"),
    ],
)
def test_a_meta_mat_that_is_not_the_kits(
    root: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, said: str
) -> None:
    put_text(root / KIT / "meta.mat", "MATLAB 5.0")
    pretend_scipy(monkeypatch, answer)
    assert said in message_of(root)


# WNIDs as labels, and other names.


def test_a_wnid_for_each_image(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    labels = (*LABELS, *range(1000))
    text = "".join(f"{WNIDS[label]}\n" for label in labels)
    put_text(tmp_path / "imagenet_2012_validation_synset_labels.txt", text)
    assert find_image_set(tmp_path).labels == LABELS
    # Fewer than all WNIDs have no places of their own.
    part = "".join(f"{WNIDS[label]}\n" for label in (*LABELS, 0))
    put_text(tmp_path / "imagenet_2012_validation_synset_labels.txt", part)
    assert "not known" in message_of(tmp_path)
    put_text(tmp_path / "synsets.txt", "\n".join(WNIDS))
    assert find_image_set(tmp_path).labels == LABELS


def test_a_list_of_classes_is_no_label_file(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    put_text(tmp_path / "synsets.txt", "\n".join(WNIDS))
    assert "list of classes" in message_of(tmp_path, tmp_path / "synsets.txt")


@pytest.mark.parametrize("prefix", ["", "val/", "n01440764/"])
def test_val_txt_with_or_without_folders(tmp_path: Path, prefix: str) -> None:
    put_images(tmp_path / "val")
    text = "".join(f"{prefix}{line}\n" for line in lines().splitlines())
    put_text(tmp_path / "val.txt", text)
    found = find_image_set(tmp_path)
    assert (found.labels, found.label_source) == (LABELS, "val.txt")


@pytest.mark.parametrize("text", ["n01440764/cat 0\n", "", "000000000139.jpg\n", "\x00\x01"])
def test_a_val_txt_of_another_data_set_is_left_alone(tmp_path: Path, text: str) -> None:
    put_images(tmp_path / "imagenet" / "val")
    put_text(tmp_path / "imagenet" / "val_label.txt", lines())
    put_text(tmp_path / "imagenet" / "val" / "val.txt", text)
    assert find_image_set(tmp_path / "imagenet").label_source == "val_label.txt"


def test_json_is_known_by_its_content(tmp_path: Path) -> None:
    put_images(tmp_path / "val")
    labels = {name(number).split(".")[0]: label for number, label in enumerate(LABELS, 1)}
    put_text(tmp_path / "mine", json.dumps(labels))
    assert find_image_set(tmp_path, tmp_path / "mine").labels == LABELS


def test_a_list_that_only_numbers_the_images(tmp_path: Path) -> None:
    """The competition's `ImageSets/CLS-LOC/val.txt`."""
    put_images(tmp_path / "val")
    numbers = "".join(f"ILSVRC2012_val_{number:08d} {number}\n" for number in range(1, 1101))
    put_text(tmp_path / "sets" / "val.txt", numbers)
    error = error_of(tmp_path, tmp_path / "sets" / "val.txt")
    assert "only numbers the images" in error.remedy
