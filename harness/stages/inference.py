"""A session's outputs joined to the names of their images, batch by batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.base.errors import InferError
from harness.base.npy import NpyReader
from harness.images.feed import Batch
from harness.records.measurements import TOP
from harness.targets.protocol import Filler, Float32, Images, Session

BLOCK = 256  # rows of logits that are looked at together

Int32 = npt.NDArray[np.int32]
Names = tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """Logits `float32[N, C]` with the name of the image behind each row.

    `file`: where the logits lie, if they are a map of it; of what was read nothing stays in memory.
    `by`: what computed them on a target's device; empty for the CPU.
    """

    names: Names
    logits: Float32
    file: NpyReader | None = None
    by: str = ""

    @classmethod
    def stored(cls, names: Names, path: Path, by: str = "") -> Predictions:
        """Predictions whose logits stay in a `.npy` file."""
        file = NpyReader(path)
        return cls(names, file.array, file, by)

    def rows(self, index: npt.NDArray[np.int64] | slice) -> Float32:
        """Return a copy of some rows of the logits."""
        rows = np.array(self.logits[index])
        if self.file is not None:
            self.file.forget(0, len(self.logits))
        return rows

    def blocks(self) -> Iterator[tuple[Names, Float32]]:
        """Yield names and logits of a few rows at a time."""
        for start in range(0, max(len(self.names), len(self.logits)), BLOCK):
            block = slice(start, start + BLOCK)
            yield self.names[block], self.rows(block)


def infer(
    session: Session,
    batches: Iterable[Batch],
    take: Callable[[Names, Float32], None],
    *,
    look: Callable[[Names, Images], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Run every batch through a session; `take` gets names and logits `float32[n, C]` of each.

    `look` gets names and the filled batch as it lies in the session's input, before it runs.
    Outputs are joined to names, padding is cut off. Returns the number of images.

    Raises:
        InferError: the session failed, or returned another number of batches than it was given.
        DataError: images that cannot be decoded, by name.
    """
    pending: list[Names | None] = []

    def fillers() -> Iterator[Filler]:
        for batch in batches:
            pending.append(batch.names)
            yield batch.fill if look is None else functools.partial(_fill, batch, look)

    done = images = 0
    for logits in session.stream_into(fillers()):
        if done >= len(pending):
            raise InferError("the session returned more batches than it was given")
        names, pending[done] = pending[done], None
        assert names is not None
        done += 1
        take(names, logits[: len(names)])
        images += len(names)
        if progress is not None:
            progress(images)
    if done != len(pending):
        raise InferError(f"the session returned {done} batches of {len(pending)}")
    if not images:
        raise InferError("no image was run", remedy="choose a larger part of the data set")
    return images


def batches(images: Images, size: int) -> Iterator[Images]:
    """Yield batches of `size` images, one after another; the last one is filled with zeros."""
    for start in range(0, len(images), size):
        batch = np.zeros((size, *images.shape[1:]), images.dtype)
        batch[: len(images) - start] = images[start : start + size]
        yield batch


def outputs_of(session: Session, images: Images) -> Float32:
    """Return logits `float32[N, C]` of images in the form of a session's input, in its batches.
    Raises `InferError`: the session failed, or returned another number of batches than it was
    given.
    """
    size = session.inputs[0].shape[0]
    count = -(-len(images) // size)
    logits = list(session.stream(batches(images, size)))
    if len(logits) != count:
        raise InferError(f"the session returned {len(logits)} batches for {len(images)} images")
    return np.concatenate(logits)[: len(images)]


def _fill(batch: Batch, look: Callable[[Names, Images], None], out: Images) -> None:
    batch.fill(out)
    look(batch.names, out)


def best(logits: Float32, k: int = TOP) -> Int32:
    """Return the classes of the k largest logits of each row, best first; ties: the lower class.

    Of rows with NaN or infinity any classes.
    """
    k = min(k, logits.shape[1])
    ranked = np.empty((len(logits), k), np.int32)
    rows = np.arange(len(logits))
    left = np.array(logits)
    # k times the largest one is several times faster than sorting a thousand.
    for place in range(k):
        ranked[:, place] = left.argmax(axis=1)
        left[rows, ranked[:, place]] = -np.inf
    return ranked


def finite(logits: Float32) -> npt.NDArray[np.bool_]:
    """Return which rows have neither NaN nor infinity: `bool[N]`."""
    return np.logical_and.reduce(np.isfinite(logits), axis=1)  # type: ignore[no-any-return]
