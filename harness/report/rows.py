"""Labelled values under headings: what was measured, with what, on which device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.pages import formats
from harness.pages.formats import NO_VALUE, datum, plain
from harness.pages.html import safe_href
from harness.records.conditions import Condition
from harness.records.lines import CaseLine, RunLine
from harness.records.measurements import (
    AccuracyMeasurement,
    ProblemCode,
    Scalar,
    ThroughputMeasurement,
)
from harness.records.observed import DeviceInfo, ImagesInfo
from harness.records.verdicts import FigureName, Verdict

DEVICES_SHOWN = 24
VERSIONS_SHOWN = 8

# Fields of records by a label of their own; the others have their names.
_LABELS = {
    "p99_ms": "99th percentile",
    "min_ms": "fastest",
    "max_ms": "slowest",
    "cv_percent": "coefficient of variation",
    "half_width_percent": "half-width of the mean's 99 % interval",
    "precision_percent": "precision asked for",
    "seconds": "time measured",
    "warmup": "warm-up executions",
    "root": "folder",
    "contents": "digest of what was fed",
    "verified": "verified by a published digest",
    "max_abs": "largest absolute difference",
    "relative_l2": "relative L2",
    "hostname": "host",
    "cann": "CANN",
    "driver": "driver of the device",
}
_UNITS: dict[str, Callable[[float], str]] = {
    "ms": formats.milliseconds,
    "percent": formats.percent,
    "s": formats.duration,
    "seconds": formats.duration,
    "gib": lambda value: f"{value:,.1f}{formats.SPACE}GiB" if value else "",
}
# Figures of a verdict that the rows of its measurement say as well.
_MEASURED = frozenset(
    {
        *(FigureName.IMAGES, FigureName.CORRECT, FigureName.TOP1, FigureName.EAGER_TOP1),
        *(FigureName.LOGITS_L2, FigureName.LOGITS_MAX),
        *(FigureName.FLIPS, FigureName.FLIPS_EXCUSED),
        *(FigureName.MEAN_MS, FigureName.MEAN_HALF_WIDTH, FigureName.PRECISION),
        *(FigureName.ROUNDS, FigureName.EXECUTIONS, FigureName.OUTLIERS, FigureName.LOOKS),
        *(FigureName.EAGER_FPS, FigureName.EAGER_HALF_WIDTH),
    }
)


@dataclass(frozen=True)
class Row:
    """One labelled value. `href` is set where it names a file of the run."""

    label: str
    value: str
    href: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under one heading."""

    title: str
    rows: tuple[Row, ...]


def rows(*pairs: tuple[str, str]) -> tuple[Row, ...]:
    """Return labelled values without those that are not known."""
    return tuple(Row(label, value) for label, value in pairs if value not in (NO_VALUE, ""))


def known(values: Mapping[str, Scalar | tuple[str, ...]], before: str = "") -> tuple[Row, ...]:
    """Return versions or other values by their own names, `before` each of them."""
    return rows(
        *(
            (before + _LABELS.get(name, formats.line(name, 80)), datum(value))
            for name, value in values.items()
        )
    )


def fields(value: Any, *left_out: str, only: Sequence[str] = ()) -> tuple[Row, ...]:
    """Return the plain fields of a dataclass, in the units that their names end with; None has
    none.
    """
    found = []
    for field in dataclasses.fields(value) if value is not None else ():
        name, item = field.name, getattr(value, field.name)
        if name in left_out or (only and name not in only):
            continue
        if not isinstance(item, str | int | float | None):
            continue
        stem, _, unit = name.rpartition("_")
        label = _LABELS.get(name, (stem if unit in _UNITS and stem else name).replace("_", " "))
        if isinstance(item, int | float) and unit in _UNITS:
            found.append((label, _UNITS[unit](item)))
        else:
            found.append((label, datum(item)))
    return rows(*found)


def filled(*groups: Group) -> tuple[Group, ...]:
    """Return the groups that have rows."""
    return tuple(group for group in groups if group.rows)


# What was measured -----------------------------------------------------------------------------


def figures_of(verdict: Verdict, *, measured: bool) -> tuple[Row, ...]:
    """Return the figures of a verdict; `measured`: the rows of its measurement stand beside."""
    return rows(
        *(
            (name.label, datum(value, name.unit))
            for name, value in verdict.figures.items()
            if not (measured and name in _MEASURED)
        ),
        *(
            (f"top-1 at batch size {size}", formats.percent(top1))
            for size, top1 in verdict.top1_by_batch_size.items()
        ),
    )


def accuracy(measured: AccuracyMeasurement) -> tuple[Group, ...]:
    """Return the rows of an accuracy, beside its table of top-1 to top-5."""
    damaged = [one for one in measured.problems if one.code is ProblemCode.NOT_FINITE]
    speed = measured.images_per_second
    images = rows(
        ("images", plain(measured.scores.images)),
        ("images of the set", plain(measured.expected_images)),
        ("outputs with NaN or infinity", datum(damaged[0].data["images"] if damaged else 0)),
        ("time for all images", formats.duration(measured.seconds)),
        ("images a second", NO_VALUE if speed is None else plain(round(speed, 1))),
    )
    if file := measured.predictions_file:
        label = "predictions of each image"
        images += (Row(label, formats.line(file, 200), safe_href(file)),)
    fidelity = measured.fidelity
    if fidelity is None:
        return (Group("Images", images),)
    close = (
        *fields(fidelity, "agreement", "flips_total", "excused_total"),
        *rows(
            ("equal predictions", formats.percent(100 * fidelity.agreement)),
            ("predictions that differ", plain(fidelity.flips_total)),
            ("of these excused by their margin", plain(fidelity.excused_total)),
        ),
    )
    return Group("Images", images), Group("Fidelity to the eager model", close)


def throughput(measured: ThroughputMeasurement) -> tuple[Group, ...]:
    """Return the rows of a throughput, beside the charts of its samples."""
    timing = measured.timing
    means = "means of several executions" if timing.means_only else ""
    counts = ("batch_size", "warmup", "executions", "outliers")
    latency = (
        *fields(timing, *counts, "means_only"),
        *fields(measured, only=("precision_percent",)),
        *rows(
            ("precision asked for was reached", datum(measured.precise)),
            ("samples are", means),
        ),
    )
    how = (
        *rows(("throughput", formats.rate(timing.fps, timing.half_width_percent))),
        *fields(timing, only=counts),
        *rows(("rounds", plain(timing.rounds))),
        *fields(measured, only=("budget_s", "seconds")),
    )
    return filled(
        Group("Latency of one execution", latency),
        Group("How it was measured", how),
        Group("The device meanwhile", _looks(measured.conditions)),
        Group("Eager PyTorch on the same host", _eager(measured)),
        Group("Outputs against the ONNX model", fields(measured.outputs)),
    )


def _eager(measured: ThroughputMeasurement) -> tuple[Row, ...]:
    fastest, ratio = measured.fastest_rival, measured.ratio
    if fastest is None or ratio is None:
        return ()
    name, timing = fastest
    others = {one: timed for one, timed in measured.rivals.items() if one != name}
    return (
        *rows(
            ("throughput", formats.rate(timing.fps, timing.half_width_percent)),
            ("memory format", name),
        ),
        *fields(timing, "batch_size", "means_only", "outliers"),
        *rows(
            ("ratio, compiled to eager", f"{ratio:.3f}"),
            ("half-width of the ratio", formats.percent(measured.half_width_percent)),
            *(
                (other, f"{formats.rate(timed.fps)}, {formats.milliseconds(timed.mean_ms)}")
                for other, timed in others.items()
            ),
        ),
    )


def _answers(answers: Sequence[str]) -> str:
    """`no (9 of 9)`, or each answer with how often it was given."""
    counts = {text: answers.count(text) for text in dict.fromkeys(answers)}
    return ", ".join(f"{text} ({count:,} of {len(answers):,})" for text, count in counts.items())


def _span(readings: Iterable[float | None], unit: str) -> str:
    values = [round(one, 1) for one in readings if one is not None]
    if not values:
        return NO_VALUE
    low, high = plain(min(values)), plain(max(values))
    return f"{low if low == high else f'{low} to {high}'}{formats.SPACE}{unit}"


def _looks(conditions: Sequence[Condition]) -> tuple[Row, ...]:
    """Summarise the looks at a device; nothing where nobody looked."""
    if not conditions:
        return ()
    health = [formats.line(look.health, 40) or "unknown" for look in conditions]
    return rows(
        ("looks", f"{len(conditions):,}"),
        ("health", _answers(health)),
        ("used by others", _answers([look.busy for look in conditions])),
        ("throttled", _answers([look.throttled for look in conditions])),
        ("temperature", _span((look.temperature_c for look in conditions), "°C")),
        ("power", _span((look.power_w for look in conditions), "W")),
    )


# With what, and where --------------------------------------------------------------------------


def circumstances(case: CaseLine, run: RunLine | None) -> tuple[Group, ...]:
    """Return what a case stood on: device, checkpoint, images, host, and versions that are not
    those of the run.
    """
    usual = run.versions if run is not None else {}
    versions = {name: one for name, one in case.versions.items() if usual.get(name) != one}
    preprocessing = rows(("preprocessing", formats.line(case.preprocessing, 1_000)))
    where = rows(
        ("host", formats.line(case.machine.hostname)),
        ("processor", formats.line(case.machine.processor)),
        ("worker", formats.line(case.worker)),
        ("started", formats.moment(case.started)),
        ("duration", formats.duration(case.seconds)),
    )
    return filled(
        Group("Device", _device(case)),
        Group("Checkpoint", fields(case.checkpoint)),
        Group("Images and preprocessing", (*_images(case.images), *preprocessing)),
        Group("Where and when", where),
        Group("Versions of this case", known(versions)),
    )


def chip_and_card(case: CaseLine) -> tuple[str, str]:
    """Return chip and product as the measurement names them, else as the device does."""
    setup = case.throughput.setup if case.throughput is not None else None
    name = case.device.name if case.device is not None else ""
    return (setup.chip or name, setup.card) if setup is not None else (name, "")


def _device(case: CaseLine) -> tuple[Row, ...]:
    device = case.device or DeviceInfo("")
    setup = case.throughput.setup if case.throughput is not None else None
    chip, product = chip_and_card(case)
    held = device.id != ""
    return (
        *rows(
            ("device", formats.line(device.id)),
            ("chip", formats.line(chip)),
            ("card", formats.line(", ".join(part for part in (product, device.card) if part))),
            ("chips on the card", datum(setup.chips if setup else None)),
            ("held alone", datum(device.alone) if held else ""),
            ("waited for it", formats.duration(device.waited_s) if held else ""),
            ("run through", formats.line(device.driver or (setup.driver if setup else ""))),
        ),
        *(fields(setup, "chip", "card", "chips", "driver", "toolchain") if setup else ()),
        *known(device.toolchain),
        *known(device.runtime),
        *known(device.left_out, "not used: "),
    )


def _images(images: ImagesInfo | None) -> tuple[Row, ...]:
    checked = images.checked if images is not None else None
    if checked is None:
        return fields(images)
    each = plain(checked.fewest)
    if checked.fewest != checked.most:
        each += f" to {plain(checked.most)}"
    counted = (
        f"{plain(checked.images)} images, {plain(checked.classes)} classes, {each} of each; "
        f"classes compared with those that are known: {plain(checked.known)}; "
        f"labels without an image: {plain(checked.labels_without_image)}"
    )
    return *fields(images), Row("found in the folder", counted)


def device_line(case: CaseLine) -> str:
    """`ascend310p3-1, Ascend310P3, Atlas 300I Pro, CANN 8.0.RC2, driver 23.0.0, ...`."""
    device = case.device
    if device is None:
        return ""
    tools = (("CANN", "cann"), ("driver", "driver"), ("firmware", "firmware"))
    parts = [
        device.id,
        *chip_and_card(case),
        *(f"{name} {device.toolchain[key]}" for name, key in tools if device.toolchain.get(key)),
        f"run through {device.driver}" if device.driver else "",
    ]
    return ", ".join(_each(parts))


def toolchain(cases: Sequence[CaseLine]) -> tuple[Row, ...]:
    """Return every device of a run with its chip and card, then the versions that drove them."""
    hosts = {case.machine.hostname for case in cases}
    devices: dict[str, dict[str, None]] = {}  # label -> what was said of it, each once
    tools: dict[str, dict[str, None]] = {"CANN": {}, "driver": {}, "firmware": {}}
    for case in cases:
        device = case.device or DeviceInfo("")
        versions = {**device.toolchain, **case.versions}
        for name, said in tools.items():
            said.update(_each((versions.get(name.lower()),)))
        if device.id:
            label = formats.line(device.id, 80)
            if len(hosts) > 1:
                label += f" on {formats.line(case.machine.hostname, 80)}"
            devices.setdefault(label, {}).update(_each((*chip_and_card(case), device.card)))
    found = [Row(label, ", ".join(texts)) for label, texts in devices.items()]
    if len(found) > DEVICES_SHOWN:
        found[DEVICES_SHOWN:] = [Row("and more", f"{len(found) - DEVICES_SHOWN:,} devices")]
    for name, said in tools.items():
        found += rows((name, " / ".join(list(said)[:VERSIONS_SHOWN])))
    return tuple(found)


def _each(values: Iterable[Scalar]) -> dict[str, None]:
    """The texts of what is known, as the keys of a dict, which keep their order."""
    return dict.fromkeys(formats.line(str(value), 80) for value in values if value)
