"""Every sentence of a verdict, made from its values; nothing reads one back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from harness.base import precision
from harness.base.errors import some
from harness.base.terms import WHOLE_SET, VerdictKind
from harness.catalog.schema import AccuracyRule, Baseline, Published, RatioRule
from harness.judge.statistics import Drift, Interval, Paired
from harness.records.conditions import Condition
from harness.records.measurements import (
    AccuracyMeasurement,
    Datum,
    Fidelity,
    Problem,
    ProblemCode,
    ThroughputMeasurement,
)


def joined(*clauses: str) -> str:
    """Return one sentence of clauses; empty ones are left out."""
    return "; ".join(clause for clause in clauses if clause)


def images_of(count: int) -> str:
    """Return `1 image`, `12 images`."""
    return _counted(count, "image")


def sizes_of(sizes: Iterable[int]) -> str:
    """Return `batch size 4`, `batch sizes 1, 4`."""
    ordered = sorted(sizes)
    return f"batch size{'' if len(ordered) == 1 else 's'} {', '.join(map(str, ordered))}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


# Problems ----------------------------------------------------------------------------------

_L2 = "by {relative_l2:.2g} (relative L2), allowed {bound:g}"
_SLOW_CLOCK = "its times are not milliseconds, or it does not wait for the device"
# By code; beside the problem's data `n` is "3 images", and `some` the first of its names.
_PROBLEMS = {
    ProblemCode.ROWS: "{outputs} rows of outputs for {n}",
    ProblemCode.NOT_FINITE: "NaN or infinity in the outputs of {n} ({some})",
    ProblemCode.COUNTED_TWICE: "{n} counted more than once ({some})",
    ProblemCode.NO_OUTPUT: "{n} without output ({some})",
    ProblemCode.FOREIGN_OUTPUT: "{n} without an image ({some})",
    ProblemCode.OTHER_INPUT: "what is fed is not the catalog's preprocessing: {n} ({some})",
    ProblemCode.IMAGES_MISSING: "{scored} of {expected} images scored",
    ProblemCode.EAGER_IMAGES_MISSING: "{scored} of {expected} images in the eager pass",
    ProblemCode.OTHER_PAIRS: "the compiled and the eager pass do not speak of the same images",
    ProblemCode.LOGITS_DIFFER: f"logits differ {_L2}",
    ProblemCode.PREDICTIONS_DIFFER: "{images} of {of} predictions differ from eager ({some})",
    ProblemCode.SCORE_DIFFERS: "top-1 {top1:.2f} % where eager has {eager_top1:.2f} %",
    ProblemCode.REFERENCE_OFF: "the reference is off: eager PyTorch has {top1:.2f} % on {n} (99.9 "
    "% interval {low:.2f} to {high:.2f}), {published:g} % is published: wrong weights, labels or "
    "preprocessing? To agree with it means nothing",
    ProblemCode.WRONG_SHAPE: "outputs have shape {shape}, the ONNX model's {expected}",
    ProblemCode.OTHER_NETWORK: "--onnx gave another network than {model} with the stand-in's "
    f"weights: outputs for seeded inputs differ from eager PyTorch's {_L2}",
    ProblemCode.OUTPUTS_DIFFER: f"outputs for seeded inputs differ from the ONNX model's {_L2}: "
    "the speed of a wrong model counts for nothing",
    ProblemCode.BATCH_IMAGES: "{n} of batch size {size} missing at batch size {other} ({some})",
    ProblemCode.BATCH_LABELS: "{n} with another label at batch size {other} than at {size} "
    "({some})",
    ProblemCode.NO_COMMON_IMAGE: "no image is common to all batch sizes",
    ProblemCode.OTHER_ARTIFACT: "the checks ran different compiled files: accuracy "
    "{accuracy:.12}, throughput {throughput:.12}",
}
_STRANGE_TIMES = {
    "longer": "the session says that {executions} executions took {reported_ms:.4g} ms, and "
    "{passed_ms:.4g} ms passed: its times are not milliseconds, or not its own",
    "shorter": "the session says that {executions} executions took {reported_ms:.4g} ms, but "
    f"{{passed_ms:.4g}} ms passed: {_SLOW_CLOCK}",
    "growth": "the session says that {executions} executions more took {reported_ms:.4g} ms, but "
    f"the call took {{passed_ms:.4g}} ms longer: {_SLOW_CLOCK}",
}


def problem_text(problem: Problem) -> str:
    """Return what is wrong, in words."""
    data = dict(problem.data)
    if problem.code is ProblemCode.STRANGE_TIMES:
        template = _STRANGE_TIMES[str(data["how"])]
    elif problem.code is ProblemCode.NOT_FINITE and "images" not in data:
        template = "NaN or infinity in the outputs for seeded inputs"
    else:
        template = _PROBLEMS[problem.code]
    text = template.format(**{key: _plain(key, value) for key, value in data.items()}, **_of(data))
    return f"in the eager pass: {text}" if data.get("eager") else text


def problems_text(problems: Iterable[Problem]) -> str:
    """Return all that is wrong, in one sentence; empty where nothing is."""
    return joined(*map(problem_text, problems))


def _of(data: Mapping[str, Datum]) -> dict[str, str]:
    what = "image" if "images" in data else "output"
    count, names = data.get(f"{what}s"), data.get("names")
    words = {}
    if isinstance(count, int):
        words["n"] = _counted(count, what)
        if isinstance(names, tuple):
            left = count - len(names[:3])
            first = ", ".join(map(str, names[:3]))
            words["some"] = first + (f" and {left} more" if left > 0 else "")
    return words


def _plain(key: str, value: Datum) -> object:
    if isinstance(value, tuple):
        return f"({', '.join(f'{one:g}' for one in value if isinstance(one, int | float))})"
    # Infinity and NaN are strings in JSON.
    return float(value) if key == "relative_l2" and isinstance(value, str) else value


# Accuracy ----------------------------------------------------------------------------------


def whole(
    kind: VerdictKind,
    measurement: AccuracyMeasurement,
    published: Published,
    rule: AccuracyRule,
    percent: float,
) -> str:
    """Compare the score of the whole set with the published one, which is `percent` away."""
    scores, eager = measurement.scores, measurement.reference_scores
    if kind == "INCONCLUSIVE":
        return (
            f"top-1 {scores.percent(1):.2f} % on {images_of(scores.images)}; the published figure "
            f"speaks of all {WHOLE_SET}, and there is no eager pass on these to compare with: run "
            f"all {WHOLE_SET}, or give the weights in place of --onnx"
        )
    compared = (
        f"top-1 {scores.percent(1):.2f} % against {published.top1:g} % published: "
        f"{percent:+.2f} %, allowed {percent_allowed(rule)}"
    )
    if kind == "PASS":
        return f"accepted: {compared}"
    with_eager = "" if eager is None else f"eager PyTorch has {eager.percent(1):.2f} % on the same"
    return joined(compared, with_eager and f"{with_eager} images")


def part(
    kind: VerdictKind, pairs: Paired, interval: Interval, allowed: str, enough: int | None
) -> str:
    """Compare the score of a part of the set with eager's, `interval` in points. `enough` images
    would decide; None where only the whole set can.
    """
    compiled, eager = (
        100.0 * right / pairs.n for right in (pairs.compiled_correct, pairs.reference_correct)
    )
    compared = (
        f"top-1 {compiled:.2f} % where eager has {eager:.2f} % on the same images: "
        f"{100.0 * float(pairs.difference):+.2f} points, 99 % interval {interval[0]:+.2f} to "
        f"{interval[1]:+.2f}, allowed {allowed}"
    )
    images = images_of(pairs.n)
    if kind == "FAIL":
        return f"conversion changes the score on {images}: {compared}"
    if kind == "PASS":
        return f"conversion agrees on {images}: {compared}"
    return f"{images}: {compared}; {would_decide(enough)}"


def would_decide(enough: int | None) -> str:
    """Say how many images would decide; None where only all do."""
    count = f"only the whole set of {WHOLE_SET}" if enough is None else f"about {enough}"
    return f"{count} images would decide, if they differ as often"


def percent_allowed(rule: AccuracyRule) -> str:
    """Return `±1 %`, `-1 %`."""
    return f"{'±' if rule.side == 'both' else '-'}{rule.tolerance_percent:g} %"


def points_allowed(points: Fraction, rule: AccuracyRule) -> str:
    """Return `±0.78 points`, `a drop of 0.58 points`."""
    return f"{'±' if rule.side == 'both' else 'a drop of '}{float(points):.2f} points"


def rehearsal_pass(images: int, flips: int, fidelity: Fidelity, bound: float) -> str:
    """Describe a rehearsed accuracy that passes; all `flips` are within rounding."""
    rounding = f" ({flips} differ within rounding)" if flips else ""
    return (
        f"{images - flips} of {images} predictions equal eager's{rounding}; "
        f"logits differ by {fidelity.relative_l2:.1e} of {bound:g} allowed"
    )


def part_plan(images: int, published: Published, least: int | None, usual: int | None) -> str:
    """Say whether a PASS is possible on `images`: from `least` on without a difference, from
    `usual` on where 1 % of the images differ.
    """
    if images >= WHOLE_SET:
        return f"{images} images: the whole set, held against the published {published.top1:g} %"
    if least is None:
        return f"{images_of(images)}: a PASS needs the whole set of {WHOLE_SET}"
    possible = "no PASS is possible" if images < least else "a PASS is possible"
    return (
        f"{images_of(images)}: {possible} (from {least} images on with no difference, "
        f"{usual or f'the whole set of {WHOLE_SET}'} where 1 % differ)"
    )


def batch_sizes(
    kind: VerdictKind,
    worst: int,
    best: int,
    lost: int,
    images: int,
    *,
    interval: Interval | None,
    tolerance: float,
    flips: Sequence[str],
    excused: int,
) -> str:
    """Compare batch sizes: `worst` is right on `lost` of `images` less than `best`. `interval` is
    in points; None on the whole set.
    """
    known, on = "", ""
    if interval is not None:
        known = f", 99.9 % interval {interval[0]:+.2f} to {interval[1]:+.2f}"
        on = f" on {images_of(images)}"
    verb = {"FAIL": "differ", "PASS": "agree"}.get(kind, "are not decided")
    names = f" ({some(flips)})" if flips else ""
    rounding = f", {excused} of these within rounding" if excused else ""
    return (
        f"batch sizes {verb}{on}: {worst} is right on {images_of(lost)} of {images} less than "
        f"{best}, {100.0 * lost / images:.2f} points{known}, allowed {tolerance:g}; "
        f"{len(flips)} of {images} predictions differ{names}{rounding}"
    )


# Throughput --------------------------------------------------------------------------------


def speed(kind: VerdictKind, compared: str, asked: str, why: str) -> str:
    """Compare a speed with its floor; `why` is what decides, or why nothing does."""
    if kind == "INCONCLUSIVE":
        return f"{compared}, but this decides nothing: {why}"
    return joined(f"{compared}{': too slow,' if kind == 'FAIL' else ';'} {asked}", why)


def against_eager(measurement: ThroughputMeasurement, share: float) -> str:
    """Compare a speed with eager PyTorch's; `share` of it is asked for."""
    rival = measurement.fastest_rival
    assert rival is not None
    name, eager = rival
    fps, width = measurement.timing.fps, measurement.half_width_percent
    ratio = fps / eager.fps
    # In as many digits as it is known to; more where it would read as what is asked for.
    if not math.isfinite(ratio):
        times = f"{ratio:g}"
    elif not (precision.is_known(width) and width < 10):
        times = precision.significant(ratio, 2)
    elif f"{ratio:.2f}" == f"{share:.2f}":
        times = apart(ratio, share, digits=3)
    else:
        times = f"{ratio:.2f}"
    return f"{apart(fps)} fps, {times} times eager PyTorch's {apart(eager.fps)} ({name})"


def recorded(measurement: ThroughputMeasurement, why: str) -> str:
    """Describe a speed that is compared with nothing, and `why`."""
    known = precision.known_to(measurement.half_width_percent, "not known")
    short = too_short(measurement) if measurement.provenance == "real" else ""
    trouble = device_trouble(measurement.conditions)
    return joined(
        f"{apart(measurement.timing.fps)} fps measured ({known})",
        why,
        f"not a figure to keep: {short}" if short else "",
        f"but the device was {trouble}: the figure is worth nothing" if trouble else "",
    )


def why_recorded(baseline: Baseline | None, chip: str, case: str) -> str:
    """Say why the figure of a baseline, where there is one, is no target for a run on `chip`."""
    if baseline is None:
        return f"no figure is published for {case}"
    if not baseline.comparable:
        return f"the published figure is not comparable: {baseline.not_comparable}"
    if not baseline.judged:
        return "its guide only records this size"
    return f"the published figure is a {baseline.chip}'s, this is a {chip}"


def hindrance(measurement: ThroughputMeasurement, uncounted: str = "") -> str:
    """Say why nothing can be decided, however precise the figure is."""
    trouble = device_trouble(measurement.conditions)
    if trouble:
        return f"the device was {trouble}" + (f", and {uncounted}" if uncounted else "")
    return uncounted or too_short(measurement)


def too_short(measurement: ThroughputMeasurement) -> str:
    """Say why the time was too short; empty where it was not."""
    budget = f"in a budget of {measurement.budget_s:g} s, it takes"
    if measurement.too_few_rounds:
        rounds = _counted(measurement.timing.rounds, "round")
        return f"{rounds} timed {budget} {measurement.too_few_rounds}"
    if measurement.too_few_seconds:
        seconds = math.floor(10.0 * measurement.seconds) / 10.0  # never "10.0 s, it takes 10 s"
        return f"timed for {seconds:g} s {budget} {measurement.too_few_seconds:g} s"
    return ""


def unprecise(measurement: ThroughputMeasurement) -> str:
    """Say that a figure is known less well than was asked for."""
    what = "mean" if measurement.fastest_rival is None else "ratio"
    width = measurement.half_width_percent
    known = f"only {precision.known_to(width)}" if precision.is_known(width) else "not known"
    return (
        f"the {what} is {known} after {measurement.seconds:.0f} s "
        f"(asked for ±{measurement.precision_percent:g} %): other work on this machine?"
    )


def uncounted(baseline: Baseline, chips: int | None) -> str:
    """Say why a card's figure cannot be compared with the chips that were counted."""
    counted = "the chips of this card were not counted" if chips is None else f"{chips} counted"
    return f"the figure is that of a card with {baseline.chips_per_card} chips, and {counted}"


def device_trouble(conditions: Sequence[Condition]) -> str:
    """Say what was wrong with the device; empty where nothing was."""
    return some(list(dict.fromkeys(one.trouble for one in conditions if one.trouble)))


def idleness(conditions: Sequence[Condition]) -> str:
    """Say when nobody looked whether others used the device; empty when it was idle throughout."""
    moments = ("before", "during", "after")
    seen = {look.moment for look in conditions if look.busy != "unknown"}
    unknown = [moment for moment in moments if moment not in seen]
    when = "" if len(unknown) == len(moments) else f" {' and '.join(unknown)}"
    return f"whether the device was idle{when} is not known" if unknown else ""


def drifted(drift: Drift | None, at_least_percent: float) -> str:
    """Say that the second half of the rounds was slower or faster; empty where it was not."""
    if drift is None or not drift.strong(at_least_percent):
        return ""
    way = "slower" if drift.percent > 0 else "faster"
    return f"the second half of the rounds was {abs(drift.percent):.1f} % {way} than the first"


# Several cases -----------------------------------------------------------------------------


def ratio(known: Mapping[int, float], sizes: int, other: Baseline, rule: RatioRule) -> str:
    """Compare the best of the `known` speeds, by batch size of `sizes`, with another chip's."""
    size = max(known, key=known.__getitem__)
    fps = known[size]
    best = f", the best of {', '.join(map(str, sorted(known)))}," if sizes > 1 else ""
    return (
        f"{apart(fps)} fps a {other.unit} at batch size {size}{best} are "
        f"{apart(fps / other.fps, rule.at_least, digits=3)} times the {decimal(other.fps)} of "
        f"{other.chip} at {other.batch_size}; {rule.at_least:g} times are asked for"
    )


# Numbers -----------------------------------------------------------------------------------


def apart(value: float, *others: float, digits: int = 4) -> str:
    """Return a figure in so many digits, or in as many as set it apart from `others`: no near miss
    reads as if it were none. Never in powers of ten.
    """

    def read(number: float, count: int) -> float:
        # `1.000` and `1.0000` read the same.
        return float(precision.significant(number, count).replace(",", ""))

    near = [other for other in others if other != value]
    for count in range(digits, 16):
        if all(read(other, count) != read(value, count) for other in near):
            return precision.significant(value, count)
    return f"{value!r}"


def floor(value: float, fps: float, baseline: Baseline) -> str:
    """Return what a baseline asks for, in digits that set it apart from `fps`."""
    return decimal(value) if value == baseline.fps else apart(value, fps)


def decimal(value: float) -> str:
    """Return a published figure in all its digits, never in powers of ten."""
    text = format(Decimal(repr(float(value))), ",f")
    return text.rstrip("0").removesuffix(".") if "." in text else text
