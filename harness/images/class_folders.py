"""Classes of images that are sorted into WNID folders.

The index of a folder is the place of its WNID among all thousand (`harness/images/synsets.py`).
torchvision counts the folders that are there, which is the same for the thousand only: one that
is missing would move every class after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from harness.base.errors import DataError, some
from harness.images import synsets
from harness.images.labels import WHAT_IS_WANTED, Labels
from harness.images.layouts import Layout
from harness.images.synsets import CLASS_COUNT


def source_of(layout: str) -> str:
    """What is said to be the labels' source where the folders themselves are (`Layout.name`)."""
    return f"the names of the {layout}"


def labels_of(
    layout: Layout, stems: Sequence[str], listed: Labels | None, places: Sequence[Path]
) -> Labels:
    """The labels of images in WNID folders: those of a label file, which must agree, if any.

    stems: of the files of `layout`, in its order.
    listed: what a label file says.
    places: where a list of the classes may lie.

    Raises:
        DataError: an index that cannot be known, or a label file that disagrees with the folders.
    """
    index = _indices(layout, places, listed, stems)
    if listed is None:
        source = source_of(layout.name)
        return Labels(source, {s: index[w] for s, w in zip(stems, layout.wnids, strict=True)})
    differ = [
        f"{name} in {wnid} ({index[wnid]}) has {listed.by_stem[name]}"
        for name, wnid in zip(stems, layout.wnids, strict=True)
        if listed.by_stem[name] != index[wnid]
    ]
    if differ:
        raise DataError(
            f"{listed.source} disagrees with the WNID folders in {layout.folder}: {some(differ)}",
            remedy="use the label file of these images, or sort the images again",
        )
    return listed


def _indices(
    layout: Layout, places: Sequence[Path], listed: Labels | None, stems: Sequence[str]
) -> dict[str, int]:
    """Class index of each WNID folder.

    It is the place of the WNID among all thousand: torchvision's rule, which counts the folders
    that are there, holds for the thousand only.
    """
    if len(layout.folders) == CLASS_COUNT:
        return synsets.indices(layout.folders)
    if listed is not None:
        return _indices_by_labels(layout, listed, stems)
    found = synsets.class_list(places)
    if found is None:
        raise DataError(
            f"{layout.folder} has {len(layout.folders)} WNID folders, not {CLASS_COUNT}: a class "
            "index is the place of the WNID among all of them, and cannot be known from these",
            remedy=f"make the other folders, empty ones too, or {WHAT_IS_WANTED}, "
            f"or put a list of the classes there ({synsets.LISTS[0]})",
        )
    source, wnids = found
    unknown = sorted(set(layout.folders) - set(wnids))
    if unknown:
        raise DataError(
            f"folders in {layout.folder} that are no classes of {source}: {some(unknown)}",
            remedy="take them away, or replace the list",
        )
    return synsets.indices(wnids)


def _indices_by_labels(layout: Layout, listed: Labels, stems: Sequence[str]) -> dict[str, int]:
    """The index that a label file gives to each folder, which must rise with the WNID.

    Raises:
        DataError: two folders have the same or the wrong order of indices.
    """
    index: dict[str, int] = {}
    for name, wnid in zip(stems, layout.wnids, strict=True):
        index.setdefault(wnid, listed.by_stem[name])
    ordered = sorted(index.items())
    turned = [
        f"{wnid} is {label} and {other} is {other_label}"
        for (wnid, label), (other, other_label) in itertools.pairwise(ordered)
        if label >= other_label
    ]
    if turned:
        raise DataError(
            f"{listed.source} does not have the classes of {layout.folder} in the order of their "
            f"WNIDs: {some(turned)}",
            remedy="use labels that count from 0 in the order of the sorted WordNet identifiers",
        )
    return index
