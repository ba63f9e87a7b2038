"""Which class each image has: by a label file, or by the WNID folder that it is sorted into.

What a file holds is recognised by its content, whatever it is called. A class is its index among
the sorted WNIDs, 0..999 (`synsets.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import DataError, some
from harness.images import synsets
from harness.images.layouts import FOLDERS, Layout, entries, stem, wnid_of
from harness.images.synsets import CLASS_COUNT
from harness.images.textfiles import numbered_lines, parsed_lines, read_text

VAL_LABEL = "val_label.txt"
FIXRES_LABELS = "imagenet_labels_fixres.json"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT = "ILSVRC2012_devkit_t12"
KAGGLE = "LOC_val_solution.csv"

WHAT_IS_WANTED = (
    f"put {VAL_LABEL} or {FIXRES_LABELS} beside them, Kaggle's {KAGGLE}, or the development kit's "
    f"{GROUND_TRUTH} with {synsets.META}, or name the label file: --labels=FILE"
)
MOST_CLASSES = 100_000  # of images of one's own

# A name with spaces ends with its suffix, so that two numbers stay malformed.
_LINE = re.compile(r"(\S+|\S.*\.(?:jpe?g|png))\s+([+-]?\d{1,9})", re.ASCII | re.IGNORECASE)
_LINE_WANTED = (
    "each line is a file name, a space and a class index: `ILSVRC2012_val_00000001.JPEG 65`"
)
_IMAGENET = "ILSVRC2012_val_"
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_KAGGLE_HEAD = "ImageId,PredictionString"
_KAGGLE_LINE = re.compile(r"([^\s,]+),(n\d{8})(?:\s.*)?", re.ASCII)
_KAGGLE_WANTED = (
    "each line is an image, a comma and a WNID: `ILSVRC2012_val_00000001,n01751748 1 2 3 4`"
)

Row = tuple[str, str, int]  # where it stands, stem, class index


@dataclass(frozen=True)
class Labels:
    """Class indices by stem, which may be of more images than there are; and the label file.

    `file` is None where the folders or the names of the images say their classes.
    """

    file: Path | None
    by_stem: Mapping[str, int]


def of_layout(layout: Layout, stems: Sequence[str], named: Path | None) -> Labels:
    """Find the labels of the images of a layout. `stems`: of its files, in order.

    A label file must agree with WNIDs of folders or file names. Raises `DataError`: no labels, a
    file that cannot be used, an image without label, sources that disagree, or folders whose class
    indices cannot be known.
    """
    if layout.classes:
        if named:
            raise DataError(
                f"{layout.folder} has class folders, and {named} was named for its labels",
                remedy="leave out --labels, or put the images into one folder",
            )
        index = {name: i for i, name in enumerate(layout.classes)}
        return Labels(None, {name: index[name.split("/")[0]] for name in layout.names})
    places = tuple(_places(layout.folder))
    listed = read(named, stems, places) if named else _find(layout, stems, places)
    if layout.wnids:
        return _with_wnids(layout, stems, listed, places)
    if listed is None:
        looked = ", ".join(f"{place} ({_texts(place)})" for place in places if place.is_dir())
        raise DataError(
            f"no labels for the {len(stems)} images in {layout.folder}; looked in {looked}",
            remedy=WHAT_IS_WANTED,
        )
    return listed


def _texts(folder: Path) -> str:
    names = (entry.name for entry in entries(folder))
    texts = [name for name in names if name.lower().endswith((".txt", ".csv", ".json", ".mat"))]
    return f"there: {some(sorted(texts))}" if texts else "no text there"


def _places(folder: Path) -> Iterator[Path]:
    """Yield where label files may lie: with the images, above them, above the folders in which
    images are looked for, in the kit's folder.
    """
    above = folder.absolute().parents
    tops = [above[name.count("/")] for name in FOLDERS if folder.absolute().match(name)]
    for place in dict.fromkeys((folder, above[0], *tops)):
        yield from (place, place / DEVKIT, place / DEVKIT / "data")


def _find(layout: Layout, stems: Sequence[str], places: Sequence[Path]) -> Labels | None:
    """Return the labels that lie with the images; None where no label file does.

    Files of names and indices come first, and all that there are must agree. The kit's numbers
    are looked at when there is no other; never beside a thousand class folders, which say
    everything that they could add.
    """

    def there(*names: str) -> list[Path]:
        return [path for place in places for name in names if (path := place / name).exists()]

    files = there(VAL_LABEL, FIXRES_LABELS, KAGGLE)
    if not files and len(layout.wnids) != CLASS_COUNT:
        files = there(GROUND_TRUTH)
    found = [read(path, stems, places) for path in files]
    for other in found[1:]:
        differ = [name for name in stems if found[0].by_stem[name] != other.by_stem[name]]
        if differ:
            raise DataError(
                f"{found[0].file} and {other.file} disagree on {some(differ)}",
                remedy="remove the wrong one, or name the label file: --labels=FILE",
            )
    return found[0] if found else None


# Label files ---------------------------------------------------------------------------------


def read(path: Path, stems: Sequence[str], places: Iterable[Path] = ()) -> Labels:
    """Read a label file of any kind, in which every one of `stems` must have one label.

    places: where a list of the classes may lie, besides near the file. Raises `DataError`: the file
    cannot be read, is malformed, has two labels for an image, a label that is no class, or none for
    one of `stems`.
    """
    here = path.absolute().parent
    places = (here, here / "data", here.parent, *places)
    text = read_text(path, "label file")
    head, _, body = text.lstrip().partition("\n")
    if path.suffix.lower() == ".json" or head.startswith("{"):
        rows = _json_rows(path, text)
    elif head and all(_NUMBER.fullmatch(line) for _, line in numbered_lines(text)):
        rows = _kit_rows(path, text, places)
    elif head.strip() == _KAGGLE_HEAD:
        rows = _kaggle_rows(path, f"\n{body}", places)
    else:
        lines = parsed_lines(path, text, _LINE, _LINE_WANTED)
        rows = ((f"line {number}", stem(match[1]), int(match[2])) for number, match in lines)
    by_stem = _checked(path, rows)
    missing = [name for name in stems if name not in by_stem]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(stems)} images have no label in {path}: {some(missing)}",
            remedy="use the label file of these images, or take the images out of the set",
        )
    return Labels(path, by_stem)


def _json_rows(path: Path, text: str) -> Iterable[Row]:
    """Guide 001's `imagenet_labels_fixres.json`: an object of stems and class indices."""
    try:
        # As pairs: `json` would keep the last of two equal keys in silence.
        data = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", remedy="copy the file again") from error
    remedy = 'each entry is a name and a whole number: {"ILSVRC2012_val_00000001": 65, ...}'
    if not isinstance(data, _Pairs):
        raise DataError(f"{path} holds no JSON object", remedy=remedy)
    # A string would never equal a prediction: FixRes_postprocess.py scores it 0 in silence.
    malformed = [f"{n} is {json.dumps(v)[:60]}" for n, v in data if type(v) is not int]
    if malformed:
        raise DataError(f"labels that are no integers in {path}: {some(malformed)}", remedy=remedy)
    return [(name, stem(name), value) for name, value in data]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, duplicates included."""


def _kit_rows(path: Path, text: str, places: Iterable[Path]) -> Iterable[Row]:
    """The kit's `ILSVRC2012_validation_ground_truth.txt`: an ILSVRC2012_ID for each image.

    Line n belongs to ILSVRC2012_val_n, so that a part of the images has its labels too.
    """
    lines = list(numbered_lines(text))
    for wanted, (number, _) in enumerate(lines, 1):
        if number != wanted:  # after which every label would be another image's
            raise DataError(
                f"line {wanted} of {path} is blank: line n must be that of image n",
                remedy="copy the file again",
            )
    outside = [
        f"{one} (line {number})" for number, one in lines if not 1 <= int(one) <= CLASS_COUNT
    ]
    if outside:
        raise DataError(
            f"{path} holds bare numbers, and not only 1..{CLASS_COUNT}: {some(outside)}",
            remedy=f"in a file of class indices (0..999) {_LINE_WANTED}",
        )
    order = synsets.devkit_order(places, path)
    index = synsets.indices(order)
    return [
        (f"line {number}", f"{_IMAGENET}{number:08d}", index[order[int(line) - 1]])
        for number, line in lines
    ]


def _kaggle_rows(path: Path, text: str, places: Iterable[Path]) -> Iterable[Row]:
    """Kaggle's `LOC_val_solution.csv`: an image, a comma, and for each of its boxes the WNID and
    four numbers. All boxes of an image are of one class.
    """
    lines = list(parsed_lines(path, text, _KAGGLE_LINE, _KAGGLE_WANTED))
    wnids = sorted({match[2] for _, match in lines})
    index = _indices(wnids, f"{path} has {len(wnids)} WNIDs", places) if lines else {}
    return [(f"line {number}", stem(match[1]), index[match[2]]) for number, match in lines]


def _checked(path: Path, rows: Iterable[Row]) -> dict[str, int]:
    labels: dict[str, int] = {}
    twice, outside, most = [], [], CLASS_COUNT
    for where, name, label in rows:
        if name in labels:
            twice.append(f"{name} ({where})")
        most = CLASS_COUNT if name.startswith(_IMAGENET) else MOST_CLASSES
        if not 0 <= label < most:
            outside.append(f"{label} ({where})")
        labels[name] = label
    if twice:
        raise DataError(
            f"more than one label for an image in {path}: {some(twice)}",
            remedy="keep one of each",
        )
    if outside:
        raise DataError(
            f"no classes of 0..{most - 1} in {path}: {some(outside)}",
            remedy="use a list of the images' classes, counted from 0 in the order of the sorted "
            "WordNet identifiers: it is none that counts from 1, or that numbers the images",
        )
    if not labels:
        raise DataError(f"{path} holds no label", remedy="copy the file again")
    return labels


# WNIDs ---------------------------------------------------------------------------------------


def _with_wnids(
    layout: Layout, stems: Sequence[str], listed: Labels | None, places: Sequence[Path]
) -> Labels:
    """Return the labels of images with WNIDs: those of a label file, if any, which must agree.

    torchvision counts the folders that are there: one that is missing would move every class after
    it. Of fewer than the thousand the label file says the classes, one for each WNID.
    """
    wnids = {name: wnid_of(path) for name, path in zip(stems, layout.paths, strict=True)}
    if listed is None or len(layout.wnids) == CLASS_COUNT:
        index = _indices(layout.wnids, f"{layout.folder} has {layout.name}", places)
    else:
        index = {wnid: listed.by_stem[name] for name, wnid in reversed(wnids.items())}
    if listed is None:
        return Labels(None, {name: index[wnid] for name, wnid in wnids.items()})
    differ = [
        f"{name} in {wnid} ({index[wnid]}) has {listed.by_stem[name]}"
        for name, wnid in wnids.items()
        if listed.by_stem[name] != index[wnid]
    ]
    if differ:
        raise DataError(
            f"{listed.file} disagrees with the WNIDs in {layout.folder}: {some(differ)}",
            remedy="use the label file of these images, or sort the images again",
        )
    return listed


def _indices(wnids: Sequence[str], what: str, places: Iterable[Path]) -> dict[str, int]:
    """Return the class index of each WNID, its place among the thousand: these, or those of a list
    of the classes in `places`. `what`: where they are from, for messages.
    """
    if len(wnids) == CLASS_COUNT:
        return synsets.indices(wnids)
    source, listed = next(synsets.class_lists(places), (None, ()))
    if source is None:
        raise DataError(
            f"{what}, not {CLASS_COUNT}: a class index is the place of the WNID among all of them, "
            "and cannot be known from these",
            remedy=f"put a list of the classes there ({' or '.join(synsets.LISTS[:2])}), make "
            f"the other folders if they are folders, empty ones too, or {WHAT_IS_WANTED}",
        )
    unknown = sorted(set(wnids) - set(listed))
    if unknown:
        raise DataError(
            f"{what}, and some are no classes of {source}: {some(unknown)}",
            remedy="take them away, or replace the list",
        )
    return synsets.indices(listed)
