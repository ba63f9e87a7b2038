"""What a rule says about a measurement: the verdict, what it was held against, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from harness.base.terms import Provenance, VerdictKind
from harness.records.measurements import Datum, Problem

ReferenceKind = Literal[
    "published",  # the catalog's top-1, in percent
    "eager",  # eager PyTorch on the same images, in percent
    "onnx",  # ONNX Runtime on the CPU on the same images, in percent
    "baseline",  # the catalog's throughput, in fps
    "eager-speed",  # eager PyTorch on the same host, in fps
    "batch-size",  # the same model at another batch size
    "ratio",  # a multiple of another chip's figure
    "none",
]


@dataclass(frozen=True)
class Edition:
    """A published throughput: of which edition of which source, and how it was made."""

    fps: float
    unit: str  # "chip" or "card"
    source: str
    date: str = ""
    toolchain: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """What a measurement was held against; `value` in `unit`.

    `editions`: what is published for the case, first the figure that it is judged by, if any.
    """

    kind: ReferenceKind
    value: float | None = None
    unit: str = ""
    source: str = ""
    note: str = ""
    provenance: Provenance = "real"
    editions: tuple[Edition, ...] = ()


class FigureName(StrEnum):
    """A figure beside a verdict; `label` and `unit` are how a page shows it."""

    label: str
    unit: str

    def __new__(cls, value: str, label: str, unit: str = "") -> FigureName:
        member = str.__new__(cls, value)
        member._value_ = value
        member.label = label
        member.unit = unit
        return member

    IMAGES = "images", "images"
    CORRECT = "correct", "correct"
    TOP1 = "top1", "top-1 compiled", "%"
    EAGER_TOP1 = "eager_top1", "top-1 eager", "%"
    PUBLISHED_TOP1 = "published_top1", "published top-1", "%"
    RELATIVE_DIFFERENCE = "relative_difference", "relative difference", "%"
    TOLERANCE_PERCENT = "tolerance_percent", "tolerance", "%"
    TOLERANCE_POINTS = "tolerance_points", "tolerance", "points"
    SMALLEST_PERCENT = "smallest_percent", "smallest tolerance that passes", "%"
    SMALLEST_POINTS = "smallest_points", "smallest tolerance that passes", "points"
    IMAGES_TO_DECIDE = "images_to_decide", "images that would decide"
    LOGITS_L2 = "logits_l2", "relative L2 of the logits"
    LOGITS_L2_ALLOWED = "logits_l2_allowed", "relative L2 allowed"
    LOGITS_MAX = "logits_max", "largest difference of a logit"
    FLIPS = "flips", "predictions that differ"
    FLIPS_EXCUSED = "flips_excused", "of these within rounding"
    DIFFERENCE_POINTS = "difference_points", "difference", "points"
    DIFFERENCE_INTERVAL = "difference_interval", "interval of the difference", "points"
    ONLY_EAGER_RIGHT = "only_eager_right", "only eager right", "images"
    ONLY_COMPILED_RIGHT = "only_compiled_right", "only compiled right", "images"
    EAGER_INTERVAL = "eager_interval", "99.9 % interval of eager's top-1", "%"
    MEAN_MS = "mean_ms", "mean", "ms"
    MEAN_HALF_WIDTH = "mean_half_width", "half-width of the mean", "%"
    PRECISION = "precision", "precision asked for", "%"
    ROUNDS = "rounds", "rounds"
    EXECUTIONS = "executions", "executions"
    OUTLIERS = "outliers", "outliers"
    DRIFT = "drift", "drift, second half against first", "%"
    DRIFT_SIGNIFICANT = "drift_significant", "drift is significant at 99 %"
    ROUNDS_TO_DECIDE = "rounds_to_decide", "rounds that would decide"
    LOOKS = "looks", "looks at the device"
    EAGER_FPS = "eager_fps", "eager", "fps"
    EAGER_HALF_WIDTH = "eager_half_width", "eager half-width of the mean", "%"
    CPU_MS = "cpu_ms", "CPU time of an execution", "ms"
    EAGER_CPU_MS = "eager_cpu_ms", "CPU time of eager's execution", "ms"
    RATIO = "ratio", "ratio to the reference"
    RATIO_HALF_WIDTH = "ratio_half_width", "half-width of the ratio", "%"
    BASELINE_FPS = "baseline_fps", "baseline", "fps"
    CHIPS = "chips", "chips counted"
    SETUP_DIFFERENCES = "setup_differences", "differences from the baseline's setup"
    UNIT_FPS = "unit_fps", "measured, of one unit", "fps"
    OTHER_FPS = "other_fps", "the other's figure", "fps"


@dataclass(frozen=True)
class BatchAnswer:
    """What one batch size said of an image: its class, and the class's logit where it was kept."""

    compiled: int
    score: float | None = None


@dataclass(frozen=True)
class BatchFlip:
    """An image that batch sizes classify differently."""

    name: str
    label: int
    excused: bool
    answers: Mapping[int, BatchAnswer]  # by batch size


@dataclass(frozen=True)
class Verdict:
    """What a rule says about a measurement.

    `rule` is the name of a rule in `harness.judge.rules`; `allowed` is what it allows here, in
    words. `sentence` is made from the values; nothing reads it. `problems` are all that were met.
    """

    kind: VerdictKind
    sentence: str
    rule: str
    unit: str  # "%", "fps", "points", "times" or ""
    measured: float | None
    reference: Reference
    allowed: str = ""
    problems: tuple[Problem, ...] = ()
    figures: Mapping[FigureName, Datum] = field(default_factory=dict)
    top1_by_batch_size: Mapping[int, float] = field(default_factory=dict)  # percent
    batch_flips: tuple[BatchFlip, ...] = ()  # the first `FLIPS_KEPT`
    # To the reference, of what was judged, where that is not `measured`.
    ratio: float | None = None

    @property
    def difference_percent(self) -> float | None:
        """100 * (measured - reference) / reference, or what `ratio` says in its place."""
        if self.ratio is not None:
            return 100.0 * (self.ratio - 1.0)
        value = self.reference.value
        if self.measured is None or not value:
            return None
        return 100.0 * (self.measured - value) / value
