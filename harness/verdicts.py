"""Verdicts: measurement x rule -> a value that explains itself in one sentence.

No test compares figures; it asks a function here. Every function is pure: numbers in, a
`Verdict` out. Measurements carry their provenance, and no function judges one against a
reference of another: nothing rehearsed or simulated becomes a statement about a published figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.accuracy import AccuracyMeasurement
from harness.catalog import AccuracyRule, Baseline, Published
from harness.errors import HarnessError, some
from harness.records import Provenance, ReferenceInfo
from harness.throughput import ThroughputMeasurement

Kind = Literal["PASS", "FAIL", "INCONCLUSIVE", "RECORDED"]

# Relative L2 of the logits. float16 gives about 7e-3, the mildest preprocessing mistake about
# 1e-1 on SqueezeNet (measured while the harness was designed).
FIDELITY_BOUND = 3e-2
# A rehearsal on `cpu` must reach eager PyTorch's speed within this share.
EAGER_SPEED_TOLERANCE_PERCENT = 10.0
# A score outside these bounds could not tell a good artifact from a bad one.
REHEARSAL_TOP1_PERCENT = (40.0, 99.0)
REHEARSAL_MIN_CLASSES = 20
WHOLE_SET = 50_000


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
    reference: ReferenceInfo
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def difference_percent(self) -> float | None:
        """100 * (measured - reference) / reference."""
        value = self.reference.value
        if self.measured is None or value is None or value == 0:
            return None
        return 100.0 * (self.measured - value) / value


def _require(found: Provenance, wanted: Provenance, what: str) -> None:
    if found != wanted:
        raise ProvenanceError(f"a {found} measurement cannot be judged against {what} ({wanted})")


def judge_rehearsal_accuracy(
    measurement: AccuracyMeasurement, *, bound: float = FIDELITY_BOUND
) -> Verdict:
    """Compiled against eager on the generated images: every prediction equal, unless the eager
    margin is below what `bound` allows; equal score otherwise; fidelity within `bound`.

    Source of the rule: the generated set is the whole set and the eager model is the truth.
    """
    _require(measurement.provenance, "rehearsal", "the eager model on generated images")
    rule = (
        "every prediction equals the eager model's on the same images, unless its margin is "
        f"below what a relative error of {bound:g} can move; relative L2 of the logits at most "
        f"{bound:g}"
    )
    scores, fidelity = measurement.scores, measurement.fidelity
    eager = measurement.reference_scores
    if fidelity is None or eager is None:
        raise ProvenanceError("a rehearsal has no other reference than the eager model")
    reference = ReferenceInfo(
        kind="eager",
        value=eager.percent(1),
        unit="%",
        source="eager PyTorch on the same generated images",
        provenance="rehearsal",
    )
    hard = [flip for flip in fidelity.flips if not flip.excused]
    excused = len(fidelity.flips) - len(hard)
    problems = list(measurement.problems)
    if scores.images != measurement.expected_images:
        problems.append(
            f"{scores.images} rows were scored, the set has {measurement.expected_images} images"
        )
    if not fidelity.relative_l2 <= bound:
        problems.append(
            f"logits differ by {fidelity.relative_l2:.2g} (relative L2), allowed {bound:g}"
        )
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
        "relative L2 of the logits": fidelity.relative_l2,
        "relative L2 allowed": bound,
        "largest difference of a logit": fidelity.max_abs,
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
    whole_set: int = WHOLE_SET,
) -> Verdict:
    """The whole data set against the published top-1, by the model's rule.

    `|measured - published| / published <= tolerance` (guide 000), or a drop of at most the
    tolerance where the rule is one-sided (guide 003). A part of the set is not judged so.
    """
    _require(measurement.provenance, "real", "a published accuracy")
    scores = measurement.scores
    reference = ReferenceInfo(
        kind="published",
        value=published.top1,
        unit="%",
        source=published.source,
        note=published.note or "",
    )
    side = "either side" if rule.side == "both" else "a drop"
    words = f"relative difference at most {rule.tolerance_percent:g} %, {side} ({rule.source})"
    measured = scores.percent(1)
    relative = (measured - published.top1) / published.top1
    figures = {
        "images": scores.images,
        "top-1, %": round(measured, 3),
        "published top-1, %": published.top1,
        "relative difference": round(relative, 6),
        "tolerance": rule.tolerance_percent / 100.0,
        "smallest tolerance that passes, %": round(
            100.0 * (abs(relative) if rule.side == "both" else max(0.0, -relative)), 4
        ),
    }
    problems = list(measurement.problems)
    if scores.images != measurement.expected_images:
        problems.append(
            f"{scores.images} rows were scored, the set has {measurement.expected_images} images"
        )
    if problems:
        return Verdict("FAIL", _sentence(problems), words, "%", measured, reference, figures)
    if scores.images != whole_set:
        return Verdict(
            "INCONCLUSIVE",
            f"top-1 {measured:.2f} % on {scores.images} images; the published figure speaks of "
            f"all {whole_set}",
            words,
            "%",
            measured,
            reference,
            figures,
        )
    off = abs(relative) if rule.side == "both" else -relative
    good = off <= rule.tolerance_percent / 100.0 + 1e-12
    return Verdict(
        "PASS" if good else "FAIL",
        f"top-1 {measured:.2f} % against {published.top1:g} % published: "
        f"{100 * relative:+.2f} %, allowed {'±' if rule.side == 'both' else '-'}"
        f"{rule.tolerance_percent:g} %",
        words,
        "%",
        measured,
        reference,
        figures,
    )


def judge_eager_speed(
    measurement: ThroughputMeasurement,
    *,
    tolerance_percent: float = EAGER_SPEED_TOLERANCE_PERCENT,
    bound: float = FIDELITY_BOUND,
) -> Verdict:
    """A rehearsal's throughput: at least eager PyTorch's on the same host within the tolerance,
    the faster of its two memory formats, equal threads, measured in alternation.
    """
    _require(measurement.provenance, "rehearsal", "eager PyTorch's speed on this host")
    rival = measurement.fastest_rival
    if rival is None:
        raise ProvenanceError("a rehearsal's throughput has no other reference than eager PyTorch")
    name, eager = rival
    rule = (
        f"at least eager PyTorch's speed less {tolerance_percent:g} %, the faster of its memory "
        "formats, equal threads, measured in alternation"
    )
    fps, floor = measurement.timing.fps, eager.fps * (1.0 - tolerance_percent / 100.0)
    reference = ReferenceInfo(
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
        "smallest tolerance that passes, %": round(max(0.0, 100.0 * (1 - fps / eager.fps)), 3),
    }
    return _judge_speed(
        measurement,
        floor,
        f"{fps:.4g} fps, {fps / eager.fps:.2f} times eager PyTorch's {eager.fps:.4g} ({name})",
        f"at least {1 - tolerance_percent / 100:g} times is asked for",
        rule,
        reference,
        figures,
        bound,
    )


def judge_baseline(
    measurement: ThroughputMeasurement,
    baseline: Baseline,
    *,
    chips: int = 1,
    bound: float = FIDELITY_BOUND,
) -> Verdict:
    """A real measurement against a published figure: the mean is at least baseline x (1 -
    tolerance), with the chips of a card counted where the figure is a card's.
    """
    _require(measurement.provenance, baseline.provenance, f"the baseline of {baseline.source}")
    factor = chips if baseline.unit == "card" else 1
    fps = measurement.timing.fps * factor
    floor = baseline.fps * (1.0 - baseline.tolerance_percent / 100.0)
    reference = ReferenceInfo(
        kind="baseline",
        value=baseline.fps,
        unit="fps",
        source=baseline.source,
        note=baseline.note or "",
        provenance=baseline.provenance,
    )
    rule = f"mean at least the baseline less {baseline.tolerance_percent:g} %"
    figures = {
        **_timing_figures(measurement),
        "baseline, fps": baseline.fps,
        "ratio to the baseline": round(fps / baseline.fps, 4),
        "chips counted": factor,
    }
    return _judge_speed(
        measurement,
        floor,
        f"{fps:.4g} fps against {baseline.fps:g} ({baseline.source})",
        f"at least {floor:.4g} is asked for",
        rule,
        reference,
        figures,
        bound,
        measured=fps,
    )


def record_throughput(
    measurement: ThroughputMeasurement, why: str, *, bound: float = FIDELITY_BOUND
) -> Verdict:
    """Measured where nothing comparable is published: neither green nor red."""
    reference = ReferenceInfo(kind="none", note=why, provenance=measurement.provenance)
    fps = measurement.timing.fps
    figures = _timing_figures(measurement)
    problems = _output_problems(measurement, bound)
    if problems:
        return Verdict("FAIL", _sentence(problems), "outputs are right", "fps", fps, reference,
                       figures)  # fmt: skip
    return Verdict(
        "RECORDED",
        f"{fps:.4g} fps measured (known to ±{measurement.half_width_percent:.1f} %); {why}",
        "recorded: nothing comparable to hold it against",
        "fps",
        fps,
        reference,
        figures,
    )


def _timing_figures(measurement: ThroughputMeasurement) -> dict[str, Any]:
    timing = measurement.timing
    return {
        "mean, ms": round(timing.mean_ms, 4),
        "half-width of the mean, %": round(timing.half_width_percent, 3),
        "precision asked for, %": measurement.precision_percent,
        "rounds": len(timing.rounds),
        "executions": len(timing.samples),
    }


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
    reference: ReferenceInfo,
    figures: Mapping[str, Any],
    bound: float,
    *,
    measured: float | None = None,
) -> Verdict:
    fps = measurement.timing.fps if measured is None else measured

    def verdict(kind: Kind, sentence: str) -> Verdict:
        return Verdict(kind, sentence, rule, "fps", fps, reference, figures)

    problems = _output_problems(measurement, bound)
    if problems:
        return verdict("FAIL", _sentence(problems))
    if not measurement.precise or not math.isfinite(fps):
        # The budget ended the rounds, not the verdict: where the whole 99 % interval lies on one
        # side of the floor, what is known decides. A published figure asks for the precision.
        margin = measurement.half_width_percent / 100.0
        if measurement.provenance == "rehearsal" and margin < 1.0:
            known = f"{asked}; known to ±{measurement.half_width_percent:.0f} %, which decides"
            if fps * (1.0 - margin) >= floor:
                return verdict("PASS", f"{found}; {known}")
            if fps * (1.0 + margin) < floor:
                return verdict("FAIL", f"{found}: too slow, {known}")
        what = "mean" if measurement.fastest_rival is None else "ratio"
        return verdict(
            "INCONCLUSIVE",
            f"{found}, but the {what} is only known to ±{measurement.half_width_percent:.1f} % "
            f"after {measurement.seconds:.0f} s (asked for ±{measurement.precision_percent:g} %): "
            "other work on this machine?",
        )
    # A mean that equals the floor passes, whatever the last bit of a division says.
    if fps >= floor * (1.0 - 1e-12):
        return verdict("PASS", f"{found}; {asked}")
    return verdict("FAIL", f"{found}: too slow, {asked}")


def _sentence(problems: list[str]) -> str:
    return "; ".join(problems)
