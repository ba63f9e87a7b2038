"""Relations between the values of a catalog that no section can check alone.

Sources that exist, networks that a library has, crops that fit, one judging figure for a batch
size, known failures that some case can match.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from harness.base.families import available
from harness.catalog.schema import (
    IMAGENET_CLASSES,
    AccuracyRule,
    BaselineTable,
    Contents,
    GuideAccuracy,
    KnownFailure,
    Model,
    Published,
    RatioRule,
)
from harness.catalog.yaml_document import KeyPath, Problem, shown, suggest
from harness.networks.layouts import LAYOUTS
from harness.networks.library import RESERVED_ARGUMENTS, unknown_network

Sourced = Published | AccuracyRule | GuideAccuracy | BaselineTable | RatioRule


def problems_between(contents: Contents) -> Iterator[Problem]:
    """Yield faults between sections."""
    for name, model in contents.models.items():
        for check in (
            lambda one: _name_problems(one, contents.sources),
            _network_problems,
            _checkpoint_problems,
            _class_problems,
            _preprocessing_problems,
            _accuracy_problems,
            _throughput_problems,
        ):
            for problem in check(model):
                yield Problem(("models", name, *problem.path), problem.text, problem.hint)
    for index, failure in enumerate(contents.known_failures):
        yield from _known_failure_problems(index, failure, contents.models)


def _entries(model: Model) -> Iterator[tuple[KeyPath, Sourced]]:
    """Everything of a model that names its source."""
    accuracy = model.accuracy
    yield ("accuracy", "published"), accuracy.published
    yield ("accuracy", "rule"), accuracy.rule
    lists: Mapping[KeyPath, Sequence[Sourced]] = {
        ("accuracy", "also_published"): accuracy.also_published,
        ("accuracy", "guide_measured"): accuracy.guide_measured,
        ("throughput",): model.throughput,
        ("ratios",): model.ratios,
    }
    for place, entries in lists.items():
        for index, entry in enumerate(entries):
            yield (*place, index), entry


def _target_names(model: Model) -> Iterator[tuple[KeyPath, str]]:
    for path, entry in _entries(model):
        if isinstance(entry, GuideAccuracy | BaselineTable | RatioRule):
            yield (*path, "target"), entry.target
        if isinstance(entry, RatioRule):
            yield (*path, "to"), entry.to


def _name_problems(model: Model, sources: Collection[str]) -> Iterator[Problem]:
    named = [((*path, "source"), entry.source) for path, entry in _entries(model)]
    for path, source in [(("guide",), model.guide), *named]:
        if source not in sources:
            text = f"found {shown(source)}; expected a name defined under sources"
            yield Problem(path, text, suggest(source, sources))
    for path, target in _target_names(model):
        if target not in available():
            text = f"found {shown(target)}; expected the name of a target"
            yield Problem(path, text, suggest(target, available()))
    for index, rule in enumerate(model.ratios):
        if rule.target == rule.to:
            yield Problem(("ratios", index, "to"), f"found {rule.to}; expected another target")


def _network_problems(model: Model) -> Iterator[Problem]:
    source, arguments = model.network.source, model.network.arguments
    unknown = unknown_network(source)
    if unknown is not None:
        yield Problem(("network", "source"), f"found {shown(source)}; {unknown[0]}", unknown[1])
    for name in RESERVED_ARGUMENTS.intersection(arguments):
        yield Problem(
            ("network", "arguments", name),
            "found an argument by which the library would fetch weights",
            "remove it: weights come from `checkpoint`",
        )


def _checkpoint_problems(model: Model) -> Iterator[Problem]:
    spec = model.checkpoint
    if spec.layout not in LAYOUTS:
        yield Problem(
            ("checkpoint", "layout"),
            f"found {shown(spec.layout)}; expected a known layout",
            suggest(spec.layout, LAYOUTS),
        )
    prefix, place = spec.sha256_prefix, ("checkpoint", "sha256_prefix")
    if prefix and spec.sha256 and not spec.sha256.startswith(prefix):
        text = f"found {prefix}; expected the first 8 digits of sha256, {spec.sha256[:8]}"
        yield Problem(place, text)
    hub_name = re.search(r"-([0-9a-f]{8})\.[a-z]+$", spec.file)
    if prefix and hub_name and hub_name[1] != prefix:
        yield Problem(place, f"found {prefix}; expected {hub_name[1]}, as the file's name says")


def _class_problems(model: Model) -> Iterator[Problem]:
    if model.classes != IMAGENET_CLASSES + model.label_offset:
        yield Problem(
            ("label_offset",),
            f"found {model.label_offset} with {model.classes} classes; expected 0 with 1000, or 1 "
            "with 1001 (index 0 is the background, so that a label is found one further)",
        )
        return
    given = model.network.arguments.get("num_classes")
    if (IMAGENET_CLASSES if given is None else given) != model.classes:
        yield Problem(
            ("network",) if given is None else ("network", "arguments", "num_classes"),
            f"the network has {shown(given or IMAGENET_CLASSES)} outputs; expected "
            f"{model.classes}, as `classes` says",
            f"write arguments: {{num_classes: {model.classes}}}",
        )


def _preprocessing_problems(model: Model) -> Iterator[Problem]:
    steps, place = model.preprocessing, ("preprocessing", "crop", "size")
    crop, resize = steps.crop.size, steps.resize
    if crop != model.input.size:
        text = f"found {crop}; expected the size of the input, {model.input.size}"
        yield Problem(place, text)
    if crop > resize.size and resize.op != "resize_height":
        yield Problem(
            place,
            f"found {crop}, larger than the resized image ({resize.size}); only resize_height "
            "leaves a side that the crop pads",
        )
    for key, values, low in (("mean", steps.normalize.mean, -1), ("std", steps.normalize.std, 0)):
        for index, value in enumerate(values):
            if not low <= value <= 1:  # NaN fails, too
                yield Problem(
                    ("preprocessing", "normalize", key, index),
                    f"found {value!r}; expected {low} to 1 (pixels are divided by 255 first)",
                )


def _accuracy_problems(model: Model) -> Iterator[Problem]:
    for path, entry in _entries(model):
        if isinstance(entry, Published):
            ranks = {"top1": entry.top1, "top5": entry.top5}
        elif isinstance(entry, GuideAccuracy):
            ranks = {f"top{k}": getattr(entry, f"top{k}") for k in range(1, 6)}
        else:
            continue
        lower = entry.top1
        for rank, value in ranks.items():
            if value is not None and value < lower:
                text = f"found {value:g}; expected at least {lower:g}, the figure of a lower rank"
                yield Problem((*path, rank), text)
            lower = lower if value is None else value


def _throughput_problems(model: Model) -> Iterator[Problem]:
    judged_by: dict[tuple[str, int], int] = {}
    for index, table in enumerate(model.throughput):
        for problem in (*_judged_problems(table), *_card_problems(table)):
            yield Problem(("throughput", index, *problem.path), problem.text, problem.hint)
        for batch_size in filter(table.judges, table.fps):
            other = judged_by.setdefault((table.target, batch_size), index)
            if other != index:
                yield Problem(
                    ("throughput", index, "fps", batch_size),
                    f"batch size {batch_size} of {table.target} is judged by throughput[{other}] "
                    "already; expected one judging figure",
                    "name the batch sizes that this table judges: `judged: []` for none",
                )


def _judged_problems(table: BaselineTable) -> Iterator[Problem]:
    for index, batch_size in enumerate(table.judged or ()):
        if batch_size not in table.fps:
            yield Problem(
                ("judged", index),
                f"found {batch_size}; expected a batch size that has a figure",
                suggest(batch_size, table.fps),
            )
    if table.judged and table.not_comparable:
        yield Problem(
            ("judged",), "a table that is not comparable judges nothing", "remove `judged`"
        )
    flag = next((f for f in table.compiler_flags if f.startswith("--auto_tune_mode=")), None)
    flagged = flag.partition("=")[2] if flag else "none"
    # AOE tunes before atc, which then needs no flag.
    unflagged = table.tuning in ("not-stated", "aoe") and flag is None
    if table.tuning != flagged and not unflagged:
        yield Problem(
            ("tuning",),
            f"found {shown(table.tuning)}, while compiler_flags say {shown(flagged)}",
            "let `tuning` and `--auto_tune_mode` agree",
        )


def _card_problems(table: BaselineTable) -> Iterator[Problem]:
    if table.chip_fps and table.unit == "chip":
        yield Problem(
            ("chip_fps",), "found figures of a chip beside `unit: chip`", "keep `fps` alone"
        )
    for batch_size, chip_fps in table.chip_fps.items():
        place, card_fps = ("chip_fps", batch_size), table.fps.get(batch_size)
        wanted = chip_fps * table.chips_per_card
        if card_fps is None:
            yield Problem(place, "a card's figure for it is missing in `fps`")
        elif abs(card_fps - wanted) > 0.005 * table.chips_per_card:
            yield Problem(
                place,
                f"{chip_fps:g} times {table.chips_per_card} is {wanted:.2f}, while `fps` says "
                f"{card_fps:g}",
            )


def _known_failure_problems(
    index: int, failure: KnownFailure, models: Collection[str]
) -> Iterator[Problem]:
    # Any batch size can be asked for: those that the pattern could mean, and the usual ones.
    sizes = {1, 4, 8, 16, 32, 64}
    for digits in re.findall(r"[0-9]{1,4}", failure.case):
        sizes |= {int(digits), 10 * int(digits)}
    cases = [f"{name}-bs{n}-{t}" for name in models for n in sizes for t in available()]
    if not any(fnmatchcase(case, failure.case) for case in cases):
        close = difflib.get_close_matches(failure.case, cases, n=1, cutoff=0.5)
        yield Problem(
            ("known_failures", index, "case"),
            f"found {shown(failure.case)}, which no case can match; expected a pattern over "
            "model-bsN-target",
            f"did you mean {close[0]!r}?" if close else "",
        )
