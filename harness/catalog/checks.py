"""Relations between the values of a catalog that no section can check alone.

Sources that exist, networks that a library has, crops that fit, one judging figure for a batch
size, known failures that some case can match.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from harness.base.families import available
from harness.catalog.schema import (
    IMAGENET_CLASSES,
    AccuracyRule,
    BaselineTable,
    Contents,
    FidelityRule,
    GuideAccuracy,
    Model,
    Published,
    RatioRule,
)
from harness.catalog.yaml_document import KeyPath, Problem, shown, suggest
from harness.networks.layouts import LAYOUTS
from harness.networks.library import RESERVED_ARGUMENTS, unknown_network

Sourced = Published | AccuracyRule | GuideAccuracy | BaselineTable | RatioRule | FidelityRule


def problems_between(contents: Contents) -> Iterator[Problem]:
    """Yield faults between sections."""
    for name, model in contents.models.items():
        for relation in (_names, _network, _checkpoint, _classes, _crop, _ranks, _throughput):
            for problem in relation(model, contents):
                yield Problem(("models", name, *problem.path), problem.text, problem.hint)
    yield from _editions(contents)
    yield from _known_failures(contents)


def _entries(model: Model) -> Iterator[tuple[KeyPath, Sourced]]:
    """Everything of a model that names its source."""
    accuracy = model.accuracy
    lists: dict[KeyPath, Sequence[Sourced]] = {
        ("throughput",): model.throughput,
        ("ratios",): model.ratios,
    }
    if accuracy is not None:
        yield ("accuracy", "published"), accuracy.published
        yield ("accuracy", "rule"), accuracy.rule
        lists[("accuracy", "also_published")] = accuracy.also_published
        lists[("accuracy", "guide_measured")] = accuracy.guide_measured
    if model.fidelity is not None:
        yield ("fidelity",), model.fidelity
    for place, entries in lists.items():
        for index, entry in enumerate(entries):
            yield (*place, index), entry


def _names(model: Model, contents: Contents) -> Iterator[Problem]:
    """Sources that the file defines, targets that there are."""
    named: list[tuple[KeyPath, str]] = [(("guide",), model.guide)] if model.guide else []
    if model.preprocessing.source is not None:
        named.append((("preprocessing", "source"), model.preprocessing.source))
    targets: list[tuple[KeyPath, str]] = []
    for path, entry in _entries(model):
        named.append(((*path, "source"), entry.source))
        keys = ("target", "to") if isinstance(entry, RatioRule) else ("target",)
        targets += [((*path, key), getattr(entry, key)) for key in keys if hasattr(entry, key)]
    for places, known, what in (
        (named, tuple(contents.sources), "a name defined under sources"),
        (targets, available(), "the name of a target"),
    ):
        for path, name in places:
            if name not in known:
                text = f"found {shown(name)}; expected {what}"
                yield Problem(path, text, suggest(name, known))


def _network(model: Model, contents: Contents) -> Iterator[Problem]:
    source, arguments = model.network.source, model.network.arguments
    if unknown := unknown_network(source):
        yield Problem(("network", "source"), f"found {shown(source)}; {unknown[0]}", unknown[1])
    for name in RESERVED_ARGUMENTS.intersection(arguments):
        yield Problem(
            ("network", "arguments", name),
            "found an argument by which the library would fetch weights",
            "remove it: weights come from `checkpoint`",
        )


def _checkpoint(model: Model, contents: Contents) -> Iterator[Problem]:
    spec, prefix = model.checkpoint, model.checkpoint.sha256_prefix
    if spec.layout not in LAYOUTS:
        text = f"found {shown(spec.layout)}; expected a known layout"
        yield Problem(("checkpoint", "layout"), text, suggest(spec.layout, LAYOUTS))
    hub_name = re.search(r"-([0-9a-f]{8})\.[a-z]+$", spec.file)
    for wanted, source in (
        (spec.sha256 and spec.sha256[:8], "the first 8 digits of sha256"),
        (hub_name and hub_name[1], "as the file's name says"),
    ):
        if prefix and wanted and wanted != prefix:
            text = f"found {prefix}; expected {wanted}, {source}"
            yield Problem(("checkpoint", "sha256_prefix"), text)


def _classes(model: Model, contents: Contents) -> Iterator[Problem]:
    names = model.class_names
    if names and len(set(names)) != model.classes:
        text = f"found {len(set(names))} different names; expected {model.classes}, as `classes`"
        yield Problem(("class_names",), text)
    if model.accuracy is None:  # a model of one's own, of any classes
        return
    if model.classes not in (IMAGENET_CLASSES, IMAGENET_CLASSES + 1):
        text = f"found {model.classes}; expected 1000 or 1001"
        yield Problem(("classes",), text, "leave out `accuracy` where nothing is published")
        return
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


def _crop(model: Model, contents: Contents) -> Iterator[Problem]:
    crop, resize = model.preprocessing.size, model.preprocessing.resize
    place = ("preprocessing", "crop", "size")
    if crop != model.input.size:
        yield Problem(place, f"found {crop}; expected the size of the input, {model.input.size}")
    if crop > resize.size and resize.op != "resize_height":
        yield Problem(
            place,
            f"found {crop}, larger than the resized image ({resize.size}); only resize_height "
            "leaves a side that the crop pads",
        )


def _ranks(model: Model, contents: Contents) -> Iterator[Problem]:
    """A top-5 is no lower than its top-1."""
    for path, entry in _entries(model):
        lower = 0.0
        for rank in ("top1", "top2", "top3", "top4", "top5"):
            value = getattr(entry, rank, None)
            if value is not None and value < lower:
                text = f"found {value:g}; expected at least {lower:g}, the figure of a lower rank"
                yield Problem((*path, rank), text)
            lower = lower if value is None else value


def _throughput(model: Model, contents: Contents) -> Iterator[Problem]:
    judged_by: dict[tuple[str, int], int] = {}
    for index, table in enumerate(model.throughput):
        for problem in (*_judged(table), *_tuning(table), *_card(table)):
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

        yield from _guide_first(index, table, model, contents)


def _guide_first(
    index: int, table: BaselineTable, model: Model, contents: Contents
) -> Iterator[Problem]:
    """Another edition judges nothing that the model's guide has a figure for."""
    source = contents.sources.get(table.source)
    if source is None or source.edition_of != model.guide:
        return
    for own in model.throughput:
        if (own.source, own.target) != (model.guide, table.target) or own.not_comparable:
            continue
        for batch_size in filter(table.judges, own.fps):
            yield Problem(
                ("throughput", index, "fps", batch_size),
                f"{table.source} judges batch size {batch_size} of {table.target}, for which "
                f"{model.guide} itself has a figure",
                "`judged` names the batch sizes that the guide does not have: `[]` for none",
            )


def _editions(contents: Contents) -> Iterator[Problem]:
    """An edition has a date, and is that of a source which is no edition itself."""
    for name, source in contents.sources.items():
        if source.edition_of is None:
            continue
        of = contents.sources.get(source.edition_of)
        if of is None or of.edition_of is not None:
            others = [n for n, one in contents.sources.items() if one.edition_of is None]
            text = f"found {shown(source.edition_of)}; expected a source that is no edition itself"
            yield Problem(("sources", name, "edition_of"), text, suggest(source.edition_of, others))
        if source.date is None:
            text = "the date of the edition is missing"
            yield Problem(("sources", name), text, "write the commit's: `date: 2023-01-06`")


def _judged(table: BaselineTable) -> Iterator[Problem]:
    for index, batch_size in enumerate(table.judged or ()):
        if batch_size not in table.fps:
            text = f"found {batch_size}; expected a batch size that has a figure"
            yield Problem(("judged", index), text, suggest(batch_size, table.fps))
    if table.judged and table.not_comparable:
        text = "a table that is not comparable judges nothing"
        yield Problem(("judged",), text, "remove `judged`")


def _tuning(table: BaselineTable) -> Iterator[Problem]:
    flags = [f for f in table.compiler_flags if f.startswith("--auto_tune_mode=")]
    flagged = flags[0].partition("=")[2] if flags else "none"
    # A tool of its own that tunes before the compiler needs no flag.
    unflagged = table.tuning in ("not-stated", "aoe") and not flags
    if table.tuning != flagged and not unflagged:
        yield Problem(
            ("tuning",),
            f"found {shown(table.tuning)}, while compiler_flags say {shown(flagged)}",
            "let `tuning` and `--auto_tune_mode` agree",
        )


def _card(table: BaselineTable) -> Iterator[Problem]:
    if table.chip_fps and table.unit == "chip":
        text = "found figures of a chip beside `unit: chip`"
        yield Problem(("chip_fps",), text, "keep `fps` alone")
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


def _known_failures(contents: Contents) -> Iterator[Problem]:
    for index, failure in enumerate(contents.known_failures):
        # Any batch size can be asked for: those that the pattern could mean, and the usual ones.
        sizes = {1, 4, 8, 16, 32, 64}
        for digits in re.findall(r"[0-9]{1,4}", failure.case):
            sizes |= {int(digits), 10 * int(digits)}
        cases = [f"{m}-bs{n}-{t}" for m in contents.models for n in sizes for t in available()]
        if not any(fnmatchcase(case, failure.case) for case in cases):
            close = difflib.get_close_matches(failure.case, cases, n=1, cutoff=0.5)
            yield Problem(
                ("known_failures", index, "case"),
                f"found {shown(failure.case)}, which no case can match; expected a pattern over "
                "model-bsN-target",
                f"did you mean {close[0]!r}?" if close else "",
            )
