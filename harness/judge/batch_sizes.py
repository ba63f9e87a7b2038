"""The rule over batch sizes: accuracy may not depend on the batch size."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

from harness.base.errors import ProvenanceError
from harness.base.terms import WHOLE_SET, Provenance
from harness.judge import statistics, wording
from harness.judge.accuracy import images_to_decide
from harness.judge.shared import Decision, Figures, decide, named, percent, upwards
from harness.judge.statistics import Interval, Paired
from harness.records.measurements import FLIPS_KEPT, Problem, ProblemCode
from harness.records.predictions import Prediction
from harness.records.verdicts import BatchAnswer, BatchFlip, FigureName, Reference, Verdict

# In points of top-1. On a part of the set each two sizes have an interval: six sizes make fifteen,
# so that each errs less often.
TOLERANCE_POINTS = 0.1
CONFIDENCE = 0.999


@dataclass(frozen=True)
class BatchPass:
    """One accuracy pass of a model at one batch size.

    `excused`: images that the compiled model may classify otherwise than eager PyTorch, since
    eager's margin is within rounding (`Flip.excused`).
    """

    provenance: Provenance
    predictions: Mapping[str, Prediction]
    excused: Collection[str] = frozenset()


def judge_batch_sizes(passes: Mapping[int, BatchPass], *, note: str = "") -> Verdict:
    """Judge passes of one (model, target) by batch size: top-1 differs by at most 0.1 point.

    On the whole set the difference is one of counts and needs no interval. On a part of it one
    image may be more than the tolerance; there each two sizes have an interval (Tango 1998,
    99.9 %): FAIL when one lies wholly outside the tolerance, PASS when all lie inside, and
    RECORDED otherwise, since next to no part is large enough to know so small a difference. A
    rehearsed or simulated set is the whole set; images that are within rounding of another
    prediction are left out of its difference.

    Raises:
        ProvenanceError: passes of several provenances.
    """
    sizes, provenance = sorted(passes), _provenance(passes)
    allowed = f"{TOLERANCE_POINTS:g} points between batch sizes"
    if len(sizes) < 2:
        why = f"only batch size {sizes[0]} was run" if sizes else "no batch size was run"
        none = Reference(kind="none", note=why, provenance=provenance)
        sentence = wording.joined(f"{why}: nothing to compare", note)
        return Verdict("RECORDED", sentence, "batch-sizes", "points", None, none, allowed)
    table, problems = _compare(passes), _other_images(passes)
    if not table.images:
        problems.append(Problem(ProblemCode.NO_COMMON_IMAGE))
    worst, best = min(sizes, key=table.right.__getitem__), max(sizes, key=table.right.__getitem__)
    points = Fraction(100 * (table.right[best] - table.right[worst]), max(1, table.images))
    figures = table.figures(points)
    decision: Decision = "PASS" if points <= statistics.exact(TOLERANCE_POINTS) else "FAIL"
    smallest, interval, more = points, None, ""
    if not problems and provenance == "real" and table.images != WHOLE_SET:
        worst, best, pairs, interval = table.furthest()
        decision = decide(interval, TOLERANCE_POINTS, "both")
        smallest = statistics.exact(interval[1])
        figures[FigureName.DIFFERENCE_INTERVAL] = (round(interval[0], 4), round(interval[1], 4))
        if decision == "INCONCLUSIVE":
            enough = images_to_decide(pairs, TOLERANCE_POINTS, "both", CONFIDENCE)
            figures[FigureName.IMAGES_TO_DECIDE] = enough or WHOLE_SET
            more = wording.would_decide(enough)
    if not problems:
        figures[FigureName.SMALLEST_POINTS] = upwards(smallest)
    sentence = wording.problems_text(problems) or wording.batch_sizes(
        decision,
        worst,
        best,
        table.right[best] - table.right[worst],
        table.images,
        interval=interval,
        tolerance=TOLERANCE_POINTS,
        flips=table.flipped,
        excused=len(table.rounding),
    )
    source = f"batch size {sizes[0]} of the same model on the same images"
    return Verdict(
        kind="FAIL" if problems else "RECORDED" if decision == "INCONCLUSIVE" else decision,
        sentence=wording.joined(sentence, more, note),
        rule="batch-sizes",
        unit="points",
        measured=float(points),
        reference=Reference("batch-size", None, "points", source, provenance=provenance),
        allowed=allowed,
        problems=tuple(problems),
        figures=figures,
        top1_by_batch_size=table.top1(),
        batch_flips=table.flips(),
    )


@dataclass(frozen=True)
class _Table:
    """What several batch sizes say of the images that all of them have."""

    passes: Mapping[int, BatchPass]
    images: int  # that all sizes have, with the same label
    flipped: tuple[str, ...]  # of these, where the predictions differ
    rounding: frozenset[str]  # of these, within rounding
    right: Mapping[int, int]  # images, without those within rounding, by batch size

    def furthest(self) -> tuple[int, int, Paired, Interval]:
        """Return the two sizes that fail by most; where none do, those furthest from a PASS.

        They are the worse one, the better one, their pairs, and the interval of the better one's
        lead in points.
        """

        def compare(one: int, other: int) -> tuple[int, int, Paired, Interval]:
            worst, best = sorted((one, other), key=self.right.__getitem__)
            ours, theirs = self.passes[worst].predictions, self.passes[best].predictions
            only_worst = sum(ours[name].right and not theirs[name].right for name in self.flipped)
            only_best = only_worst + self.right[best] - self.right[worst]
            pairs = Paired(self.images, self.right[worst] - only_worst, only_worst, only_best)
            return worst, best, pairs, percent(pairs.interval(CONFIDENCE))

        every = itertools.starmap(compare, itertools.combinations(sorted(self.passes), 2))
        return max(every, key=lambda two: (two[3][0] > TOLERANCE_POINTS, two[3][1]))

    def figures(self, points: Fraction) -> Figures:
        return {
            FigureName.IMAGES: self.images,
            FigureName.DIFFERENCE_POINTS: round(float(points), 4),
            FigureName.TOLERANCE_POINTS: TOLERANCE_POINTS,
            FigureName.FLIPS: len(self.flipped),
            FigureName.FLIPS_EXCUSED: len(self.rounding),
        }

    def top1(self) -> dict[int, float]:
        """Top-1 in percent of the common images by batch size."""

        def percent_of(size: int) -> float:
            predictions = self.passes[size].predictions
            right = self.right[size] + sum(predictions[name].right for name in self.rounding)
            return round(100.0 * right / self.images, 4)

        return {size: percent_of(size) for size in self.right if self.images}

    def flips(self) -> tuple[BatchFlip, ...]:
        """The first images that batch sizes classify differently."""

        def answer(size: int, name: str) -> BatchAnswer:
            prediction = self.passes[size].predictions[name]
            return BatchAnswer(prediction.best, prediction.score)

        first = next(iter(self.passes.values())).predictions
        flips = []
        for name in self.flipped[:FLIPS_KEPT]:
            answers = {size: answer(size, name) for size in sorted(self.passes)}
            flips.append(BatchFlip(name, first[name].label, name in self.rounding, answers))
        return tuple(flips)


def _compare(passes: Mapping[int, BatchPass]) -> _Table:
    first, *others = (passes[size].predictions for size in sorted(passes))
    images, agreed, flipped = 0, 0, []  # agreed: images on which every size is right
    for name, prediction in first.items():
        theirs = [predictions.get(name) for predictions in others]
        if any(one is None or one.label != prediction.label for one in theirs):
            continue
        images += 1
        if any(one is not None and one.best != prediction.best for one in theirs):
            flipped.append(name)
        else:
            agreed += prediction.right
    rounding = frozenset(
        name
        for name in flipped
        for one in passes.values()
        if one.provenance != "real" and name in one.excused
    )
    hard = [name for name in flipped if name not in rounding]
    right = {
        size: agreed + sum(one.predictions[name].right for name in hard)
        for size, one in passes.items()
    }
    return _Table(passes, images, tuple(flipped), rounding, right)


def _provenance(passes: Mapping[int, BatchPass]) -> Provenance:
    provenances = {one.provenance for one in passes.values()}
    if len(provenances) > 1:
        raise ProvenanceError(
            f"passes of several provenances cannot be compared: {', '.join(sorted(provenances))}"
        )
    return next(iter(provenances), "real")


def _other_images(passes: Mapping[int, BatchPass]) -> list[Problem]:
    """Return what sizes do not share with the smallest one: images or labels."""
    size, *others = sorted(passes)
    ours, problems = passes[size].predictions, []
    for other in others:
        theirs = passes[other].predictions
        lost = [name for name in ours if name not in theirs]
        gained = [name for name in theirs if name not in ours]
        labels = [n for n in ours if n in theirs and ours[n].label != theirs[n].label]
        if lost:
            problems.append(named(ProblemCode.BATCH_IMAGES, lost, size=size, other=other))
        if gained:
            problems.append(named(ProblemCode.BATCH_IMAGES, gained, size=other, other=size))
        if labels:
            problems.append(named(ProblemCode.BATCH_LABELS, labels, size=size, other=other))
    return problems
