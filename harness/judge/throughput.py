"""Rules of throughput: against eager PyTorch on the same host, or a baseline, or recorded.

`judge_throughput` chooses the rule from the measurement, so that no caller chooses wrongly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.base import precision
from harness.base.errors import ProvenanceError
from harness.base.terms import VerdictKind
from harness.catalog.schema import Baseline, same_product
from harness.judge import statistics, wording
from harness.judge.shared import Figures, require
from harness.records.conditions import Setup
from harness.records.measurements import Problem, ProblemCode, ThroughputMeasurement
from harness.records.verdicts import FigureName, Reference, Verdict

# A rehearsal must reach eager PyTorch's speed within this share.
EAGER_TOLERANCE_PERCENT = 10.0
# A second half of the rounds that is slower or faster by this much is spoken of.
STRONG_DRIFT_PERCENT = 1.0


def judge_throughput(
    measurement: ThroughputMeasurement, baseline: Baseline | None, *, case: str, note: str = ""
) -> Verdict:
    """Judge by the rule that the measurement calls for.

    Rehearsed: against eager PyTorch timed in alternation. Real or simulated: against a judging
    baseline of the same provenance, and RECORDED where there is none. `note` is said beside
    whatever a real or simulated measurement comes to.
    """
    if measurement.provenance == "rehearsal":
        return judge_eager_speed(measurement)
    simulated = measurement.provenance == "simulated"
    if simulated and (baseline is None or baseline.provenance != "simulated"):
        why = "the speed of a simulated device is held against nothing"
        return record_speed(measurement, why, note=note)
    if (
        baseline is None
        or not (baseline.comparable and baseline.judged)
        or not baseline.is_of(measurement.setup.chip)
    ):
        why = wording.why_recorded(baseline, measurement.setup.chip, case)
        return record_speed(measurement, why, note=note)
    return judge_baseline(measurement, baseline, note=note)


def judge_baseline(
    measurement: ThroughputMeasurement, baseline: Baseline, *, note: str = ""
) -> Verdict:
    """Judge a measurement against a figure of the same provenance: the mean is at least
    baseline x (1 - tolerance).

    Where the figure is a card's, the chips of the measured card count, as they were counted on
    it (`Setup.chips`). Where they were not counted, or are not as many as those of the figure's
    card (a container may see one of four), nothing is decided: what some chips reach is never
    held against a card's figure. What figure and run do not have in common is said.
    """
    require(measurement.provenance, f"the baseline of {baseline.source}", baseline.provenance)
    chips = measurement.setup.chips if baseline.unit == "card" else 1
    fps = measurement.timing.fps * (chips or 1)
    floor = baseline.fps * (1.0 - baseline.tolerance_percent / 100.0)
    differences = setup_differences(baseline, measurement.setup)
    figures: Figures = {
        **_timing_figures(measurement),
        FigureName.BASELINE_FPS: baseline.fps,
        FigureName.RATIO: round(fps / baseline.fps, 4),
        FigureName.CHIPS: chips,  # None: nobody counted them
    }
    if differences:
        figures[FigureName.SETUP_DIFFERENCES] = tuple(differences)
    counted = chips == baseline.factor
    return _judge_speed(
        measurement,
        _Speed(
            rule="throughput-baseline",
            fps=fps,
            floor=floor,
            compared=f"{wording.apart(fps, floor, baseline.fps)} fps against "
            f"{wording.decimal(baseline.fps)} ({baseline.source})",
            asked=f"at least {wording.floor(floor, fps, baseline)} is asked for",
            counted=counted,
            uncounted="" if counted else wording.uncounted(baseline, chips),
            allowed=f"the baseline less {baseline.tolerance_percent:g} %",
            note=wording.joined(
                note,
                f"not alike: {', '.join(differences)}" if differences else "",
                wording.idleness(measurement.conditions),
            ),
        ),
        Reference(
            "baseline", baseline.fps, "fps", baseline.source, baseline.note, baseline.provenance
        ),
        figures,
    )


def judge_eager_speed(
    measurement: ThroughputMeasurement, *, tolerance_percent: float = EAGER_TOLERANCE_PERCENT
) -> Verdict:
    """Judge a rehearsal's throughput: at least eager PyTorch's on the same host within the
    tolerance, the faster of its two memory formats, equal threads, measured in alternation.
    """
    require(measurement.provenance, "eager PyTorch's speed on this host", "rehearsal")
    rival = measurement.fastest_rival
    if rival is None:
        raise ProvenanceError("a rehearsal's throughput has no other reference than eager PyTorch")
    name, eager = rival
    share = 1.0 - tolerance_percent / 100.0
    fps = measurement.timing.fps
    return _judge_speed(
        measurement,
        _Speed(
            rule="throughput-rehearsal",
            fps=fps,
            floor=eager.fps * share,
            compared=wording.against_eager(measurement, share),
            asked=f"at least {share:g} times is asked for",
            allowed=f"eager PyTorch's speed less {tolerance_percent:g} %",
        ),
        Reference(
            "eager-speed", eager.fps, "fps", f"eager PyTorch on this host, {name}", "", "rehearsal"
        ),
        {
            **_timing_figures(measurement),
            FigureName.EAGER_FPS: round(eager.fps, 3),
            FigureName.EAGER_HALF_WIDTH: round(eager.half_width_percent, 3),
            FigureName.RATIO: round(fps / eager.fps, 4),
            FigureName.RATIO_HALF_WIDTH: round(measurement.half_width_percent, 3),
        },
    )


def record_speed(measurement: ThroughputMeasurement, why: str, *, note: str = "") -> Verdict:
    """Record a speed where nothing comparable is published: neither green nor red.

    On a device that was busy, throttled or unhealthy not even that: INCONCLUSIVE. Wrong outputs
    FAIL. `note` is said beside the others.
    """
    problems = _problems(measurement)
    kind: VerdictKind = "INCONCLUSIVE" if _troubled(measurement) else "RECORDED"
    sentence = wording.joined(
        wording.recorded(measurement, wording.joined(why, note)), *_remarks(measurement)
    )
    return Verdict(
        kind="FAIL" if problems else kind,
        sentence=wording.problems_text(problems) or sentence,
        rule="throughput-recorded",
        unit="fps",
        measured=measurement.timing.fps,
        reference=Reference(kind="none", note=why, provenance=measurement.provenance),
        allowed="outputs are right; nothing comparable to hold the speed against",
        problems=tuple(problems),
        figures=_timing_figures(measurement),
    )


# What the rules share ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Speed:
    """A speed and the floor that it is held against, in fps, with the words for both."""

    rule: str
    fps: float
    floor: float
    compared: str
    asked: str
    allowed: str
    counted: bool = True  # all chips that the reference adds up
    uncounted: str = ""
    note: str = ""  # said whatever is decided


def _judge_speed(
    measurement: ThroughputMeasurement, speed: _Speed, reference: Reference, figures: Figures
) -> Verdict:
    problems = _problems(measurement)
    sentence = wording.problems_text(problems)
    kind: VerdictKind = "FAIL"
    if not problems:
        kind, why, decisive = _decide(measurement, speed)
        if decisive is not None:
            figures[FigureName.SMALLEST_PERCENT] = _short_of(reference, decisive)
        sentence = wording.joined(
            wording.speed(kind, speed.compared, speed.asked, why),
            speed.note,
            *_remarks(measurement),
        )
    return Verdict(
        kind=kind,
        sentence=sentence,
        rule=speed.rule,
        unit="fps",
        measured=speed.fps,
        reference=reference,
        allowed=speed.allowed,
        problems=tuple(problems),
        figures=figures,
    )


def _decide(
    measurement: ThroughputMeasurement, speed: _Speed
) -> tuple[VerdictKind, str, float | None]:
    """Return the kind, words beside it, and the fps that a wider tolerance would have to admit:
    the mean, or the lower end of its interval; None where no tolerance would make a PASS.
    """
    if _troubled(measurement) or not speed.counted or measurement.too_short:
        return "INCONCLUSIVE", wording.hindrance(measurement, speed.uncounted), None
    if measurement.precise and math.isfinite(speed.fps):
        # A mean that equals the floor passes, whatever the last bit of a division says.
        good = speed.fps >= speed.floor * (1.0 - 1e-12)
        return "PASS" if good else "FAIL", "", speed.fps
    # The budget ended the rounds, not the verdict: where the whole 99 % interval lies on one
    # side of the floor, what is known decides. A published figure asks for the precision.
    margin = measurement.half_width_percent / 100.0
    if measurement.provenance != "rehearsal" or not margin < 1.0:
        return "INCONCLUSIVE", wording.unprecise(measurement), None
    low, high = speed.fps * (1.0 - margin), speed.fps * (1.0 + margin)
    known = f"{precision.known_to(100.0 * margin)}, which decides"
    if low >= speed.floor:
        return "PASS", known, low
    if high < speed.floor:
        return "FAIL", known, low
    return "INCONCLUSIVE", wording.unprecise(measurement), low


def _troubled(measurement: ThroughputMeasurement) -> bool:
    """Whether the device was busy, throttled or unhealthy at some look."""
    return any(look.trouble for look in measurement.conditions)


def _problems(measurement: ThroughputMeasurement) -> list[Problem]:
    """Return what no speed may hide."""
    problems, outputs = list(measurement.problems), measurement.outputs
    if outputs is not None and not outputs.within:
        data = {"relative_l2": outputs.relative_l2, "bound": outputs.bound}
        problems.append(Problem(ProblemCode.OUTPUTS_DIFFER, data))
    return problems


def _remarks(measurement: ThroughputMeasurement) -> tuple[str, str]:
    drift = statistics.drift(measurement.timing.round_means)
    # A speed counts only for a model that computes what it should: if nobody looked, say so.
    unchecked = "outputs were not compared with the ONNX model's"
    return (
        "" if measurement.outputs is not None else unchecked,
        wording.drifted(drift, STRONG_DRIFT_PERCENT),
    )


def _timing_figures(measurement: ThroughputMeasurement) -> Figures:
    timing = measurement.timing
    drift = statistics.drift(timing.round_means)
    figures: Figures = {
        FigureName.MEAN_MS: round(timing.mean_ms, 4),
        FigureName.MEAN_HALF_WIDTH: round(timing.half_width_percent, 3),
        FigureName.PRECISION: measurement.precision_percent,
        FigureName.ROUNDS: timing.rounds,
        FigureName.EXECUTIONS: timing.executions,
        FigureName.OUTLIERS: timing.outliers,
    }
    if drift is not None:
        figures[FigureName.DRIFT] = round(drift.percent, 3)
        figures[FigureName.DRIFT_SIGNIFICANT] = drift.significant
    if not measurement.precise:
        enough = statistics.rounds_to_reach(
            timing.rounds, measurement.half_width_percent, measurement.precision_percent
        )
        if enough is not None:
            figures[FigureName.ROUNDS_TO_DECIDE] = enough
    if measurement.conditions:
        figures[FigureName.LOOKS] = len(measurement.conditions)
    return figures


def setup_differences(baseline: Baseline, setup: Setup) -> list[str]:
    """Return what a figure and a run do not have in common, of what is known of both."""
    note = f" ({setup.note})" if setup.note else ""
    pairs: list[tuple[str, str, bool]] = [
        (f"method {setup.method}", baseline.method, baseline.method == setup.method),
        (f"tuning {setup.tuning}{note}", baseline.tuning, baseline.tuning == setup.tuning),
    ]
    for what, ours, theirs in (
        ("chip", setup.chip, baseline.chip),
        ("card", setup.card, baseline.card),
        ("toolchain", setup.toolchain, baseline.toolchain),
    ):
        pairs.append((f"{what} {ours}", theirs, not ours or same_product(ours, theirs)))
    unknown = ("", "not-stated", "not stated")
    return [
        f"{ours}, the baseline's {theirs}"
        for ours, theirs, alike in pairs
        if not alike and theirs not in unknown
    ]


def _short_of(reference: Reference, fps: float) -> float:
    """Return by how much a speed falls short of its reference, in percent, rounded up."""
    assert reference.value is not None
    return math.ceil(max(0.0, 100.0 * (1.0 - fps / reference.value)) * 1000) / 1000
