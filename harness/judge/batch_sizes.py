"""The rule over batch sizes: accuracy may not depend on the batch size."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from harness.base.errors import ProvenanceError, some
from harness.base.terms import WHOLE_SET, Provenance
from harness.judge import statistics
from harness.judge.accuracy import images_to_decide
from harness.judge.shared import Decision, Figures, decide, upwards
from harness.judge.statistics import Interval, Paired
from harness.judge.wording import counted, joined, problems_text, would_decide
from harness.records.measurements import FLIPS_KEPT, Problem, ProblemCode
from harness.records.predictions import Prediction
from harness.records.verdicts import BatchAnswer, BatchFlip, FigureName, Reference, Verdict

# In points of top-1. On a part of the set each two sizes have an interval: six sizes make fifteen,
# so that each errs less often.
TOLERANCE_POINTS = 0.1
CONFIDENCE = 0.999
_ALLOWED = f"{TOLERANCE_POINTS:g} points between batch sizes"


@dataclass(frozen=True)
class BatchPass:
    """One accuracy pass of a model at one batch size.

    `excused`: images that the compiled model may classify otherwise than eager PyTorch, since
    eager's margin is within rounding (`Flip.excused`).
    """

    provenance: Provenance
    predictions: Mapping[str, Prediction]
    excused: Collection[str] = frozenset()

    def right(self, names: Iterable[str]) -> int:
        """Return on how many of these images it is right."""
        return sum(self.predictions[name].right for name in names)


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
    provenance, (first, *others) = _provenance(passes), sorted(passes)
    if not others:
        why = f"only batch size {first} was run"
        none = Reference(kind="none", note=why, provenance=provenance)
        sentence = joined(f"{why}: nothing to compare", note)
        return Verdict("RECORDED", sentence, "batch-sizes", "points", None, none, _ALLOWED)
    source = f"batch size {first} of the same model on the same images"
    reference = Reference("batch-size", None, "points", source, provenance=provenance)
    if problems := _other_images(passes):
        sentence = joined(problems_text(problems), note)
        return Verdict(
            "FAIL", sentence, "batch-sizes", "points", None, reference, _ALLOWED, tuple(problems)
        )
    table = _compare(passes)
    right, images = table.right, table.images
    worst, best = min(right, key=right.__getitem__), max(right, key=right.__getitem__)
    points = Fraction(100 * (right[best] - right[worst]), images)
    decision: Decision = "PASS" if points <= statistics.exact(TOLERANCE_POINTS) else "FAIL"
    smallest, interval, more = points, None, ""
    figures: Figures = {
        FigureName.IMAGES: images,
        FigureName.DIFFERENCE_POINTS: round(float(points), 4),
        FigureName.TOLERANCE_POINTS: TOLERANCE_POINTS,
        FigureName.FLIPS: len(table.flipped),
        FigureName.FLIPS_EXCUSED: len(table.rounding),
    }
    if provenance == "real" and images != WHOLE_SET:
        worst, best, pairs, interval = _furthest(passes, table)
        decision = decide(interval, TOLERANCE_POINTS, "both")
        smallest = statistics.exact(interval[1])
        figures[FigureName.DIFFERENCE_INTERVAL] = (round(interval[0], 4), round(interval[1], 4))
        if decision == "INCONCLUSIVE":
            enough = images_to_decide(pairs, TOLERANCE_POINTS, "both", CONFIDENCE)
            figures[FigureName.IMAGES_TO_DECIDE] = enough or WHOLE_SET
            more = would_decide(enough)
    figures[FigureName.SMALLEST_POINTS] = upwards(smallest)
    return Verdict(
        kind="RECORDED" if decision == "INCONCLUSIVE" else decision,
        sentence=joined(_compared(decision, table, worst, best, interval), more, note),
        rule="batch-sizes",
        unit="points",
        measured=float(points),
        reference=reference,
        allowed=_ALLOWED,
        figures=figures,
        top1_by_batch_size=table.top1,
        batch_flips=_flips(passes, table),
    )


@dataclass(frozen=True)
class _Table:
    """What several batch sizes say of the same images."""

    images: int
    flipped: tuple[str, ...]  # images whose predictions differ
    rounding: frozenset[str]  # of these, within rounding
    right: Mapping[int, int]  # images, without those within rounding, by batch size
    top1: Mapping[int, float]  # percent of all images, by batch size


def _compare(passes: Mapping[int, BatchPass]) -> _Table:
    ordered = dict(sorted(passes.items()))
    names = next(iter(ordered.values())).predictions
    flipped = tuple(
        name for name in names if len({one.predictions[name].best for one in passes.values()}) > 1
    )
    excused = {name for one in passes.values() if one.provenance != "real" for name in one.excused}
    rounding = excused.intersection(flipped)
    every = {size: one.right(names) for size, one in ordered.items()}
    right = {size: every[size] - one.right(rounding) for size, one in ordered.items()}
    top1 = {size: round(100.0 * count / len(names), 4) for size, count in every.items()}
    return _Table(len(names), flipped, frozenset(rounding), right, top1)


def _furthest(passes: Mapping[int, BatchPass], table: _Table) -> tuple[int, int, Paired, Interval]:
    """Return the two sizes that fail by most; where none do, those furthest from a PASS.

    They are the worse one, the better one, their pairs, and the interval of the better one's lead
    in points.
    """

    def compare(one: int, other: int) -> tuple[int, int, Paired, Interval]:
        worst, best = sorted((one, other), key=table.right.__getitem__)
        ours, theirs = passes[worst].predictions, passes[best].predictions
        only_worst = sum(ours[name].right and not theirs[name].right for name in table.flipped)
        only_best = only_worst + table.right[best] - table.right[worst]
        pairs = Paired(table.images, table.right[worst] - only_worst, only_worst, only_best)
        return worst, best, pairs, pairs.interval(CONFIDENCE)

    every = itertools.starmap(compare, itertools.combinations(sorted(passes), 2))
    return max(every, key=lambda two: (two[3][0] > TOLERANCE_POINTS, two[3][1]))


def _compared(
    decision: Decision, table: _Table, worst: int, best: int, interval: Interval | None
) -> str:
    """Compare two batch sizes in a sentence; `interval` in points, None on the whole set."""
    lost, images = table.right[best] - table.right[worst], table.images
    on = known = ""
    if interval is not None:
        on = f" on {counted(images)}"
        known = f", 99.9 % interval {interval[0]:+.2f} to {interval[1]:+.2f}"
    verb = {"FAIL": "differ", "PASS": "agree", "INCONCLUSIVE": "are not decided"}[decision]
    names = f" ({some(table.flipped)})" if table.flipped else ""
    rounding = f", {len(table.rounding)} of these within rounding" if table.rounding else ""
    fewer = f"{worst} is right on {counted(lost)} of {images} less than {best}"
    difference = fewer if lost else "all are right on as many images"
    return (
        f"batch sizes {verb}{on}: {difference}, "
        f"{100.0 * lost / images:.2f} points{known}, allowed {TOLERANCE_POINTS:g}; "
        f"{len(table.flipped)} of {images} predictions differ{names}{rounding}"
    )


def _flips(passes: Mapping[int, BatchPass], table: _Table) -> tuple[BatchFlip, ...]:
    """Return the first images that batch sizes classify differently."""
    flips = []
    for name in table.flipped[:FLIPS_KEPT]:
        said = {size: passes[size].predictions[name] for size in sorted(passes)}
        label = next(iter(said.values())).label
        answers = {size: BatchAnswer(one.best, one.score) for size, one in said.items()}
        flips.append(BatchFlip(name, label, name in table.rounding, answers))
    return tuple(flips)


def _provenance(passes: Mapping[int, BatchPass]) -> Provenance:
    provenance, *others = {one.provenance for one in passes.values()}
    if others:
        every = ", ".join(sorted((provenance, *others)))
        raise ProvenanceError(f"passes of several provenances cannot be compared: {every}")
    return provenance


def _other_images(passes: Mapping[int, BatchPass]) -> list[Problem]:
    """Return what sizes do not share with the smallest one: images or labels."""
    size, *others = sorted(passes)

    def different(other: int) -> list[str]:
        ours, theirs = (
            {(name, answer.label) for name, answer in one.predictions.items()}
            for one in (passes[size], passes[other])
        )
        return sorted({name for name, _ in ours ^ theirs})

    return [
        Problem.named(ProblemCode.BATCH_IMAGES, names, size=size, other=other)
        for other in others
        if (names := different(other))
    ]
