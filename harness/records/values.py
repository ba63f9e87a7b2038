"""What is measured, found and judged, as typed values: the same in memory and in a record.

Every reader of a run takes these values. Text is made from them where it is shown, and no code
reads text back. Units: milliseconds, seconds, percent, frames a second (fps), as the names say.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from harness.base.stages import Stage
from harness.base.terms import Provenance, VerdictKind
from harness.records.conditions import Condition, Setup

TOP = 5
FLIPS_KEPT = 200
NO_CLASS = -1
"""The class of an image with NaN or infinity among its logits."""

Scalar = str | int | float | bool | None
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # as a record writes them


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in _NOT_FINITE else value


Datum = Annotated[Scalar | tuple[str, ...] | tuple[float, ...], BeforeValidator(_number)]


# Problems ----------------------------------------------------------------------------------


class ProblemCode(StrEnum):
    """Why a measurement cannot count, whatever its figure; beside each, its data.

    `names` are the first few of so many `images` or `outputs`. Problems of the rows of the eager
    pass have `eager`: True besides.
    """

    ROWS = "rows"  # outputs, images: other rows of outputs than images
    NOT_FINITE = "not-finite"  # images, names; without them: of the seeded inputs
    COUNTED_TWICE = "counted-twice"  # images, names
    NO_OUTPUT = "no-output"  # images, names
    FOREIGN_OUTPUT = "foreign-output"  # outputs, names
    OTHER_INPUT = "other-input"  # images, names: what is fed is not the catalog's preprocessing
    IMAGES_MISSING = "images-missing"  # scored, expected
    EAGER_IMAGES_MISSING = "eager-images-missing"  # scored, expected
    OTHER_PAIRS = "other-pairs"  # the two passes do not speak of the same images
    LOGITS_DIFFER = "logits-differ"  # relative_l2, bound
    PREDICTIONS_DIFFER = "predictions-differ"  # images, of, names
    SCORE_DIFFERS = "score-differs"  # top1, eager_top1
    # The published figure is outside of eager's interval: images, top1, low, high, published.
    REFERENCE_OFF = "reference-off"
    WRONG_SHAPE = "wrong-shape"  # shape, expected
    # model, relative_l2, bound: a given file has not the outputs of the model's network
    OTHER_NETWORK = "other-network"
    OUTPUTS_DIFFER = "outputs-differ"  # relative_l2, bound: for seeded inputs
    # executions, reported_ms, passed_ms; how: "longer" than the clock, "shorter", or "growth" (a
    # call of so many executions more took longer by `passed_ms`).
    STRANGE_TIMES = "strange-times"
    BATCH_IMAGES = "batch-images"  # images, size, other, names: of one batch size alone
    BATCH_LABELS = "batch-labels"  # images, size, other, names
    NO_COMMON_IMAGE = "no-common-image"
    OTHER_ARTIFACT = "other-artifact"  # accuracy, throughput: sha256 of what each ran


@dataclass(frozen=True)
class Problem:
    """One problem: its code, and the data that its sentence is made of."""

    code: ProblemCode
    data: Mapping[str, Datum] = field(default_factory=dict)


# Accuracy ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """How many of `images` have their label among the k best, k = 1..5."""

    images: int
    correct: tuple[int, ...]

    def percent(self, k: int) -> float:
        """Top-k in percent."""
        return 100.0 * self.correct[k - 1] / self.images if self.images else 0.0


@dataclass(frozen=True, slots=True)  # slots: a bad model has as many as there are images
class Flip:
    """An image that the compiled model classifies otherwise than the reference.

    An image with NaN or infinity among its logits counts as one, and nothing excuses it.
    """

    name: str
    label: int
    reference: int
    compiled: int  # NO_CLASS where not all logits are finite
    reference_score: float  # the reference's best logit
    compiled_score: float  # the compiled model's best logit
    margin: float  # the reference's best logit minus its second
    allowed: float  # margin below which rounding within the fidelity bound explains the flip

    @property
    def excused(self) -> bool:
        return self.margin <= self.allowed


@dataclass(frozen=True)
class Fidelity:
    """How close the compiled model's logits are to the reference's on the same images.

    A record keeps the first `FLIPS_KEPT` flips; `flips_total` and `excused_total` count all.
    """

    relative_l2: float
    max_abs: float
    agreement: float  # fraction of images with the same best class
    flips: tuple[Flip, ...]
    flips_total: int = -1  # -1: as many as `flips`
    excused_total: int = -1

    def __post_init__(self) -> None:
        if self.flips_total < 0:
            object.__setattr__(self, "flips_total", len(self.flips))
        if self.excused_total < 0:
            object.__setattr__(self, "excused_total", sum(one.excused for one in self.flips))


@dataclass(frozen=True)
class AccuracyMeasurement:
    """What an accuracy pass observed. `problems` are facts that no score may hide."""

    provenance: Provenance
    expected_images: int
    scores: Scores
    problems: tuple[Problem, ...]
    fidelity: Fidelity | None
    reference_scores: Scores | None  # eager PyTorch on the same images
    seconds: float
    predictions_file: str = ""  # relative to the run directory
    kind: Literal["accuracy"] = "accuracy"

    @property
    def images_per_second(self) -> float | None:
        return self.scores.images / self.seconds if self.seconds > 0 else None


# Throughput --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Samples:
    """Milliseconds of each execution, by round; they lie in a file beside the record."""

    ours: tuple[tuple[float, ...], ...]
    rivals: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Execution times of one session, in milliseconds.

    `means_only`: the tool gave means of several executions, so that spread and percentiles say
    nothing and are None.
    """

    batch_size: int
    warmup: int  # executions before anything was timed
    executions: int  # timed, in each round as many
    round_means: tuple[float, ...]
    mean_ms: float
    half_width_percent: float  # of the mean's 99 % interval, from the means of the rounds
    means_only: bool = False
    median_ms: float | None = None
    p99_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    cv_percent: float | None = None
    outliers: int = 0

    @property
    def fps(self) -> float:
        """Frames a second of one device: `1000 * batch / mean`."""
        return 1000.0 * self.batch_size / self.mean_ms

    @property
    def rounds(self) -> int:
        return len(self.round_means)


@dataclass(frozen=True)
class OutputsCheck:
    """Outputs for seeded inputs against the ONNX model's: relative L2, and what is allowed."""

    relative_l2: float
    bound: float

    @property
    def within(self) -> bool:
        return self.relative_l2 <= self.bound  # False for NaN


@dataclass(frozen=True)
class ThroughputMeasurement:
    """What a throughput run observed; `rivals` were timed in alternation with it."""

    provenance: Provenance
    timing: Timing
    rivals: Mapping[str, Timing]  # eager PyTorch by memory format
    precision_percent: float  # asked for
    budget_s: float
    seconds: float
    half_width_percent: float  # of what is judged: the mean, or the ratio to the fastest rival
    too_few_rounds: int = 0  # rounds that it takes, where the budget ended them before
    too_few_seconds: float = 0.0  # seconds that it takes, where the budget ended it before
    outputs: OutputsCheck | None = None
    problems: tuple[Problem, ...] = ()
    conditions: tuple[Condition, ...] = ()
    setup: Setup = field(default_factory=Setup)
    samples_file: str = ""  # relative to the run directory
    kind: Literal["throughput"] = "throughput"

    @property
    def fastest_rival(self) -> tuple[str, Timing] | None:
        if not self.rivals:
            return None
        name = max(self.rivals, key=lambda name: self.rivals[name].fps)
        return name, self.rivals[name]

    @property
    def ratio(self) -> float | None:
        """Frames a second, in multiples of the fastest rival's."""
        rival = self.fastest_rival
        return None if rival is None else self.timing.fps / rival[1].fps

    @property
    def precise(self) -> bool:
        """Whether the figure that is judged is as precise as was asked for."""
        return self.half_width_percent <= self.precision_percent

    @property
    def too_short(self) -> bool:
        """Whether it decides nothing, however precise it looks: a few quick rounds agree by
        chance, and end before a cool device has slowed down.
        """
        return bool(self.too_few_rounds or self.too_few_seconds)

    @property
    def counts(self) -> bool:
        """Whether the figure may be used elsewhere: precise, long enough, of the right model, on
        a device of its own.
        """
        return (
            self.precise
            and not self.too_short
            and not self.problems
            and (self.outputs is None or self.outputs.within)
            and not any(look.trouble for look in self.conditions)
        )


Measurement = AccuracyMeasurement | ThroughputMeasurement


def percentile(ordered: Sequence[float], p: float) -> float:
    """The p-th percentile of sorted values, linear between them (NumPy's default rule)."""
    position = (len(ordered) - 1) * p / 100.0
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def spread(samples: Sequence[float]) -> dict[str, float]:
    """`median_ms`, `p99_ms`, `min_ms`, `max_ms` and `cv_percent` of single executions."""
    ordered = sorted(samples)
    mean = statistics.fmean(ordered)
    return {
        "median_ms": statistics.median(ordered),
        "p99_ms": percentile(ordered, 99.0),
        "min_ms": ordered[0],
        "max_ms": ordered[-1],
        "cv_percent": 100.0 * statistics.stdev(ordered) / mean if len(ordered) > 1 else 0.0,
    }


# References and verdicts -------------------------------------------------------------------

ReferenceKind = Literal[
    "published",  # the catalog's top-1, in percent
    "eager",  # eager PyTorch on the same images, in percent
    "baseline",  # the catalog's throughput, in fps
    "eager-speed",  # eager PyTorch on the same host, in fps
    "batch-size",  # the same model at another batch size
    "ratio",  # a multiple of another chip's figure
    "none",
]


@dataclass(frozen=True)
class Reference:
    """What a measurement was held against; `value` in `unit`."""

    kind: ReferenceKind
    value: float | None = None
    unit: str = ""
    source: str = ""
    note: str = ""
    provenance: Provenance = "real"


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

    @property
    def difference_percent(self) -> float | None:
        """100 * (measured - reference) / reference."""
        value = self.reference.value
        if self.measured is None or not value:
            return None
        return 100.0 * (self.measured - value) / value


# What a case stood on ----------------------------------------------------------------------


@dataclass(frozen=True)
class ErrorInfo:
    """A `HarnessError`, or an unexpected exception, as a record keeps it."""

    type: str
    stage: Stage
    message: str
    remedy: str = ""
    log: str = ""
    full_disk: bool = False
    remembered: bool = False  # a build that failed earlier in the run, not tried again


@dataclass(frozen=True)
class StageTime:
    """Seconds of one stage of a case. `cached`: the store had what it makes."""

    stage: Stage
    seconds: float
    cached: bool = False


@dataclass(frozen=True)
class ArtifactRef:
    """An artifact that a case stood on, by the stage that makes it."""

    stage: Stage
    key: str
    digest: str  # sha256 of the file
    bytes: int = 0
    cached: bool = False
    log: str = ""  # tail of the build's log
    log_file: str = ""  # relative to the run directory, where there is one


@dataclass(frozen=True)
class CheckpointInfo:
    """The weights. `verified`: by a published digest; None where there are none (`onnx`)."""

    source: Literal["stand-in", "checkpoint", "onnx"]
    file: str
    sha256: str
    md5: str = ""
    url: str = ""  # shown: without credentials
    layout: str = ""
    verified: bool | None = None


@dataclass(frozen=True)
class SetFindings:
    """What was counted in a data set in which nothing is wrong.

    `fewest` and `most`: images of one of the `classes` that have any. `known`: images whose right
    class is known and was compared.
    """

    images: int
    labels_without_image: int
    classes: int
    fewest: int
    most: int
    known: int


@dataclass(frozen=True)
class ImagesInfo:
    """The images of a case. `contents`: digest of what was fed, once it was."""

    source: Literal["generated", "folder"]
    root: str
    count: int
    digest: str
    layout: str = ""
    labels: str = ""
    selection: str = ""
    checked: SetFindings | None = None
    contents: str = ""


@dataclass(frozen=True)
class Attempt:
    """A device on which the case failed before it was tried on another."""

    device: str
    stage: Stage
    error: str
    why: str


@dataclass(frozen=True)
class DeviceInfo:
    """The device of a case, its tools, and the commands that do the case again by hand."""

    id: str
    name: str = ""
    card: str = ""
    alone: bool = False
    waited_s: float = 0.0
    driver: str = ""
    toolchain: Mapping[str, Scalar] = field(default_factory=dict)
    runtime: Mapping[str, Scalar | tuple[str, ...]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)  # devices not used, with the reason
    commands: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A table of a diagnosis, for a page."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Diagnosis:
    """Where a wrong result went wrong.

    `stage`: the first that departs (export, simplify, compile, infer, data); None where none does.
    `suspect`: the mistake that puts it right, by name; empty where none does.
    """

    summary: str
    stage: Stage | None = None
    suspect: str = ""
    sections: tuple[Section, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass
class Observed:
    """What a case has gathered until it ends; the engine makes its record of it."""

    verdict: Verdict | None = None
    measurement: Measurement | None = None
    checkpoint: CheckpointInfo | None = None
    images: ImagesInfo | None = None
    device: DeviceInfo | None = None
    attempts: list[Attempt] = field(default_factory=list)
    artifacts: list[ArtifactRef] = field(default_factory=list)
    stages: list[StageTime] = field(default_factory=list)
    diagnosis: Diagnosis | None = None


# What the guides published -----------------------------------------------------------------


@dataclass(frozen=True)
class PublishedSpeed:
    """One throughput figure. `chips`: how many one `unit` adds up."""

    target: str
    batch_size: int
    fps: float
    unit: str
    chips: int
    chip: str
    source: str
    judged: bool
    not_comparable: str = ""


@dataclass(frozen=True)
class GuideFigures:
    """What is published for one model; a run that is not real carries none."""

    title: str
    guide: str
    top1: float  # percent
    source: str
    note: str
    tolerance_percent: float
    side: Literal["both", "drop"]
    speeds: tuple[PublishedSpeed, ...] = ()
