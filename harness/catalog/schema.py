"""`baselines.yaml` -> typed, validated values: every model, figure, rule and provenance.

Three steps, each with one kind of fault: the text becomes plain data with lines
(`yaml_document`), the data becomes values (types and ranges), and the values are held against each
other (sources that exist, crops that fit, one judging figure for a batch size). All that is wrong
is reported at once in one `CatalogError`, whose first line names the first fault.

What each key means, and why: `docs/baselines.md`. Nothing here imports torch, timm or onnx.
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from harness.base import errors
from harness.base.errors import CatalogError
from harness.base.terms import Check, Provenance
from harness.catalog.yaml_document import (
    Document,
    KeyPath,
    Problem,
    SyntaxFault,
    problem_of,
    read_document,
    shown,
    suggest,
    unknown_key,
)
from harness.images.steps import (
    CenterCrop,
    Normalize,
    Preprocessing,
    ResizeHeight,
    ResizeShort,
    ResizeSquare,
)
from harness.stages.checkpoints import LAYOUTS
from harness.stages.networks import RESERVED_ARGUMENTS, unknown_network

TargetName = Literal["ascend310", "ascend310p3", "cpu", "cuda"]
TARGETS: tuple[TargetName, ...] = ("ascend310", "ascend310p3", "cpu", "cuda")

Method = Literal["whole-dataset", "pure-inference", "not-stated"]
Tuning = Literal["none", "RL,GA", "aoe", "not-stated"]
Unit = Literal["chip", "card"]

VERDICT_STAGE = "verdict"
# Stages at which a case can fail; the others end a run before there is a case.
FAILURE_STAGES: tuple[str, ...] = (
    errors.DataError.stage,
    errors.CheckpointError.stage,
    errors.NetworkError.stage,
    errors.ExportError.stage,
    errors.SimplifyError.stage,
    errors.CompileError.stage,
    errors.LoadError.stage,
    errors.InferError.stage,
    errors.DeviceError.stage,
    errors.EagerError.stage,
    VERDICT_STAGE,
)

MAX_BYTES = 1 << 18  # what is read at all; the five models take 15 kB
MAX_BATCH_SIZE = 4096  # ais_bench's own limit
# The guides allow 1 % for accuracy and nothing for throughput. Ten times that still tells a sound
# conversion from a broken one; beyond it a rule would pass nearly anything.
MAX_TOLERANCE_PERCENT = 10
# Top-1 and top-5 are percent: a figure of at most 1 is a fraction by mistake, or a network that
# is hardly better than guessing among 1,000 classes (0.1).
MIN_ACCURACY_PERCENT = 1
IMAGENET_CLASSES = 1000
GUIDE_DOC = "docs/baselines.md says what each key means"


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

    target: TargetName
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

    target: TargetName
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

    target: TargetName
    to: TargetName
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
    stage: str
    link: _WebLink
    expires: Annotated[dt.date | None, BeforeValidator(_iso_date)] = None
    note: _Note = ""

    def matches(self, case: str, check: Check) -> bool:
        """Whether a case is meant."""
        return self.check in (None, check) and fnmatchcase(case, self.case)

    def expired(self, today: dt.date) -> bool:
        """Whether the excuse has run out."""
        return self.expires is not None and today > self.expires


class _Contents(_Section):
    version: Annotated[Literal[1], _WholeNumber]
    sources: Annotated[Mapping[_Id, Source], Field(min_length=1)]
    models: Annotated[Mapping[_ModelId, Model], Field(min_length=1)]
    known_failures: tuple[KnownFailure, ...] = ()


class Catalog(_Contents):
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

    def targets(self) -> tuple[TargetName, ...]:
        """Targets for which at least one throughput figure is recorded."""
        named = {table.target for model in self.models.values() for table in model.throughput}
        return tuple(target for target in TARGETS if target in named)


# --- Values against each other --------------------------------------------------------------


def _relations(contents: _Contents) -> Iterator[Problem]:
    """Faults that no section can see alone."""
    for name, model in contents.models.items():
        base: KeyPath = ("models", name)
        yield from _source_problems(contents, base, model)
        yield from _network_problems(base, model)
        yield from _preprocessing_problems((*base, "preprocessing"), model)
        yield from _accuracy_problems((*base, "accuracy"), model.accuracy)
        yield from _throughput_problems((*base, "throughput"), model)
    for index, failure in enumerate(contents.known_failures):
        yield from _known_failure_problems(("known_failures", index), failure, contents)


def _source_problems(contents: _Contents, base: KeyPath, model: Model) -> Iterator[Problem]:
    accuracy = model.accuracy
    named: list[tuple[KeyPath, str]] = [
        (("guide",), model.guide),
        (("accuracy", "published", "source"), accuracy.published.source),
        (("accuracy", "rule", "source"), accuracy.rule.source),
    ]
    lists: Mapping[KeyPath, Iterable[Published | GuideAccuracy | BaselineTable | RatioRule]] = {
        ("accuracy", "also_published"): accuracy.also_published,
        ("accuracy", "guide_measured"): accuracy.guide_measured,
        ("throughput",): model.throughput,
        ("ratios",): model.ratios,
    }
    for place, entries in lists.items():
        named += [((*place, i, "source"), entry.source) for i, entry in enumerate(entries)]
    for path, source in named:
        if source not in contents.sources:
            yield Problem(
                (*base, *path),
                f"found {shown(source)}; expected a name defined under sources",
                suggest(source, contents.sources),
            )


def _network_problems(base: KeyPath, model: Model) -> Iterator[Problem]:
    unknown = unknown_network(model.network.source)
    if unknown is not None:
        text, hint = unknown
        yield Problem(
            (*base, "network", "source"), f"found {shown(model.network.source)}; {text}", hint
        )
    checkpoint = model.checkpoint
    if checkpoint.layout not in LAYOUTS:
        yield Problem(
            (*base, "checkpoint", "layout"),
            f"found {shown(checkpoint.layout)}; expected a known layout",
            suggest(checkpoint.layout, LAYOUTS),
        )
    prefix = checkpoint.sha256_prefix
    if prefix and checkpoint.sha256 and not checkpoint.sha256.startswith(prefix):
        yield Problem(
            (*base, "checkpoint", "sha256_prefix"),
            f"found {prefix}; expected the first 8 digits of sha256, {checkpoint.sha256[:8]}",
        )
    hub_name = re.search(r"-([0-9a-f]{8})\.[a-z]+$", checkpoint.file)
    if prefix and hub_name and hub_name[1] != prefix:
        yield Problem(
            (*base, "checkpoint", "sha256_prefix"),
            f"found {prefix}; expected {hub_name[1]}, as the file's name says",
        )
    consistent = model.classes == IMAGENET_CLASSES + model.label_offset
    if not consistent:
        yield Problem(
            (*base, "label_offset"),
            f"found {model.label_offset} with {model.classes} classes; expected 0 with 1000, or 1 "
            "with 1001 (index 0 is the background, so that a label is found one further)",
        )
    for name in RESERVED_ARGUMENTS.intersection(model.network.arguments):
        yield Problem(
            (*base, "network", "arguments", name),
            "found an argument by which the library would fetch weights",
            "remove it: weights come from `checkpoint`",
        )
    outputs = model.network.arguments.get("num_classes", IMAGENET_CLASSES)
    if consistent and outputs != model.classes:
        given = "num_classes" in model.network.arguments
        place: KeyPath = ("network", "arguments", "num_classes") if given else ("network",)
        yield Problem(
            (*base, *place),
            f"the network has {shown(outputs)} outputs; expected {model.classes}, as `classes` "
            "says",
            f"write arguments: {{num_classes: {model.classes}}}",
        )


def _preprocessing_problems(base: KeyPath, model: Model) -> Iterator[Problem]:
    steps = model.preprocessing
    crop, resize = steps.crop.size, steps.resize
    if crop != model.input.size:
        yield Problem(
            (*base, "crop", "size"),
            f"found {crop}; expected the size of the input, {model.input.size}",
        )
    if crop > resize.size and resize.op != "resize_height":
        yield Problem(
            (*base, "crop", "size"),
            f"found {crop}, larger than the resized image ({resize.size}); only resize_height "
            "leaves a side that the crop pads",
        )
    for key, values in (("mean", steps.normalize.mean), ("std", steps.normalize.std)):
        for index, value in enumerate(values):
            # NaN fails both comparisons.
            low_enough = -1 <= value <= 1 if key == "mean" else 0 < value <= 1
            if not low_enough:
                wanted = "-1 to 1" if key == "mean" else "above 0, at most 1"
                yield Problem(
                    (*base, "normalize", key, index),
                    f"found {value!r}; expected {wanted} (pixels are divided by 255 first)",
                )


def _accuracy_problems(base: KeyPath, accuracy: Accuracy) -> Iterator[Problem]:
    entries: list[tuple[KeyPath, Published | GuideAccuracy]] = [
        (("published",), accuracy.published),
        *((("also_published", i), entry) for i, entry in enumerate(accuracy.also_published)),
        *((("guide_measured", i), entry) for i, entry in enumerate(accuracy.guide_measured)),
    ]
    for place, entry in entries:
        held = entry.top1
        for rank in ("top2", "top3", "top4", "top5"):
            value = getattr(entry, rank, None)
            if value is None:
                continue
            if value < held:
                yield Problem(
                    (*base, *place, rank),
                    f"found {value:g}; expected at least {held:g}, the figure of a lower rank",
                )
            held = value


def _throughput_problems(base: KeyPath, model: Model) -> Iterator[Problem]:
    judged_by: dict[tuple[str, int], int] = {}
    for index, table in enumerate(model.throughput):
        here: KeyPath = (*base, index)
        yield from _table_problems(here, table)
        for batch_size in table.fps:
            if not table.judges(batch_size):
                continue
            other = judged_by.setdefault((table.target, batch_size), index)
            if other != index:
                yield Problem(
                    (*here, "fps", batch_size),
                    f"batch size {batch_size} of {table.target} is judged by throughput[{other}] "
                    "already; expected one judging figure",
                    "name the batch sizes that this table judges: `judged: []` for none",
                )

    for index, rule in enumerate(model.ratios):
        if rule.target == rule.to:
            yield Problem(
                (*base[:-1], "ratios", index, "to"), f"found {rule.to}; expected another target"
            )


def _table_problems(here: KeyPath, table: BaselineTable) -> Iterator[Problem]:
    for index, batch_size in enumerate(table.judged or ()):
        if batch_size not in table.fps:
            yield Problem(
                (*here, "judged", index),
                f"found {batch_size}; expected a batch size that has a figure",
                suggest(batch_size, table.fps),
            )
    if table.judged and table.not_comparable:
        yield Problem(
            (*here, "judged"), "a table that is not comparable judges nothing", "remove `judged`"
        )
    flag = next((f for f in table.compiler_flags if f.startswith("--auto_tune_mode=")), None)
    flagged = flag.partition("=")[2] if flag else "none"
    # AOE tunes before atc, which then needs no flag.
    unflagged = table.tuning in ("not-stated", "aoe") and flag is None
    if table.tuning != flagged and not unflagged:
        yield Problem(
            (*here, "tuning"),
            f"found {shown(table.tuning)}, while compiler_flags say {shown(flagged)}",
            "let `tuning` and `--auto_tune_mode` agree",
        )
    if table.chip_fps and table.unit == "chip":
        yield Problem(
            (*here, "chip_fps"), "found figures of a chip beside `unit: chip`", "keep `fps` alone"
        )
    for batch_size, chip_fps in table.chip_fps.items():
        card_fps = table.fps.get(batch_size)
        wanted = chip_fps * table.chips_per_card
        if card_fps is None:
            yield Problem(
                (*here, "chip_fps", batch_size), "a card's figure for it is missing in `fps`"
            )
        elif abs(card_fps - wanted) > 0.005 * table.chips_per_card:
            yield Problem(
                (*here, "chip_fps", batch_size),
                f"{chip_fps:g} times {table.chips_per_card} is {wanted:.2f}, while `fps` says "
                f"{card_fps:g}",
            )


def _known_failure_problems(
    here: KeyPath, failure: KnownFailure, contents: _Contents
) -> Iterator[Problem]:
    if failure.stage not in FAILURE_STAGES:
        yield Problem(
            (*here, "stage"),
            f"found {shown(failure.stage)}; expected a stage at which a case can fail",
            suggest(failure.stage, FAILURE_STAGES),
        )
    # Any batch size can be asked for: those that the pattern could mean, and the usual ones.
    sizes = {1, 4, 8, 16, 32, 64}
    for digits in re.findall(r"[0-9]{1,4}", failure.case):
        sizes |= {int(digits), 10 * int(digits)}
    cases = [f"{name}-bs{n}-{t}" for name in contents.models for n in sizes for t in TARGETS]
    if not any(fnmatchcase(case, failure.case) for case in cases):
        close = difflib.get_close_matches(failure.case, cases, n=1, cutoff=0.5)
        yield Problem(
            (*here, "case"),
            f"found {shown(failure.case)}, which no case can match; expected a pattern over "
            "model-bsN-target",
            f"did you mean {close[0]!r}?" if close else "",
        )


# --- Loading --------------------------------------------------------------------------------

_RESIZES: Mapping[str, type[BaseModel]] = {
    "resize_short": ResizeShort,
    "resize_height": ResizeHeight,
    "resize_square": ResizeSquare,
}
_STEPS: Mapping[str, type[BaseModel]] = {
    "preprocessing": Preprocessing,
    "crop": CenterCrop,
    "normalize": Normalize,
    **_RESIZES,
}
# The steps are no `_Section`s: what pydantic does not tell of them, for `problem_of`.
_STEP_NAMES: Mapping[str, Collection[str]] = {
    "op": tuple(_RESIZES),
    **{name: tuple(step.model_fields) for name, step in _STEPS.items()},
}


def load_catalog(path: Path) -> Catalog:
    """The catalog in a file.

    Raises:
        CatalogError: the file cannot be read, or is not what it must be. The message names the
            file, the line, the path of keys, what was found and what is expected; `log` lists
            what else is wrong.
    """
    try:
        # A pipe or a device might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise CatalogError(f"{path}: this is {kind}", remedy="name a YAML file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise CatalogError(
            f"{path}: cannot be read: {reason or error}",
            remedy="name the baselines.yaml of the harness, or restore it",
        ) from error
    return parse_catalog(content, path)


def parse_catalog(content: bytes, path: Path) -> Catalog:
    """The catalog in a file's bytes; `path` is for messages alone. Raises as `load_catalog`."""
    if len(content) > MAX_BYTES:
        raise CatalogError(f"{path}: more than {MAX_BYTES} bytes", remedy="name another file")
    try:
        document = read_document(content, expected="version, sources and models")
    except SyntaxFault as fault:
        raise CatalogError(
            f"{path}:{fault.line}: {fault.text}", remedy=fault.hint or GUIDE_DOC
        ) from fault
    problems: list[Problem] = []
    contents: _Contents | None = None
    try:
        contents = _Contents.model_validate(_with_ids(document.data, problems))
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems += [problem_of(document, detail, _STEP_NAMES) for detail in details]
    if contents is not None and not problems:
        problems += islice(_relations(contents), 100)
    if contents is None or problems:
        raise _catalog_error(path, document, problems)
    return Catalog(
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        version=contents.version,
        sources=contents.sources,
        models=contents.models,
        known_failures=contents.known_failures,
    )


def _with_ids(data: dict[str | int, Any], problems: list[Problem]) -> dict[str | int, Any]:
    """The data with every model's key as its `id`; an `id` in the file is an unknown key."""
    models = data.get("models")
    if not isinstance(models, dict):
        return data
    named = {}
    for name, entry in models.items():
        if isinstance(entry, dict):
            if "id" in entry:
                path: KeyPath = ("models", name, "id")
                problems.append(
                    Problem(path, "unknown key", "the key above it is the id", first=True)
                )
            entry = {**entry, "id": str(name)}
        named[name] = entry
    return {**data, "models": named}


def _catalog_error(path: Path, document: Document, problems: Iterable[Problem]) -> CatalogError:
    """One error out of all that is wrong: unknown keys first, then by line, once for a path."""
    ordered = sorted(problems, key=lambda p: (not p.first, document.line(p.path)))
    once: dict[KeyPath, Problem] = {}
    for problem in ordered:
        once.setdefault(problem.path, problem)
    texts = [
        f"{path}:{document.line(p.path)}: {document.written(p.path) or 'the file'}: {p.text}"
        for p in once.values()
    ]
    first = next(iter(once.values()))
    others = texts[1:20]
    if len(texts) > 20:
        others.append(f"and {len(texts) - 20} more")
    log = "\n".join(["also wrong:", *others]) if others else ""
    return CatalogError(texts[0], remedy=first.hint or GUIDE_DOC, log=log)
