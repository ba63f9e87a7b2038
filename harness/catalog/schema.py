"""The sections of `baselines.yaml` as typed values: every model, figure, rule and provenance.

Each type checks its own values; `checks.py` compares sections with each other, `load.py` reads a
file. What each key means, and why: `docs/baselines.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationInfo, create_model, field_validator

from harness.base.errors import CatalogError, ConfigError, some
from harness.base.families import families, target_name
from harness.base.names import did_you_mean
from harness.base.terms import Check, Provenance
from harness.catalog.fields import (
    MAX_TOLERANCE_PERCENT,
    WHOLE_NUMBER,
    Argument,
    BatchSize,
    Day,
    FailureStage,
    FamilySection,
    FileName,
    Flag,
    Fps,
    Id,
    Line,
    Md5,
    ModelId,
    Note,
    OutputName,
    Percent,
    Section,
    Sha256,
    Sha256Prefix,
    Target,
    TensorName,
    Tolerance,
    Url,
    Value,
    matching,
)
from harness.catalog.steps import Preprocessing
from harness.catalog.yaml_document import MAX_SUGGESTIONS, suggest
from harness.networks.library import ONNX, SOURCE, SOURCE_WANTED

IMAGENET_CLASSES = 1000
MAX_CLASSES = 100_000
Method = Literal["whole-dataset", "pure-inference", "not-stated"]
Tuning = Literal["none", "RL,GA", "aoe", "not-stated"]
Unit = Literal["chip", "card"]
Checked = Literal["network", "weights", "preprocessing", "figures"]


class Source(Section):
    """A document that figures and rules are taken from. `where`: repository, path, commit.

    `edition_of`: the source of which it is another edition, as of `date`.
    """

    title: Line
    where: Annotated[str, Field(min_length=1, max_length=500)]
    date: Day | None = None
    edition_of: Id | None = None


class NetworkSpec(Section):
    """Who builds the network: `timm:resnest50d`, with the arguments of its constructor.

    Or a function of the user's, `python:module:function`; or the checkpoint's file is the network
    itself: `torchscript`, `onnx`.
    """

    source: Annotated[str, matching(SOURCE, SOURCE_WANTED)]
    arguments: Mapping[
        Annotated[str, matching(r"[a-z_][a-z0-9_]*", "the name of an argument")], Argument
    ] = Field(default_factory=dict)


class CheckpointSpec(Section):
    """The weights as upstream ships them. Digests are lower case, whatever the file says."""

    file: FileName
    url: Url | None = None
    md5: Md5 | None = None
    sha256: Sha256 | None = None
    sha256_prefix: Sha256Prefix | None = None  # the 8 digits in torch-hub's file names
    layout: str


class InputSpec(Section):
    """The only input: `float32[B, 3, size, size]` under `name` in ONNX."""

    name: TensorName
    size: Annotated[int, Field(ge=1, le=4096)]


class OutputSpec(Section):
    """The only output: logits `float32[B, classes]` under `name` in ONNX."""

    name: OutputName


class Published(Section):
    """An accuracy that somebody published for the whole validation set, in percent."""

    top1: Percent
    top5: Percent | None = None
    source: str
    note: Note = ""


class AccuracyRule(Section):
    """|measured - published| / published <= tolerance (`both`), or a drop alone (`drop`)."""

    tolerance_percent: Tolerance
    side: Literal["both", "drop"]
    source: str
    note: Note = ""


OWN_RULE = AccuracyRule(tolerance_percent=1.0, side="both", source="guide 000")


class GuideAccuracy(Section):
    """What a guide measured on its compiled model, in percent; never a target."""

    target: Target
    top1: Percent
    top2: Percent | None = None
    top3: Percent | None = None
    top4: Percent | None = None
    top5: Percent | None = None
    batch_sizes: Annotated[tuple[BatchSize, ...], Field(min_length=1)]
    source: str
    note: Note = ""


class Accuracy(Section):
    """The target, what else was published, the rule, and what the guide measured."""

    published: Published
    also_published: tuple[Published, ...] = ()
    rule: AccuracyRule
    guide_measured: tuple[GuideAccuracy, ...] = ()


class _Facts(Value):
    """All that a throughput figure depends on, besides its batch size."""

    target: Target
    chip: Line
    card: Line
    unit: Unit
    chips_per_card: Annotated[int, Field(ge=1, le=64)] = 1
    toolchain: Line
    method: Method
    compiler_flags: tuple[Flag, ...] = ()
    tuning: Tuning
    tolerance_percent: Annotated[
        float, Field(ge=0, le=MAX_TOLERANCE_PERCENT, allow_inf_nan=False)
    ] = 0.0
    source: str
    note: Note = ""
    provenance: Provenance = "real"
    not_comparable: Note = ""
    edition: str = ""  # the date of its source


class BaselineTable(_Facts, Section):
    """Throughput figures that were measured in one way, in frames a second for each `unit`.

    `judged` holds the batch sizes whose figures are targets; left out, all of them are. A table
    with `not_comparable`, the reason, is recorded and never judged. `chip_fps` are the figures of
    one chip from which a card's were computed.
    """

    injected: ClassVar[frozenset[str]] = frozenset({"edition"})

    fps: Annotated[Mapping[BatchSize, Fps], Field(min_length=1)]
    chip_fps: Mapping[BatchSize, Fps] = Field(default_factory=dict)
    judged: tuple[BatchSize, ...] | None = None

    def judges(self, batch_size: int) -> bool:
        """Return whether this table's figure for a batch size is a target."""
        if self.not_comparable or batch_size not in self.fps:
            return False
        return self.judged is None or batch_size in self.judged

    def baseline(self, model: str, batch_size: int) -> Baseline:
        """Return the figure of one batch size of `model`."""
        facts = {name: getattr(self, name) for name in _Facts.model_fields}
        return Baseline(
            **facts,
            model=model,
            batch_size=batch_size,
            fps=self.fps[batch_size],
            chip_fps=self.chip_fps.get(batch_size),
            judged=self.judges(batch_size),
        )


def same_product(one: str, other: str) -> bool:
    """Return whether two names are of one product: tools say `NVIDIA Tesla T4` or `Tesla T4`."""

    def plain(name: str) -> str:
        name = target_name(name).lower()  # an NPU is named with its family or without
        return "".join(c for c in name if c.isalnum()).removeprefix("nvidia")

    return plain(one) == plain(other)


class Baseline(_Facts):
    """One throughput figure with all that it depends on.

    `fps` is frames a second of one `unit`. To compare, multiply what one chip reaches by `factor`.
    """

    model: str
    batch_size: int
    fps: float
    chip_fps: float | None
    judged: bool
    others: tuple[Baseline, ...] = ()  # other figures of this batch size: of other editions

    @property
    def comparable(self) -> bool:
        """Return whether a measurement of this model may be compared with the figure at all."""
        return not self.not_comparable

    def is_of(self, chip: str) -> bool:
        """Return whether the figure is that of this chip; a run that names none is its target's."""
        return not chip or same_product(chip, self.chip)

    @property
    def factor(self) -> int:
        """Chips whose throughput the figure adds up (guides 001 and 003: four on a 310 card)."""
        return self.chips_per_card if self.unit == "card" else 1

    @property
    def input(self) -> str:
        """Return the type of the input: `uint8` where the flags have atc compile AIPP in."""
        aipp = any(flag.startswith("--insert_op_conf=") for flag in self.compiler_flags)
        return "uint8" if aipp else "float32"

    @property
    def dynamic_batch(self) -> str:
        """Return the batch sizes that one compiled file served: `1,4,8`, or "none"."""
        flag = "--dynamic_batch_size="
        given = [one for one in self.compiler_flags if one.startswith(flag)]
        return given[-1].removeprefix(flag) if given else "none"

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


class RatioRule(Section):
    """A pass line between two chips: the throughput on `target` is at least `at_least` times the
    published figure of `to`, at the batch size that was run, or the best of several of the best.
    """

    target: Target
    to: Target
    at_least: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    source: str
    note: Note = ""


class FidelityRule(Section):
    """How far a model's logits may be from eager's, in place of what its target's arithmetic costs:
    relative L2, e.g. of an int8 model.
    """

    bound: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)]
    source: str
    note: Note = ""


Part = TypeVar("Part", bound=Section)


class Model(Section):
    """One entry of `baselines.yaml`; `id` is its key there."""

    injected: ClassVar[frozenset[str]] = frozenset({"id"})

    id: str = ""
    title: Line
    family: Id | None = None  # for --models
    guide: str = ""
    network: NetworkSpec
    checkpoint: CheckpointSpec
    input: InputSpec
    output: OutputSpec
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)]
    class_names: tuple[Line, ...] = ()  # by index, of a model of one's own
    label_offset: Annotated[Literal[0, 1], WHOLE_NUMBER] = 0
    preprocessing: Preprocessing
    checked: Mapping[Checked, Note] = Field(default_factory=dict)  # what of the block, and how
    assumed: tuple[Note, ...] = ()  # when the block was drafted: for whoever reads a result
    accuracy: Accuracy | None = None  # None: nothing is published for it
    throughput: tuple[BaselineTable, ...] = ()
    ratios: tuple[RatioRule, ...] = ()
    fidelity: FidelityRule | None = None  # None: the target's own bound
    simplify: Literal["each-batch-size", "dynamic-batch"] = "each-batch-size"

    @property
    def published(self) -> Published | None:
        """Return the accuracy that is its target; None where nothing is published."""
        return None if self.accuracy is None else self.accuracy.published

    @property
    def stated(self) -> Accuracy:
        """Return what is published of its accuracy. Raises `CatalogError`: nothing is."""
        if self.accuracy is None:
            raise CatalogError(f"nothing is published of the accuracy of {self.id}")
        return self.accuracy

    @property
    def accuracy_rule(self) -> AccuracyRule:
        """Return its rule, or that of guide 000."""
        return OWN_RULE if self.accuracy is None else self.accuracy.rule

    @property
    def reference_kind(self) -> Literal["eager", "onnx"]:
        """What runs it besides the target: eager PyTorch, or ONNX Runtime where it is a file."""
        return "onnx" if self.network.source == ONNX else "eager"

    def section(self, kind: type[Part]) -> Part:
        """Return what a family of targets has in this model; its defaults where it has nothing."""
        return next(part for _, part in self if isinstance(part, kind))

    def dynamic_batch(self, target: str) -> tuple[int, ...]:
        """See `FamilySection.dynamic_batch`."""
        parts = [part for _, part in self if isinstance(part, FamilySection)]
        return next(filter(None, (part.dynamic_batch(target) for part in parts)), ())

    def figures(self, target: str | None = None) -> tuple[Baseline, ...]:
        """Every throughput figure, in file order, those that are only recorded included."""
        return tuple(
            table.baseline(self.id, batch_size)
            for table in self.throughput
            if target is None or table.target == target
            for batch_size in table.fps
        )

    def baselines(self, target: str) -> Mapping[int, Baseline]:
        """One figure for each batch size of a target, by batch size.

        The judged figure where there is one (at most one: checked on loading), otherwise the
        first that is recorded; beside it, the `others`.
        """
        figures = self.figures(target)
        first = {figure.batch_size: figure for figure in reversed(figures)}
        judged = {figure.batch_size: figure for figure in figures if figure.judged}
        chosen = dict(sorted((first | judged).items()))
        for size, one in chosen.items():
            others = tuple(o for o in figures if o.batch_size == size and o is not one)
            chosen[size] = one.model_copy(update={"others": others})
        return chosen

    def baseline(self, target: str, batch_size: int) -> Baseline | None:
        """Return the figure of `baselines` for a batch size; None where nothing is published."""
        return self.baselines(target).get(batch_size)


def _with_families(model: type[Model]) -> type[Model]:
    """Return the type with a key for what each family of targets has in a model."""
    fields: dict[str, Any] = {}
    for family in families():
        if family.section:
            module, _, name = family.section.partition(":")
            kind = getattr(import_module(module), name)
            fields[family.name] = (kind, Field(default_factory=kind))
    return create_model("Model", __base__=model, __module__=__name__, **fields)


if not TYPE_CHECKING:
    Model = _with_families(Model)


class KnownFailure(Section):
    """A case that is expected to fail at one stage, and why: strict, with a link.

    `case` is a shell pattern over case names such as `resnest50-bs4-ascend310p3`; `check` left
    out means both. `expires` is the last day on which the failure is still excused.
    """

    case: Annotated[str, matching(r"[A-Za-z0-9_*?\[\]!-]{1,128}", "a pattern over case names")]
    check: Check | None = None
    stage: FailureStage
    link: Url
    expires: Day | None = None
    note: Note = ""

    def matches(self, case: str, check: Check) -> bool:
        """Return whether a case is meant."""
        return self.check in (None, check) and fnmatchcase(case, self.case)

    def expired(self, today: date) -> bool:
        """Return whether the excuse has run out."""
        return self.expires is not None and today > self.expires


class Contents(Section):
    """What the file holds."""

    version: Annotated[Literal[1], WHOLE_NUMBER]
    sources: Mapping[Id, Source] = Field(default_factory=dict)
    models: Annotated[Mapping[ModelId, Model], Field(min_length=1)]
    known_failures: tuple[KnownFailure, ...] = ()

    @field_validator("models")
    @classmethod
    def _named(cls, models: Mapping[str, Model], info: ValidationInfo) -> Mapping[str, Model]:
        sources = info.data.get("sources", {})

        def dated(table: BaselineTable) -> BaselineTable:
            source = sources.get(table.source)
            date = source and source.date
            return table.model_copy(update={"edition": date.isoformat()}) if date else table

        return {
            name: model.model_copy(
                update={"id": name, "throughput": tuple(map(dated, model.throughput))}
            )
            for name, model in models.items()
        }


class Catalog(Contents):
    """Everything that a catalog says. `digest` is the sha256 of the file's bytes; of several files,
    that of their digests, and `path` is the first.
    """

    path: Path
    digest: str

    def model(self, name: str) -> Model:
        """Return the model called `name`. Raises `CatalogError`: there is none; the closest names
        are given.
        """
        try:
            return self.models[name]
        except KeyError:
            raise CatalogError(
                f"there is no model {name!r} in {self.path}",
                remedy=suggest(name, self.models),
            ) from None

    def families(self) -> tuple[str, ...]:
        """Return the families that models are of, in file order."""
        return tuple(dict.fromkeys(one.family for one in self.models.values() if one.family))

    def chosen(self, words: Sequence[str] | None) -> tuple[str, ...]:
        """Return the ids of the models that are meant, all of them where no words are given: an id,
        a family, or a shell pattern over ids. A model is meant by its own name first. Raises
        `ConfigError`: a word that means no model, with the closest one.
        """
        found: dict[str, None] = {}
        for word in words or ("*",):
            ids = [word] if word in self.models else self._meant(word)
            if not ids:
                hint = did_you_mean(word, [*self.models, *self.families()])
                listed = some(list(self.models), MAX_SUGGESTIONS)
                remedy = " ".join([hint, f"models: {listed}"]).strip()
                raise ConfigError(f"no model is named {word!r}", remedy=remedy)
            found |= dict.fromkeys(ids)
        return tuple(found)

    def _meant(self, word: str) -> list[str]:
        return [
            one.id
            for one in self.models.values()
            if one.family == word or fnmatchcase(one.id, word)
        ]

    def targets(self) -> tuple[str, ...]:
        """Targets for which at least one throughput figure is recorded, sorted."""
        return tuple(
            sorted({table.target for model in self.models.values() for table in model.throughput})
        )
