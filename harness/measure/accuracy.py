"""Accuracy: names and logits of a pass become a measurement. Judging is in `harness.judge`.

A pass over the images is counted as it runs: of each image only the five best classes are kept,
of its logits only sums, so that memory does not grow with the number of classes times images.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.base.files import replace_file
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
from harness.stages.inference import Names, Predictions, best, finite
from harness.targets.protocol import Float32

Index = npt.NDArray[np.int64]

# Classes are taken for each other in turn where each has so many images, and this share of all
# images has one class for each label: confusion is not as regular.
CLASS_IMAGES = 3
SAME_CLASS = 0.8


class Tally:
    """Counts a pass: scores, what is wrong with its rows, and the five best of each image.

    `label_offset` is 1 for a network with a background class. Labels are joined by name (guide
    002's script joins by position, and is wrong as soon as one file is missing).
    """

    def __init__(self, images: ImageSet, label_offset: int) -> None:
        self.index = {name: position for position, name in enumerate(images.names)}
        self.names = images.names
        self.labels = np.asarray(images.labels, np.int32) + np.int32(label_offset)
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
        self._foreign.update((name, None) for name in names if name not in self.index)
        count = min(len(names), len(logits))
        index = np.array([self.index.get(name, -1) for name in names[:count]], np.int64)
        known = index >= 0
        self.add_known(index[known], logits[:count][known])

    def add_known(self, index: Index, logits: Float32) -> None:
        """Count logits `float32[n, C]` of the images at `index`."""
        ranked, whole = best(logits), finite(logits)
        hits = (ranked == self.labels[index][:, None]) & whole[:, None]
        top = hits.shape[1]
        correct = np.cumsum(hits, axis=1).sum(axis=0)
        self._correct += np.pad(correct, (0, TOP - top), mode="edge")
        self._best[index, :top] = ranked
        self._logits[index, :top] = np.take_along_axis(logits, ranked, axis=1)
        np.logical_and.at(self._finite, index, whole)
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
                names = [self.names[i] for i in np.flatnonzero(flags)]
                problems.append(Problem.named(code, names))
        if self._foreign:
            foreign = list(self._foreign)
            problems.append(Problem.named(ProblemCode.FOREIGN_OUTPUT, foreign, "outputs"))
        return tuple(problems)

    def class_order(self) -> dict[int, int]:
        """Return for classes that the network takes for each other in turn, nearly always, the one
        that it sees in the images of each: their labels are counted in another order.

        Empty where a class has fewer than `CLASS_IMAGES`, which could come by chance.
        """
        pairs, counts = np.unique([self.labels, self._best[:, 0]], axis=1, return_counts=True)
        seen: dict[int, int] = {}
        for at in np.argsort(-counts, kind="stable"):
            seen.setdefault(int(pairs[0, at]), int(pairs[1, at]))
        labels, images = np.unique(self.labels, return_counts=True)
        if images.min() < CLASS_IMAGES or sorted(seen.values()) != labels.tolist():
            return {}
        as_seen = np.array([seen[label] for label in self.labels.tolist()])
        if np.mean(self._best[:, 0] == as_seen) < SAME_CLASS:
            return {}
        return {label: other for label, other in sorted(seen.items()) if label != other}


class Observation(Tally):
    """Counts a pass and compares it with a reference's logits of the same images, joined by name.

    An image with NaN or infinity among its logits always counts as a flip, and never as allowed.
    Any other flip is allowed where the reference's margin is below what a relative error of
    `fidelity_bound` can move: two logits of one image move towards each other by at most
    sqrt(2) * |error|.
    """

    def __init__(
        self,
        images: ImageSet,
        label_offset: int,
        *,
        reference: Predictions | None,
        fidelity_bound: float,
    ) -> None:
        super().__init__(images, label_offset)
        self._images, self._offset = images, label_offset
        self._reference, self._bound = reference, fidelity_bound
        self._compared = 0
        self._difference = self._norm = self._max_abs = 0.0  # the first two are sums of squares
        self._comparable = True
        self._flips: list[Flip] = []
        # Of each image: its row in the reference, and its best class there once it was compared.
        self._row_of = np.full(len(images), -1, np.int64)
        self._eager = np.full(len(images), -1, np.int32)
        for row, name in enumerate(() if reference is None else reference.names):
            if name in self.index:
                self._row_of[self.index[name]] = row

    def add_known(self, index: Index, logits: Float32) -> None:
        super().add_known(index, logits)
        at = self._row_of[index]
        known = at >= 0
        if self._reference is None or not known.any():
            return
        index, ours, theirs = index[known], logits[known], self._reference.rows(at[known])
        their_best = best(theirs, 2)
        self._eager[index] = their_best[:, 0]
        self._compared += len(index)
        if ours.shape[1] != theirs.shape[1]:
            self._comparable = False
            return
        wide = theirs.astype(np.float64)
        # NaN and infinity go into the sums: no bound is kept then.
        with np.errstate(invalid="ignore", over="ignore"):
            delta = ours - wide
            self._difference += float(np.sum(delta * delta))
            self._norm += float(np.sum(wide * wide))
            self._max_abs = float(np.maximum(self._max_abs, np.max(np.abs(delta))))
        our_best, whole = best(ours, 1)[:, 0], finite(ours)
        both = whole & finite(theirs)
        for i in np.flatnonzero((our_best != their_best[:, 0]) | ~whole):
            first, second = their_best[i, 0], their_best[i, -1]
            moved = math.sqrt(2.0) * self._bound * float(np.linalg.norm(wide[i]))
            self._flips.append(
                Flip(
                    name=self.names[index[i]],
                    label=int(self.labels[index[i]]),
                    reference=int(first),
                    compiled=int(our_best[i]) if whole[i] else NO_CLASS,
                    reference_score=float(wide[i, first]),
                    compiled_score=float(ours[i, our_best[i]]),
                    margin=float(wide[i, first] - wide[i, second]),
                    allowed=moved if both[i] else -math.inf,
                )
            )

    @property
    def fidelity(self) -> Fidelity | None:
        """Return how close what was added until now is to the reference; None without one."""
        if self._reference is None:
            return None
        if not self._compared or not self._comparable:
            return Fidelity(math.inf, math.inf, 0.0, ())
        norm = self._norm**0.5
        return Fidelity(
            relative_l2=self._difference**0.5 / norm if norm else math.inf,
            max_abs=self._max_abs,
            agreement=1.0 - len(self._flips) / self._compared,
            flips=tuple(self._flips),
        )

    def measurement(self, *, provenance: Provenance, seconds: float) -> AccuracyMeasurement:
        """Return what a verdict needs; a reference with bad rows is one to compare nothing with."""
        problems, reference, images = self.problems(), None, self._images
        if self._reference is not None:
            reference = tally(self._reference, images, self._offset)
            problems += tuple(
                replace(one, data={**one.data, "eager": True}) for one in reference.problems()
            )
            if images.own_set and (order := reference.class_order()):
                told = [
                    " for ".join(images.class_name(one - self._offset) for one in pair)
                    for pair in order.items()
                ]
                problems += (Problem.named(ProblemCode.CLASS_ORDER, told, "classes"),)
        return AccuracyMeasurement(
            provenance=provenance,
            expected_images=len(images),
            scores=self.scores,
            problems=problems,
            fidelity=self.fidelity,
            reference_scores=None if reference is None else reference.scores,
            seconds=seconds,
            own_set=images.own_set,
        )

    def write(self, path: Path) -> None:
        """Keep what was predicted for each image as CSV: name, label, the reference's best class,
        the five best classes with their logits.

        An image with NaN or infinity among its logits has the class `NO_CLASS`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        top = int((self._best >= 0).any(axis=0).sum())
        columns = [f"{what}{k}" for what in ("top", "logit") for k in range(1, top + 1)]
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "eager", *columns])
        for i in np.flatnonzero(self._seen):
            eager = "" if self._eager[i] < 0 else int(self._eager[i])
            classes = self._best[i, :top].tolist() if self._finite[i] else [NO_CLASS] * top
            logits = [f"{value:.6g}" for value in self._logits[i, :top]]
            writer.writerow([self.names[i], int(self.labels[i]), eager, *classes, *logits])
        replace_file(path, stream.getvalue())


def tally(predictions: Predictions, images: ImageSet, label_offset: int) -> Tally:
    """Count a whole pass that is at hand."""
    counts = Tally(images, label_offset)
    for names, logits in predictions.blocks():
        counts.add(names, logits)
    return counts
