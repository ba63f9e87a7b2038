"""Compares what a session is fed with the catalog's preprocessing, on a few images of each case.

Crops are decoded once for many cases, and normalised on the way into a session unless its model
does so. A mistake on that way may move the logits by less than float16 is allowed, and then no
comparison of outputs shows it: so a few images are decoded afresh and compared bit for bit with
what lies in the session's input. Four take some 50 ms.
"""

from __future__ import annotations

import numpy as np

from harness.catalog.steps import Preprocessing
from harness.images import preprocess
from harness.images.dataset import ImageSet
from harness.records.measurements import Problem, ProblemCode
from harness.targets.protocol import Images

IMAGES = 4


class InputCheck:
    """A few images spread over a set, each compared with the input as it passes by."""

    def __init__(self, images: ImageSet, steps: Preprocessing) -> None:
        self._steps = steps
        self._table = preprocess.normalization_table(steps.normalize)
        chosen = np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int)
        self._paths = {images.names[i]: images.paths[i] for i in chosen}
        self._other: list[str] = []

    def look(self, names: tuple[str, ...], batch: Images) -> None:
        """Compare the rows of a batch in the input's form that are of chosen images. Raises
        `DataError`: the image cannot be decoded any more, by name.
        """
        for name, row in zip(names, batch, strict=False):  # rows past the names are padding
            path = self._paths.pop(name, None)
            if path is None:
                continue
            expected = np.empty_like(row[None])
            preprocess.write_into(
                preprocess.load_crop(path, self._steps)[None], self._table, expected
            )
            if not np.array_equal(row, expected[0]):
                self._other.append(name)

    def problems(self) -> tuple[Problem, ...]:
        """Return one problem where an image's input is not what the catalog asks for."""
        return (Problem.named(ProblemCode.OTHER_INPUT, self._other),) if self._other else ()
