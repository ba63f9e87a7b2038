"""Relations between the values of a catalog that no section can check alone.

Sources that exist, networks that a library has, crops that fit, one judging figure for a batch
size, known failures that some case can match.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from harness.catalog.schema import (
    IMAGENET_CLASSES,
    Accuracy,
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


def problems_between(contents: Contents, targets: Collection[str] = ()) -> Iterator[Problem]:
    """Faults between sections. `targets`: every name that a target has; empty where not known."""
    for name, model in contents.models.items():
        base: KeyPath = ("models", name)
        yield from _source_problems(contents, base, model)
        yield from _network_problems(base, model)
        yield from _preprocessing_problems((*base, "preprocessing"), model)
        yield from _accuracy_problems((*base, "accuracy"), model.accuracy)
        yield from _throughput_problems((*base, "throughput"), model)
        yield from _target_problems(base, model, targets)
    for index, failure in enumerate(contents.known_failures):
        yield from _known_failure_problems(("known_failures", index), failure, contents, targets)


def _source_problems(contents: Contents, base: KeyPath, model: Model) -> Iterator[Problem]:
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
    here: KeyPath, failure: KnownFailure, contents: Contents, targets: Collection[str]
) -> Iterator[Problem]:
    # Any batch size can be asked for: those that the pattern could mean, and the usual ones.
    sizes = {1, 4, 8, 16, 32, 64}
    for digits in re.findall(r"[0-9]{1,4}", failure.case):
        sizes |= {int(digits), 10 * int(digits)}
    # Where the targets are not known, the one that the pattern ends with may be one.
    known = targets or {*_named_targets(contents), failure.case.rpartition("-")[2]}
    cases = [f"{name}-bs{n}-{t}" for name in contents.models for n in sizes for t in known]
    if not any(fnmatchcase(case, failure.case) for case in cases):
        close = difflib.get_close_matches(failure.case, cases, n=1, cutoff=0.5)
        yield Problem(
            (*here, "case"),
            f"found {shown(failure.case)}, which no case can match; expected a pattern over "
            "model-bsN-target",
            f"did you mean {close[0]!r}?" if close else "",
        )


def _target_places(model: Model) -> Iterator[tuple[KeyPath, str]]:
    for i, measured in enumerate(model.accuracy.guide_measured):
        yield ("accuracy", "guide_measured", i, "target"), measured.target
    for i, table in enumerate(model.throughput):
        yield ("throughput", i, "target"), table.target
    for i, rule in enumerate(model.ratios):
        yield ("ratios", i, "target"), rule.target
        yield ("ratios", i, "to"), rule.to


def _target_problems(base: KeyPath, model: Model, targets: Collection[str]) -> Iterator[Problem]:
    for path, name in _target_places(model):
        if targets and name not in targets:
            yield Problem(
                (*base, *path),
                f"found {shown(name)}; expected the name of a target",
                suggest(name, targets),
            )


def _named_targets(contents: Contents) -> set[str]:
    return {name for model in contents.models.values() for _, name in _target_places(model)}
