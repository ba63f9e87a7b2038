"""Accuracy: images x session -> measurement. Judging is in `verdicts`.

A pass over the images is counted as it runs: of each image only the five best classes are kept,
of its logits only sums, so that memory does not grow with the number of classes times images.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.errors import InferError, some
from harness.base.npy import NpyReader
from harness.base.terms import Provenance
from harness.images.dataset import ImageSet
from harness.images.feed import Batch
from harness.targets.protocol import Float32, Session

TOP = 5
FLIPS_KEPT = 200
NO_CLASS = -1  # of an image with NaN or infinity among its logits
BLOCK = 256  # rows of logits that are looked at together

Int32 = npt.NDArray[np.int32]
Names = tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """Logits `float32[N, C]` with the name of the image behind each row.

    `file`: where the logits lie, if they are a map of it; of what was read nothing stays in memory.
    """

    names: Names
    logits: Float32
    file: NpyReader | None = None

    @classmethod
    def stored(cls, names: Names, path: Path) -> Predictions:
        """Predictions whose logits stay in a `.npy` file."""
        file = NpyReader(path)
        return cls(names, file.array, file)

    def rows(self, index: npt.NDArray[np.int64] | slice) -> Float32:
        """A copy of some rows of the logits."""
        found = np.array(self.logits[index])
        if self.file is not None:
            self.file.forget(0, len(self.logits))
        return found

    def blocks(self) -> Iterator[tuple[Names, Float32]]:
        """Names and logits of a few rows at a time."""
        for start in range(0, max(len(self.names), len(self.logits)), BLOCK):
            block = slice(start, start + BLOCK)
            yield self.names[block], self.rows(block)


@dataclass(frozen=True)
class Scores:
    """How many of `images` have their label among the k best, k = 1..5."""

    images: int
    correct: tuple[int, ...]

    def percent(self, k: int) -> float:
        """Top-k in percent."""
        return 100.0 * self.correct[k - 1] / self.images if self.images else 0.0


@dataclass(frozen=True, slots=True)  # slots: a bad model has as many as there are images
class Flip:
    """An image that the compiled model classifies otherwise than the reference, or for which one
    of its logits is NaN or infinite: such an image has no class, and nothing excuses it.
    """

    name: str
    label: int
    reference: int
    compiled: int  # NO_CLASS where not all logits are finite
    reference_score: float  # the reference's best logit
    compiled_score: float  # the compiled model's best logit
    margin: float  # reference's best logit minus its second
    allowed: float  # margin below which rounding within the fidelity bound explains the flip

    @property
    def excused(self) -> bool:
        return self.margin <= self.allowed


@dataclass(frozen=True)
class Fidelity:
    """How close the compiled model's logits are to the reference's on the same images."""

    relative_l2: float
    max_abs: float
    agreement: float  # fraction of images with the same best class
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class AccuracyMeasurement:
    """What an accuracy pass observed. `problems` are facts that no score may hide."""

    provenance: Provenance
    expected_images: int
    scores: Scores
    problems: tuple[str, ...]
    fidelity: Fidelity | None
    reference_scores: Scores | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """For a record: percents, counts, flips."""
        data: dict[str, Any] = {
            "images": self.scores.images,
            "expected_images": self.expected_images,
            "correct": list(self.scores.correct),
            **{f"top{k}": round(self.scores.percent(k), 4) for k in range(1, TOP + 1)},
            "problems": list(self.problems),
            "seconds": round(self.seconds, 3),
        }
        if self.seconds > 0:
            data["images_per_second"] = round(self.scores.images / self.seconds, 2)
        if self.fidelity is not None:
            data["fidelity"] = {
                "relative_l2": self.fidelity.relative_l2,
                "max_abs": self.fidelity.max_abs,
                "agreement": self.fidelity.agreement,
                "excused": sum(flip.excused for flip in self.fidelity.flips),
                "flips": [
                    {
                        "name": flip.name,
                        "label": flip.label,
                        "reference": flip.reference,
                        "compiled": flip.compiled,
                        "reference_score": flip.reference_score,
                        "compiled_score": flip.compiled_score,
                        "margin": flip.margin,
                        "excused": flip.excused,
                    }
                    for flip in self.fidelity.flips[:FLIPS_KEPT]
                ],
                "flips_total": len(self.fidelity.flips),
            }
        if self.reference_scores is not None:
            data["eager"] = {
                f"top{k}": round(self.reference_scores.percent(k), 4) for k in range(1, TOP + 1)
            }
        return data


def infer(
    session: Session,
    batches: Iterable[Batch],
    take: Callable[[Names, Float32], None],
    *,
    look: Callable[[Names, Float32], None] | None = None,
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

    def fillers() -> Iterator[Callable[[Float32], None]]:
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


def _fill(batch: Batch, look: Callable[[Names, Float32], None], out: Float32) -> None:
    batch.fill(out)
    look(batch.names, out)


def best(logits: Float32, k: int = TOP) -> Int32:
    """Indices of the k largest logits of each row, best first; a tie goes to the lower index.

    Of rows with NaN or infinity any indices.
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


def _finite(logits: Float32) -> npt.NDArray[np.bool_]:
    """Rows without NaN or infinity: `bool[N]`."""
    return np.logical_and.reduce(np.isfinite(logits), axis=1)  # type: ignore[no-any-return]


def images_of(count: int) -> str:
    """`1 image`, `12 images`: for sentences."""
    return f"{count} image{'' if count == 1 else 's'}"


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
        self._classes: set[int] = set()
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
        finite = _finite(logits)
        hits = (ranked == self._targets[index][:, None]) & finite[:, None]
        cumulative = np.cumsum(hits, axis=1).sum(axis=0)
        self._correct[: len(cumulative)] += cumulative
        self._correct[len(cumulative) :] += cumulative[-1]
        self._classes.update(ranked[:, 0].tolist())
        index, ranked = index[known], ranked[known]
        self._best[index, : ranked.shape[1]] = ranked
        self._logits[index, : ranked.shape[1]] = np.take_along_axis(logits[known], ranked, axis=1)
        np.logical_and.at(self._finite, index, finite[known])
        np.add.at(self._seen, index, 1)

    @property
    def scores(self) -> Scores:
        """Top-1..top-5 counts until now. A row with NaN or infinity is never correct."""
        return Scores(self._rows, tuple(int(count) for count in self._correct))

    @property
    def classes(self) -> int:
        """How many different classes were the best of an image."""
        return len(self._classes)

    def problems(self) -> tuple[str, ...]:
        """What is wrong with the rows: NaN, infinity, images missing, doubled, foreign."""
        found = []
        if self._rows != self._outputs:
            found.append(f"{self._outputs} rows of outputs for {self._rows} images")
        for flags, words in (
            (~self._finite, "NaN or infinity in the outputs of {} ({})"),
            (self._seen > 1, "{} counted more than once ({})"),
            (self._seen == 0, "{} without output ({})"),
        ):
            names = [self._names[index] for index in np.flatnonzero(flags)]
            if names:
                found.append(words.format(images_of(len(names)), some(names)))
        if self._foreign:
            names = list(self._foreign)
            outputs = "1 output belongs" if len(names) == 1 else f"{len(names)} outputs belong"
            found.append(f"{outputs} to no image ({some(names)})")
        return tuple(found)

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
        finite = _finite(ours)
        both = finite & _finite(theirs)
        for i in np.flatnonzero((our_best[:, 0] != their_best[:, 0]) | ~finite):
            name = names[at[i, 0]]
            index = self._index.get(name, -1)
            second = their_best[i, min(1, their_best.shape[1] - 1)]
            self._flips.append(
                Flip(
                    name=name,
                    label=(self._labels[index] if index >= 0 else -1) + self._offset,
                    reference=int(their_best[i, 0]),
                    compiled=int(our_best[i, 0]) if finite[i] else NO_CLASS,
                    reference_score=float(wide[i, their_best[i, 0]]),
                    compiled_score=float(ours[i, our_best[i, 0]]),
                    margin=float(wide[i, their_best[i, 0]] - wide[i, second]),
                    allowed=float(np.sqrt(2.0) * self._bound * np.linalg.norm(wide[i]))
                    if both[i]
                    else -math.inf,
                )
            )

    @property
    def fidelity(self) -> Fidelity:
        """Fidelity of what was added until now."""
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
    """One accuracy pass, counted as it runs, and held against a reference where there is one."""

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
        """Everything a verdict needs; a reference with bad rows is one to compare nothing with."""
        problems, reference = self._tally.problems(), None
        if self._reference is not None:
            reference = tally(self._reference, self._images, self._offset)
            problems += tuple(f"in the eager pass: {one}" for one in reference.problems())
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
    """Counts of a whole pass that is at hand."""
    found = Tally(images, label_offset)
    for names, logits in predictions.blocks():
        found.add(names, logits)
    return found


def measure(
    predictions: Predictions,
    images: ImageSet,
    label_offset: int,
    *,
    provenance: Provenance,
    reference: Predictions | None,
    fidelity_bound: float,
    seconds: float,
) -> AccuracyMeasurement:
    """Everything a verdict needs, from a whole pass that is at hand."""
    found = Observation(images, label_offset, reference=reference, fidelity_bound=fidelity_bound)
    for names, logits in predictions.blocks():
        found.add(names, logits)
    return found.measurement(provenance=provenance, seconds=seconds)
