"""The feed: crops -> batches in the form of a session's input, written straight into it.

An input of `float32[B, 3, S, S]` gets them normalised; one of `uint8[B, S, S, 3]` as they lie,
since its model normalises.

Batches keep the data set's order and carry the names of their images; a last partial batch is
padded with zeros and says how many of its rows are real.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.base.host import cores
from harness.catalog.steps import Normalize
from harness.images import preprocess
from harness.images.crops import Crops, Progress, UInt8, UsingHost

Images = npt.NDArray[np.float32 | np.uint8]

# Handing rows to another thread costs what normalising a row of 224 x 224 costs, 0.1 ms.
ROWS_FOR_A_THREAD = 4
MOST_THREADS = 8  # eight normalise faster than memory takes it


@dataclass(frozen=True)
class Batch:
    """One batch: `names` has an entry for each real row, padding has none."""

    feed: Feed
    start: int
    names: tuple[str, ...]

    def fill(self, out: Images) -> None:
        """Write the batch into `out`, in either form; rows past the names become zero.

        Raises `DataError` as `Crops.rows`.
        """
        count = len(self.names)
        crops = self.feed.crops
        self.feed.write(crops.rows(self.start, self.start + count), out[:count])
        out[count:] = 0
        # Memory stays bounded by a batch, not by a chunk, which is 450 MB at 384 pixels.
        crops.forget(self.start, self.start + count)


class Feed:
    """Batches of `batch_size` images over the whole set, again and again."""

    def __init__(self, crops: Crops, normalize: Normalize, batch_size: int) -> None:
        self.crops = crops
        self.batch_size = batch_size
        self.table = preprocess.normalization_table(normalize)
        self._pool: ThreadPoolExecutor | None = None
        self._threads = min(cores(), MOST_THREADS)

    @property
    def images(self) -> int:
        """Number of images; padding is not counted."""
        return len(self.crops)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.crops), self.batch_size):
            yield Batch(self, start, self.crops.names[start : start + self.batch_size])

    @contextlib.contextmanager
    def running(
        self, using_host: UsingHost = nullcontext, progress: Progress | None = None
    ) -> Iterator[None]:
        """Within the block images are decoded ahead (`Crops.filling`), and batches are
        written by several threads. The threads end with the block.
        """
        with (
            ThreadPoolExecutor(self._threads, thread_name_prefix="normalize") as pool,
            self.crops.filling(using_host, progress),
        ):
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def write(self, views: Sequence[UInt8], out: Images) -> None:
        """Write views of crops, one after the other, into `out`, in either form."""
        parts = max(1, min(self._threads, len(out) // ROWS_FOR_A_THREAD))
        if out.dtype == np.uint8:  # one thread copies as fast
            parts = 1
        step = -(-len(out) // parts)
        pieces = []
        row = 0
        for view in views:
            for first in range(0, len(view), step):
                piece = view[first : first + step]
                pieces.append((piece, self.table, out[row : row + len(piece)]))
                row += len(piece)
        if self._pool is None or len(pieces) == 1:
            for one in pieces:
                preprocess.write_into(*one)
            return
        futures = [self._pool.submit(preprocess.write_into, *one) for one in pieces]
        wait(futures)  # of all, also where one failed: `out` is the caller's again afterwards
        for future in futures:
            future.result()
