"""Rules of accuracy: against the published figure, or against eager PyTorch on the same images.

`judge_accuracy` chooses the rule from the measurement, so that no caller chooses wrongly.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from fractions import Fraction

from harness.base.errors import ProvenanceError
from harness.base.terms import WHOLE_SET, VerdictKind
from harness.catalog.schema import AccuracyRule, Published
from harness.judge import statistics
from harness.judge.shared import Figures, Side, decide, require, upwards
from harness.judge.statistics import Interval, Paired, percent
from harness.judge.wording import counted, joined, problems_text, would_decide
from harness.records.measurements import AccuracyMeasurement, Datum, Problem, ProblemCode
from harness.records.verdicts import FigureName, Reference, Verdict

# A score outside these bounds could not tell a good artifact from a bad one.
REHEARSAL_TOP1_PERCENT = (40.0, 99.0)
REHEARSAL_MIN_CLASSES = 20
# Of the difference of two models on a part of the set, and of the reference's own score there.
PAIRED_CONFIDENCE, REFERENCE_CONFIDENCE = 0.99, 0.999
REFERENCES = {"eager": "eager PyTorch", "onnx": "ONNX Runtime on the CPU"}  # by kind of reference
_BRIEFLY = {"eager": "eager", "onnx": "ONNX Runtime"}
_UNDECIDED: VerdictKind = "INCONCLUSIVE"


def judge_accuracy(
    measurement: AccuracyMeasurement,
    published: Published | None,
    rule: AccuracyRule,
    *,
    bound: float,
    note: str = "",
) -> Verdict:
    """Judge by the rule that the measurement calls for.

    `published` is None where nothing is published for the model, on no images. `bound` is the
    relative L2 of the logits that the target is allowed; `note` is said beside whatever a real
    measurement comes to.
    """
    if measurement.provenance != "real":
        return judge_rehearsal(measurement, bound=bound)
    part = measurement.expected_images != (measurement.own_set or WHOLE_SET)
    compared = measurement.reference_scores is not None
    if (measurement.own_set and not part) or (published is None and not (part and compared)):
        return judge_own_set(measurement, rule, bound=bound, note=note)
    if published is None or (part and compared):
        return judge_part(measurement, published, rule, bound=bound, note=note)
    return judge_whole_set(measurement, published, rule, bound=bound, note=note)


def judge_whole_set(
    measurement: AccuracyMeasurement,
    published: Published,
    rule: AccuracyRule,
    *,
    bound: float,
    note: str = "",
) -> Verdict:
    """Judge the whole data set against the published top-1.

    `|measured - published| / published <= tolerance` (guide 000), or a drop of at most the
    tolerance where the rule is one-sided (guide 003), in exact arithmetic on the counts. Where
    there was an eager pass, fidelity is a gate. A part of the set is not judged so.
    """
    require(measurement.provenance, "a published accuracy", "real")
    scores, top1 = measurement.scores, _top1(measurement)
    figures: Figures = {
        FigureName.CORRECT: scores.correct[0],
        FigureName.PUBLISHED_TOP1: published.top1,
    }
    if scores.images != WHOLE_SET:
        kind, figures[FigureName.IMAGES_TO_DECIDE] = _UNDECIDED, WHOLE_SET
        sentence = (
            f"{top1} on {counted(scores.images)}; the published figure speaks of all {WHOLE_SET}, "
            f"and there is no eager pass on these to compare with: run all {WHOLE_SET}, or give "
            "the weights in place of --onnx"
        )
    else:
        share = Fraction(100 * scores.correct[0], WHOLE_SET)
        kind, difference, more = _held(share, statistics.exact(published.top1), rule)
        figures |= more
        accepted = "accepted: " if kind == "PASS" else ""
        sentence = f"{accepted}{top1} against {published.top1:g} % published: {difference}"
    return _verdict(
        measurement,
        bound,
        "accuracy-whole-set",
        kind,
        sentence,
        reference=Reference("published", published.top1, "%", published.source, published.note),
        allowed=f"{_allowed(rule)} ({rule.source})",
        figures=figures,
        note=note,
    )


def judge_own_set(
    measurement: AccuracyMeasurement, rule: AccuracyRule, *, bound: float, note: str = ""
) -> Verdict:
    """Judge all of a data set that is not ImageNet's against the eager model on it.

    Nothing is published for it, or for the model, so that eager's score takes the place of the
    published figure in `judge_whole_set`. It is no sample of anything: the difference is exact, on
    a handful of images too. Fidelity is a gate. What both share (weights, labels, preprocessing) is
    not judged.
    """
    require(measurement.provenance, "the eager model on a data set of one's own", "real")
    scores, eager, top1 = measurement.scores, measurement.reference_scores, _top1(measurement)
    by, images = _BRIEFLY[measurement.reference_kind], counted(scores.images)
    kind, figures = _UNDECIDED, Figures()
    if eager is None:
        sentence = (
            f"{top1} on {images}, for which nothing is published; to compare with eager PyTorch "
            "give the weights in place of --onnx"
        )
    elif not eager.correct[0]:
        sentence = _right_on_none(measurement)
    else:
        ours, theirs = Fraction(scores.correct[0]), Fraction(eager.correct[0])
        kind, difference, figures = _held(ours, theirs, rule)
        sentence = (
            f"conversion {'agrees' if kind == 'PASS' else 'changes the score'} on all {images} of "
            f"the data set: {top1} where {by} has {eager.percent(1):.2f} %: {difference}"
        )
    return _verdict(
        measurement,
        bound,
        "accuracy-own-set",
        kind,
        sentence,
        reference=_eager(measurement, images, "nothing is published for these images"),
        allowed=f"{_allowed(rule)} of {by}'s ({rule.source})",
        figures=figures,
        note=note,
    )


def judge_part(
    measurement: AccuracyMeasurement,
    published: Published | None,
    rule: AccuracyRule,
    *,
    bound: float,
    note: str = "",
) -> Verdict:
    """Judge a part of the data set against the eager model on the same images.

    The published figure says nothing exact about a part: a healthy model of 78.26 % lands
    outside a band of 1 % in more than half of all samples of 1,000. The difference of the two
    models on the *same* images is known far better. Its interval (Tango 1998, 99 %) decides:
    wholly inside the tolerance PASS, wholly outside FAIL, INCONCLUSIVE otherwise. Mistakes that
    both models share (weights, labels, preprocessing) do not show in a difference; so the
    published figure must lie in the 99.9 % interval of the eager score, else FAIL; not on images
    that are not ImageNet's, for which it was not published. Of a model for which nothing is
    published the tolerance is one of eager's score.
    """
    require(measurement.provenance, "a published accuracy", "real")
    pairs, eager = paired_of(measurement), measurement.reference_scores
    base = 0.0 if eager is None else eager.percent(1)
    said, figures = "nothing is published for this model", Figures()
    if published is not None:
        base = figures[FigureName.PUBLISHED_TOP1] = published.top1
        said = f"{base:g} % is published for all {WHOLE_SET} images"
    points = tolerance_points(base, rule)
    figures[FigureName.TOLERANCE_POINTS] = round(points, 4)
    allowed = f"{'±' if rule.side == 'both' else 'a drop of '}{points:.2f} points ({rule.source})"
    kind, sentence, problems = _UNDECIDED, "", []
    if pairs is None:
        problems = [Problem(ProblemCode.OTHER_PAIRS)]
    else:
        figures |= _paired_figures(pairs)
        problems = [] if measurement.own_set else _reference_off(pairs, published)
        if not pairs.reference_correct:
            sentence = _right_on_none(measurement)
        else:
            kind, sentence, more = _compared(measurement, pairs, base, rule, allowed)
            figures |= more
    return _verdict(
        measurement,
        bound,
        "accuracy-part",
        kind,
        sentence,
        reference=_eager(measurement, counted(measurement.scores.images), said),
        allowed=allowed,
        figures=figures,
        problems=problems,
        note=note,
    )


def judge_rehearsal(measurement: AccuracyMeasurement, *, bound: float) -> Verdict:
    """Judge compiled against eager on the same images, rehearsed or simulated.

    Every prediction is equal, unless the eager margin is below what `bound` allows; the score is
    equal otherwise; fidelity within `bound`. These images are the whole set, and the eager model
    is the truth; where it is right on none of them, nothing is decided.
    """
    require(measurement.provenance, "the eager model as the truth", "rehearsal", "simulated")
    scores, fidelity = measurement.scores, measurement.fidelity
    eager = measurement.reference_scores
    if fidelity is None or eager is None:
        raise ProvenanceError(
            f"a {measurement.provenance} accuracy has no other reference than the eager model"
        )
    by = _BRIEFLY[measurement.reference_kind]
    hard = [flip.name for flip in fidelity.flips if not flip.excused]
    excused = len(fidelity.flips) - len(hard)
    problems = []
    if hard:
        problems.append(
            Problem.named(ProblemCode.PREDICTIONS_DIFFER, hard, of=scores.images, by=by)
        )
    if abs(scores.correct[0] - eager.correct[0]) > excused:
        score: dict[str, Datum] = {"top1": scores.percent(1), "by": by}
        score["eager_top1"] = eager.percent(1)
        problems.append(Problem(ProblemCode.SCORE_DIFFERS, score))
    rounding = f" ({excused} differ within rounding)" if excused else ""
    kind: VerdictKind = "PASS"
    sentence = (
        f"{scores.images - excused} of {scores.images} predictions equal {by}'s{rounding}; "
        f"logits differ by {fidelity.relative_l2:.1e} of {bound:g} allowed"
    )
    if not eager.correct[0]:  # on images or weights that a simulation was given
        kind, sentence = _UNDECIDED, _right_on_none(measurement)
    return _verdict(
        measurement,
        bound,
        "accuracy-rehearsal",
        kind,
        sentence,
        reference=_eager(measurement, "images"),
        allowed=f"no prediction differs, but for rounding; relative L2 of the logits {bound:g}",
        figures={
            FigureName.FLIPS: len(fidelity.flips),
            FigureName.FLIPS_EXCUSED: excused,
        },
        problems=problems,
    )


# What the rules share ----------------------------------------------------------------------


def _verdict(
    measurement: AccuracyMeasurement,
    bound: float,
    rule: str,
    kind: VerdictKind,
    sentence: str,
    *,
    reference: Reference,
    allowed: str,
    figures: Figures,
    problems: Iterable[Problem] = (),
    note: str = "",
) -> Verdict:
    """Return the verdict that the score alone comes to; FAIL where there is a problem, of the rule
    or of those that no score may hide: wrong rows, missing images, logits that are not eager's.
    """
    scores, eager, fidelity = (
        measurement.scores,
        measurement.reference_scores,
        measurement.fidelity,
    )
    met, expected = list(measurement.problems), measurement.expected_images
    shown: Figures = {
        FigureName.IMAGES: scores.images,
        FigureName.TOP1: round(scores.percent(1), 3),
    }
    if scores.images != expected:
        data = {"scored": scores.images, "expected": expected}
        met.append(Problem(ProblemCode.IMAGES_MISSING, data))
    if eager is not None:
        shown[FigureName.EAGER_TOP1] = round(eager.percent(1), 3)
        if eager.images != expected:
            data = {"scored": eager.images, "expected": expected}
            met.append(Problem(ProblemCode.EAGER_IMAGES_MISSING, data))
    if fidelity is not None:
        shown[FigureName.LOGITS_L2] = fidelity.relative_l2
        shown[FigureName.LOGITS_L2_ALLOWED] = bound
        shown[FigureName.LOGITS_MAX] = fidelity.max_abs
        if not fidelity.relative_l2 <= bound:  # NaN is not
            logits = {"relative_l2": fidelity.relative_l2, "bound": bound}
            met.append(Problem(ProblemCode.LOGITS_DIFFER, logits))
    met += problems
    if met:  # no tolerance and no number of images would make a PASS
        figures.pop(FigureName.SMALLEST_PERCENT, None)
        figures.pop(FigureName.IMAGES_TO_DECIDE, None)
    return Verdict(
        kind="FAIL" if met else kind,
        sentence=joined(problems_text(met) or sentence, note),
        rule=rule,
        unit="%",
        measured=scores.percent(1),
        reference=reference,
        allowed=allowed,
        problems=tuple(met),
        figures=shown | figures,
    )


def _held(ours: Fraction, theirs: Fraction, rule: AccuracyRule) -> tuple[VerdictKind, str, Figures]:
    """Hold a score against another, exactly: the kind, the difference in words, figures."""
    difference = 100 * (ours / theirs - 1)
    off = abs(difference) if rule.side == "both" else max(Fraction(0), -difference)
    figures: Figures = {
        FigureName.RELATIVE_DIFFERENCE: round(float(difference), 4),
        FigureName.TOLERANCE_PERCENT: rule.tolerance_percent,
        FigureName.SMALLEST_PERCENT: upwards(off),
    }
    kind: VerdictKind = "PASS" if off <= statistics.exact(rule.tolerance_percent) else "FAIL"
    return kind, f"{float(difference):+.2f} %, allowed {_allowed(rule)}", figures


def _allowed(rule: AccuracyRule) -> str:
    return f"{'±' if rule.side == 'both' else '-'}{rule.tolerance_percent:g} %"


def _top1(measurement: AccuracyMeasurement) -> str:
    return f"top-1 {measurement.scores.percent(1):.2f} %"


def _right_on_none(measurement: AccuracyMeasurement) -> str:
    return (
        f"{REFERENCES[measurement.reference_kind]} is right on none of the "
        f"{counted(measurement.scores.images)}: wrong weights, labels or preprocessing? "
        "To agree with it means nothing"
    )


def _eager(measurement: AccuracyMeasurement, images: str, note: str = "") -> Reference:
    scores, kind = measurement.reference_scores, measurement.reference_kind
    value = None if scores is None else scores.percent(1)
    by = f" ({measurement.reference_by})" if measurement.reference_by else ""
    source = f"{REFERENCES[kind]}{by} on the same {images}"
    return Reference(kind, value, "%", source, note, measurement.provenance)


# A part of the set -------------------------------------------------------------------------


def paired_of(measurement: AccuracyMeasurement) -> Paired | None:
    """Return who was right on how many images, from a measurement with an eager pass.

    Models that agree on an image are right or wrong together, so the flips hold all that
    differs. None where there is no eager pass, or the counts contradict each other.
    """
    fidelity, eager = measurement.fidelity, measurement.reference_scores
    if fidelity is None or eager is None or fidelity.flips_total != len(fidelity.flips):
        return None
    only_reference = sum(flip.reference == flip.label for flip in fidelity.flips)
    only_compiled = sum(flip.compiled == flip.label for flip in fidelity.flips)
    both = measurement.scores.correct[0] - only_compiled
    try:
        pairs = Paired(measurement.scores.images, both, only_reference, only_compiled)
    except ValueError:
        return None
    return pairs if pairs.reference_correct == eager.correct[0] else None


def _paired_figures(pairs: Paired) -> Figures:
    interval, eager = pairs.interval(PAIRED_CONFIDENCE), _eager_interval(pairs)
    return {
        FigureName.DIFFERENCE_POINTS: round(pairs.points, 4),
        FigureName.DIFFERENCE_INTERVAL: tuple(round(limit, 4) for limit in interval),
        FigureName.ONLY_EAGER_RIGHT: pairs.only_reference,
        FigureName.ONLY_COMPILED_RIGHT: pairs.only_compiled,
        FigureName.EAGER_INTERVAL: tuple(round(limit, 3) for limit in eager),
    }


def _eager_interval(pairs: Paired) -> Interval:
    """Return the interval of the eager score, in percent: where the published one must lie."""
    right = pairs.reference_correct
    return percent(statistics.binomial_interval(right, pairs.n, REFERENCE_CONFIDENCE))


def _reference_off(pairs: Paired, published: Published | None) -> list[Problem]:
    low, high = _eager_interval(pairs)
    if published is None or low <= published.top1 <= high:
        return []
    top1 = 100.0 * pairs.reference_correct / pairs.n
    data = {"images": pairs.n, "top1": top1, "low": low, "high": high, "published": published.top1}
    return [Problem(ProblemCode.REFERENCE_OFF, data)]


def _compared(
    measurement: AccuracyMeasurement, pairs: Paired, base: float, rule: AccuracyRule, allowed: str
) -> tuple[VerdictKind, str, Figures]:
    """Return what the difference of the two models comes to: the kind, a sentence, figures."""
    low, high = interval = pairs.interval(PAIRED_CONFIDENCE)
    points = tolerance_points(base, rule)
    kind, more = decide(interval, points, rule.side), ""
    worst = max(abs(low), abs(high)) if rule.side == "both" else max(0.0, -low)
    smallest = upwards(100 * statistics.exact(worst) / statistics.exact(base))
    figures: Figures = {FigureName.SMALLEST_PERCENT: smallest}
    if kind == _UNDECIDED:
        enough = images_to_decide(pairs, points, rule.side)
        figures[FigureName.IMAGES_TO_DECIDE] = enough or WHOLE_SET
        more = would_decide(enough)
    agrees = {"PASS": "conversion agrees on ", "FAIL": "conversion changes the score on "}
    sentence = (
        f"{agrees.get(kind, '')}{counted(pairs.n)}: top-1 "
        f"{100.0 * pairs.compiled_correct / pairs.n:.2f} % where "
        f"{_BRIEFLY[measurement.reference_kind]} has "
        f"{100.0 * pairs.reference_correct / pairs.n:.2f} % on the same images: "
        f"{pairs.points:+.2f} points, 99 % interval {low:+.2f} to {high:+.2f}, allowed {allowed}"
    )
    return kind, joined(sentence, more), figures


def tolerance_points(base: float, rule: AccuracyRule) -> float:
    """Return the rule's tolerance, relative to the top-1 `base`, in points of top-1."""
    return float(statistics.exact(base) * statistics.exact(rule.tolerance_percent) / 100)


@functools.lru_cache(maxsize=65_536)
def images_to_decide(
    pairs: Paired, tolerance: float, side: Side, confidence: float = PAIRED_CONFIDENCE
) -> int | None:
    """Return how many images would decide if the models differ on them as often as on these; None
    when that is the whole set or more. `tolerance` in points.
    """

    def decided(images: int) -> bool:
        scale = images / pairs.n
        plus, minus = pairs.only_compiled * scale, pairs.only_reference * scale
        interval = statistics.tango_interval(plus, minus, images, confidence)
        return decide(percent(interval), tolerance, side) != "INCONCLUSIVE"

    return statistics.smallest(decided, pairs.n, WHOLE_SET - 1)


def images_to_pass(
    published: Published, rule: AccuracyRule, *, discordant_percent: float = 0.0
) -> int | None:
    """Return from how many images on a PASS is possible at all, for `plan`.

    `discordant_percent` of the images are right with one model and wrong with the other, as many
    one way as the other; none by default, the best that can happen. None when a part of the set
    is never enough.
    """
    points, share = tolerance_points(published.top1, rule), discordant_percent / 200.0

    def passes(n: int) -> bool:
        interval = statistics.tango_interval(n * share, n * share, n, PAIRED_CONFIDENCE)
        return decide(percent(interval), points, rule.side) == "PASS"

    return statistics.smallest(passes, 1, WHOLE_SET - 1)


def describe_part(images: int, published: Published, rule: AccuracyRule) -> str:
    """Say in one sentence, for `plan`, what accuracy can come to on that many images."""
    if images >= WHOLE_SET:
        return f"{images} images: the whole set, held against the published {published.top1:g} %"
    least = images_to_pass(published, rule)
    if least is None:
        return f"{counted(images)}: a PASS needs the whole set of {WHOLE_SET}"
    usual = images_to_pass(published, rule, discordant_percent=1.0)
    possible = "no PASS is possible" if images < least else "a PASS is possible"
    return (
        f"{counted(images)}: {possible} (from {least} images on with no difference, "
        f"{usual or f'the whole set of {WHOLE_SET}'} where 1 % differ)"
    )
