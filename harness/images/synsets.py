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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import DataError, some
from harness.images.textfiles import numbered_lines, read_text

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
    """The 1000 WNIDs of a text file: by the number after each, else in the order of the lines.

    Raises:
        DataError: the file cannot be read, a line is no WNID, or they are not 1000 different
            ones, numbered 1..1000 or not at all.
    """
    wnids: list[tuple[str, str | None]] = []
    malformed: list[str] = []
    for number, line in numbered_lines(read_text(path, "list of classes")):
        match = _LINE.fullmatch(line)
        if match is None:
            malformed.append(f"line {number} {line[:60]!r}")
        else:
            wnids.append((match[1], match[2]))
    if malformed:
        raise DataError(
            f"malformed in {path}: {some(malformed)}",
            remedy="each line is a WNID, or a WNID, its number and its name: `n02119789 1 kit_fox`",
        )
    numbered = {int(number): wnid for wnid, number in wnids if number is not None}
    if not numbered:
        return _thousand(path, [wnid for wnid, _ in wnids])
    if len(wnids) != CLASS_COUNT or sorted(numbered) != list(range(1, CLASS_COUNT + 1)):
        raise DataError(
            f"the numbers in {path} are not 1..{CLASS_COUNT}, each of them once",
            remedy="use the development kit's list: its first line is `n02119789 1 kit_fox`",
        )
    return _thousand(path, [numbered[number] for number in range(1, CLASS_COUNT + 1)])


def read_meta(path: Path) -> tuple[str, ...]:
    """The 1000 WNIDs of the development kit's `data/meta.mat`, in the order of ILSVRC2012_ID.

    The file has 860 more synsets, numbered above 1000, which group the classes. SciPy reads it,
    and nothing else here needs SciPy: it is imported when the file is read.

    Raises:
        DataError: SciPy cannot be imported, or the file is not the kit's.
    """
    try:
        io: Any = importlib.import_module("scipy.io")
    except ImportError as error:
        raise DataError(
            f"{path} is a MATLAB file, and SciPy, which reads it, cannot be imported: {error}",
            remedy="pip install -r requirements.txt, or put map_clsloc.txt beside it, the same "
            "list as text",
        ) from error
    try:
        synsets = io.loadmat(str(path), squeeze_me=True)["synsets"]
        numbers, wnids = synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist()
        by_number = {int(n): str(w) for n, w in zip(numbers, wnids, strict=True)}
    except Exception as error:  # SciPy raises whatever a damaged file leads it to.
        raise DataError(
            f"{path} is not the development kit's: {type(error).__name__}: {error}",
            remedy="copy data/meta.mat out of ILSVRC2012_devkit_t12.tar.gz again",
        ) from error
    return _thousand(path, [by_number.get(n, "") for n in range(1, CLASS_COUNT + 1)])


def devkit_order(places: Iterable[Path], wanted_by: Path) -> tuple[str, ...]:
    """The WNIDs in the order of ILSVRC2012_ID, from a list or `meta.mat` in one of `places`.

    wanted_by: the file whose numbers are to be read, for messages.

    Raises:
        DataError: nothing there gives that order, or two lists give different ones.
    """
    places = tuple(places)
    lists = [(path, read_list(path)) for path in _there(places, LISTS)]
    if all(_is_sorted(wnids) for _, wnids in lists):
        lists += [(path, read_meta(path)) for path in _there(places, (META,))[:1]]
    usable = [(path, wnids) for path, wnids in lists if not _is_sorted(wnids)]
    if not usable:
        why = "".join(
            f"; {path} has the WNIDs sorted, which is the order of the class indices, not of "
            "these numbers"
            for path, _ in lists[:1]
        )
        raise DataError(
            f"{wanted_by} holds numbers of the development kit (ILSVRC2012_ID), which count the "
            f"classes in an order of their own, and nothing near it gives that order{why}",
            remedy=f"put the kit's data/{META} beside it, or {LISTS[0]}, the same list as text "
            "(`n02119789 1 kit_fox`); or use val_label.txt",
        )
    first, order = usable[0]
    for path, wnids in usable[1:]:
        if wnids != order:
            raise DataError(
                f"{first} and {path} have the classes in different orders",
                remedy="remove the wrong one",
            )
    return order


def class_list(places: Iterable[Path]) -> tuple[Path, tuple[str, ...]] | None:
    """A list of the 1000 WNIDs in one of `places`, in whatever order; none where there is none.

    Raises:
        DataError: as `read_list`, `read_meta`.
    """
    places = tuple(places)
    lists = _there(places, LISTS)
    if lists:
        return lists[0], read_list(lists[0])
    kits = _there(places, (META,))
    return (kits[0], read_meta(kits[0])) if kits else None


def _there(places: Iterable[Path], names: Sequence[str]) -> list[Path]:
    paths = (place / name for place in places for name in names)
    # One file reached by two ways is one file.
    return list({path.resolve(): path for path in paths if path.is_file()}.values())


def _is_sorted(wnids: Sequence[str]) -> bool:
    return list(wnids) == sorted(wnids)


def _thousand(path: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    odd = [wnid for wnid in wnids if not WNID.fullmatch(wnid)]
    if odd or len(wnids) != CLASS_COUNT or len(set(wnids)) != CLASS_COUNT:
        raise DataError(
            f"{path} does not hold the {CLASS_COUNT} classes: {len(wnids)} WNIDs, "
            f"{len(set(wnids) - set(odd))} different ones",
            remedy="use the list of ILSVRC2012's classes",
        )
    return tuple(wnids)
