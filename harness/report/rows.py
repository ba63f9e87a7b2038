"""Labelled values under headings: what was measured, with what, on which device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.base.host import Machine
from harness.pages import formats
from harness.pages.formats import NO_VALUE, datum, plain
from harness.pages.html import safe_href
from harness.records.conditions import Condition
from harness.records.lines import CaseLine
from harness.records.values import (
    AccuracyMeasurement,
    DeviceInfo,
    FigureName,
    ImagesInfo,
    ProblemCode,
    Scalar,
    ThroughputMeasurement,
    Timing,
    Verdict,
)

_TOOLS = {"cann": "CANN", "driver": "driver of the device"}
DEVICES_SHOWN = 24
VERSIONS_SHOWN = 8

# Figures of a verdict that the rows of its measurement say as well.
_MEASURED = frozenset(
    {
        FigureName.IMAGES,
        FigureName.CORRECT,
        FigureName.TOP1,
        FigureName.EAGER_TOP1,
        FigureName.LOGITS_L2,
        FigureName.LOGITS_MAX,
        FigureName.FLIPS,
        FigureName.FLIPS_EXCUSED,
        FigureName.MEAN_MS,
        FigureName.MEAN_HALF_WIDTH,
        FigureName.PRECISION,
        FigureName.ROUNDS,
        FigureName.EXECUTIONS,
        FigureName.OUTLIERS,
        FigureName.LOOKS,
        FigureName.EAGER_FPS,
        FigureName.EAGER_HALF_WIDTH,
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


def known(values: Mapping[str, Scalar | tuple[str, ...]]) -> tuple[Row, ...]:
    """Return versions or other values by their own names."""
    return rows(*((formats.line(name, 80), datum(value)) for name, value in values.items()))


def filled(groups: Iterable[Group]) -> tuple[Group, ...]:
    """Return the groups that have rows."""
    return tuple(group for group in groups if group.rows)


# What was measured -----------------------------------------------------------------------------


def figures_of(verdict: Verdict, *, measured: bool) -> tuple[Row, ...]:
    """Return the figures of a verdict; `measured`: the rows of its measurement stand beside."""
    sizes = {f"top-1 at batch size {n}": top1 for n, top1 in verdict.top1_by_batch_size.items()}
    return rows(
        *(
            (name.label, datum(value, name.unit))
            for name, value in verdict.figures.items()
            if not (measured and name in _MEASURED)
        ),
        *((label, formats.percent(top1)) for label, top1 in sizes.items()),
    )


def accuracy(measured: AccuracyMeasurement) -> list[Group]:
    """Return the rows of an accuracy, beside its table of top-1 to top-5."""
    bad = sum(
        int(str(problem.data.get("images", 0)))
        for problem in measured.problems
        if problem.code is ProblemCode.NOT_FINITE
    )
    speed = measured.images_per_second
    passed = rows(
        ("images", plain(measured.scores.images)),
        ("images of the set", plain(measured.expected_images)),
        ("outputs with NaN or infinity", plain(bad)),
        ("time for all images", formats.duration(measured.seconds)),
        ("images a second", NO_VALUE if speed is None else plain(round(speed, 1))),
    )
    if file := measured.predictions_file:
        label = "predictions of each image"
        passed += (Row(label, formats.line(file, 200), safe_href(file)),)
    fidelity = measured.fidelity
    groups = [Group("Images", passed)]
    if fidelity is not None:
        groups.append(
            Group(
                "Fidelity to the eager model",
                rows(
                    ("relative L2 of the logits", plain(fidelity.relative_l2)),
                    ("largest absolute difference", plain(fidelity.max_abs)),
                    ("equal predictions", formats.percent(100 * fidelity.agreement)),
                    ("predictions that differ", plain(fidelity.flips_total)),
                    ("of these excused by their margin", plain(fidelity.excused_total)),
                ),
            )
        )
    return groups


def _timing(timing: Timing) -> tuple[tuple[str, str], ...]:
    return (
        ("mean", formats.milliseconds(timing.mean_ms)),
        ("median", formats.milliseconds(timing.median_ms)),
        ("99th percentile", formats.milliseconds(timing.p99_ms)),
        ("fastest", formats.milliseconds(timing.min_ms)),
        ("slowest", formats.milliseconds(timing.max_ms)),
        ("coefficient of variation", formats.percent(timing.cv_percent)),
        ("half-width of the mean's 99 % interval", formats.percent(timing.half_width_percent)),
    )


def throughput(measured: ThroughputMeasurement) -> list[Group]:
    """Return the rows of a throughput, beside the charts of its samples."""
    timing, outputs = measured.timing, measured.outputs
    means = "means of several executions" if timing.means_only else NO_VALUE
    groups = [
        Group(
            "Latency of one execution",
            rows(
                *_timing(timing),
                ("precision asked for", formats.percent(measured.precision_percent)),
                ("precision asked for was reached", datum(measured.precise)),
                ("samples are", means),
                ("outliers", plain(timing.outliers)),
            ),
        ),
        Group(
            "How it was measured",
            rows(
                ("throughput", formats.rate(timing.fps, timing.half_width_percent)),
                ("batch size", plain(timing.batch_size)),
                ("warm-up executions", plain(timing.warmup)),
                ("rounds", plain(timing.rounds)),
                ("executions", plain(timing.executions)),
                ("budget", formats.duration(measured.budget_s)),
                ("time measured", formats.duration(measured.seconds)),
            ),
        ),
        Group("The device meanwhile", looks(measured.conditions)),
        Group("Eager PyTorch on the same host", _eager(measured)),
    ]
    if outputs is not None:
        l2 = ("relative L2", plain(outputs.relative_l2))
        groups.append(
            Group("Outputs against the ONNX model", rows(l2, ("bound", plain(outputs.bound))))
        )
    return groups


def _eager(measured: ThroughputMeasurement) -> tuple[Row, ...]:
    fastest, ratio = measured.fastest_rival, measured.ratio
    if fastest is None or ratio is None:
        return ()
    name, timing = fastest
    formats_timed = (
        (name, f"{formats.rate(one.fps)}, {formats.milliseconds(one.mean_ms)}")
        for name, one in measured.rivals.items()
    )
    return rows(
        ("throughput", formats.rate(timing.fps, timing.half_width_percent)),
        ("memory format", name),
        *_timing(timing),
        ("warm-up executions", plain(timing.warmup)),
        ("executions", plain(timing.executions)),
        ("ratio, compiled to eager", f"{ratio:.3f}"),
        ("half-width of the ratio", formats.percent(measured.half_width_percent)),
        *(formats_timed if len(measured.rivals) > 1 else ()),
    )


# What the device looked like -------------------------------------------------------------------


def _answers(answers: Sequence[str]) -> str:
    """`no (9 of 9)`, or each answer with how often it was given."""
    counts = {text: answers.count(text) for text in dict.fromkeys(answers)}
    return ", ".join(f"{text} ({count:,} of {len(answers):,})" for text, count in counts.items())


def _span(values: Sequence[float], unit: str) -> str:
    if not values:
        return NO_VALUE
    low, high = (plain(round(value, 1)) for value in (min(values), max(values)))
    return f"{low if low == high else f'{low} to {high}'}{formats.SPACE}{unit}"


def looks(conditions: Sequence[Condition]) -> tuple[Row, ...]:
    """Summarise the looks at a device; nothing where nobody looked."""
    if not conditions:
        return ()
    temperatures = [look.temperature_c for look in conditions if look.temperature_c is not None]
    powers = [look.power_w for look in conditions if look.power_w is not None]
    health = [formats.line(look.health, 40) or "unknown" for look in conditions]
    return rows(
        ("looks", f"{len(conditions):,}"),
        ("health", _answers(health)),
        ("used by others", _answers([look.busy for look in conditions])),
        ("throttled", _answers([look.throttled for look in conditions])),
        ("temperature", _span(temperatures, "°C")),
        ("power", _span(powers, "W")),
    )


# With what, and where --------------------------------------------------------------------------


def circumstances(case: CaseLine) -> tuple[Group, ...]:
    """Return what a case stood on: device, checkpoint, images, host, versions."""
    checkpoint, images = case.checkpoint, case.images
    weights = (
        ()
        if checkpoint is None
        else rows(
            ("source", checkpoint.source),
            ("file", formats.line(checkpoint.file)),
            ("sha256", checkpoint.sha256),
            ("md5", checkpoint.md5),
            ("address", formats.line(checkpoint.url)),
            ("layout", formats.line(checkpoint.layout)),
            ("verified by a published digest", datum(checkpoint.verified)),
        )
    )
    preprocessing = rows(("preprocessing", formats.line(case.preprocessing, 1_000)))
    where = rows(
        ("host", formats.line(case.machine.hostname)),
        ("processor", formats.line(case.machine.processor)),
        ("worker", formats.line(case.worker)),
        ("started", formats.moment(case.started)),
        ("duration", formats.duration(case.seconds)),
    )
    return filled(
        (
            Group("Device", _device(case)),
            Group("Checkpoint", weights),
            Group("Images and preprocessing", (*_images(images), *preprocessing)),
            Group("Where and when", where),
            Group("Versions of this case", known(case.versions)),
        )
    )


def _device(case: CaseLine) -> tuple[Row, ...]:
    device = case.device or DeviceInfo("")
    setup = case.throughput.setup if case.throughput is not None else None
    tools = {_TOOLS.get(name, name): version for name, version in device.toolchain.items()}
    card = ", ".join(part for part in (setup.card if setup else "", device.card) if part)
    left_out = {f"not used: {name}": why for name, why in device.left_out.items()}
    return (
        *rows(
            ("device", formats.line(device.id)),
            ("chip", formats.line((setup.chip if setup else "") or device.name)),
            ("card", formats.line(card)),
            ("chips on the card", datum(setup.chips if setup else None)),
            ("held alone", datum(device.alone) if device.id else ""),
            ("waited for it", formats.duration(device.waited_s) if device.id else ""),
            ("run through", formats.line(device.driver or (setup.driver if setup else ""))),
            ("method", formats.line(setup.method) if setup else ""),
            ("tuning", formats.line(setup.tuning) if setup else ""),
            ("about the setup", formats.line(setup.note) if setup else ""),
        ),
        *known(tools),
        *known(device.runtime),
        *known(left_out),
    )


def _images(images: ImagesInfo | None) -> tuple[Row, ...]:
    if images is None:
        return ()
    checked, counted = images.checked, ""
    if checked is not None:
        each = plain(checked.fewest)
        if checked.fewest != checked.most:
            each += f" to {plain(checked.most)}"
        counted = (
            f"{plain(checked.images)} images, {plain(checked.classes)} classes, {each} of each; "
            f"classes compared with those that are known: {plain(checked.known)}; "
            f"labels without an image: {plain(checked.labels_without_image)}"
        )
    return rows(
        ("source", images.source),
        ("folder", formats.line(images.root)),
        ("count", plain(images.count)),
        ("digest", images.digest),
        ("layout", formats.line(images.layout)),
        ("labels", formats.line(images.labels)),
        ("selection", formats.line(images.selection)),
        ("digest of what was fed", images.contents),
        ("found in the folder", counted),
    )


def device_line(case: CaseLine) -> str:
    """`ascend310p3-1, Ascend310P3, Atlas 300I Pro, CANN 8.0.RC2, driver 23.0.0, ...`."""
    device = case.device
    if device is None:
        return ""
    setup = case.throughput.setup if case.throughput is not None else None
    tools = (("CANN", "cann"), ("driver", "driver"), ("firmware", "firmware"))
    parts = [
        device.id,
        (setup.chip if setup else "") or device.name,
        setup.card if setup else "",
        *(f"{name} {device.toolchain[key]}" for name, key in tools if device.toolchain.get(key)),
        f"run through {device.driver}" if device.driver else "",
    ]
    return ", ".join(dict.fromkeys(formats.line(part, 80) for part in parts if part))


# Of the run ------------------------------------------------------------------------------------


def machine(host: Machine) -> tuple[Row, ...]:
    """Return the rows of a host."""
    memory = f"{host.memory_gib:,.1f}{formats.SPACE}GiB" if host.memory_gib else ""
    return rows(
        ("host", formats.line(host.hostname)),
        ("system", formats.line(host.system)),
        ("architecture", formats.line(host.architecture)),
        ("processor", formats.line(host.processor)),
        ("cores", str(host.cores) if host.cores else ""),
        ("memory", memory),
    )


def toolchain(cases: Sequence[CaseLine]) -> tuple[Row, ...]:
    """Return every device of a run with its chip and card, then the versions that drove them."""
    hosts = {case.machine.hostname for case in cases}
    devices: dict[str, dict[str, None]] = {}  # label -> what was said of it, each once
    tools: dict[str, dict[str, None]] = {"CANN": {}, "driver": {}, "firmware": {}}
    for case in cases:
        device = case.device
        versions = {**(device.toolchain if device is not None else {}), **case.versions}
        for name, said in tools.items():
            said.update(_each((versions.get(name.lower()),)))
        if device is not None and device.id:
            setup = case.throughput.setup if case.throughput is not None else None
            label = formats.line(device.id, 80)
            if len(hosts) > 1:
                label += f" on {formats.line(case.machine.hostname, 80)}"
            chip, card = (setup.chip, setup.card) if setup else ("", "")
            devices.setdefault(label, {}).update(_each((chip or device.name, card, device.card)))
    found = [Row(label, ", ".join(texts)) for label, texts in devices.items()]
    if len(found) > DEVICES_SHOWN:
        found[DEVICES_SHOWN:] = [Row("and more", f"{len(found) - DEVICES_SHOWN:,} devices")]
    for name, said in tools.items():
        found += rows((name, " / ".join(list(said)[:VERSIONS_SHOWN])))
    return tuple(found)


def _each(values: Iterable[Scalar]) -> dict[str, None]:
    """The texts of what is known, as the keys of a dict, which keep their order."""
    return dict.fromkeys(formats.line(str(value), 80) for value in values if value)
