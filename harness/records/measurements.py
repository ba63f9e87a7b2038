"""What is measured, as typed values: the same in memory and in a record.

Every reader of a run takes these values. Text is made from them where it is shown, and no code
reads text back. Units: milliseconds, seconds, percent, frames a second (fps), as the names say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from harness.base.terms import Provenance
from harness.records.conditions import Condition, Setup

TOP = 5
FLIPS_KEPT = 200
NAMES_KEPT = 10  # names of images in a problem, which counts them all
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
    # classes, names: of one's own images, that the reference takes for each other in turn
    CLASS_ORDER = "class-order"
    WRONG_SHAPE = "wrong-shape"  # shape, expected
    # model, relative_l2, bound: a given file has not the outputs of the model's network
    OTHER_NETWORK = "other-network"
    OUTPUTS_DIFFER = "outputs-differ"  # relative_l2, bound: for seeded inputs
    # executions, reported_ms, passed_ms. In a call that loads: of so many executions more.
    STRANGE_TIMES = "strange-times"
    WAITS = "waits"  # cpu_ms, clock_ms: of an execution, in a rehearsal
    # images, size, other, names: of one of two batch sizes alone, or with another label
    BATCH_IMAGES = "batch-images"
    OTHER_ARTIFACT = "other-artifact"  # accuracy, throughput: sha256 of what each ran
    COMPILED_ANEW = "compiled-anew"  # the same: one did not load, and was compiled anew in between


@dataclass(frozen=True)
class Problem:
    """One problem: its code, and the data that its sentence is made of."""

    code: ProblemCode
    data: Mapping[str, Datum] = field(default_factory=dict)

    @classmethod
    def named(
        cls, code: ProblemCode, names: Sequence[str], what: str = "images", **data: Datum
    ) -> Problem:
        """Return a problem of some images or outputs; the first few are named."""
        return cls(code, {what: len(names), **data, "names": tuple(names[:NAMES_KEPT])})


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
    """What an accuracy pass observed. `problems` are facts that no score may hide.

    own_set: how many images the data set has that these are of; 0 where it is ImageNet's.
    reference_kind: `onnx` where the model is an ONNX file alone, which ONNX Runtime runs.
    reference_by: what computed the reference on a target's device; empty for the CPU.
    """

    provenance: Provenance
    expected_images: int
    scores: Scores
    problems: tuple[Problem, ...]
    fidelity: Fidelity | None
    reference_scores: Scores | None  # the reference on the same images
    seconds: float
    predictions_file: str = ""  # relative to the run directory
    own_set: int = 0
    reference_kind: Literal["eager", "onnx"] = "eager"
    reference_by: str = ""
    kind: Literal["accuracy"] = "accuracy"

    @property
    def images_per_second(self) -> float | None:
        return self.scores.images / self.seconds if self.seconds > 0 else None


# Throughput --------------------------------------------------------------------------------


Rounds = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Samples:
    """Milliseconds of each execution, by round; they lie in a file beside the record.

    `cpu` and `eager_cpu` are of CPU time, in a rehearsal.
    """

    ours: Rounds
    cpu: Rounds = ()
    eager: Rounds = ()
    eager_cpu: Rounds = ()


@dataclass(frozen=True)
class Timing:
    """Execution times of one session, in milliseconds."""

    batch_size: int
    warmup: int  # executions before anything was timed
    executions: int  # timed, in each round as many
    round_means: tuple[float, ...]
    mean_ms: float
    half_width_percent: float  # of the mean's 99 % interval, from the means of the rounds
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
class EagerSpeed:
    """Eager PyTorch beside the compiled model, in turns, on one thread each."""

    memory_format: str  # the faster one
    timing: Timing  # eager PyTorch's, by the clock
    cpu_ms: tuple[float, ...]  # CPU time of the compiled model's execution, by turn
    eager_cpu_ms: tuple[float, ...]
    ratio: float  # eager PyTorch's CPU time to the compiled model's


@dataclass(frozen=True)
class ThroughputMeasurement:
    """What a throughput run observed."""

    provenance: Provenance
    timing: Timing
    precision_percent: float  # asked for
    budget_s: float
    seconds: float
    half_width_percent: float  # of what is judged: the mean, or the ratio to eager PyTorch
    eager: EagerSpeed | None = None  # in a rehearsal
    too_few_rounds: int = 0  # rounds that it takes, where the budget ended them before
    too_few_seconds: float = 0.0  # seconds that it takes, where the budget ended it before
    outputs: OutputsCheck | None = None
    problems: tuple[Problem, ...] = ()
    conditions: tuple[Condition, ...] = ()
    setup: Setup = field(default_factory=Setup)
    samples_file: str = ""  # relative to the run directory
    kind: Literal["throughput"] = "throughput"

    @property
    def precise(self) -> bool:
        """Return whether the figure that is judged is as precise as was asked for."""
        return self.half_width_percent <= self.precision_percent

    @property
    def power_w(self) -> float | None:
        """Return the mean power during the measurement; None where no tool shows it.

        Where a card has several chips, npu-smi shows the card's, beside its first chip alone.
        """
        seen = [one.power_w for one in self.conditions if one.moment == "during"]
        watts = [one for one in seen if one is not None]
        return sum(watts) / len(watts) if watts else None

    @property
    def images_per_joule(self) -> float | None:
        """Return frames a second by watts; None where the power is not known."""
        return self.timing.fps / self.power_w if self.power_w else None

    @property
    def too_short(self) -> bool:
        """Return whether it decides nothing, however precise it looks: a few quick rounds agree by
        chance, and end before a cool device has slowed down.
        """
        return bool(self.too_few_rounds or self.too_few_seconds)

    @property
    def counts(self) -> bool:
        """Return whether the figure may be used elsewhere: precise, long enough, of the right
        model, on a device of its own.
        """
        return (
            self.precise
            and not self.too_short
            and not self.problems
            and (self.outputs is None or self.outputs.within)
            and not any(look.trouble for look in self.conditions)
        )
