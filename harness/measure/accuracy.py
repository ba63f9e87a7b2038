"""Accuracy: names and logits of a pass become a measurement. Judging is in `harness.judge`.

A pass over the images is counted as it runs: of each image only the five best classes are kept,
of its logits only sums, so that memory does not grow with the number of classes times images.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.base.terms import Provenance
from harness.images.dataset import ImageSet
from harness.records.measurements import (
    NO_CLASS,
    TOP,
    AccuracyMeasurement,
    Fidelity,
    Flip,
    Problem,
    ProblemCode,
    Scores,
)
from harness.stages.inference import Int32, Names, Predictions, best, finite
from harness.targets.protocol import Float32


def _positions(names: Names) -> dict[str, int]:
    return {name: position for position, name in enumerate(names)}


class Tally:
    """Counts a pass: scores, what is wrong with its rows, and the five best of each image.

    `label_offset` is 1 for a network with a background class. Labels are joined by name (guide
    002's script joins by position, and is wrong as soon as one file is missing).
    """

    def __init__(
        self, images: ImageSet, label_offset: int, *, index: Mapping[str, int] | None = None
    ) -> None:
        self._names = images.names
        labels = np.asarray(images.labels, np.int32) + np.int32(label_offset)
        self._targets = np.append(labels, np.int32(-1))  # the last one: of a name that is unknown
        self._index = _positions(images.names) if index is None else index
        self._seen = np.zeros(len(images), np.int32)
        self._correct = np.zeros(TOP, np.int64)
        self._rows = self._outputs = 0
        self._foreign: dict[str, None] = {}
        # Of each image: the best classes and their logits, and whether all logits are finite.
        self._best = np.full((len(images), TOP), -1, np.int32)
        self._logits = np.zeros((len(images), TOP), np.float32)
        self._finite = np.ones(len(images), np.bool_)

    def add(self, names: Names, logits: Float32) -> None:
        """Count a batch: the names of its images and their logits `float32[n, C]`."""
        self._rows += len(names)
        self._outputs += len(logits)
        count = min(len(names), len(logits))
        logits = logits[:count]
        if not count:
            return
        index = np.array([self._index.get(name, -1) for name in names[:count]], np.int64)
        known = index >= 0
        self._foreign.update((name, None) for name in names if name not in self._index)
        ranked = best(logits)
        whole = finite(logits)
        hits = (ranked == self._targets[index][:, None]) & whole[:, None]
        cumulative = np.cumsum(hits, axis=1).sum(axis=0)
        self._correct[: len(cumulative)] += cumulative
        self._correct[len(cumulative) :] += cumulative[-1]
        index, ranked = index[known], ranked[known]
        self._best[index, : ranked.shape[1]] = ranked
        self._logits[index, : ranked.shape[1]] = np.take_along_axis(logits[known], ranked, axis=1)
        np.logical_and.at(self._finite, index, whole[known])
        np.add.at(self._seen, index, 1)

    @property
    def scores(self) -> Scores:
        """Return top-1 to top-5 counts until now. A row with NaN or infinity is never correct."""
        return Scores(self._rows, tuple(int(count) for count in self._correct))

    def problems(self) -> tuple[Problem, ...]:
        """Return what is wrong with the rows: NaN, infinity, images missing, doubled, foreign."""
        problems = []
        if self._rows != self._outputs:
            data = {"outputs": self._outputs, "images": self._rows}
            problems.append(Problem(ProblemCode.ROWS, data))
        for code, flags in (
            (ProblemCode.NOT_FINITE, ~self._finite),
            (ProblemCode.COUNTED_TWICE, self._seen > 1),
            (ProblemCode.NO_OUTPUT, self._seen == 0),
        ):
            if flags.any():
                names = [self._names[index] for index in np.flatnonzero(flags)]
                problems.append(Problem.named(code, names))
        if self._foreign:
            foreign = list(self._foreign)
            problems.append(Problem.named(ProblemCode.FOREIGN_OUTPUT, foreign, "outputs"))
        return tuple(problems)

    def write(self, path: Path, reference: Int32 | None = None) -> None:
        """Keep what was predicted for each image as CSV: name, label, the five best with logits.

        `reference` has the best class of each image in an eager pass, or -1. An image with NaN or
        infinity among its logits has the class `NO_CLASS`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        top = min(TOP, int((self._best >= 0).any(axis=0).sum()))
        header: Sequence[str] = (
            "image",
            "label",
            "eager",
            *(f"top{k}" for k in range(1, top + 1)),
            *(f"logit{k}" for k in range(1, top + 1)),
        )
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(header)
            for index in np.flatnonzero(self._seen):
                eager = -1 if reference is None else int(reference[index])
                classes = self._best[index, :top].tolist()
                if not self._finite[index]:
                    classes = [NO_CLASS] * top
                writer.writerow(
                    [
                        self._names[index],
                        int(self._targets[index]),
                        eager if eager >= 0 else "",
                        *classes,
                        *(f"{value:.6g}" for value in self._logits[index, :top]),
                    ]
                )


class Comparison:
    """Compares a pass with the reference's logits of the same images, joined by name.

    An image with NaN or infinity among its logits always counts as a flip, and never as allowed.
    Any other flip is allowed where the reference's margin is below what a relative error of `bound`
    can move: two logits of one image move towards each other by at most sqrt(2) * |error|.
    """

    def __init__(
        self,
        reference: Predictions,
        images: ImageSet,
        label_offset: int,
        bound: float,
        *,
        index: Mapping[str, int] | None = None,
    ) -> None:
        self._reference = reference
        self._index = _positions(images.names) if index is None else index
        same = reference.names == images.names
        self._row_of = self._index if same else _positions(reference.names)
        self._labels = images.labels
        self._offset = label_offset
        self._bound = bound
        self._pairs = 0
        self._difference = self._norm = 0.0  # sums of squares
        self._max_abs = 0.0
        self._flips: list[Flip] = []
        self._comparable = True
        # The reference's best class of each image that was compared; -1 for the others.
        self.best = np.full(len(images), -1, np.int32)

    def add(self, names: Names, logits: Float32) -> None:
        """Compare a batch: the names of its images and their logits `float32[n, C]`."""
        pairs = [
            (row, self._row_of[name])
            for row, name in enumerate(names[: len(logits)])
            if name in self._row_of
        ]
        if not pairs:
            return
        at = np.array(pairs, np.int64)
        theirs = self._reference.rows(at[:, 1])
        their_best = best(theirs, 2)
        for (row, _), first in zip(pairs, their_best[:, 0], strict=True):
            index = self._index.get(names[row], -1)
            if index >= 0:
                self.best[index] = first
        self._pairs += len(pairs)
        if logits.shape[1] != theirs.shape[1]:
            self._comparable = False
            return
        ours = logits[at[:, 0]]
        our_best = best(ours, 1)
        wide = theirs.astype(np.float64)
        # NaN and infinity go into the sums: no bound is kept then.
        with np.errstate(invalid="ignore", over="ignore"):
            delta = ours - wide
            self._difference += float(np.sum(delta * delta))
            self._norm += float(np.sum(wide * wide))
            self._max_abs = float(np.maximum(self._max_abs, np.max(np.abs(delta))))
        whole = finite(ours)
        both = whole & finite(theirs)
        for i in np.flatnonzero((our_best[:, 0] != their_best[:, 0]) | ~whole):
            name = names[at[i, 0]]
            index = self._index.get(name, -1)
            first, second = their_best[i, 0], their_best[i, -1]
            moved = math.sqrt(2.0) * self._bound * float(np.linalg.norm(wide[i]))
            self._flips.append(
                Flip(
                    name=name,
                    label=(self._labels[index] if index >= 0 else -1) + self._offset,
                    reference=int(first),
                    compiled=int(our_best[i, 0]) if whole[i] else NO_CLASS,
                    reference_score=float(wide[i, first]),
                    compiled_score=float(ours[i, our_best[i, 0]]),
                    margin=float(wide[i, first] - wide[i, second]),
                    allowed=moved if both[i] else -math.inf,
                )
            )

    @property
    def fidelity(self) -> Fidelity:
        """Return how close what was added until now is to the reference."""
        if not self._pairs or not self._comparable:
            return Fidelity(float("inf"), float("inf"), 0.0, ())
        norm = self._norm**0.5
        return Fidelity(
            relative_l2=self._difference**0.5 / norm if norm else float("inf"),
            max_abs=self._max_abs,
            agreement=1.0 - len(self._flips) / self._pairs,
            flips=tuple(self._flips),
        )


class Observation:
    """Counts one accuracy pass as it runs, and compares it with a reference where there is one."""

    def __init__(
        self,
        images: ImageSet,
        label_offset: int,
        *,
        reference: Predictions | None,
        fidelity_bound: float,
    ) -> None:
        self._images = images
        self._offset = label_offset
        self._reference = reference
        index = _positions(images.names)  # once for both: it is as large as all that they keep
        self._tally = Tally(images, label_offset, index=index)
        self._comparison = (
            None
            if reference is None
            else Comparison(reference, images, label_offset, fidelity_bound, index=index)
        )

    def add(self, names: Names, logits: Float32) -> None:
        """Count a batch: the names of its images and their logits `float32[n, C]`."""
        self._tally.add(names, logits)
        if self._comparison is not None:
            self._comparison.add(names, logits)

    def measurement(self, *, provenance: Provenance, seconds: float) -> AccuracyMeasurement:
        """Return what a verdict needs; a reference with bad rows is one to compare nothing with."""
        problems, reference = self._tally.problems(), None
        if self._reference is not None:
            reference = tally(self._reference, self._images, self._offset)
            problems += tuple(
                replace(one, data={**one.data, "eager": True}) for one in reference.problems()
            )
        return AccuracyMeasurement(
            provenance=provenance,
            expected_images=len(self._images),
            scores=self._tally.scores,
            problems=problems,
            fidelity=None if self._comparison is None else self._comparison.fidelity,
            reference_scores=None if reference is None else reference.scores,
            seconds=seconds,
        )

    def write(self, path: Path) -> None:
        """Keep what was predicted for each image; see `Tally.write`."""
        self._tally.write(path, None if self._comparison is None else self._comparison.best)


def tally(predictions: Predictions, images: ImageSet, label_offset: int) -> Tally:
    """Count a whole pass that is at hand."""
    counts = Tally(images, label_offset)
    for names, logits in predictions.blocks():
        counts.add(names, logits)
    return counts
