"""`plan`: what a command line would run, held against what, for how long; what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape

from harness import shards
from harness.base.errors import HarnessError, some
from harness.base.terms import WHOLE_SET
from harness.catalog.schema import Catalog, Model
from harness.cli.options import CheckOption, console, say, table
from harness.cli.preprocessing import preprocessing_lines
from harness.estimates import Estimate, estimates
from harness.judge.accuracy import REFERENCES, describe_part
from harness.judge.wording import counted
from harness.pages.formats import duration, plural
from harness.plan import Case, held_against_weights, make_plan, missing
from harness.run.own import catalog_of
from harness.settings import Settings
from harness.targets import registry

MOST_DRAWN = 1_000


def plan(settings: Settings, *, check: CheckOption = None) -> None:
    """The cases that a command line would run, what each is held against and how long it takes.

    Takes the same options as pytest, and runs nothing.
    """
    catalog = catalog_of(settings)
    if not settings.configured:
        settings = registry.located(settings)
        if settings.target is not None:
            say(f"target {settings.target}: {settings.detection}")
    cases = [one for one in make_plan(catalog, settings).cases if check in (None, one.check)]
    cases = list(shards.of_settings(cases, settings))
    images, own, trouble = image_count(settings)
    times = estimates(cases, settings, images=images)
    part = images != WHOLE_SET
    rows = [
        (one.id, one.check, reference(catalog, settings, one, part=part), expected_cell(times[one]))
        for one in cases
    ]
    show(rows)
    if cases:
        say(expected_text(times))
    if trouble is not None:
        say(f"\nthe images cannot be used: {trouble.message}\n  what to do: {trouble.remedy}")
    if settings.provenance == "real":
        for line in part_lines(catalog, settings, cases, images, own=own):
            say(line)
    for item in missing(settings, cases):
        say(f"\nmissing: {item.thing}\n  give {item.remedy}")
    models = [catalog.models[name] for name in dict.fromkeys(case.model for case in cases)]
    for name, target in dict.fromkeys((case.model, case.target) for case in cases):
        if sizes := catalog.models[name].dynamic_batch(target):
            listed = ", ".join(map(str, sizes))
            say(f"\n{name} on {target}: one compiled file for batch sizes {listed}")
    for line in own_lines(models):
        say(line)
    for line in preprocessing_lines(models):
        say(line)


def show(rows: Sequence[tuple[str, ...]]) -> None:
    """Print the cases as a table; thousands as plain lines, which take a tenth of the time."""
    columns = ("case", "check", "held against", "expected")
    if len(rows) > MOST_DRAWN:
        say("\n".join("  ".join(row) for row in (columns, *rows)))
        return
    shown = table(*columns, whole=columns[:2], title=f"{len(rows)} cases")
    for row in rows:
        shown.add_row(*map(escape, row))
    console().print(shown)


def own_lines(models: Sequence[Model]) -> list[str]:
    """What is taken for granted of models of one's own, and which classes they have."""
    lines = []
    for model in models:
        if model.class_names:
            names = f"{some(model.class_names, 10)} ({len(model.class_names)})"
            lines.append(f"\nclasses of {model.id}, from index 0: {names}")
        lines += [f"\nassumed of {model.id}: {text}" for text in model.assumed]
    if any(model.assumed for model in models):
        lines.append("  what to do if one is wrong: docs/own-models.md")
    return lines


def expected_cell(estimate: Estimate) -> str:
    """`12 s (3 runs)`; with a ~ where it comes from the model's other batch sizes."""
    if estimate.work_s is None:
        return "not known"
    if not estimate.runs:
        return f"~{duration(estimate.work_s)} (other batch sizes)"
    return f"{duration(estimate.work_s)} ({plural(estimate.runs, 'run')})"


def expected_text(times: Mapping[Case, Estimate]) -> str:
    """How long all cases take."""
    known = [one.work_s for one in times.values() if one.work_s is not None]
    if not known:
        return "expected: not known, none of these cases has run on this host with these options"
    text = (
        "expected on this host, one case after another and with everything in the store: "
        f"{duration(sum(known))}"
    )
    left = len(times) - len(known)
    return f"{text}; not known and not counted: {plural(left, 'case')}" if left else text


def image_count(settings: Settings) -> tuple[int | None, bool, HarnessError | None]:
    """How many images accuracy would use, or None and, where it is known, why a run would stop.
    Between the two: whether they are all of a data set that is not ImageNet's.

    Counted where there is a data set, which is checked as a run checks it; else as many as the
    options ask for.
    """
    if settings.stand_ins:
        return settings.rehearsal_images, False, None
    if settings.imagenet is not None and settings.imagenet.is_dir():
        from harness.images.selection import find_images

        try:
            chosen = find_images(settings.imagenet, settings.labels, settings.selection).chosen
        except HarnessError as error:
            return None, False, error
        return len(chosen), len(chosen) == chosen.own_set, None
    if settings.image_list is not None:
        return None, False, None
    return settings.limit or settings.sample or WHOLE_SET, False, None


def part_lines(
    catalog: Catalog, settings: Settings, cases: Sequence[Case], images: int | None, *, own: bool
) -> list[str]:
    """For each model, whether a PASS is possible on a part of the data set.

    `own`: the images are all of a data set that is not ImageNet's.
    """
    models = dict.fromkeys(case.model for case in cases if case.check == "accuracy")
    if images is None or images == WHOLE_SET or not models:
        return []
    if own:
        return ["", f"a data set of your own: the reference on all {counted(images)} decides"]
    lines = ["", "accuracy on a part of the data set is held against eager PyTorch:"]
    for name in models:
        model = catalog.models[name]
        if model.published is None:
            lines.append(f"  {name}: nothing is published for it")
            continue
        text = describe_part(images, model.published, model.accuracy_rule)
        if not held_against_weights(model, settings):
            text += "; but with --onnx there are no weights for an eager pass, so none is possible"
        lines.append(f"  {name}: {text}")
    return lines


def reference(catalog: Catalog, settings: Settings, case: Case, *, part: bool = False) -> str:
    """What a case is held against, in words. `part`: not all images of the data set are used."""
    model = catalog.models[case.model]
    by = REFERENCES[model.reference_kind]
    if settings.provenance != "real":
        if case.check == "accuracy":
            images = "generated images" if settings.stand_ins else "images"
            return f"{by}'s predictions on the same {images}"
        if settings.provenance == "simulated":
            return "nothing: a simulated device's speed is only recorded"
        return "eager PyTorch's speed on this host"
    if case.check == "accuracy":
        published, rule = model.published, model.accuracy_rule
        side = "±" if rule.side == "both" else "-"
        if part or published is None:
            return f"{by} on the same images, within {rule.tolerance_percent:g} %"
        return f"top-1 {published.top1:g} % {side}{rule.tolerance_percent:g} % ({published.source})"
    baseline = model.baseline(case.target, case.batch_size)
    if baseline is None:
        return "nothing is published: recorded"
    if not baseline.comparable:
        return f"nothing comparable: recorded ({baseline.not_comparable})"
    if not baseline.judged:
        return f"nothing: recorded, as {baseline.source} does"
    return baseline.describe()
