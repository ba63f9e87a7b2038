"""The sections of `baselines.yaml` as typed values: every model, figure, rule and provenance.

Each type checks its own values; `checks.py` compares sections with each other, `load.py` reads a
file. What each key means, and why: `docs/baselines.md`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.base.errors import CatalogError
from harness.base.stages import Stage
from harness.base.terms import Check, Provenance
from harness.catalog.yaml_document import suggest, unknown_key, unknown_name
from harness.images.steps import Preprocessing

Method = Literal["whole-dataset", "pure-inference", "not-stated"]
Tuning = Literal["none", "RL,GA", "aoe", "not-stated"]
Unit = Literal["chip", "card"]

# Stages at which a case can fail; the others end a run before there is a case.
FAILURE_STAGES = (
    Stage.DATA,
    Stage.CHECKPOINT,
    Stage.NETWORK,
    Stage.EXPORT,
    Stage.SIMPLIFY,
    Stage.COMPILE,
    Stage.LOAD,
    Stage.INFER,
    Stage.DEVICE,
    Stage.EAGER,
    Stage.VERDICT,
)

MAX_BATCH_SIZE = 4096  # ais_bench's own limit
# The guides allow 1 % for accuracy and nothing for throughput. Ten times that still tells a sound
# conversion from a broken one; beyond it a rule would pass nearly anything.
MAX_TOLERANCE_PERCENT = 10
# Top-1 and top-5 are percent: a figure of at most 1 is a fraction by mistake, or a network that
# is hardly better than guessing among 1,000 classes (0.1).
MIN_ACCURACY_PERCENT = 1
IMAGENET_CLASSES = 1000


# --- Words that several sections share ------------------------------------------------------


def _matching(pattern: str, expected: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise PydanticCustomError("expected", "expected {what}", {"what": expected})
        return value

    return AfterValidator(check)


def _exact_int(value: object) -> object:
    # `Literal[1]` takes True and 1.0 for 1; a file that says so means something else.
    if type(value) is not int:
        raise PydanticCustomError("int_type", "expected a whole number")
    return value


def _argument(value: object) -> object:
    # One sentence in place of pydantic's four, one for each member of the union.
    if not isinstance(value, bool | int | float | str):
        raise PydanticCustomError("expected", "expected a number, text, true or false")
    return value


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _iso_date(value: object) -> object:
    if isinstance(value, str) and _DAY.fullmatch(value):  # nothing else that ISO 8601 knows
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("expected", "expected a date such as 2027-06-30")


def _failure_stage(value: object) -> Stage:
    for stage in FAILURE_STAGES:
        if stage == value:
            return stage
    raise unknown_name("a stage at which a case can fail", FAILURE_STAGES)


_WholeNumber = BeforeValidator(_exact_int)
_Line = Annotated[str, _matching(r"\S(.{0,198}\S)?", "one line of text")]
_Note = Annotated[str, Field(max_length=2000)]
_Id = Annotated[str, _matching(r"[a-z0-9][a-z0-9-]{0,63}", "a name of a-z, 0-9 and -")]
# Ids of models become folders and parts of test ids.
_ModelId = Annotated[str, _matching(r"[a-z0-9_]{1,64}", "a name of a-z, 0-9 and _")]
_FileName = Annotated[
    str, _matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "the name of a file, without a folder")
]
_Url = Annotated[
    str,
    _matching(r"https?://[!-~]+|file:///[!-~]+", "an http:, https: or file: address, no spaces"),
]
_WebLink = Annotated[str, _matching(r"https?://[!-~]+", "an http: or https: address, no spaces")]
# Names go into atc's --input_shape="name:1,3,224,224", where ':', ',' and ';' separate.
_TensorName = Annotated[
    str, _matching(r"[A-Za-z_][A-Za-z0-9_./-]{0,127}", "the name of an ONNX tensor")
]
_Md5 = Annotated[
    str, _matching(r"[0-9a-fA-F]{32}", "32 hex digits (md5)"), AfterValidator(str.lower)
]
_Sha256 = Annotated[
    str, _matching(r"[0-9a-fA-F]{64}", "64 hex digits (sha256)"), AfterValidator(str.lower)
]
_Sha256Prefix = Annotated[
    str,
    _matching(r"[0-9a-fA-F]{8}", "the first 8 hex digits of a sha256"),
    AfterValidator(str.lower),
]
_Percent = Annotated[float, Field(gt=MIN_ACCURACY_PERCENT, le=100, allow_inf_nan=False)]
_Fps = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
# Of `ascend310p3` and the like. Which targets there are is not known here.
Target = Annotated[str, _matching(r"[a-z][a-z0-9-]{0,31}", "the name of a target")]
BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)]

# The harness sets these itself, or has a key of its own for them.
_RESERVED_ATC_FLAGS = (
    "auto_tune_mode",
    "framework",
    "input_format",
    "input_shape",
    "log",
    "model",
    "output",
    "soc_version",
)


def _free_atc_flag(value: str) -> str:
    name = value[2:].partition("=")[0]
    if name in _RESERVED_ATC_FLAGS:
        raise PydanticCustomError(
            "expected",
            "expected a flag that the harness does not set itself (--{name})",
            {"name": name},
        )
    return value


_Flag = Annotated[
    str, _matching(r"--[a-z][a-z0-9_]*(=[^\s\"'`$;|&<>]+)?", "one flag, --name=value")
]
_AtcFlag = Annotated[_Flag, AfterValidator(_free_atc_flag)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Section(_Value):
    """A mapping of the file. An unknown key is refused before a missing one is missed."""

    injected: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def known_keys(cls) -> tuple[str, ...]:
        return tuple(name for name in cls.model_fields if name not in cls.injected)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise unknown_key(key, cls.known_keys())
        return data


# --- The sections of the file ---------------------------------------------------------------


class Source(_Section):
    """A document that figures and rules are taken from. `where`: repository, path, commit."""

    title: _Line
    where: Annotated[str, Field(min_length=1, max_length=500)]


class NetworkSpec(_Section):
    """Who builds the network: `timm:resnest50d`, with the arguments of its constructor."""

    source: Annotated[
        str, _matching(r"(torchvision|timm):[A-Za-z0-9_]{1,64}", "torchvision:NAME or timm:NAME")
    ]
    arguments: Mapping[
        Annotated[str, _matching(r"[a-z_][a-z0-9_]*", "the name of an argument")],
        Annotated[bool | int | _Number | str, BeforeValidator(_argument)],
    ] = Field(default_factory=dict)

    @property
    def library(self) -> str:
        """`torchvision` or `timm`."""
        return self.source.partition(":")[0]

    @property
    def name(self) -> str:
        """The network's name in its library."""
        return self.source.partition(":")[2]


class CheckpointSpec(_Section):
    """The weights as upstream ships them. Digests are lower case, whatever the file says."""

    file: _FileName
    url: _Url | None = None
    md5: _Md5 | None = None
    sha256: _Sha256 | None = None
    sha256_prefix: _Sha256Prefix | None = None  # the 8 digits in torch-hub's file names
    layout: str


class InputSpec(_Section):
    """The only input: `float32[B, 3, size, size]` under `name` in ONNX."""

    name: _TensorName
    size: Annotated[int, Field(ge=1, le=4096)]


class OutputSpec(_Section):
    """The only output: logits `float32[B, classes]` under `name` in ONNX."""

    name: _TensorName


class Published(_Section):
    """An accuracy that somebody published for the whole validation set, in percent."""

    top1: _Percent
    top5: _Percent | None = None
    source: str
    note: _Note = ""


class AccuracyRule(_Section):
    """|measured - published| / published <= tolerance (`both`), or a drop alone (`drop`)."""

    tolerance_percent: Annotated[float, Field(gt=0, le=MAX_TOLERANCE_PERCENT, allow_inf_nan=False)]
    side: Literal["both", "drop"]
    source: str
    note: _Note = ""


class GuideAccuracy(_Section):
    """What a guide measured on its compiled model, in percent; never a target."""

    target: Target
    top1: _Percent
    top2: _Percent | None = None
    top3: _Percent | None = None
    top4: _Percent | None = None
    top5: _Percent | None = None
    batch_sizes: Annotated[tuple[BatchSize, ...], Field(min_length=1)]
    source: str
    note: _Note = ""


class Accuracy(_Section):
    """The target, what else was published, the rule, and what the guide measured."""

    published: Published
    also_published: tuple[Published, ...] = ()
    rule: AccuracyRule
    guide_measured: tuple[GuideAccuracy, ...] = ()


class BaselineTable(_Section):
    """Throughput figures that were measured in one way, in frames a second for each `unit`.

    `judged` holds the batch sizes whose figures are targets; left out, all of them are. A table
    with `not_comparable`, the reason, is recorded and never judged. `chip_fps` are the figures of
    one chip from which a card's were computed.
    """

    target: Target
    chip: _Line
    card: _Line
    unit: Unit
    chips_per_card: Annotated[int, Field(ge=1, le=64)] = 1
    toolchain: _Line
    method: Method
    compiler_flags: tuple[_Flag, ...] = ()
    tuning: Tuning
    tolerance_percent: Annotated[
        float, Field(ge=0, le=MAX_TOLERANCE_PERCENT, allow_inf_nan=False)
    ] = 0.0
    source: str
    note: _Note = ""
    provenance: Provenance = "real"
    fps: Annotated[Mapping[BatchSize, _Fps], Field(min_length=1)]
    chip_fps: Mapping[BatchSize, _Fps] = Field(default_factory=dict)
    judged: tuple[BatchSize, ...] | None = None
    not_comparable: _Note = ""

    def judges(self, batch_size: int) -> bool:
        """Whether this table's figure for a batch size is a target."""
        if self.not_comparable or batch_size not in self.fps:
            return False
        return self.judged is None or batch_size in self.judged


class RatioRule(_Section):
    """A pass line between two chips: the throughput on `target` is at least `at_least` times the
    published figure of `to`, at the batch size that was run, or the best of several of the best.
    """

    target: Target
    to: Target
    at_least: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    source: str
    note: _Note = ""


class AutoTune(_Section):
    """atc's `--auto_tune_mode`, for some batch sizes or, with none named, for all."""

    mode: Literal["RL,GA"]
    batch_sizes: tuple[BatchSize, ...] = ()


class AscendSpec(_Section):
    """What atc is told for this model besides what it is told for every model."""

    log: Literal["debug", "info", "warning", "error", "null"] | None = None
    flags: tuple[_AtcFlag, ...] = ()
    auto_tune: AutoTune | None = None

    def tuning(self, batch_size: int) -> Tuning:
        """The tuning that the guide asks for at this batch size."""
        tune = self.auto_tune
        if tune is None or (tune.batch_sizes and batch_size not in tune.batch_sizes):
            return "none"
        return tune.mode

    def atc_flags(self, batch_size: int, *, tuned: bool = True) -> tuple[str, ...]:
        """Extra flags, one argument each. `tuned=False` leaves tuning out: later atc refuses it."""
        given = () if self.log is None else (f"--log={self.log}",)
        tuning = self.tuning(batch_size)
        tune = (f"--auto_tune_mode={tuning}",) if tuned and tuning != "none" else ()
        return (*given, *tune, *self.flags)


def same_product(one: str, other: str) -> bool:
    """Whether two names are of one product: tools say `NVIDIA Tesla T4` or `Tesla T4`."""

    def plain(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum()).removeprefix("nvidia")

    return plain(one) == plain(other)


class Baseline(_Value):
    """One throughput figure with all that it depends on.

    `fps` is frames a second of one `unit`. To compare, multiply what one chip reaches by `factor`.
    """

    model: str
    target: str
    batch_size: int
    fps: float
    unit: Unit
    chip: str
    card: str
    chips_per_card: int
    chip_fps: float | None
    toolchain: str
    method: Method
    compiler_flags: tuple[str, ...]
    tuning: Tuning
    tolerance_percent: float
    source: str
    note: str
    provenance: Provenance
    judged: bool
    not_comparable: str

    @property
    def comparable(self) -> bool:
        """Whether a measurement of this model may be held against the figure at all."""
        return not self.not_comparable

    def is_of(self, chip: str) -> bool:
        """Whether the figure is that of this chip; a run that names none is its target's."""
        return not chip or same_product(chip, self.chip)

    @property
    def factor(self) -> int:
        """Chips whose throughput the figure adds up (guides 001 and 003: four on a 310 card)."""
        return self.chips_per_card if self.unit == "card" else 1

    def describe(self) -> str:
        """One line for sentences, records and reports."""
        how = {
            "whole-dataset": "over the whole data set",
            "pure-inference": "pure inference",
            "not-stated": "method not stated",
        }[self.method]
        tuned = {"none": "untuned", "not-stated": "tuning not stated"}.get(
            self.tuning, f"tuned {self.tuning}"
        )
        tools = self.toolchain if self.toolchain != "not stated" else "toolchain not stated"
        made = f"{self.chip}, {tools}, {how}, {tuned}"
        return f"{self.fps:.10g} fps a {self.unit} ({made}; {self.source})"


class Model(_Section):
    """One entry of `baselines.yaml`."""

    injected: ClassVar[frozenset[str]] = frozenset({"id"})

    id: str
    title: _Line
    guide: str
    network: NetworkSpec
    checkpoint: CheckpointSpec
    input: InputSpec
    output: OutputSpec
    classes: Annotated[Literal[1000, 1001], _WholeNumber]
    label_offset: Annotated[Literal[0, 1], _WholeNumber]
    preprocessing: Preprocessing
    accuracy: Accuracy
    throughput: tuple[BaselineTable, ...] = ()
    ratios: tuple[RatioRule, ...] = ()
    ascend: AscendSpec = Field(default_factory=AscendSpec)

    def figures(self, target: str | None = None) -> tuple[Baseline, ...]:
        """Every throughput figure, in file order, those that are only recorded included."""
        return tuple(
            _baseline(self.id, table, batch_size)
            for table in self.throughput
            if target is None or table.target == target
            for batch_size in table.fps
        )

    def baselines(self, target: str) -> Mapping[int, Baseline]:
        """One figure for each batch size of a target, by batch size.

        The judged figure where there is one (at most one: checked on loading), otherwise the
        first that is recorded.
        """
        chosen: dict[int, Baseline] = {}
        for figure in self.figures(target):
            held = chosen.get(figure.batch_size)
            if held is None or (figure.judged and not held.judged):
                chosen[figure.batch_size] = figure
        return dict(sorted(chosen.items()))

    def baseline(self, target: str, batch_size: int) -> Baseline | None:
        """The figure of `baselines` for one batch size, or None where nothing is published."""
        return self.baselines(target).get(batch_size)


def _baseline(model: str, table: BaselineTable, batch_size: int) -> Baseline:
    return Baseline(
        model=model,
        target=table.target,
        batch_size=batch_size,
        fps=table.fps[batch_size],
        unit=table.unit,
        chip=table.chip,
        card=table.card,
        chips_per_card=table.chips_per_card,
        chip_fps=table.chip_fps.get(batch_size),
        toolchain=table.toolchain,
        method=table.method,
        compiler_flags=table.compiler_flags,
        tuning=table.tuning,
        tolerance_percent=table.tolerance_percent,
        source=table.source,
        note=table.note,
        provenance=table.provenance,
        judged=table.judges(batch_size),
        not_comparable=table.not_comparable,
    )


class KnownFailure(_Section):
    """A case that is expected to fail at one stage, and why: strict, with a link.

    `case` is a shell pattern over case names such as `resnest50-bs4-ascend310p3`; `check` left
    out means both. `expires` is the last day on which the failure is still excused.
    """

    case: Annotated[str, _matching(r"[A-Za-z0-9_*?\[\]!-]{1,128}", "a pattern over case names")]
    check: Check | None = None
    stage: Annotated[Stage, BeforeValidator(_failure_stage)]
    link: _WebLink
    expires: Annotated[dt.date | None, BeforeValidator(_iso_date)] = None
    note: _Note = ""

    def matches(self, case: str, check: Check) -> bool:
        """Whether a case is meant."""
        return self.check in (None, check) and fnmatchcase(case, self.case)

    def expired(self, today: dt.date) -> bool:
        """Whether the excuse has run out."""
        return self.expires is not None and today > self.expires


class Contents(_Section):
    """What the file holds."""

    version: Annotated[Literal[1], _WholeNumber]
    sources: Annotated[Mapping[_Id, Source], Field(min_length=1)]
    models: Annotated[Mapping[_ModelId, Model], Field(min_length=1)]
    known_failures: tuple[KnownFailure, ...] = ()


class Catalog(Contents):
    """Everything that `baselines.yaml` says. `digest` is the sha256 of the file's bytes."""

    injected: ClassVar[frozenset[str]] = frozenset({"path", "digest"})

    path: Path
    digest: str

    def model(self, name: str) -> Model:
        """The model called `name`.

        Raises:
            CatalogError: there is none; the closest names are given.
        """
        try:
            return self.models[name]
        except KeyError:
            raise CatalogError(
                f"there is no model {name!r} in {self.path}",
                remedy=suggest(name, self.models),
            ) from None

    def targets(self) -> tuple[str, ...]:
        """Targets for which at least one throughput figure is recorded, sorted."""
        return tuple(
            sorted({table.target for model in self.models.values() for table in model.throughput})
        )
