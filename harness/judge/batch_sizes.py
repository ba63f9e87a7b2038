"""The rule over batch sizes: accuracy may not depend on the batch size."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from harness.base.errors import ProvenanceError, some
from harness.base.terms import WHOLE_SET, Provenance, VerdictKind
from harness.judge import statistics
from harness.judge.accuracy import images_to_decide
from harness.judge.shared import Figures, decide, upwards
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
    image may be more than the tolerance; there each two sizes have an interval (Tango 1998, 99.9
    %): FAIL when one lies wholly outside the tolerance, PASS when all lie inside, and RECORDED
    otherwise, since next to no part is large enough to know so small a difference. A rehearsed or
    simulated set is the whole set; images that are within rounding of another prediction are left
    out of its difference. Raises `ProvenanceError`: passes of several provenances.
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
    table = _Table(passes)
    part = provenance == "real" and table.images != WHOLE_SET
    kind, sentence, figures = (_compare_parts if part else _compare_wholes)(table)
    return Verdict(
        kind=kind,
        sentence=joined(sentence, note),
        rule="batch-sizes",
        unit="points",
        measured=float(table.points),
        reference=reference,
        allowed=_ALLOWED,
        figures={
            FigureName.IMAGES: table.images,
            FigureName.DIFFERENCE_POINTS: round(float(table.points), 4),
            FigureName.TOLERANCE_POINTS: TOLERANCE_POINTS,
            FigureName.FLIPS: len(table.flipped),
            FigureName.FLIPS_EXCUSED: len(table.rounding),
            **figures,
        },
        top1_by_batch_size=table.top1,
        batch_flips=tuple(map(table.flip, table.flipped[:FLIPS_KEPT])),
    )


class _Table:
    """What several batch sizes say of the same images.

    flipped: images whose predictions differ; `rounding`: of these, within rounding. right: images,
    without those within rounding, by batch size. top1: percent of all images. worst and best: the
    sizes that differ by most, which is `points`.
    """

    def __init__(self, passes: Mapping[int, BatchPass]) -> None:
        self.passes = dict(sorted(passes.items()))
        every = self.passes.values()
        names = next(iter(every)).predictions
        self.images = len(names)
        self.flipped = [n for n in names if len({one.predictions[n].best for one in every}) > 1]
        excused = {name for one in every if one.provenance != "real" for name in one.excused}
        self.rounding = excused.intersection(self.flipped)
        right = {size: one.right(names) for size, one in self.passes.items()}
        self.top1 = {n: round(100.0 * count / self.images, 4) for n, count in right.items()}
        self.right = {n: count - passes[n].right(self.rounding) for n, count in right.items()}
        self.worst, self.best = (choose(right, key=self.right.__getitem__) for choose in (min, max))
        self.points = Fraction(100 * (self.right[self.best] - self.right[self.worst]), self.images)

    def pairs(self, worst: int, best: int) -> Paired:
        """Return who of two sizes was right on how many images."""
        ours, theirs = self.passes[worst].predictions, self.passes[best].predictions
        only_worst = sum(ours[name].right and not theirs[name].right for name in self.flipped)
        only_best = only_worst + self.right[best] - self.right[worst]
        return Paired(self.images, self.right[worst] - only_worst, only_worst, only_best)

    def flip(self, name: str) -> BatchFlip:
        """Return an image that batch sizes classify differently."""
        said = {size: one.predictions[name] for size, one in self.passes.items()}
        answers = {size: BatchAnswer(one.best, one.score) for size, one in said.items()}
        return BatchFlip(name, next(iter(said.values())).label, name in self.rounding, answers)

    def sentence(self, verb: str, worst: int, best: int, on: str = "", known: str = "") -> str:
        """Compare two batch sizes."""
        lost, images = self.right[best] - self.right[worst], self.images
        names = f" ({some(self.flipped)})" if self.flipped else ""
        rounding = f", {len(self.rounding)} of these within rounding" if self.rounding else ""
        fewer = f"{worst} is right on {counted(lost)} of {images} less than {best}"
        return (
            f"batch sizes {verb}{on}: {fewer if lost else 'all are right on as many images'}, "
            f"{100.0 * lost / images:.2f} points{known}, allowed {TOLERANCE_POINTS:g}; "
            f"{len(self.flipped)} of {images} predictions differ{names}{rounding}"
        )


def _compare_wholes(table: _Table) -> tuple[VerdictKind, str, Figures]:
    kind: VerdictKind = "PASS" if table.points <= statistics.exact(TOLERANCE_POINTS) else "FAIL"
    sentence = table.sentence("agree" if kind == "PASS" else "differ", table.worst, table.best)
    return kind, sentence, {FigureName.SMALLEST_POINTS: upwards(table.points)}


def _compare_parts(table: _Table) -> tuple[VerdictKind, str, Figures]:
    """Go by the two sizes that fail by most; where none do, by those furthest from a PASS."""

    def furthest(two: tuple[Interval, int, int, Paired]) -> tuple[bool, float]:
        (low, high), *_ = two
        return low > TOLERANCE_POINTS, high

    every = []
    for two in itertools.combinations(table.passes, 2):
        worst, best = sorted(two, key=table.right.__getitem__)
        pairs = table.pairs(worst, best)
        every.append((pairs.interval(CONFIDENCE), worst, best, pairs))
    (low, high), worst, best, pairs = max(every, key=furthest)
    decision, more = decide((low, high), TOLERANCE_POINTS, "both"), ""
    figures: Figures = {
        FigureName.DIFFERENCE_INTERVAL: (round(low, 4), round(high, 4)),
        FigureName.SMALLEST_POINTS: upwards(statistics.exact(high)),
    }
    if decision == "INCONCLUSIVE":
        enough = images_to_decide(pairs, TOLERANCE_POINTS, "both", CONFIDENCE)
        figures[FigureName.IMAGES_TO_DECIDE] = enough or WHOLE_SET
        more = would_decide(enough)
    verb = {"FAIL": "differ", "PASS": "agree", "INCONCLUSIVE": "are not decided"}[decision]
    on, known = f" on {counted(table.images)}", f", 99.9 % interval {low:+.2f} to {high:+.2f}"
    kind: VerdictKind = "RECORDED" if decision == "INCONCLUSIVE" else decision
    return kind, joined(table.sentence(verb, worst, best, on, known), more), figures


def _provenance(passes: Mapping[int, BatchPass]) -> Provenance:
    provenance, *others = {one.provenance for one in passes.values()}
    if others:
        every = ", ".join(sorted((provenance, *others)))
        raise ProvenanceError(f"passes of several provenances cannot be compared: {every}")
    return provenance


def _other_images(passes: Mapping[int, BatchPass]) -> list[Problem]:
    """Return what sizes do not share with the smallest one: images or labels."""
    known = {
        size: {(name, answer.label) for name, answer in one.predictions.items()}
        for size, one in sorted(passes.items())
    }
    first, *others = known
    return [
        Problem.named(
            ProblemCode.BATCH_IMAGES,
            sorted({name for name, _ in known[first] ^ known[other]}),
            size=first,
            other=other,
        )
        for other in others
        if known[first] != known[other]
    ]
