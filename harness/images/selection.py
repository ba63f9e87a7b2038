"""The images of a real set that a run uses: all, the first, a random sample, or a stored list."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import DataError, some
from harness.base.selection import Selection
from harness.images import dataset
from harness.images.dataset import ImageSet
from harness.images.layouts import plain, stem
from harness.images.textfiles import numbered_lines, read_text
from harness.records.observed import SetFindings

_COMMENT = re.compile(r"(?:^|\s)#.*")


@dataclass(frozen=True)
class ChosenImages:
    """`whole`: all that the folder holds; `chosen`: what a run uses; `findings`: of the whole."""

    whole: ImageSet
    chosen: ImageSet
    findings: SetFindings


def find_images(root: Path, labels: Path | None, selection: Selection) -> ChosenImages:
    """Find a real set, check it, choose a part and look at each chosen file.

    One way for a run, a plan and a look, so that none calls fine what another refuses. Raises
    `DataError` as each of these steps.
    """
    whole = dataset.find_image_set(root, labels)
    findings = dataset.check(whole)  # before a part is chosen: counts tell more about all
    chosen = choose(whole, selection)
    dataset.check_files(chosen)
    return ChosenImages(whole, chosen, findings)


def choose(image_set: ImageSet, selection: Selection) -> ImageSet:
    """Return the chosen images, sorted by name. Raises `DataError` for a sample of more than there
    are, and for a list that is empty, has a name twice, or one that no image has.
    """
    if selection.sample is not None:
        return image_set.part(_sampled(image_set, selection.sample, selection.seed))
    if selection.list_file is not None:
        return image_set.part(_listed(image_set, selection.list_file))
    if selection.limit is None or selection.limit >= len(image_set):
        return image_set
    return image_set.part(range(selection.limit))


def _sampled(image_set: ImageSet, count: int, seed: int) -> list[int]:
    if count > len(image_set):
        raise DataError(
            f"a sample of {count:,} from {len(image_set):,} images in {image_set.root}",
            remedy="ask for a smaller one, or for all: leave --sample out",
        )

    def rank(position: int) -> bytes:
        name = plain(image_set.names[position])
        return hashlib.sha256(os.fsencode(f"{seed}:{name}")).digest()

    return sorted(range(len(image_set)), key=rank)[:count]


def _listed(image_set: ImageSet, path: Path) -> list[int]:
    """Positions of the images that a file names, with or without their suffix."""
    position = {stem(name): i for i, name in enumerate(image_set.names)}
    position |= {name: i for i, name in enumerate(image_set.names)}
    first: dict[int, int] = {}  # line by position
    wrong: list[str] = []
    for number, line in numbered_lines(read_text(path, "list of images")):
        text = _COMMENT.sub("", line).strip()
        if not text:
            continue
        chosen = position.get(text, position.get(text.rsplit("/", 1)[-1]))
        if chosen is None:
            wrong.append(f"line {number} {text[:60]!r} is no image's")
        elif first.setdefault(chosen, number) != number:
            wrong.append(f"line {number} {text[:60]!r} stands in line {first[chosen]}")
    if wrong:
        raise DataError(
            f"names in {path} that cannot be used: {some(wrong)}",
            remedy="each line is the name of one image in the set, each name once",
        )
    if not first:
        raise DataError(f"{path} names no image", remedy="write one name on each line")
    return list(first)
