"""Accuracy: images x session -> measurement. Judging is in `verdicts`."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import InferError, some
from harness.images.dataset import ImageSet
from harness.images.feed import Batch
from harness.records import Provenance
from harness.targets.protocol import Float32, Session

TOP = 5
FLIPS_KEPT = 200


@dataclass(frozen=True)
class Predictions:
    """Logits `float32[N, C]` with the name of the image behind each row."""

    names: tuple[str, ...]
    logits: Float32


@dataclass(frozen=True)
class Scores:
    """How many of `images` have their label among the k best, k = 1..5."""

    images: int
    correct: tuple[int, ...]

    def percent(self, k: int) -> float:
        """Top-k in percent."""
        return 100.0 * self.correct[k - 1] / self.images if self.images else 0.0


@dataclass(frozen=True)
class Flip:
    """An image that the compiled model classifies otherwise than the reference."""

    name: str
    label: int
    reference: int
    compiled: int
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
    *,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Run every batch through a session; outputs are joined to names, padding is cut off.

    Raises:
        InferError: the session failed, or returned another number of batches than it was given.
    """
    names: list[str] = []
    parts: list[Float32] = []
    pending: list[Batch] = []

    def fillers() -> Iterator[Callable[[Float32], None]]:
        for batch in batches:
            pending.append(batch)
            yield batch.fill

    done = 0
    for logits in session.stream_into(fillers()):
        if done >= len(pending):
            raise InferError("the session returned more batches than it was given")
        batch = pending[done]
        done += 1
        names.extend(batch.names)
        parts.append(np.array(logits[: len(batch.names)], dtype=np.float32))
        if progress is not None:
            progress(len(names))
    if done != len(pending):
        raise InferError(f"the session returned {done} batches of {len(pending)}")
    if not parts:
        raise InferError("no image was run", remedy="choose a larger part of the data set")
    return Predictions(tuple(names), np.concatenate(parts))


def best(logits: Float32, k: int = TOP) -> npt.NDArray[np.int64]:
    """Indices of the k largest logits of each row, best first; a tie goes to the lower index."""
    k = min(k, logits.shape[1])
    return np.argsort(-logits, axis=1, kind="stable")[:, :k].astype(np.int64)


def _finite(logits: Float32) -> npt.NDArray[np.bool_]:
    """Rows without NaN or infinity: `bool[N]`."""
    return np.logical_and.reduce(np.isfinite(logits), axis=1)  # type: ignore[no-any-return]


def score(predictions: Predictions, images: ImageSet, label_offset: int) -> Scores:
    """Top-1..top-5 counts, joined by name (guide 002's script joins by position, and is wrong
    as soon as one file is missing). `label_offset` is 1 for a network with a background class.
    """
    labels = dict(zip(images.names, images.labels, strict=True))
    wanted = np.array([labels.get(name, -1) for name in predictions.names], np.int64)
    ranked = best(predictions.logits)
    hits = ranked == np.where(wanted >= 0, wanted + label_offset, -1)[:, None]
    finite = _finite(predictions.logits)
    cumulative = np.cumsum(hits & finite[:, None], axis=1).sum(axis=0)
    correct = [int(value) for value in cumulative]
    correct += [correct[-1]] * (TOP - len(correct))
    return Scores(len(predictions.names), tuple(correct))


def problems_of(predictions: Predictions, images: ImageSet) -> tuple[str, ...]:
    """What is wrong with the rows themselves: NaN, infinity, images missing, doubled, foreign."""
    found = []
    if len(predictions.names) != len(predictions.logits):
        found.append(
            f"{len(predictions.logits)} rows of outputs for {len(predictions.names)} images"
        )
    finite = _finite(predictions.logits)
    if not finite.all():
        bad = [name for name, ok in zip(predictions.names, finite, strict=False) if not ok]
        found.append(f"NaN or infinity in the outputs of {len(bad)} images ({some(bad)})")
    counts = Counter(predictions.names)
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        found.append(f"{len(doubled)} images counted more than once ({some(doubled)})")
    missing = [name for name in images.names if name not in counts]
    if missing:
        found.append(f"{len(missing)} images have no output ({some(missing)})")
    known = set(images.names)
    foreign = [name for name in counts if name not in known]
    if foreign:
        found.append(f"{len(foreign)} outputs belong to no image ({some(foreign)})")
    return tuple(found)


def compare(
    compiled: Predictions,
    reference: Predictions,
    images: ImageSet,
    label_offset: int,
    bound: float,
) -> Fidelity:
    """Fidelity of `compiled` to `reference`, joined by name.

    A flip is allowed where the reference's margin is below what a relative error of `bound` can
    move: two logits of one image move towards each other by at most sqrt(2) * |error|.
    """
    row_of = {name: row for row, name in enumerate(reference.names)}
    pairs = [(row, row_of[name]) for row, name in enumerate(compiled.names) if name in row_of]
    if not pairs or compiled.logits.shape[1] != reference.logits.shape[1]:
        return Fidelity(float("inf"), float("inf"), 0.0, ())
    index = np.array(pairs)
    ours = compiled.logits[index[:, 0]].astype(np.float64)
    theirs = reference.logits[index[:, 1]].astype(np.float64)
    delta = ours - theirs
    norm = float(np.linalg.norm(theirs))
    relative = float(np.linalg.norm(delta)) / norm if norm else float("inf")
    labels = dict(zip(images.names, images.labels, strict=True))
    our_best, their_best = best(compiled.logits[index[:, 0]], 1), best(theirs.astype(np.float32), 2)
    flips = []
    for i in np.flatnonzero(our_best[:, 0] != their_best[:, 0]):
        name = compiled.names[index[i, 0]]
        second = their_best[i, min(1, their_best.shape[1] - 1)]
        flips.append(
            Flip(
                name=name,
                label=labels.get(name, -1) + label_offset,
                reference=int(their_best[i, 0]),
                compiled=int(our_best[i, 0]),
                margin=float(theirs[i, their_best[i, 0]] - theirs[i, second]),
                allowed=float(np.sqrt(2.0) * bound * np.linalg.norm(theirs[i])),
            )
        )
    return Fidelity(
        relative_l2=relative,
        max_abs=float(np.max(np.abs(delta))),
        agreement=1.0 - len(flips) / len(pairs),
        flips=tuple(flips),
    )


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
    """Everything a verdict needs, from the predictions of a whole pass."""
    problems = problems_of(predictions, images)
    return AccuracyMeasurement(
        provenance=provenance,
        expected_images=len(images),
        scores=score(predictions, images, label_offset),
        problems=problems,
        fidelity=None
        if reference is None
        else compare(predictions, reference, images, label_offset, fidelity_bound),
        reference_scores=None if reference is None else score(reference, images, label_offset),
        seconds=seconds,
    )


def write_predictions(
    path: Path,
    predictions: Predictions,
    images: ImageSet,
    label_offset: int,
    reference: Predictions | None,
) -> None:
    """Keep what was predicted for each image: name, label, the five best with their logits."""
    labels = dict(zip(images.names, images.labels, strict=True))
    eager: dict[str, int] = {}
    if reference is not None:
        firsts = best(reference.logits, 1)[:, 0]
        eager = {name: int(first) for name, first in zip(reference.names, firsts, strict=True)}
    ranked = best(predictions.logits)
    path.parent.mkdir(parents=True, exist_ok=True)
    header: Sequence[str] = (
        "image",
        "label",
        "eager",
        *(f"top{k}" for k in range(1, ranked.shape[1] + 1)),
        *(f"logit{k}" for k in range(1, ranked.shape[1] + 1)),
    )
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for row, name in enumerate(predictions.names):
            values = predictions.logits[row, ranked[row]]
            writer.writerow(
                [
                    name,
                    labels.get(name, -1) + label_offset,
                    eager.get(name, ""),
                    *ranked[row].tolist(),
                    *(f"{value:.6g}" for value in values),
                ]
            )
