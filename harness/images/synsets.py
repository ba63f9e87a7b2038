"""ImageNet's classes: WordNet identifiers (WNIDs), and the two orders in which they are counted.

The index of a class, 0..999, is the place of its WNID among the sorted thousand: every model of
the guides is trained so. The development kit counts the same classes from 1 in another order
(`ILSVRC2012_ID`: 1 is n02119789, a kit fox, whose index is 278). To take one from its numbers
gives a top-1 near zero, so a number becomes an index by way of its WNID only, and a list in
which the two orders would be one is refused.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import DataError
from harness.images.textfiles import parsed_lines, read_text

CLASS_COUNT = 1000

WNID = re.compile(r"n\d{8}", re.ASCII)

META = "meta.mat"
LISTS = (
    "map_clsloc.txt",
    "synsets.txt",
    "imagenet_lsvrc_2015_synsets.txt",
    "imagenet_synsets.txt",
    "LOC_synset_mapping.txt",
    "synset_words.txt",
)
"""Lists of the classes by the names that people have them under."""

# `n02119789`, `n02119789 1 kit_fox`, `n02119789 kit fox, Vulpes macrotis`
_LINE = re.compile(r"(n\d{8})(?:\s+(\d{1,9}))?(?:\s.*)?", re.ASCII)


def indices(wnids: Iterable[str]) -> dict[str, int]:
    """Class index of each WNID, given all thousand of them in any order."""
    return {wnid: index for index, wnid in enumerate(sorted(set(wnids)))}


def read_list(path: Path) -> tuple[str, ...]:
    """Return the 1000 WNIDs of a text file, by the number after each or in the order of lines.
    Raises `DataError`: the file cannot be read, a line is no WNID, or they are not 1000 different
    ones, numbered 1..1000 or not at all.
    """
    remedy = "each line is a WNID, or a WNID, its number and its name: `n02119789 1 kit_fox`"
    lines = parsed_lines(path, read_text(path, "list of classes"), _LINE, remedy)
    rows = [(match[1], match[2]) for _, match in lines]
    numbers = [int(number) for _, number in rows if number is not None]
    if numbers:
        if len(rows) != CLASS_COUNT or sorted(numbers) != list(range(1, CLASS_COUNT + 1)):
            raise DataError(
                f"the numbers in {path} are not 1..{CLASS_COUNT}, each of them once",
                remedy="use the development kit's list: its first line is `n02119789 1 kit_fox`",
            )
        rows.sort(key=lambda row: int(row[1]))
    return _thousand(path, [wnid for wnid, _ in rows])


def read_meta(path: Path) -> tuple[str, ...]:
    """Return the 1000 WNIDs of the kit's `data/meta.mat`, in the order of ILSVRC2012_ID.

    The file has 860 more synsets, numbered above 1000, which group the classes. Raises `DataError`
    for a file that is not the kit's.
    """
    try:
        io: Any = importlib.import_module("scipy.io")
        synsets = io.loadmat(str(path), squeeze_me=True)["synsets"]
        numbers, wnids = synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist()
        by_number = {int(n): str(w) for n, w in zip(numbers, wnids, strict=True)}
    except Exception as error:  # SciPy raises whatever a damaged file leads it to.
        raise DataError(
            f"{path} cannot be read as the development kit's: {type(error).__name__}: {error}",
            remedy="copy data/meta.mat out of ILSVRC2012_devkit_t12.tar.gz again, or put "
            f"{LISTS[0]} beside it, the same list as text",
        ) from error
    return _thousand(path, [by_number.get(n, "") for n in range(1, CLASS_COUNT + 1)])


def devkit_order(places: Iterable[Path], wanted_by: Path) -> tuple[str, ...]:
    """Return the WNIDs in the order of ILSVRC2012_ID, from the first list that is not just sorted.

    wanted_by: the file whose numbers are to be read, for messages. Raises `DataError`: nothing in
    `places` gives that order, or a list cannot be used.
    """
    only_sorted = ""
    for path, wnids in class_lists(places):
        if list(wnids) != sorted(wnids):
            return wnids
        only_sorted = (
            f"; {path} has the WNIDs sorted, which is the order of the class indices, not of "
            "these numbers"
        )
    raise DataError(
        f"{wanted_by} holds numbers of the development kit (ILSVRC2012_ID), which count the "
        f"classes in an order of their own, and nothing near it gives that order{only_sorted}",
        remedy=f"put the kit's data/{META} beside it, or {LISTS[0]}, the same list as text "
        "(`n02119789 1 kit_fox`); or use val_label.txt",
    )


def class_lists(places: Iterable[Path]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Lists of the 1000 WNIDs in `places`, each read when it is asked for; text comes first. Raises
    `DataError`: as `read_list`, `read_meta`.
    """
    places = tuple(places)
    for names, read in ((LISTS, read_list), ((META,), read_meta)):
        for path in (place / name for place in places for name in names):
            if path.is_file():
                yield path, read(path)


def _thousand(path: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    right = {wnid for wnid in wnids if WNID.fullmatch(wnid)}
    if not len(wnids) == len(right) == CLASS_COUNT:
        raise DataError(
            f"{path} does not hold the {CLASS_COUNT} classes: {len(wnids)} WNIDs, {len(right)} "
            "different ones",
            remedy="use the list of ILSVRC2012's classes",
        )
    return tuple(wnids)
