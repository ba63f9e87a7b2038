"""Verdicts: measurement x rule -> a value that explains itself in one sentence.

No test compares figures; it asks a function here. Every function is pure: numbers in, a
`Verdict` out. Measurements carry their provenance, and no function judges one against a
reference of another: nothing rehearsed or simulated becomes a statement about a published figure.
`judge_accuracy` and `judge_throughput` choose the rule from the measurement itself; a caller
that does not choose cannot choose wrongly. The rules in plain words: docs/judging.md.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from harness.base import precision
from harness.base.errors import HarnessError, some
from harness.base.terms import Provenance
from harness.catalog.schema import AccuracyRule, Baseline, Published, RatioRule, same_product
from harness.judge import statistics
from harness.judge.statistics import Interval, Paired
from harness.judge.wording import images_of
from harness.records.conditions import Condition, Setup
from harness.records.values import FLIPS_KEPT, AccuracyMeasurement, Reference, ThroughputMeasurement

Kind = Literal["PASS", "FAIL", "INCONCLUSIVE", "RECORDED"]
Side = Literal["both", "drop"]

# Relative L2 of the logits. float16 gives about 7e-3, the mildest preprocessing mistake about
# 1e-1 on SqueezeNet (measured while the harness was designed).
FIDELITY_BOUND = 3e-2
# A rehearsal on `cpu` must reach eager PyTorch's speed within this share.
EAGER_SPEED_TOLERANCE_PERCENT = 10.0
# A score outside these bounds could not tell a good artifact from a bad one.
REHEARSAL_TOP1_PERCENT = (40.0, 99.0)
REHEARSAL_MIN_CLASSES = 20
WHOLE_SET = 50_000
# Of the difference of two models on a part of the set, and of the reference's own score there.
PAIRED_CONFIDENCE = 0.99
REFERENCE_CONFIDENCE = 0.999
# Accuracy does not differ between batch sizes (guides 000 and 003), in points of top-1. On a part
# of the set each two sizes have an interval: six sizes make fifteen, so that each errs less often.
BATCH_TOLERANCE_POINTS = 0.1
BATCH_CONFIDENCE = 0.999
# A second half of the rounds that is slower or faster by this much is spoken of.
STRONG_DRIFT_PERCENT = 1.0
# Said only where a wider tolerance alone would have made a PASS.
SMALLEST = "smallest tolerance that passes, %"
SMALLEST_POINTS = "smallest tolerance that passes, points"


class ProvenanceError(HarnessError):
    """A measurement was about to be judged against a reference of another provenance."""

    stage = "verdict"


@dataclass(frozen=True)
class Verdict:
    """What a rule says about a measurement."""

    kind: Kind
    sentence: str
    rule: str
    unit: str
    measured: float | None
    reference: Reference
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def difference_percent(self) -> float | None:
        """100 * (measured - reference) / reference."""
        value = self.reference.value
        if self.measured is None or value is None or value == 0:
            return None
        return 100.0 * (self.measured - value) / value


def _require(found: Provenance, what: str, *wanted: Provenance) -> None:
    if found not in wanted:
        raise ProvenanceError(
            f"a {found} measurement cannot be judged against {what} ({' or '.join(wanted)})"
        )


# Accuracy ----------------------------------------------------------------------------------


def judge_accuracy(
    measurement: AccuracyMeasurement,
    published: Published,
    rule: AccuracyRule,
    *,
    bound: float = FIDELITY_BOUND,
    whole_set: int = WHOLE_SET,
    note: str = "",
) -> Verdict:
    """By the rule that the measurement calls for.

    Rehearsed or simulated: against the eager model. The whole set: against the published figure.
    A part of it: against the eager model on the same images, when there was an eager pass.
    `note` is said beside whatever a real measurement comes to.
    """
    if measurement.provenance != "real":
        return judge_rehearsal_accuracy(measurement, bound=bound)
    if measurement.expected_images != whole_set and measurement.reference_scores is not None:
        return judge_subset_accuracy(
            measurement, published, rule, bound=bound, whole_set=whole_set, note=note
        )
    return judge_published_accuracy(
        measurement, published, rule, bound=bound, whole_set=whole_set, note=note
    )


def judge_rehearsal_accuracy(
    measurement: AccuracyMeasurement, *, bound: float = FIDELITY_BOUND
) -> Verdict:
    """Compiled against eager on the generated images, rehearsed or simulated: every prediction
    equal, unless the eager margin is below what `bound` allows; equal score otherwise; fidelity
    within `bound`.

    Source of the rule: the generated set is the whole set and the eager model is the truth.
    """
    _require(
        measurement.provenance, "the eager model on generated images", "rehearsal", "simulated"
    )
    rule = (
        "every prediction equals the eager model's on the same images, unless its margin is "
        f"below what a relative error of {bound:g} can move; relative L2 of the logits at most "
        f"{bound:g}"
    )
    scores, fidelity = measurement.scores, measurement.fidelity
    eager = measurement.reference_scores
    if fidelity is None or eager is None:
        raise ProvenanceError(
            f"a {measurement.provenance} accuracy has no other reference than the eager model"
        )
    reference = Reference(
        kind="eager",
        value=eager.percent(1),
        unit="%",
        source="eager PyTorch on the same generated images",
        provenance=measurement.provenance,
    )
    hard = [flip for flip in fidelity.flips if not flip.excused]
    excused = len(fidelity.flips) - len(hard)
    problems = [*_row_problems(measurement), *_fidelity_problems(measurement, bound)]
    if hard:
        problems.append(
            f"{len(hard)} of {scores.images} predictions differ from eager "
            f"({some([flip.name for flip in hard])})"
        )
    if abs(scores.correct[0] - eager.correct[0]) > excused:
        problems.append(f"top-1 {scores.percent(1):.2f} % where eager has {eager.percent(1):.2f} %")
    figures = {
        "images": scores.images,
        "top-1 compiled, %": round(scores.percent(1), 3),
        "top-1 eager, %": round(eager.percent(1), 3),
        **_fidelity_figures(measurement, bound),
        "predictions that differ": len(fidelity.flips),
        "of these within rounding": excused,
    }
    if problems:
        return Verdict(
            "FAIL", _sentence(problems), rule, "%", scores.percent(1), reference, figures
        )
    same = f"{scores.images - len(fidelity.flips)} of {scores.images} predictions equal eager's"
    note = f" ({excused} differ within rounding)" if excused else ""
    return Verdict(
        "PASS",
        f"{same}{note}; logits differ by {fidelity.relative_l2:.1e} of {bound:g} allowed",
        rule,
        "%",
        scores.percent(1),
        reference,
        figures,
    )


def judge_published_accuracy(
    measurement: AccuracyMeasurement,
    published: Published,
    rule: AccuracyRule,
    *,
    bound: float = FIDELITY_BOUND,
    whole_set: int = WHOLE_SET,
    note: str = "",
) -> Verdict:
    """The whole data set against the published top-1, by the model's rule.

    `|measured - published| / published <= tolerance` (guide 000), or a drop of at most the
    tolerance where the rule is one-sided (guide 003), in exact arithmetic on the counts. Where
    there was an eager pass, its logits must be the compiled model's within `bound`. A part of
    the set is not judged so. `note` is said beside whatever is decided.
    """
    _require(measurement.provenance, "a published accuracy", "real")
    scores = measurement.scores
    reference = Reference(
        kind="published",
        value=published.top1,
        unit="%",
        source=published.source,
        note=published.note or "",
    )
    side = "either side" if rule.side == "both" else "a drop"
    words = f"relative difference at most {rule.tolerance_percent:g} %, {side} ({rule.source})"
    measured = scores.percent(1)
    target = statistics.exact(published.top1)
    tolerance = statistics.exact(rule.tolerance_percent) / 100
    share = Fraction(scores.correct[0], scores.images) if scores.images else Fraction(0)
    relative = 100 * share / target - 1
    off = abs(relative) if rule.side == "both" else max(Fraction(0), -relative)
    figures: dict[str, Any] = {
        "images": scores.images,
        "correct": scores.correct[0],
        "top-1, %": round(measured, 3),
        "published top-1, %": published.top1,
        "relative difference": round(float(relative), 6),
        "tolerance": float(tolerance),
    }
    eager = measurement.reference_scores
    if eager is not None:
        figures["top-1 eager, %"] = round(eager.percent(1), 3)
        figures |= _fidelity_figures(measurement, bound)

    def verdict(kind: Kind, sentence: str) -> Verdict:
        said = _sentence([sentence, *([note] if note else [])])
        return Verdict(kind, said, words, "%", measured, reference, figures)

    problems = [*_row_problems(measurement), *_fidelity_problems(measurement, bound)]
    if problems:
        return verdict("FAIL", _sentence(problems))
    if scores.images != whole_set:
        figures["images that would decide"] = whole_set
        return verdict(
            "INCONCLUSIVE",
            f"top-1 {measured:.2f} % on {images_of(scores.images)}; the published figure speaks "
            f"of all {whole_set}, and there is no eager pass on these to compare with: run all "
            f"{whole_set}, or give the weights in place of --onnx",
        )
    figures[SMALLEST] = _upwards(100 * off, 4)
    found = (
        f"top-1 {measured:.2f} % against {published.top1:g} % published: "
        f"{100 * float(relative):+.2f} %, allowed {'±' if rule.side == 'both' else '-'}"
        f"{rule.tolerance_percent:g} %"
    )
    if off <= tolerance:
        return verdict("PASS", f"accepted: {found}")
    if eager is not None:
        found += f"; eager PyTorch has {eager.percent(1):.2f} % on the same images"
    return verdict("FAIL", found)


def judge_subset_accuracy(
    measurement: AccuracyMeasurement,
    published: Published,
    rule: AccuracyRule,
    *,
    paired: Paired | None = None,
    bound: float = FIDELITY_BOUND,
    whole_set: int = WHOLE_SET,
    note: str = "",
) -> Verdict:
    """A part of the data set: the compiled model against the eager one on the same images.

    The published figure says nothing exact about a part: a healthy model of 78.26 % lands
    outside a band of 1 % in more than half of all samples of 1,000. The difference of the two
    models on the *same* images is known far better. Its interval (Tango 1998, 99 %) decides:
    wholly inside the tolerance PASS, wholly outside FAIL, INCONCLUSIVE otherwise. Mistakes that
    both models share (weights, labels, preprocessing) do not show in a difference; so the
    published figure must lie in the 99.9 % interval of the eager score, else FAIL.

    Args:
        paired: who was right on how many images; taken from the measurement when left out.
        note: said beside whatever is decided.
    """
    _require(measurement.provenance, "a published accuracy", "real")
    scores, eager = measurement.scores, measurement.reference_scores
    if eager is None or measurement.fidelity is None or not scores.images or not eager.images:
        return judge_published_accuracy(
            measurement, published, rule, bound=bound, whole_set=whole_set, note=note
        )
    points = tolerance_points(published, rule)
    allowed = f"{'±' if rule.side == 'both' else 'a drop of '}{float(points):.2f} points"
    words = (
        f"on the same images as eager PyTorch, the whole {PAIRED_CONFIDENCE:.0%} interval of the "
        f"difference (Tango 1998) within {allowed} ({rule.tolerance_percent:g} % of the published "
        f"top-1, {rule.source}); the published top-1 within the {REFERENCE_CONFIDENCE:.1%} "
        f"interval of eager's score; relative L2 of the logits at most {bound:g}"
    )
    measured = scores.percent(1)
    reference = Reference(
        kind="eager",
        value=eager.percent(1),
        unit="%",
        source=f"eager PyTorch on the same {images_of(scores.images)}",
        note=f"{published.top1:g} % is published for all {whole_set} images",
    )
    problems = [*_row_problems(measurement), *_fidelity_problems(measurement, bound)]
    figures: dict[str, Any] = {
        "images": scores.images,
        "top-1 compiled, %": round(measured, 3),
        "top-1 eager, %": round(eager.percent(1), 3),
        "published top-1, %": published.top1,
        "tolerance, points": round(float(points), 4),
        **_fidelity_figures(measurement, bound),
    }

    def verdict(kind: Kind, sentence: str) -> Verdict:
        said = _sentence([sentence, *([note] if note else [])])
        return Verdict(kind, said, words, "%", measured, reference, figures)

    pairs = paired or paired_of(measurement)
    if pairs is None or (pairs.n, pairs.compiled_correct, pairs.reference_correct) != (
        scores.images,
        scores.correct[0],
        eager.correct[0],
    ):
        # Nothing can be said of pairs that are not those of the scores.
        problems.append("the compiled and the eager pass do not speak of the same images")
        return verdict("FAIL", _sentence(problems))

    low, high = (100.0 * limit for limit in pairs.interval(PAIRED_CONFIDENCE))
    worst = max(abs(low), abs(high)) if rule.side == "both" else max(0.0, -low)
    known = statistics.binomial_interval(eager.correct[0], eager.images, REFERENCE_CONFIDENCE)
    figures |= {
        "difference, points": round(100.0 * float(pairs.difference), 4),
        "99 % interval of the difference, points": [round(low, 4), round(high, 4)],
        "only eager right, images": pairs.only_reference,
        "only compiled right, images": pairs.only_compiled,
        "99.9 % interval of eager's top-1, %": [round(100.0 * limit, 3) for limit in known],
    }
    if problems:
        return verdict("FAIL", _sentence(problems))
    off = not 100.0 * known[0] <= published.top1 <= 100.0 * known[1]
    if not off:
        figures[SMALLEST] = _upwards(
            100 * statistics.exact(worst) / statistics.exact(published.top1), 4
        )

    found = (
        f"top-1 {measured:.2f} % where eager has {eager.percent(1):.2f} % on the same images: "
        f"{100.0 * float(pairs.difference):+.2f} points, 99 % interval {low:+.2f} to {high:+.2f}, "
        f"allowed {allowed}"
    )
    decision = _decide((low, high), float(points), rule.side)
    if decision == "FAIL":
        return verdict("FAIL", f"conversion changes the score on {images_of(pairs.n)}: {found}")
    if off:
        return verdict(
            "FAIL",
            f"the reference is off: eager PyTorch has {eager.percent(1):.2f} % on "
            f"{images_of(pairs.n)} (99.9 % interval {100 * known[0]:.2f} to {100 * known[1]:.2f}), "
            f"{published.top1:g} % is published: wrong weights, labels or preprocessing? "
            "To agree with it means nothing",
        )
    if decision == "PASS":
        return verdict("PASS", f"conversion agrees on {images_of(pairs.n)}: {found}")
    enough = images_to_decide(pairs, float(points), rule.side, whole_set=whole_set)
    figures["images that would decide"] = enough or whole_set
    more = (
        f"about {enough} images would decide"
        if enough is not None
        else f"only the whole set of {whole_set} images can decide"
    )
    return verdict(
        "INCONCLUSIVE", f"{images_of(pairs.n)}: {found}; {more}, if they differ as often"
    )


def paired_of(measurement: AccuracyMeasurement) -> Paired | None:
    """Who was right on how many images, from a measurement with an eager pass.

    Models that agree on an image are right or wrong together, so the flips hold all that
    differs. None where there is no eager pass, or the counts contradict each other.
    """
    fidelity, eager = measurement.fidelity, measurement.reference_scores
    if fidelity is None or eager is None:
        return None
    only_reference = sum(flip.reference == flip.label for flip in fidelity.flips)
    only_compiled = sum(flip.compiled == flip.label for flip in fidelity.flips)
    try:
        return Paired(
            n=measurement.scores.images,
            both=measurement.scores.correct[0] - only_compiled,
            only_reference=only_reference,
            only_compiled=only_compiled,
        )
    except ValueError:
        return None


def tolerance_points(published: Published, rule: AccuracyRule) -> Fraction:
    """The rule's tolerance, relative to the published top-1, in points of top-1."""
    return statistics.exact(published.top1) * statistics.exact(rule.tolerance_percent) / 100


def _decide(interval: Interval, tolerance: float, side: Side) -> Kind:
    """Three ways; interval and tolerance in one unit."""
    low, high = interval
    if side == "drop":
        high_inside, too_high = True, False
    else:
        high_inside, too_high = high <= tolerance, low > tolerance
    if low >= -tolerance and high_inside:
        return "PASS"
    if high < -tolerance or too_high:
        return "FAIL"
    return "INCONCLUSIVE"


def images_to_decide(
    pairs: Paired,
    tolerance: float,
    side: Side,
    *,
    whole_set: int = WHOLE_SET,
    confidence: float = PAIRED_CONFIDENCE,
) -> int | None:
    """Images that would decide if the models differ on them as often as on these; None when
    that is the whole set or more. `tolerance` in points.
    """
    plus, minus = pairs.only_compiled, pairs.only_reference
    return _images_to_decide(plus, minus, pairs.n, tolerance, side, whole_set - 1, confidence)


@functools.lru_cache(maxsize=65_536)
def _images_to_decide(
    plus: int, minus: int, n: int, tolerance: float, side: Side, most: int, confidence: float
) -> int | None:
    def decided(images: int) -> bool:
        scale = images / n
        found = statistics.tango_interval(plus * scale, minus * scale, images, confidence)
        return _decide(found, tolerance / 100.0, side) != "INCONCLUSIVE"

    return statistics.smallest(decided, n, most)


def images_to_pass(
    published: Published,
    rule: AccuracyRule,
    *,
    discordant_percent: float = 0.0,
    whole_set: int = WHOLE_SET,
) -> int | None:
    """From how many images on a PASS is possible at all, for `plan`.

    `discordant_percent` of the images are right with one model and wrong with the other, as many
    one way as the other; none by default, the best that can happen. None when a part of the set
    is never enough.
    """
    points = float(tolerance_points(published, rule))
    share = discordant_percent / 200.0

    def passes(n: int) -> bool:
        found = statistics.tango_interval(n * share, n * share, n, PAIRED_CONFIDENCE)
        return _decide(found, points / 100.0, rule.side) == "PASS"

    return statistics.smallest(passes, 1, whole_set - 1)


def describe_part(
    images: int, published: Published, rule: AccuracyRule, *, whole_set: int = WHOLE_SET
) -> str:
    """One sentence for `plan`: what accuracy can come to on that many images."""
    if images >= whole_set:
        return f"{images} images: the whole set, held against the published {published.top1:g} %"
    least = images_to_pass(published, rule, whole_set=whole_set)
    usual = images_to_pass(published, rule, discordant_percent=1.0, whole_set=whole_set)
    if least is None:
        return f"{images_of(images)}: a PASS needs the whole set of {whole_set}"
    from_1 = f"{usual}" if usual is not None else f"the whole set of {whole_set}"
    from_when = f"from {least} images on with no difference, {from_1} where 1 % differ"
    if images < least:
        return f"{images_of(images)}: no PASS is possible ({from_when})"
    return f"{images_of(images)}: a PASS is possible ({from_when})"


def _row_problems(measurement: AccuracyMeasurement) -> list[str]:
    problems = list(measurement.problems)
    scored, expected = measurement.scores.images, measurement.expected_images
    if scored != expected:
        rows = "1 row was" if scored == 1 else f"{scored} rows were"
        problems.append(f"{rows} scored, the set has {images_of(expected)}")
    eager = measurement.reference_scores
    if eager is not None and eager.images != expected:
        rows = "1 row" if eager.images == 1 else f"{eager.images} rows"
        problems.append(f"the eager pass has {rows}, the set has {images_of(expected)}")
    return problems


def _fidelity_problems(measurement: AccuracyMeasurement, bound: float) -> list[str]:
    fidelity = measurement.fidelity
    if fidelity is None or fidelity.relative_l2 <= bound:
        return []
    return [f"logits differ by {fidelity.relative_l2:.2g} (relative L2), allowed {bound:g}"]


def _fidelity_figures(measurement: AccuracyMeasurement, bound: float) -> dict[str, Any]:
    if measurement.fidelity is None:
        return {}
    return {
        "relative L2 of the logits": measurement.fidelity.relative_l2,
        "relative L2 allowed": bound,
        "largest difference of a logit": measurement.fidelity.max_abs,
    }


def _upwards(value: Fraction, digits: int) -> float:
    """`value` with some decimal digits, rounded up: a tolerance of so much does pass."""
    scale = 10.0**digits
    return math.ceil(value * int(scale)) / scale


# Batch sizes -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What one pass said of one image: indices of the network's outputs."""

    label: int
    best: int
    score: float | None = None  # the best class's logit, where it was kept

    @property
    def right(self) -> bool:
        return self.label == self.best


@dataclass(frozen=True)
class BatchPass:
    """One accuracy pass of a model at one batch size.

    `excused`: images that the compiled model may classify otherwise than eager PyTorch, since
    eager's margin is within rounding (`Flip.excused`).
    """

    provenance: Provenance
    answers: Mapping[str, Answer]
    excused: Collection[str] = frozenset()


def judge_batch_consistency(
    passes: Mapping[int, BatchPass],
    *,
    tolerance_points: float = BATCH_TOLERANCE_POINTS,
    whole_set: int = WHOLE_SET,
    note: str = "",
) -> Verdict:
    """Passes of one (model, target) by batch size: top-1 differs by at most 0.1 point.

    Source of the rule: guides 000 and 003, whose accuracy is the same at every batch size. On the
    whole set the difference is one of counts and needs no interval. On a part of it one image may
    be more than the tolerance; there each two sizes have an interval (Tango 1998, 99.9 %): FAIL
    when one lies wholly outside the tolerance, PASS when all lie inside, and RECORDED otherwise,
    since next to no part is large enough to know so small a difference. A rehearsed or simulated
    set is the whole set; images that are within rounding of another prediction are left out of
    its difference. Every image whose predictions differ is listed, with what each batch size said.
    `note` is said beside whatever is decided.

    Raises:
        ProvenanceError: passes of several provenances.
    """
    rule = (
        f"top-1 on the same images differs by at most {tolerance_points:g} points between batch "
        "sizes (guides 000 and 003); on a part of the set the "
        "99.9 % interval of each two sizes (Tango 1998) decides, where it can"
    )
    sizes = sorted(passes)
    provenances = {passes[size].provenance for size in sizes}
    if len(provenances) > 1:
        raise ProvenanceError(
            f"passes of several provenances cannot be compared: {', '.join(sorted(provenances))}"
        )
    provenance: Provenance = next(iter(provenances), "real")
    if len(sizes) < 2:
        why = f"only batch size {sizes[0]} was run" if sizes else "no batch size was run"
        none = Reference(kind="none", note=why, provenance=provenance)
        said = _sentence([f"{why}: nothing to compare", *([note] if note else [])])
        return Verdict("RECORDED", said, rule, "points", None, none)
    first = passes[sizes[0]]
    reference = Reference(
        kind="batch-size",
        unit="points",
        source=f"batch size {sizes[0]} of the same model on the same images",
        provenance=provenance,
    )
    problems = []
    for size in sizes[1:]:
        problems += _other_images(sizes[0], first.answers, size, passes[size].answers)
    others = [passes[size].answers for size in sizes[1:]]
    common, flipped, agreed = 0, [], 0  # agreed: images on which all sizes are right
    for name, answer in first.answers.items():
        theirs = [answers.get(name) for answers in others]
        if any(one is None or one.label != answer.label for one in theirs):
            continue
        common += 1
        if any(one is not None and one.best != answer.best for one in theirs):
            flipped.append(name)
        else:
            agreed += answer.right
    if not common:
        problems.append("no image is common to all batch sizes")
    rounding = {
        name
        for name in flipped
        if provenance != "real" and any(name in passes[size].excused for size in sizes)
    }
    hard = [name for name in flipped if name not in rounding]

    def count(size: int, names: Iterable[str]) -> int:
        return agreed + sum(passes[size].answers[name].right for name in names)

    right = {size: count(size, hard) for size in sizes}
    worst, best = min(sizes, key=lambda s: right[s]), max(sizes, key=lambda s: right[s])
    apart = Fraction(100 * (right[best] - right[worst]), common) if common else Fraction(0)
    figures = {
        "images": common,
        "top-1 by batch size, %": {
            str(size): round(100.0 * count(size, flipped) / common, 4) for size in sizes if common
        },
        "largest difference, points": round(float(apart), 4),
        "tolerance, points": tolerance_points,
        "predictions that differ": len(flipped),
        "of these within rounding": len(rounding),
        "flips": [
            {
                "name": name,
                "label": first.answers[name].label,
                "excused": name in rounding,
                "by batch size": {
                    str(size): {
                        "class": passes[size].answers[name].best,
                        "logit": passes[size].answers[name].score,
                    }
                    for size in sizes
                },
            }
            for name in flipped[:FLIPS_KEPT]
        ],
    }

    def verdict(kind: Kind, sentence: str) -> Verdict:
        said = _sentence([sentence, *([note] if note else [])])
        return Verdict(kind, said, rule, "points", float(apart), reference, figures)

    if problems:
        return verdict("FAIL", _sentence(problems))
    figures[SMALLEST_POINTS] = _upwards(apart, 4)
    sized = sizes_of(sizes)
    flips = f"{len(flipped)} of {common} predictions differ"
    if flipped:
        flips += f" ({some(flipped)})"
    if rounding:
        flips += f", {len(rounding)} of these within rounding"
    allowed = f"allowed {tolerance_points:g}"
    decision: Kind = "PASS" if apart <= statistics.exact(tolerance_points) else "FAIL"
    known = on = enough = ""
    more: int | None = None
    if provenance == "real" and common != whole_set:
        two = _furthest(passes, right, flipped, common, tolerance_points)
        worst, best, (low, high) = two.worst, two.best, two.interval
        decision = _decide((low, high), tolerance_points, "both")
        figures["99.9 % interval of the largest difference, points"] = [
            round(low, 4),
            round(high, 4),
        ]
        figures[SMALLEST_POINTS] = _upwards(statistics.exact(high), 4)
        known = f", 99.9 % interval {low:+.2f} to {high:+.2f}"
        on = f" on {images_of(common)}"
        more = images_to_decide(
            two.pairs, tolerance_points, "both", whole_set=whole_set, confidence=BATCH_CONFIDENCE
        )
        enough = f"about {more}" if more else f"the whole set of {whole_set}"
    if decision == "FAIL":
        lost = right[best] - right[worst]
        return verdict(
            "FAIL",
            f"batch size {worst} is right on {images_of(lost)} of {common} less than batch "
            f"size {best}: {100 * lost / common:.2f} points{known}, {allowed}; {flips}",
        )
    if decision == "PASS":
        return verdict(
            "PASS",
            f"{sized} agree{on}: top-1 within {float(apart):.2f} points{known} of "
            f"{tolerance_points:g} allowed; {flips}",
        )
    figures["images that would decide"] = more or whole_set
    return verdict(
        "RECORDED",
        f"{sized} are not decided{on}: {float(apart):.2f} points apart{known}, {allowed}; {flips}; "
        f"{enough} images would decide, if they differ as often",
    )


@dataclass(frozen=True)
class _Two:
    """Two batch sizes on the same images; `interval`: by how much `best` is better, in points."""

    worst: int
    best: int
    pairs: Paired
    interval: Interval


def _furthest(
    passes: Mapping[int, BatchPass],
    right: Mapping[int, int],
    flipped: Sequence[str],
    images: int,
    tolerance: float,
) -> _Two:
    """The two sizes that fail by most; where none do, those that are furthest from a PASS.

    `right`: images of `images` on which a size is right; `tolerance` in points.
    """

    def compare(one: int, other: int) -> _Two:
        worst, best = sorted((one, other), key=lambda size: right[size])
        ours, theirs = passes[worst].answers, passes[best].answers
        lost = sum(ours[name].right and not theirs[name].right for name in flipped)
        gained = lost + right[best] - right[worst]
        pairs = Paired(images, right[worst] - lost, lost, gained)
        low, high = pairs.interval(BATCH_CONFIDENCE)
        return _Two(worst, best, pairs, (100.0 * low, 100.0 * high))

    every = itertools.starmap(compare, itertools.combinations(sorted(passes), 2))
    return max(every, key=lambda two: (two.interval[0] > tolerance, two.interval[1]))


def sizes_of(sizes: Iterable[int]) -> str:
    """`batch size 4`, `batch sizes 1, 4`: for sentences."""
    found = sorted(sizes)
    return f"batch size{'' if len(found) == 1 else 's'} {', '.join(map(str, found))}"


def _other_images(
    size: int, ours: Mapping[str, Answer], other_size: int, theirs: Mapping[str, Answer]
) -> list[str]:
    problems = []
    for here, there, at, not_at in (
        (ours, theirs, size, other_size),
        (theirs, ours, other_size, size),
    ):
        lost = [name for name in here if name not in there]
        if lost:
            problems.append(
                f"{images_of(len(lost))} of batch size {at} missing at batch size {not_at} "
                f"({some(lost)})"
            )
    other = [name for name in ours if name in theirs and ours[name].label != theirs[name].label]
    if other:
        problems.append(
            f"{images_of(len(other))} with another label at batch size {other_size} than at "
            f"{size} ({some(other)})"
        )
    return problems


# Throughput --------------------------------------------------------------------------------


def judge_throughput(
    measurement: ThroughputMeasurement,
    baseline: Baseline | None,
    *,
    case: str,
    bound: float = FIDELITY_BOUND,
    note: str = "",
) -> Verdict:
    """By the rule that the measurement calls for.

    Rehearsed: against eager PyTorch timed in alternation. Real or simulated: against a judging
    baseline of the same provenance, and RECORDED where there is none. `note` is said beside
    whatever a real or simulated measurement comes to.
    """
    if measurement.provenance == "rehearsal":
        return judge_eager_speed(measurement, bound=bound)
    if measurement.provenance == "simulated" and (
        baseline is None or baseline.provenance != "simulated"
    ):
        why = "the speed of a simulated device is held against nothing"
    elif baseline is None:
        why = f"no figure is published for {case}"
    elif not baseline.comparable:
        why = f"the published figure is not comparable: {baseline.not_comparable}"
    elif not baseline.judged:
        why = "its guide only records this size"
    elif not baseline.is_of(measurement.setup.chip):
        why = f"the published figure is a {baseline.chip}'s, this is a {measurement.setup.chip}"
    else:
        return judge_baseline(measurement, baseline, bound=bound, note=note)
    return record_throughput(measurement, why, bound=bound, note=note)


def judge_eager_speed(
    measurement: ThroughputMeasurement,
    *,
    tolerance_percent: float = EAGER_SPEED_TOLERANCE_PERCENT,
    bound: float = FIDELITY_BOUND,
) -> Verdict:
    """A rehearsal's throughput: at least eager PyTorch's on the same host within the tolerance,
    the faster of its two memory formats, equal threads, measured in alternation.
    """
    _require(measurement.provenance, "eager PyTorch's speed on this host", "rehearsal")
    rival = measurement.fastest_rival
    if rival is None:
        raise ProvenanceError("a rehearsal's throughput has no other reference than eager PyTorch")
    name, eager = rival
    rule = (
        f"at least eager PyTorch's speed less {tolerance_percent:g} %, the faster of its memory "
        "formats, equal threads, measured in alternation"
    )
    share = 1.0 - tolerance_percent / 100.0
    fps, floor = measurement.timing.fps, eager.fps * share
    reference = Reference(
        kind="eager-speed",
        value=eager.fps,
        unit="fps",
        source=f"eager PyTorch on this host, {name}",
        provenance="rehearsal",
    )
    figures = {
        **_timing_figures(measurement),
        "eager, fps": round(eager.fps, 3),
        "eager half-width of the mean, %": round(eager.half_width_percent, 3),
        "ratio to eager": round(fps / eager.fps, 4),
        "half-width of the ratio, %": round(measurement.half_width_percent, 3),
    }
    return _judge_speed(
        measurement,
        floor,
        f"{_apart(fps)} fps, {_times(fps / eager.fps, share, measurement)} times eager PyTorch's "
        f"{_apart(eager.fps)} ({name})",
        f"at least {share:g} times is asked for",
        rule,
        reference,
        figures,
        bound,
    )


def _times(ratio: float, asked: float, measurement: ThroughputMeasurement) -> str:
    """A ratio in as many digits as it is known to; two decimals where that is well, and more where
    it would read as what is asked for, and is not.
    """
    width = measurement.half_width_percent
    if not math.isfinite(ratio):
        return f"{ratio:g}"
    if precision.is_known(width) and width < 10:
        text = f"{ratio:.2f}"
        return _apart(ratio, asked, digits=3) if text == f"{asked:.2f}" else text
    return precision.significant(ratio, 2)


def _apart(value: float, *others: float, digits: int = 4) -> str:
    """A figure in so many digits, or in as many as set it apart from `others`: no near miss reads
    as if it were none. Never in powers of ten.
    """
    near = [other for other in others if other != value]
    for count in range(digits, 16):
        text = precision.significant(value, count)
        if not any(_read(precision.significant(other, count)) == _read(text) for other in near):
            return text
    return f"{value!r}"


def _read(text: str) -> float:
    """What a reader takes a figure for: `1.000` and `1.0000` are the same."""
    return float(text.replace(",", ""))


def _decimal(value: float) -> str:
    """A published figure in all digits that it was published with, never in powers of ten."""
    text = format(Decimal(repr(float(value))), ",f")
    return text.rstrip("0").removesuffix(".") if "." in text else text


def judge_baseline(
    measurement: ThroughputMeasurement,
    baseline: Baseline,
    *,
    chips: int | None = None,
    bound: float = FIDELITY_BOUND,
    note: str = "",
) -> Verdict:
    """A measurement against a figure of the same provenance: the mean is at least baseline x
    (1 - tolerance).

    Where the figure is a card's, the chips of the measured card count, as they were counted on
    it (`Setup.chips`; `chips` overrides). Where they were not counted, or are not as many as
    those of the figure's card (a container may see one of four), nothing is decided: what some
    chips reach is never held against a card's figure. Neither is anything decided on a device
    that was busy, throttled or unhealthy, or timed too little (`too_short`). What figure and run
    do not have in common is said, and `note` beside whatever is decided.
    """
    _require(measurement.provenance, f"the baseline of {baseline.source}", baseline.provenance)
    counted = _chips(measurement.setup, baseline, chips)
    factor = counted or 1
    fps = measurement.timing.fps * factor
    floor = baseline.fps * (1.0 - baseline.tolerance_percent / 100.0)
    reference = Reference(
        kind="baseline",
        value=baseline.fps,
        unit="fps",
        source=baseline.source,
        note=baseline.note or "",
        provenance=baseline.provenance,
    )
    rule = f"mean at least the baseline less {baseline.tolerance_percent:g} %"
    differences = setup_differences(baseline, measurement.setup)
    notes = [note] if note else []
    if differences:
        notes.append(f"not alike: {', '.join(differences)}")
    notes += [note for note in (_idleness(measurement.conditions),) if note]
    figures = {
        **_timing_figures(measurement),
        "baseline, fps": baseline.fps,
        "ratio to the baseline": round(fps / baseline.fps, 4),
        "chips counted": counted if counted is not None else "not counted",
    }
    if differences:
        figures["differences from the baseline's setup"] = differences
    return _judge_speed(
        measurement,
        floor,
        f"{_apart(fps, floor, baseline.fps)} fps against {_decimal(baseline.fps)} "
        f"({baseline.source})",
        f"at least {_decimal(floor) if floor == baseline.fps else _apart(floor, fps)} is asked for",
        rule,
        reference,
        figures,
        bound,
        measured=fps,
        notes=notes,
        obstacle=_uncounted(baseline, counted),
    )


def judge_same_artifact(digests: Mapping[str, str], provenance: Provenance) -> Verdict:
    """Accuracy and throughput of one case must name the same compiled file: a figure of one file
    says nothing about another. `digests`: check -> sha256 of what it ran.
    """
    words = "accuracy and throughput name the same compiled file"
    none = Reference(kind="none", provenance=provenance)
    if len(set(digests.values())) == 1:
        return Verdict("PASS", words, words, "", None, none, dict(digests))
    named = ", ".join(f"{check} {digest[:12]}" for check, digest in sorted(digests.items()))
    return Verdict(
        "FAIL", f"the checks ran different compiled files: {named}", words, "", None, none,
        dict(digests),
    )  # fmt: skip


def judge_ratio(
    measured: Mapping[int, float | None],
    other: Baseline | None,
    rule: RatioRule,
    *,
    provenance: Provenance,
    why_none: str = "",
) -> Verdict:
    """What one chip reaches against another's published figure (guide 001, 7.4).

    Guide 000 tabulates such ratios at each batch size, and of the best size of each chip. So a run
    of one batch size is held against the figure at that size, and a run of several by the best of
    them against the best figure; the caller chooses `other`. A size that gave no figure might have
    been the best: without it the rule may be reached, but is not missed.

    Args:
        measured: frames a second of one `other.unit` by batch size that was asked for; None where
            no figure counts.
        other: None where no comparable figure exists: then nothing is judged.
        why_none: why not.
    """
    words = (
        f"at least {rule.at_least:g} times the figure of {rule.to} ({rule.source}): at the batch "
        "size that was run, or the best of several against the best"
    )
    if other is None:
        none = Reference(kind="none", note=why_none, provenance=provenance)
        return Verdict("RECORDED", f"not comparable: {why_none}", words, "times", None, none)
    _require(provenance, f"the figure of {other.source}", other.provenance)
    reference = Reference(
        kind="ratio",
        value=rule.at_least,
        unit="times",
        source=f"{rule.source}; {other.describe()}",
        provenance=other.provenance,
    )
    known = {size: fps for size, fps in measured.items() if fps is not None}
    lost = [size for size in measured if size not in known]
    without = f"{sizes_of(lost)} gave no figure that counts"
    if not known:
        return Verdict("INCONCLUSIVE", without, words, "times", None, reference)
    size = max(known, key=lambda size: known[size])
    fps = known[size]
    ratio = fps / other.fps
    asked = statistics.exact(rule.at_least) * statistics.exact(other.fps)
    good = statistics.exact(fps) >= asked
    best = f", the best of {', '.join(map(str, sorted(known)))}," if len(measured) > 1 else ""
    found = (
        f"{_apart(fps)} fps a {other.unit} at batch size {size}{best} are "
        f"{_apart(ratio, rule.at_least, digits=3)} times the {_decimal(other.fps)} of "
        f"{other.chip} at {other.batch_size}; {rule.at_least:g} times are asked for"
    )
    if not good and lost:
        found += f", but this decides nothing: {without}"
    return Verdict(
        "PASS" if good else "INCONCLUSIVE" if lost else "FAIL",
        found,
        words,
        "times",
        ratio,
        reference,
        {"ratio": round(ratio, 4), f"measured, fps a {other.unit}": fps, "other, fps": other.fps},
    )


def record_throughput(
    measurement: ThroughputMeasurement,
    why: str,
    *,
    bound: float = FIDELITY_BOUND,
    note: str = "",
) -> Verdict:
    """Measured where nothing comparable is published: neither green nor red. On a device that was
    busy, throttled or unhealthy not even that: INCONCLUSIVE. `note` is said beside either.
    """
    reference = Reference(kind="none", note=why, provenance=measurement.provenance)
    fps = measurement.timing.fps
    figures = _timing_figures(measurement)
    rule = "recorded: nothing comparable to hold it against"
    problems = _output_problems(measurement, bound)
    if problems:
        return Verdict("FAIL", _sentence(problems), "outputs are right", "fps", fps, reference,
                       figures)  # fmt: skip
    known = precision.known_to(measurement.half_width_percent, "not known")
    parts = [f"{_apart(fps)} fps measured ({known})", why]
    if note:
        parts.append(note)
    if measurement.provenance == "real" and measurement.too_short:
        parts.append(f"not a figure to keep: {measurement.too_short}")
    trouble = _trouble(measurement.conditions)
    if trouble:
        parts.append(f"but the device was {trouble}: the figure is worth nothing")
    return Verdict(
        "INCONCLUSIVE" if trouble else "RECORDED",
        _sentence([*parts, *_unchecked(measurement), *_drift_notes(measurement)]),
        rule,
        "fps",
        fps,
        reference,
        figures,
    )


def setup_differences(baseline: Baseline, setup: Setup) -> list[str]:
    """What a figure and a run do not have in common, of what is known of both."""
    found = []
    if baseline.method not in ("not-stated", setup.method):
        found.append(f"method {setup.method}, the baseline's {baseline.method}")
    if baseline.tuning not in ("not-stated", setup.tuning):
        note = f" ({setup.note})" if setup.note else ""
        found.append(f"tuning {setup.tuning}{note}, the baseline's {baseline.tuning}")
    for what, ours, theirs in (
        ("chip", setup.chip, baseline.chip),
        ("card", setup.card, baseline.card),
        ("toolchain", setup.toolchain, baseline.toolchain),
    ):
        stated = theirs and theirs != "not stated"
        if ours and stated and not same_product(ours, theirs):
            found.append(f"{what} {ours}, the baseline's {theirs}")
    return found


def _chips(setup: Setup, baseline: Baseline, given: int | None) -> int | None:
    """By which one chip's throughput is multiplied; None where a card's were not counted."""
    if baseline.unit != "card":
        return 1
    if given is not None:
        return given
    return setup.chips


def _uncounted(baseline: Baseline, counted: int | None) -> str:
    """Why a card's figure cannot be held against what was counted; empty when it can."""
    if baseline.unit != "card" or counted == baseline.chips_per_card:
        return ""
    what = f"the figure is that of a card with {baseline.chips_per_card} chips"
    if counted is None:
        return f"{what}, and the chips of this card were not counted"
    return f"{what}, and {counted} {'was' if counted == 1 else 'were'} counted on this one"


def _trouble(conditions: Sequence[Condition]) -> str:
    found = dict.fromkeys(condition.trouble for condition in conditions if condition.trouble)
    return some(list(found))


def _idleness(conditions: Sequence[Condition]) -> str:
    """When nobody looked whether others used the device; empty when it was idle throughout."""
    unknown = [
        moment
        for moment in ("before", "during", "after")
        if not any(c.moment == moment and c.busy != "unknown" for c in conditions)
    ]
    if not unknown:
        return ""
    if len(unknown) == 3:
        return "whether the device was idle is not known"
    return f"whether the device was idle {' and '.join(unknown)} is not known"


def _unchecked(measurement: ThroughputMeasurement) -> list[str]:
    """A speed counts only for a model that computes what it should: if nobody looked, say so."""
    if measurement.outputs_relative_l2 is not None:
        return []
    return ["outputs were not compared with the ONNX model's"]


def _drift_notes(measurement: ThroughputMeasurement) -> list[str]:
    found = statistics.drift(measurement.timing.round_means)
    if found is None or not found.strong(STRONG_DRIFT_PERCENT):
        return []
    way = "slower" if found.percent > 0 else "faster"
    return [f"the second half of the rounds was {abs(found.percent):.1f} % {way} than the first"]


def _timing_figures(measurement: ThroughputMeasurement) -> dict[str, Any]:
    timing = measurement.timing
    moved = statistics.drift(timing.round_means)
    figures: dict[str, Any] = {
        "mean, ms": round(timing.mean_ms, 4),
        "half-width of the mean, %": round(timing.half_width_percent, 3),
        "precision asked for, %": measurement.precision_percent,
        "rounds": len(timing.rounds),
        "executions": timing.executions,
        "outliers": len(statistics.outliers(timing.samples)),
        "outliers are": statistics.OUTLIER_RULE,
    }
    if moved is not None:
        figures["drift, second half against first, %"] = round(moved.percent, 3)
        figures["drift is significant at 99 %"] = moved.significant
    if not measurement.precise:
        enough = statistics.rounds_to_reach(
            len(timing.rounds), measurement.half_width_percent, measurement.precision_percent
        )
        if enough is not None:
            figures["rounds that would decide"] = enough
    if measurement.conditions:
        figures["looks at the device"] = len(measurement.conditions)
    return figures


def _output_problems(measurement: ThroughputMeasurement, bound: float) -> list[str]:
    problems = list(measurement.problems)
    difference = measurement.outputs_relative_l2
    if difference is not None and not difference <= bound:
        problems.append(
            f"outputs for seeded inputs differ from the ONNX model's by {difference:.2g} "
            f"(relative L2), allowed {bound:g}: the speed of a wrong model counts for nothing"
        )
    return problems


def _judge_speed(
    measurement: ThroughputMeasurement,
    floor: float,
    found: str,
    asked: str,
    rule: str,
    reference: Reference,
    figures: Mapping[str, Any],
    bound: float,
    *,
    measured: float | None = None,
    notes: Sequence[str] = (),
    obstacle: str = "",
) -> Verdict:
    """`notes` are said whatever is decided; with an `obstacle` nothing is."""
    fps = measurement.timing.fps if measured is None else measured
    said = [*notes, *_unchecked(measurement), *_drift_notes(measurement)]
    told = dict(figures)

    def verdict(kind: Kind, sentence: str) -> Verdict:
        return Verdict(kind, _sentence([sentence, *said]), rule, "fps", fps, reference, told)

    problems = _output_problems(measurement, bound)
    if problems:
        return Verdict("FAIL", _sentence(problems), rule, "fps", fps, reference, dict(figures))
    trouble = _trouble(measurement.conditions)
    if trouble:
        obstacle = f"the device was {trouble}" + (f", and {obstacle}" if obstacle else "")
    if obstacle:
        return verdict("INCONCLUSIVE", f"{found}, but this decides nothing: {obstacle}")
    if measurement.too_short:
        return verdict(
            "INCONCLUSIVE", f"{found}, but this decides nothing: {measurement.too_short}"
        )
    if not measurement.precise or not math.isfinite(fps):
        # The budget ended the rounds, not the verdict: where the whole 99 % interval lies on one
        # side of the floor, what is known decides. A published figure asks for the precision.
        margin = measurement.half_width_percent / 100.0
        if measurement.provenance == "rehearsal" and margin < 1.0:
            told[SMALLEST] = _short_of(reference, fps * (1.0 - margin))
            known = f"{asked}; {precision.known_to(100 * margin)}, which decides"
            if fps * (1.0 - margin) >= floor:
                return verdict("PASS", f"{found}; {known}")
            if fps * (1.0 + margin) < floor:
                return verdict("FAIL", f"{found}: too slow, {known}")
        what = "mean" if measurement.fastest_rival is None else "ratio"
        width = measurement.half_width_percent
        known = f"only {precision.known_to(width)}" if precision.is_known(width) else "not known"
        return verdict(
            "INCONCLUSIVE",
            f"{found}, but the {what} is {known} after {measurement.seconds:.0f} s "
            f"(asked for ±{measurement.precision_percent:g} %): other work on this machine?",
        )
    told[SMALLEST] = _short_of(reference, fps)
    # A mean that equals the floor passes, whatever the last bit of a division says.
    if fps >= floor * (1.0 - 1e-12):
        return verdict("PASS", f"{found}; {asked}")
    return verdict("FAIL", f"{found}: too slow, {asked}")


def _short_of(reference: Reference, fps: float) -> float:
    """By how much a speed falls short of its reference, in percent, rounded up."""
    assert reference.value is not None
    return math.ceil(max(0.0, 100.0 * (1.0 - fps / reference.value)) * 1000) / 1000


def _sentence(problems: Sequence[str]) -> str:
    return "; ".join(problems)
