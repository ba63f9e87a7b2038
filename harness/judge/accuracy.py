"""Rules of accuracy: against the published figure, or against eager PyTorch on the same images.

`judge_accuracy` chooses the rule from the measurement, so that no caller chooses wrongly.
"""

from __future__ import annotations

import functools
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
PAIRED_CONFIDENCE = 0.99
REFERENCES = {"eager": "eager PyTorch", "onnx": "ONNX Runtime on the CPU"}  # by kind of reference
_BRIEFLY = {"eager": "eager", "onnx": "ONNX Runtime"}
REFERENCE_CONFIDENCE = 0.999


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
    scores = measurement.scores
    share = Fraction(scores.correct[0], scores.images) if scores.images else Fraction(0)
    difference = 100 * (100 * share / statistics.exact(published.top1) - 1)
    off = abs(difference) if rule.side == "both" else max(Fraction(0), -difference)
    allowed = f"{'±' if rule.side == 'both' else '-'}{rule.tolerance_percent:g} %"
    figures: Figures = {
        **_figures(measurement, bound),
        FigureName.CORRECT: scores.correct[0],
        FigureName.PUBLISHED_TOP1: published.top1,
        FigureName.RELATIVE_DIFFERENCE: round(float(difference), 4),
        FigureName.TOLERANCE_PERCENT: rule.tolerance_percent,
    }
    top1 = f"top-1 {scores.percent(1):.2f} %"
    compared = (
        f"{top1} against {published.top1:g} % published: {float(difference):+.2f} %, allowed "
        f"{allowed}"
    )
    kind: VerdictKind = "FAIL"
    problems = _problems(measurement, bound)
    if problems:
        sentence = problems_text(problems)
    elif scores.images != WHOLE_SET:
        kind, figures[FigureName.IMAGES_TO_DECIDE] = "INCONCLUSIVE", WHOLE_SET
        sentence = (
            f"{top1} on {counted(scores.images)}; the published figure speaks of all {WHOLE_SET}, "
            f"and there is no eager pass on these to compare with: run all {WHOLE_SET}, or give "
            "the weights in place of --onnx"
        )
    else:
        figures[FigureName.SMALLEST_PERCENT] = upwards(off)
        if off <= statistics.exact(rule.tolerance_percent):
            kind, sentence = "PASS", f"accepted: {compared}"
        else:
            sentence = compared
    return Verdict(
        kind=kind,
        sentence=joined(sentence, note),
        rule="accuracy-whole-set",
        unit="%",
        measured=scores.percent(1),
        reference=Reference("published", published.top1, "%", published.source, published.note),
        allowed=f"{allowed} ({rule.source})",
        problems=tuple(problems),
        figures=figures,
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
    scores, eager = measurement.scores, measurement.reference_scores
    problems, figures = _problems(measurement, bound), _figures(measurement, bound)
    by = _BRIEFLY[measurement.reference_kind]
    allowed = f"{'±' if rule.side == 'both' else '-'}{rule.tolerance_percent:g} %"
    top1 = f"top-1 {scores.percent(1):.2f} %"
    kind: VerdictKind = "FAIL" if problems else "INCONCLUSIVE"
    if problems:
        sentence = problems_text(problems)
    elif eager is None:
        sentence = (
            f"{top1} on {counted(scores.images)}, for which nothing is published; to compare with "
            "eager PyTorch give the weights in place of --onnx"
        )
    elif not eager.correct[0]:
        sentence = _right_on_none(measurement)
    else:
        difference = 100 * (Fraction(scores.correct[0], eager.correct[0]) - 1)
        off = abs(difference) if rule.side == "both" else max(Fraction(0), -difference)
        figures |= {
            FigureName.RELATIVE_DIFFERENCE: round(float(difference), 4),
            FigureName.TOLERANCE_PERCENT: rule.tolerance_percent,
            FigureName.SMALLEST_PERCENT: upwards(off),
        }
        kind = "PASS" if off <= statistics.exact(rule.tolerance_percent) else "FAIL"
        sentence = (
            f"conversion {'agrees' if kind == 'PASS' else 'changes the score'} on all "
            f"{counted(scores.images)} of the data set: {top1} where {by} has "
            f"{eager.percent(1):.2f} %: {float(difference):+.2f} %, allowed {allowed}"
        )
    nothing = "nothing is published for these images"
    return Verdict(
        kind=kind,
        sentence=joined(sentence, note),
        rule="accuracy-own-set",
        unit="%",
        measured=scores.percent(1),
        reference=_eager_reference(measurement, counted(scores.images), nothing),
        allowed=f"{allowed} of {by}'s ({rule.source})",
        problems=tuple(problems),
        figures=figures,
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
    problems, pairs = _problems(measurement, bound), paired_of(measurement)
    base, all_images = _base(measurement, published)
    points = tolerance_points(base, rule)
    allowed = f"{'±' if rule.side == 'both' else 'a drop of '}{points:.2f} points ({rule.source})"
    figures: Figures = {
        **_figures(measurement, bound),
        FigureName.TOLERANCE_POINTS: round(points, 4),
    }
    figures |= {} if published is None else {FigureName.PUBLISHED_TOP1: published.top1}
    kind: VerdictKind = "FAIL"
    sentence = ""
    if pairs is None:
        problems.append(Problem(ProblemCode.OTHER_PAIRS))
    else:
        interval, eager = pairs.interval(PAIRED_CONFIDENCE), _eager_interval(pairs)
        figures |= _paired_figures(pairs, interval, eager)
        of_these = None if measurement.own_set else published
        if of_these is not None and not eager[0] <= of_these.top1 <= eager[1]:
            problems.append(_reference_off(pairs, eager, of_these))
        if not (problems or pairs.reference_correct):
            kind, sentence = "INCONCLUSIVE", _right_on_none(measurement)
        elif not problems:
            kind, enough = decide(interval, points, rule.side), None
            figures[FigureName.SMALLEST_PERCENT] = _smallest(interval, base, rule.side)
            if kind == "INCONCLUSIVE":
                enough = images_to_decide(pairs, points, rule.side)
                figures[FigureName.IMAGES_TO_DECIDE] = enough or WHOLE_SET
            sentence = _compared(measurement, kind, pairs, interval, allowed, enough)
    images = counted(measurement.scores.images)
    return Verdict(
        kind=kind,
        sentence=joined(problems_text(problems), sentence, note),
        rule="accuracy-part",
        unit="%",
        measured=measurement.scores.percent(1),
        reference=_eager_reference(measurement, images, all_images),
        allowed=allowed,
        problems=tuple(problems),
        figures=figures,
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
    problems = _problems(measurement, bound)
    if hard:
        problems.append(
            Problem.named(ProblemCode.PREDICTIONS_DIFFER, hard, of=scores.images, by=by)
        )
    if abs(scores.correct[0] - eager.correct[0]) > excused:
        score: dict[str, Datum] = {"top1": scores.percent(1), "by": by}
        score["eager_top1"] = eager.percent(1)
        problems.append(Problem(ProblemCode.SCORE_DIFFERS, score))
    rounding = f" ({excused} differ within rounding)" if excused else ""
    agrees = (
        f"{scores.images - excused} of {scores.images} predictions equal "
        f"{by}'s{rounding}; "
        f"logits differ by {fidelity.relative_l2:.1e} of {bound:g} allowed"
    )
    kind: VerdictKind = "FAIL" if problems else "PASS"
    if not (problems or eager.correct[0]):  # on images or weights that a simulation was given
        kind, agrees = "INCONCLUSIVE", _right_on_none(measurement)
    return Verdict(
        kind=kind,
        sentence=problems_text(problems) or agrees,
        rule="accuracy-rehearsal",
        unit="%",
        measured=scores.percent(1),
        reference=_eager_reference(measurement, "images"),
        allowed=f"no prediction differs, but for rounding; relative L2 of the logits {bound:g}",
        problems=tuple(problems),
        figures={
            **_figures(measurement, bound),
            FigureName.FLIPS: len(fidelity.flips),
            FigureName.FLIPS_EXCUSED: excused,
        },
    )


# What the rules share ----------------------------------------------------------------------


def _problems(measurement: AccuracyMeasurement, bound: float) -> list[Problem]:
    """Return what no score may hide: wrong rows, missing images, logits that are not eager's."""
    problems, expected = list(measurement.problems), measurement.expected_images
    for code, scores in (
        (ProblemCode.IMAGES_MISSING, measurement.scores),
        (ProblemCode.EAGER_IMAGES_MISSING, measurement.reference_scores),
    ):
        if scores is not None and scores.images != expected:
            problems.append(Problem(code, {"scored": scores.images, "expected": expected}))
    fidelity = measurement.fidelity
    if fidelity is not None and not fidelity.relative_l2 <= bound:  # NaN is not
        logits = {"relative_l2": fidelity.relative_l2, "bound": bound}
        problems.append(Problem(ProblemCode.LOGITS_DIFFER, logits))
    return problems


def _right_on_none(measurement: AccuracyMeasurement) -> str:
    return (
        f"{REFERENCES[measurement.reference_kind]} is right on none of the "
        f"{counted(measurement.scores.images)}: wrong weights, labels or preprocessing? "
        "To agree with it means nothing"
    )


def _figures(measurement: AccuracyMeasurement, bound: float) -> Figures:
    """Return the figures of all three rules."""
    scores, eager = measurement.scores, measurement.reference_scores
    figures: Figures = {
        FigureName.IMAGES: scores.images,
        FigureName.TOP1: round(scores.percent(1), 3),
    }
    if eager is not None:
        figures[FigureName.EAGER_TOP1] = round(eager.percent(1), 3)
    if measurement.fidelity is not None:
        figures[FigureName.LOGITS_L2] = measurement.fidelity.relative_l2
        figures[FigureName.LOGITS_L2_ALLOWED] = bound
        figures[FigureName.LOGITS_MAX] = measurement.fidelity.max_abs
    return figures


def _eager_reference(measurement: AccuracyMeasurement, images: str, note: str = "") -> Reference:
    eager = measurement.reference_scores
    value = None if eager is None else eager.percent(1)
    kind = measurement.reference_kind
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


def _eager_interval(pairs: Paired) -> Interval:
    """Return the interval of the eager score, in percent: where the published one must lie."""
    right = pairs.reference_correct
    return percent(statistics.binomial_interval(right, pairs.n, REFERENCE_CONFIDENCE))


def _paired_figures(pairs: Paired, interval: Interval, eager: Interval) -> Figures:
    return {
        FigureName.DIFFERENCE_POINTS: round(pairs.points, 4),
        FigureName.DIFFERENCE_INTERVAL: tuple(round(limit, 4) for limit in interval),
        FigureName.ONLY_EAGER_RIGHT: pairs.only_reference,
        FigureName.ONLY_COMPILED_RIGHT: pairs.only_compiled,
        FigureName.EAGER_INTERVAL: tuple(round(limit, 3) for limit in eager),
    }


def _reference_off(pairs: Paired, eager: Interval, published: Published) -> Problem:
    data: dict[str, Datum] = {
        "images": pairs.n,
        "top1": 100.0 * pairs.reference_correct / pairs.n,
        "low": eager[0],
        "high": eager[1],
        "published": published.top1,
    }
    return Problem(ProblemCode.REFERENCE_OFF, data)


def _base(measurement: AccuracyMeasurement, published: Published | None) -> tuple[float, str]:
    """Return the top-1 that a tolerance is a share of, and what is published, in words."""
    eager = measurement.reference_scores
    if published is None:
        score = 0.0 if eager is None else eager.percent(1)
        return score, "nothing is published for this model"
    return published.top1, f"{published.top1:g} % is published for all {WHOLE_SET} images"


def _smallest(interval: Interval, base: float, side: Side) -> float:
    """Return the tolerance, in percent of the top-1 `base`, that holds the whole interval."""
    low, high = interval
    worst = max(abs(low), abs(high)) if side == "both" else max(0.0, -low)
    return upwards(100 * statistics.exact(worst) / statistics.exact(base))


def _compared(
    measurement: AccuracyMeasurement,
    kind: VerdictKind,
    pairs: Paired,
    interval: Interval,
    allowed: str,
    enough: int | None,
) -> str:
    """Say how the two models compare; `enough` images would decide."""
    agree = {"PASS": "conversion agrees on ", "FAIL": "conversion changes the score on "}
    sentence = (
        f"{agree.get(kind, '')}{counted(pairs.n)}: top-1 "
        f"{100.0 * pairs.compiled_correct / pairs.n:.2f} % where "
        f"{_BRIEFLY[measurement.reference_kind]} has "
        f"{100.0 * pairs.reference_correct / pairs.n:.2f} % on the same images: "
        f"{pairs.points:+.2f} points, 99 % interval {interval[0]:+.2f} to {interval[1]:+.2f}, "
        f"allowed {allowed}"
    )
    return joined(sentence, would_decide(enough) if kind == "INCONCLUSIVE" else "")


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
