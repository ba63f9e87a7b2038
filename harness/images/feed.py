"""The feed: crops -> normalised float32 batches, written straight into a session's input.

Batches keep the data set's order and carry the names of their images; a last partial batch is
padded with zeros and says how many of its rows are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.images import preprocess
from harness.images.crops import Crops
from harness.images.steps import Normalize

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """One batch: `names` has an entry for each real row, padding has none."""

    feed: Feed
    start: int
    names: tuple[str, ...]

    def fill(self, out: Float32) -> None:
        """Write the batch into `out`, `float32[B, 3, S, S]`; rows past the names become zero."""
        row = 0
        for crops in self.feed.crops.rows(self.start, self.start + len(self.names)):
            preprocess.normalize_into(crops, self.feed.table, out[row : row + len(crops)])
            row += len(crops)
        out[row:] = 0.0


class Feed:
    """Batches of `batch_size` images over the whole set, again and again."""

    def __init__(self, crops: Crops, normalize: Normalize, batch_size: int) -> None:
        self.crops = crops
        self.batch_size = batch_size
        self.table = preprocess.normalization_table(normalize)

    @property
    def images(self) -> int:
        """Number of images; padding is not counted."""
        return len(self.crops)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.crops), self.batch_size):
            yield Batch(self, start, self.crops.names[start : start + self.batch_size])
