"""Which result belongs to which image: orders that mix them up, and labels that are shifted.

All of it is arithmetic on predictions that are there: nothing runs again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.records.predictions import Prediction

Index = npt.NDArray[np.int64]

RESTORED = 0.95  # agreement with the reference at which a suspect explains a fault
CERTAIN = 1e-3  # some twenty suspects are tried: chance must not name one
MOST_SHIFT = 8


@dataclass(frozen=True)
class Predicted:
    """Best classes of images in the set's order; `label` and `eager` are -1 where unknown."""

    names: tuple[str, ...]
    label: Index
    compiled: Index
    eager: Index

    @classmethod
    def of(cls, predictions: Mapping[str, Prediction]) -> Predicted:
        """Return what a run kept of its images."""
        rows = [
            (one.label, one.best, -1 if one.eager is None else one.eager)
            for one in predictions.values()
        ]
        table = np.array(rows, np.int64).reshape(-1, 3)
        return cls(tuple(predictions), table[:, 0], table[:, 1], table[:, 2])


def gained(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> float:
    """Return p of so many images becoming right, against those becoming wrong, by chance.

    A sign test.
    """
    better = int(np.count_nonzero(after & ~before))
    worse = int(np.count_nonzero(before & ~after))
    total = better + worse
    if total > 1000:  # the normal approximation: exact sums of thousands of terms say no more
        return 0.5 * math.erfc((better - worse - 1) / math.sqrt(2.0 * total))
    return float(sum(math.comb(total, k) for k in range(better, total + 1)) / 2**total)


def orders(names: Sequence[str], labels: Index, batch: int) -> Iterator[tuple[str, Index]]:
    """Yield orders in which results are mixed up: image i gets the result at `order[i]`."""
    count = len(names)
    at = np.arange(count)
    shifts = [one for k in range(1, min(MOST_SHIFT, count // 2) + 1) for one in (k, -k)]
    if MOST_SHIFT < batch < count:
        shifts += [batch, -batch]
    for shift in shifts:
        where = "later" if shift > 0 else "earlier"
        yield (
            f"results {abs(shift)} places {where}".replace("1 places", "1 place"),
            ((at + shift) % count),
        )
    yield "results in reverse", at[::-1].copy()
    start = at - at % batch
    length = np.minimum(batch, count - start) if count else at
    whole = np.full(count, batch)  # a last partial batch is padded: it may rotate as a whole one
    for shift in sorted({*range(1, min(MOST_SHIFT, batch - 1) + 1), *([batch - 1] * (batch > 1))}):
        for size in (length, whole):
            order = start + (at - start + shift) % size
            yield (
                f"results rotated by {shift} within each batch",
                np.where(order < count, order, at),
            )
    if batch > 1:
        yield "results in reverse within each batch", start + length - 1 - (at - start)
    for name, key in (
        ("names as numbers for names as text", [_natural(one) for one in names]),
        ("names without regard to case", [one.lower() for one in names]),
        ("images class by class", labels.tolist()),
    ):
        order = np.array(sorted(range(count), key=key.__getitem__), np.int64)
        if not np.array_equal(order, at):
            yield f"another order: {name}", order
            yield f"another order: {name} (inverse)", np.argsort(order)


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d{1,18})", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
