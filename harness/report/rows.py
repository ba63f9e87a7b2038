"""Labelled values: what was measured, with what, on which device."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.base import precision
from harness.base.families import spelt
from harness.catalog.schema import same_product
from harness.pages import formats
from harness.pages.formats import NO_VALUE, datum, plain
from harness.pages.words import say
from harness.records.lines import CaseLine, RunLine
from harness.records.measurements import AccuracyMeasurement, Scalar, ThroughputMeasurement
from harness.records.observed import DeviceInfo
from harness.records.verdicts import Reference, Verdict

Row = tuple[str, str]
Rows = tuple[Row, ...]
Groups = Mapping[str, Rows]
"""Rows by their heading; one without rows is not shown."""

# Fields of records by a label of their own; the others have their names.
_LABELS = {
    "p99_ms": "99th percentile",
    "min_ms": "fastest",
    "max_ms": "slowest",
    "cv_percent": "coefficient of variation",
    "half_width_percent": "half-width of the mean's 99 % interval",
    "precision_percent": "precision asked for",
    "precise": "precision asked for was reached",
    "seconds": "time measured",
    "warmup": "warm-up executions",
    "expected_images": "images of the set",
    "images_per_second": "images a second",
    "agreement": "equal predictions",
    "flips_total": "predictions that differ",
    "excused_total": "of these excused by their margin",
    "max_abs": "largest absolute difference",
    "relative_l2": "relative L2",
    "root": "folder",
    "contents": "digest of what was fed",
    "fewest": "images of a class, at least",
    "most": "images of a class, at most",
    "known": "images compared with their known class",
    "verified": "verified by a published digest",
    "alone": "held alone",
    "waited_s": "waited for it",
    "hostname": "host",
    "driver": "run through",
    "images_per_joule": "images a joule",
    "fps": "throughput",
}
_UNITS: dict[str, Callable[[float], str]] = {
    "ms": formats.milliseconds,
    "percent": formats.percent,
    "s": formats.duration,
    "seconds": formats.duration,
    "fps": formats.rate,
    "agreement": lambda fraction: formats.percent(100 * fraction),
    "gib": lambda value: f"{value:,.1f}{formats.SPACE}GiB" if value else "",
}


def rows(*pairs: Row) -> Rows:
    """Return labelled values without those that are not known."""
    return tuple((say(label), value) for label, value in pairs if value not in (NO_VALUE, ""))


def known(values: Mapping[str, Any], before: str = "") -> Rows:
    """Return versions or settings by the names that the record has, `before` each of them."""
    named = ((before + spelt(formats.line(name, 80)), datum(one)) for name, one in values.items())
    return tuple((name, value) for name, value in named if value != NO_VALUE)


def fields(value: Any, *names: str) -> Rows:
    """Return fields of a dataclass in the units that their names end with; None has none.

    `names`: those fields and properties alone; otherwise all fields that are one value, and those
    of a dataclass in it.
    """
    if value is None:
        return ()
    found: list[Row] = []
    for name in names or [field.name for field in dataclasses.fields(value)]:
        item = getattr(value, name)
        stem, _, unit = name.rpartition("_")
        if dataclasses.is_dataclass(item):
            found += fields(item)
        elif isinstance(item, str | int | float):
            label = _LABELS.get(name, (stem if unit in _UNITS and stem else name).replace("_", " "))
            text = datum(item) if isinstance(item, str) else _UNITS.get(unit, datum)(item)
            found += rows((label, text))
    return tuple(found)


# What was measured -----------------------------------------------------------------------------


def figures_of(verdict: Verdict) -> Rows:
    """Return the figures that a verdict was made from."""
    figures = rows(*((name.label, datum(one, name.unit)) for name, one in verdict.figures.items()))
    tops = verdict.top1_by_batch_size.items()
    label = say("top-1 at batch size {n}")
    return (*figures, *((label.format(n=size), formats.percent(top1)) for size, top1 in tops))


def editions(reference: Reference | None) -> Rows:
    """Return every figure that is published for a case: edition, CANN and flags."""
    return tuple(
        (
            " ".join(_each((one.source, one.date))),
            ", ".join(
                _each((f"{datum(one.fps, 'fps')} / {say(one.unit)}", one.toolchain, *one.flags))
            ),
        )
        for one in (() if reference is None else reference.editions)
    )


def beside(case: CaseLine, run: RunLine | None) -> Rows:
    """Return what is published for this batch size of other targets, and how often ours is that.

    Only a figure that may be used elsewhere has a ratio, not that of a slice of a chip, and only to
    one of the same unit.
    """
    published = run.guide_figures.get(case.model) if run is not None else None
    measured = case.throughput
    if published is None or measured is None:
        return ()
    speeds = [one for one in published.speeds if one.batch_size == case.batch_size]
    chip, known = measured.setup.chip, {s.chip for s in published.speeds if s.target == case.target}
    whole = not (chip and known) or any(same_product(chip, one) for one in known)
    # Only where a card's figure is judged does a measurement count the card's chips.
    judged = case.reference is not None and case.reference.kind == "baseline"
    own = next((one for one in speeds if judged and one.target == case.target), None)
    unit, chips = ("chip", 1) if own is None else (own.unit, own.chips)
    width = measured.timing.half_width_percent
    shown = []
    for one in speeds:
        alike = one.unit == unit or one.chips == chips == 1
        text = f"{formats.rate(one.fps)} {say(f'a {one.unit}')}"
        if one.not_comparable:
            text += f" ({say('not comparable')}{say(': ')}{formats.line(one.not_comparable)})"
        elif alike and whole and measured.counts and case.measured and precision.is_known(width):
            ratio = precision.significant(case.measured / one.fps, precision.digits(width))
            text += f" ({say('ours is {n} times that', n=ratio)})"
        if one.target != case.target:
            shown.append((formats.line(one.chip, 80), text))
    return tuple(shown)


def measurement(case: CaseLine) -> Groups:
    """Return what a case measured."""
    if case.accuracy is not None:
        return _accuracy(case.accuracy)
    return {} if case.throughput is None else _throughput(case.throughput)


def _accuracy(measured: AccuracyMeasurement) -> Groups:
    images = fields(measured.scores, "images")
    return {
        "Images": images + fields(measured, "expected_images", "seconds", "images_per_second"),
        "Top-1 to top-5": tuple(_tops(measured)),
        "Fidelity to the eager model": fields(measured.fidelity),
    }


def _tops(measured: AccuracyMeasurement) -> Iterator[Row]:
    ours, eager = measured.scores, measured.reference_scores
    for k, correct in enumerate(ours.correct, 1):
        text = f"{formats.percent(ours.percent(k))} ({plain(correct)})"
        if eager is not None:
            points = formats.difference(ours.percent(k) - eager.percent(k), say("points"))
            beside = say("eager {percent}", percent=formats.percent(eager.percent(k)))
            text = f"{text}{say(', ')}{beside}{say(', ')}{points}"
        yield f"top-{k}", text


def _throughput(measured: ThroughputMeasurement) -> Groups:
    timing, looks, eager = measured.timing, measured.conditions, measured.eager
    beside: Rows = ()
    if eager is not None:
        clock = f"{formats.rate(eager.timing.fps)}, {formats.milliseconds(eager.timing.mean_ms)}"
        ratio = ("CPU time, eager to compiled", say("{n} times", n=f"{eager.ratio:.3f}"))
        beside = fields(eager, "memory_format") + rows(("by the clock", clock), ratio)
    return {
        "Latency of one execution": fields(timing, "fps", "rounds") + fields(timing),
        "How it was measured": fields(
            measured, "precision_percent", "precise", "half_width_percent", "budget_s", "seconds"
        ),
        "The device meanwhile": rows(
            ("health", _answers(look.health or "unknown" for look in looks)),
            ("used by others", _answers(look.busy for look in looks)),
            ("throttled", _answers(look.throttled for look in looks)),
            ("temperature", _span((look.temperature_c for look in looks), "°C")),
            ("power", _span((look.power_w for look in looks), "W")),
            *fields(measured, "images_per_joule"),
        ),
        "How it was set up": fields(measured.setup),
        "Eager PyTorch on the same host": beside,
        "Outputs against the ONNX model": fields(measured.outputs),
    }


def _answers(answers: Iterable[str]) -> str:
    """`no (36), yes (4)`: each answer with how often it was given."""
    counts = Counter(formats.line(one, 40) for one in answers)
    return say(", ").join(f"{say(text)} ({count:,})" for text, count in counts.items())


def _span(readings: Iterable[float | None], unit: str) -> str:
    values = [round(one, 1) for one in readings if one is not None]
    if not values:
        return NO_VALUE
    low, high = plain(min(values)), plain(max(values))
    text = low if low == high else say("{low} to {high}", low=low, high=high)
    return f"{text}{formats.SPACE}{unit}"


# Where the time went ---------------------------------------------------------------------------


def stages(case: CaseLine) -> Rows:
    """Return the seconds of each stage, as they came."""
    stored = f" ({say('from the store')})"
    return tuple(
        (say(one.stage.doing) + stored * one.cached, formats.duration(one.seconds))
        for one in case.stages
    )


def times(cases: Iterable[CaseLine]) -> Rows:
    """Return the seconds of each stage over all cases and their shares, the longest first.

    Stages below 1 % of the whole are one.
    """
    seconds: dict[str, float] = {}
    for one in (stage for case in cases for stage in case.stages):
        name = say(one.stage.doing)
        seconds[name] = seconds.get(name, 0.0) + max(0.0, one.seconds)
    total = sum(seconds.values())
    if not total:
        return ()
    small = [name for name, took in seconds.items() if took < total / 100]
    rest = sum(seconds.pop(name) for name in small) if len(small) > 1 else 0.0
    longest = sorted(seconds.items(), key=lambda item: -item[1])
    shown = [*longest, (say("all others"), rest)] if rest else longest
    return tuple(
        (name, f"{formats.duration(took)} ({100 * took / total:.0f}{formats.SPACE}%)")
        for name, took in shown
    )


# With what, and where --------------------------------------------------------------------------


def circumstances(case: CaseLine, run: RunLine | None) -> Groups:
    """Return what a case stood on: device, checkpoint, images, host, and versions that are not
    those of the run.
    """
    usual = run.versions if run is not None else {}
    versions = {name: one for name, one in case.versions.items() if usual.get(name) != one}
    device = case.device or DeviceInfo("")
    held = ("id", "name", "card", "alone", "waited_s", "driver")
    return {
        "Device": (
            *(fields(device, *held) if device.id else ()),
            *known(device.toolchain),
            *known(device.runtime),
            *known(device.left_out, say("not used: ")),
        ),
        "Checkpoint": fields(case.checkpoint),
        "Images and preprocessing": (
            *fields(case.images),
            *rows(("preprocessing", formats.line(case.preprocessing, 1_000))),
            *rows(("class names", formats.line(", ".join(case.class_names), 2_000))),
            *((say("assumed"), formats.line(text, 1_000)) for text in case.assumed),
        ),
        "Where and when": rows(
            ("host", formats.line(case.machine.hostname)),
            ("processor", formats.line(case.machine.processor)),
            ("worker", formats.line(case.worker)),
            ("started", formats.moment(case.started)),
            ("duration", formats.duration(case.seconds)),
        ),
        "Versions of this case": known(versions),
    }


def device_line(case: CaseLine) -> str:
    """`ascend310p3-1, Ascend310P3, Atlas 300I Pro, CANN 8.0.RC2, driver 23.0.0, ...`."""
    device, setup = case.device, case.throughput.setup if case.throughput is not None else None
    if device is None:
        return ""
    chip, card = (setup.chip or device.name, setup.card) if setup is not None else (device.name, "")
    tools = [f"{spelt(name)} {value}" for name, value in device.tools.items()]
    through = say("run through {driver}", driver=device.driver) if device.driver else ""
    return ", ".join(_each((device.id, chip, card, *tools, through)))


def devices(cases: Sequence[CaseLine]) -> Rows:
    """Return every device of a run, by host, as its cases found it."""
    seen: dict[str, dict[str, None]] = {}
    for case in cases:
        line = device_line(case)
        if line:
            seen.setdefault(case.machine.hostname or say("device"), {})[line] = None
    return tuple((formats.line(host), line) for host, lines in seen.items() for line in lines)


def _each(values: Iterable[Scalar]) -> dict[str, None]:
    """The texts of what is known, as the keys of a dict, which keep their order."""
    return dict.fromkeys(formats.line(str(value), 80) for value in values if value)
