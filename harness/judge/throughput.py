"""Rules of throughput: against a baseline, against eager PyTorch on the same host, or recorded.

`judge_throughput` chooses the rule from the measurement, so that no caller chooses wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from harness.base import precision
from harness.base.errors import ProvenanceError, some
from harness.base.terms import VerdictKind
from harness.catalog.schema import Baseline, same_product
from harness.judge import statistics
from harness.judge.shared import Figures, require
from harness.judge.wording import apart, counted, decimal, joined, problems_text
from harness.records.conditions import Setup
from harness.records.measurements import Problem, ProblemCode, ThroughputMeasurement
from harness.records.verdicts import Edition, FigureName, Reference, Verdict

# A rehearsal must reach eager PyTorch's speed within this share.
EAGER_TOLERANCE_PERCENT = 10.0
# A second half of the rounds that is slower or faster by this much is spoken of.
STRONG_DRIFT_PERCENT = 1.0


def judge_throughput(
    measurement: ThroughputMeasurement, baseline: Baseline | None, *, case: str, note: str = ""
) -> Verdict:
    """Judge by the rule that the measurement calls for.

    Rehearsed: against eager PyTorch's CPU time. Real or simulated: against a judging
    baseline of the same provenance, and RECORDED where there is none. `note` is said beside
    whatever a real or simulated measurement comes to.
    """
    if measurement.provenance == "rehearsal":
        return judge_eager_speed(measurement)
    chip, simulated = measurement.setup.chip, measurement.provenance == "simulated"
    if simulated and (baseline is None or baseline.provenance != "simulated"):
        why = "the speed of a simulated device is held against nothing"
    elif baseline is None:
        why = f"no figure is published for {case}"
    elif not baseline.comparable:
        why = f"the published figure is not comparable: {baseline.not_comparable}"
    elif not baseline.judged:
        why = "its guide only records this size"
    elif not baseline.is_of(chip):
        why = f"the published figure is a {baseline.chip}'s, this is a {chip}"
    else:
        return judge_baseline(measurement, baseline, note=note)
    return record_speed(measurement, why, note=note, editions=_editions(baseline, measurement))


def judge_baseline(
    measurement: ThroughputMeasurement, baseline: Baseline, *, note: str = ""
) -> Verdict:
    """Judge a measurement against a figure of the same provenance: the mean is at least
    baseline x (1 - tolerance).

    A card's figure takes all chips of the card, as they were counted (`Setup.chips`). Where they
    were not, or are not as many as the figure's (a container may see one of four), nothing is
    decided. What figure and run do not have in common is said.
    """
    require(measurement.provenance, f"the baseline of {baseline.source}", baseline.provenance)
    chips = measurement.setup.chips if baseline.unit == "card" else 1
    fps = measurement.timing.fps * (chips or 1)
    floor = baseline.fps * (1.0 - baseline.tolerance_percent / 100.0)
    asked = decimal(floor) if floor == baseline.fps else apart(floor, fps)
    uncounted = ""
    if chips != baseline.factor:
        seen = "the chips of this card were not counted" if chips is None else f"{chips} counted"
        card = f"that of a card with {baseline.chips_per_card} chips"
        uncounted = f"the figure is {card}, and {seen}"
    differences = setup_differences(baseline, measurement.setup)
    others = ", ".join(f"{decimal(one.fps)} ({one.source})" for one in baseline.others)
    figures: Figures = {
        FigureName.BASELINE_FPS: baseline.fps,
        FigureName.RATIO: round(fps / baseline.fps, 4),
        FigureName.CHIPS: chips,  # None: nobody counted them
    }
    if differences:
        figures[FigureName.SETUP_DIFFERENCES] = tuple(differences)
    draft = Verdict(
        kind="FAIL",
        sentence=f"{apart(fps, floor, baseline.fps)} fps against {decimal(baseline.fps)} "
        f"({baseline.source}), at least {asked} is asked for",
        rule="throughput-baseline",
        unit="fps",
        measured=fps,
        reference=Reference(
            kind="baseline",
            value=baseline.fps,
            unit="fps",
            source=baseline.source,
            note=baseline.note,
            provenance=baseline.provenance,
            editions=_editions(baseline, measurement),
        ),
        allowed=f"the baseline less {baseline.tolerance_percent:g} %",
        figures=figures,
    )
    notes = (
        note,
        f"not alike: {', '.join(differences)}" if differences else "",
        f"also published: {others}" if others else "",
        _idleness(measurement),
    )
    return _decided(measurement, draft, fps, floor, baseline.fps, uncounted, notes)


def judge_eager_speed(
    measurement: ThroughputMeasurement, *, tolerance_percent: float = EAGER_TOLERANCE_PERCENT
) -> Verdict:
    """Judge a rehearsal's throughput: at least eager PyTorch's on the same host within the
    tolerance, by CPU time, in the faster of its two memory formats, on one thread each, in turns.
    """
    require(measurement.provenance, "eager PyTorch's speed on this host", "rehearsal")
    eager = measurement.eager
    if eager is None:
        raise ProvenanceError("a rehearsal's throughput has no other reference than eager PyTorch")
    fps, eager_fps = measurement.timing.fps, eager.timing.fps
    share, width = 1.0 - tolerance_percent / 100.0, measurement.half_width_percent
    times = apart(eager.ratio, share, digits=min(3, precision.digits(width)))
    source = f"eager PyTorch on this host, {eager.memory_format}"
    draft = Verdict(
        kind="FAIL",
        sentence=f"{times} times eager PyTorch by CPU time ({eager.memory_format}, one thread "
        f"each), at least {share:g} times is asked for; by the clock {apart(fps)} fps beside "
        f"eager's {apart(eager_fps)}",
        rule="throughput-rehearsal",
        unit="fps",
        measured=fps,
        ratio=eager.ratio,
        reference=Reference("eager-speed", eager_fps, "fps", source, "", "rehearsal"),
        allowed=f"eager PyTorch's speed less {tolerance_percent:g} %",
        figures={
            FigureName.EAGER_FPS: round(eager_fps, 3),
            FigureName.EAGER_HALF_WIDTH: round(eager.timing.half_width_percent, 3),
            FigureName.CPU_MS: round(median(eager.cpu_ms), 4),
            FigureName.EAGER_CPU_MS: round(median(eager.eager_cpu_ms), 4),
            FigureName.RATIO: round(eager.ratio, 4),
            FigureName.RATIO_HALF_WIDTH: round(width, 3),
        },
    )
    return _decided(measurement, draft, eager.ratio, share, 1.0)


def record_speed(
    measurement: ThroughputMeasurement,
    why: str,
    *,
    note: str = "",
    editions: tuple[Edition, ...] = (),
) -> Verdict:
    """Record a speed where nothing comparable is published: neither green nor red.

    On a device that was busy, throttled or unhealthy not even that: INCONCLUSIVE. Wrong outputs
    FAIL. `note` is said beside the others.
    """
    problems, trouble = _problems(measurement), _trouble(measurement)
    short = _too_short(measurement) if measurement.provenance == "real" else ""
    kind: VerdictKind = "INCONCLUSIVE" if trouble else "RECORDED"
    known = precision.known_to(measurement.half_width_percent, "not known")
    sentence = joined(
        f"{apart(measurement.timing.fps)} fps measured ({known})",
        why,
        note,
        f"not a figure to keep: {short}" if short else "",
        f"the figure is worth nothing: {trouble}" if trouble else "",
        *_remarks(measurement),
    )
    return Verdict(
        kind="FAIL" if problems else kind,
        sentence=problems_text(problems) or sentence,
        rule="throughput-recorded",
        unit="fps",
        measured=measurement.timing.fps,
        reference=Reference(
            kind="none", note=why, provenance=measurement.provenance, editions=editions
        ),
        allowed="outputs are right; nothing comparable to hold the speed against",
        problems=problems,
        figures=_timing_figures(measurement),
    )


def _editions(baseline: Baseline | None, measurement: ThroughputMeasurement) -> tuple[Edition, ...]:
    """Return what is published for the case, of the measurement's own provenance."""
    published = (baseline, *baseline.others) if baseline is not None else ()
    return tuple(
        Edition(one.fps, one.unit, one.source, one.edition, one.toolchain, one.compiler_flags)
        for one in published
        if one.provenance == measurement.provenance
    )


# What the rules share ----------------------------------------------------------------------


def _decided(
    measurement: ThroughputMeasurement,
    draft: Verdict,
    value: float,
    floor: float,
    whole: float,
    uncounted: str = "",
    notes: Sequence[str] = (),
) -> Verdict:
    """Return a draft with what it comes to: `value`, fps or a ratio, against `floor`, a share of
    `whole`. `uncounted`: why the reference counts other chips.
    """
    problems, figures = _problems(measurement), {**_timing_figures(measurement), **draft.figures}
    kind: VerdictKind = "FAIL"
    sentence = problems_text(problems)
    if not problems:
        kind, why, decisive = _decide(measurement, value, floor, uncounted)
        if decisive is not None:
            short = max(0.0, 100.0 * (1.0 - decisive / whole))
            figures[FigureName.SMALLEST_PERCENT] = math.ceil(1000 * short) / 1000
        if kind == "INCONCLUSIVE":
            why = f"this decides nothing: {why}"
        slow = "too slow: " if kind == "FAIL" else ""
        sentence = joined(slow + draft.sentence, why, *notes, *_remarks(measurement))
    return replace(draft, kind=kind, sentence=sentence, problems=problems, figures=figures)


def _decide(
    measurement: ThroughputMeasurement, value: float, floor: float, uncounted: str
) -> tuple[VerdictKind, str, float | None]:
    """Return the kind, why, and what a wider tolerance would have to admit: the value, or the
    lower end of its interval; None where no tolerance would make a PASS.
    """
    if hindrance := joined(_trouble(measurement), uncounted) or _too_short(measurement):
        return "INCONCLUSIVE", hindrance, None
    if measurement.precise and math.isfinite(value):
        # A mean that equals the floor passes, whatever the last bit of a division says.
        return "PASS" if value >= floor * (1.0 - 1e-12) else "FAIL", "", value
    width = measurement.half_width_percent
    known = precision.known_to(width, "known to worse than ±100 %")
    unprecise = (
        f"the {'ratio' if measurement.eager else 'mean'} is only {known} after "
        f"{measurement.seconds:.0f} s (asked for ±{measurement.precision_percent:g} %): other work "
        "on this machine?"
    )
    # The budget ended the rounds, not the verdict: where the whole 99 % interval lies on one
    # side of the floor, what is known decides. A published figure asks for the precision.
    if measurement.provenance != "rehearsal" or not width < 100.0:
        return "INCONCLUSIVE", unprecise, None
    low, high = value * (1.0 - width / 100.0), value * (1.0 + width / 100.0)
    if low < floor <= high:
        return "INCONCLUSIVE", unprecise, low
    return "PASS" if low >= floor else "FAIL", f"{known}, which decides", low


def _problems(measurement: ThroughputMeasurement) -> tuple[Problem, ...]:
    """Return what no speed may hide."""
    outputs = measurement.outputs
    if outputs is None or outputs.within:
        return measurement.problems
    data = {"relative_l2": outputs.relative_l2, "bound": outputs.bound}
    return *measurement.problems, Problem(ProblemCode.OUTPUTS_DIFFER, data)


def _trouble(measurement: ThroughputMeasurement) -> str:
    """Say that the device was busy, throttled or unhealthy; empty where it was not."""
    troubles = dict.fromkeys(look.trouble for look in measurement.conditions if look.trouble)
    return f"the device was {some(list(troubles))}" if troubles else ""


def _too_short(measurement: ThroughputMeasurement) -> str:
    """Say why the time was too short; empty where it was not."""
    budget = f"in a budget of {measurement.budget_s:g} s, it takes"
    if measurement.too_few_rounds:
        rounds = counted(measurement.timing.rounds, "round")
        return f"{rounds} timed {budget} {measurement.too_few_rounds}"
    if measurement.too_few_seconds:
        seconds = math.floor(10.0 * measurement.seconds) / 10.0  # never "10.0 s, it takes 10 s"
        return f"timed for {seconds:g} s {budget} {measurement.too_few_seconds:g} s"
    return ""


def _idleness(measurement: ThroughputMeasurement) -> str:
    """Say that nobody looked whether others used the device; empty where it was seen idle before,
    during and after.
    """
    seen = {look.moment for look in measurement.conditions if look.busy != "unknown"}
    return "" if len(seen) == 3 else "whether the device was idle throughout is not known"


def _remarks(measurement: ThroughputMeasurement) -> list[str]:
    """Say what is to be known beside any figure."""
    remarks = []
    if measurement.outputs is None:  # a speed counts only for a model that computes what it should
        remarks.append("outputs were not compared with the ONNX model's")
    drift = statistics.drift(measurement.timing.round_means)
    if measurement.eager is None and drift is not None and drift.strong(STRONG_DRIFT_PERCENT):
        way = "slower" if drift.percent > 0 else "faster"
        size = f"{abs(drift.percent):.1f} %"
        remarks.append(f"the second half of the rounds was {size} {way} than the first")
    return remarks


def _timing_figures(measurement: ThroughputMeasurement) -> Figures:
    timing = measurement.timing
    figures: Figures = {
        FigureName.MEAN_MS: round(timing.mean_ms, 4),
        FigureName.MEAN_HALF_WIDTH: round(timing.half_width_percent, 3),
        FigureName.PRECISION: measurement.precision_percent,
        FigureName.ROUNDS: timing.rounds,
        FigureName.EXECUTIONS: timing.executions,
        FigureName.OUTLIERS: timing.outliers,
    }
    if (drift := statistics.drift(timing.round_means)) is not None:
        figures[FigureName.DRIFT] = round(drift.percent, 3)
        figures[FigureName.DRIFT_SIGNIFICANT] = drift.significant
    if not measurement.precise and math.isfinite(measurement.half_width_percent):
        figures[FigureName.ROUNDS_TO_DECIDE] = statistics.rounds_to_reach(
            timing.rounds, measurement.half_width_percent, measurement.precision_percent
        )
    if measurement.conditions:
        figures[FigureName.LOOKS] = len(measurement.conditions)
    return figures


def setup_differences(baseline: Baseline, setup: Setup) -> list[str]:
    """Return what a figure and a run do not have in common, of what is known of both."""
    differences = []
    for what, ours, theirs in (
        ("method", setup.method, baseline.method),
        ("tuning", setup.tuning, baseline.tuning),
        ("input", setup.input, baseline.input),
        ("dynamic batch", setup.dynamic_batch, baseline.dynamic_batch),
        ("card", setup.card, baseline.card),
        ("toolchain", setup.toolchain, baseline.toolchain),
    ):
        known = ours and theirs not in ("", "not-stated", "not stated")
        product = what in ("card", "toolchain")
        if known and not (same_product(ours, theirs) if product else ours == theirs):
            note = f" ({setup.note})" if what == "tuning" and setup.note else ""
            differences.append(f"{what} {ours}{note}, the baseline's {theirs}")
    return differences
