"""The images of a real set that a run uses: all, the first, a random sample, or a stored list."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import ConfigError, DataError, some
from harness.images import dataset
from harness.images.dataset import ImageSet
from harness.images.layouts import stem
from harness.images.textfiles import numbered_lines, read_text
from harness.records.observed import SetFindings

_COMMENT = re.compile(r"(?:^|\s)#.*")


@dataclass(frozen=True)
class Selection:
    """A choice of images; at most one of the three ways. What it chose has `ImageSet.digest`.

    limit: the first images by name, so many. ImageNet's validation images are numbered in random
        order, so the first are a fair sample too.
    sample: so many images without replacement, by the order of SHA-256 over `SEED:NAME`: the
        same ones on every machine and under every version of Python.
    seed: of `sample`, 0 or more.
    list_file: a file with the name of one image on each line.

    Raises:
        ConfigError: two ways at once, a number below 1, a negative seed, or a seed of nothing.
    """

    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    list_file: Path | None = None

    def __post_init__(self) -> None:
        ways = {"--limit": self.limit, "--sample": self.sample, "--image-list": self.list_file}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(
                f"{' and '.join(given)} do not go together: each chooses the images",
                remedy="leave out all but one",
            )
        for name, number in (("--limit", self.limit), ("--sample", self.sample)):
            if number is not None and number < 1:
                raise ConfigError(f"{name}: {number} images", remedy="ask for at least one")
        if self.seed < 0:
            raise ConfigError(f"--seed: {self.seed} is negative", remedy="use 0 or more")
        if self.seed and self.sample is None:
            raise ConfigError(
                f"--seed {self.seed} without a sample", remedy="add --sample=N, or leave it out"
            )

    def apply(self, image_set: ImageSet) -> ImageSet:
        """The chosen images, sorted by name.

        Raises:
            DataError: fewer images than a sample takes, a list that cannot be read, that is
                empty, or that has a name twice or one that no image has.
        """
        if self.sample is not None:
            return image_set.part(self._sampled(image_set))
        if self.list_file is not None:
            return image_set.part(_listed(image_set, self.list_file))
        if self.limit is None or self.limit >= len(image_set):
            return image_set
        return image_set.part(range(self.limit))

    def describe(self) -> str:
        """The choice in words, for records: `a sample of 1,000, seed 3`."""
        if self.limit is not None:
            return f"the first {self.limit:,} by name"
        if self.sample is not None:
            return f"a sample of {self.sample:,}, seed {self.seed}"
        if self.list_file is not None:
            return f"the names in {self.list_file}"
        return "all"

    def _sampled(self, image_set: ImageSet) -> list[int]:
        assert self.sample is not None
        if self.sample > len(image_set):
            raise DataError(
                f"a sample of {self.sample:,} from {len(image_set):,} images in {image_set.root}",
                remedy="ask for a smaller one, or for all: leave --sample out",
            )

        def rank(position: int) -> bytes:
            return hashlib.sha256(os.fsencode(f"{self.seed}:{image_set.names[position]}")).digest()

        return sorted(range(len(image_set)), key=rank)[: self.sample]


def _listed(image_set: ImageSet, path: Path) -> list[int]:
    """Positions of the images that a file names, with or without their suffix."""
    position = {stem(name): i for i, name in enumerate(image_set.names)}
    position |= {name: i for i, name in enumerate(image_set.names)}
    first: dict[int, int] = {}  # line by position
    unknown: list[str] = []
    twice: list[str] = []
    for number, line in numbered_lines(read_text(path, "list of images")):
        text = _COMMENT.sub("", line).strip()
        if not text:
            continue
        chosen = position.get(text.rsplit("/", 1)[-1])
        if chosen is None:
            unknown.append(f"line {number} {text[:60]!r}")
        elif first.setdefault(chosen, number) != number:
            twice.append(f"line {number} {text[:60]!r} (first in line {first[chosen]})")
    for what, lines in (("that no image has", unknown), ("that it has twice", twice)):
        if lines:
            raise DataError(
                f"names in {path} {what}: {some(lines)}",
                remedy="each line is the name of one image in the set, each name once",
            )
    if not first:
        raise DataError(f"{path} names no image", remedy="write one name on each line")
    return list(first)


@dataclass(frozen=True)
class ChosenImages:
    """`whole`: all that the folder holds; `chosen`: what a run uses; `findings`: of the whole."""

    whole: ImageSet
    chosen: ImageSet
    findings: SetFindings


def find_images(root: Path, labels: Path | None, selection: Selection) -> ChosenImages:
    """Find a real set, check it, choose a part and look at each chosen file.

    One way for a run, a plan and a look, so that none calls fine what another refuses.

    Raises:
        DataError: as `dataset.find_image_set`, `dataset.check`, `Selection.apply` and
            `dataset.check_files`.
    """
    whole = dataset.find_image_set(root, labels)
    findings = dataset.check(whole)  # before a part is chosen: counts tell more about all
    chosen = selection.apply(whole)
    dataset.check_files(chosen)
    return ChosenImages(whole, chosen, findings)
