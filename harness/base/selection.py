"""Which images of a real data set a run uses, as its options say it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import ConfigError


@dataclass(frozen=True)
class Selection:
    """A choice of images; at most one of the three ways. `images/selection.py` applies it.

    limit: the first images by name, so many. ImageNet's validation images are numbered in random
        order, so the first are a fair sample too.
    sample: so many images without replacement, by the order of SHA-256 over `SEED:NAME`: the
        same ones on every machine and under every version of Python.
    seed: of `sample`.
    list_file: a file with the name of one image on each line.

    Raises `ConfigError`: two ways at once, or a seed of nothing.
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
        if self.seed and self.sample is None:
            raise ConfigError(
                f"--seed {self.seed} without a sample", remedy="add --sample=N, or leave it out"
            )

    def describe(self) -> str:
        """Return the choice in words, for records: `a sample of 1,000, seed 3`."""
        if self.limit is not None:
            return f"the first {self.limit:,} by name"
        if self.sample is not None:
            return f"a sample of {self.sample:,}, seed {self.seed}"
        if self.list_file is not None:
            return f"the names in {self.list_file}"
        return "all"
