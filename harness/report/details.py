"""Parts of a case beside its verdict: its device, what it looked like, attempts, diagnosis.

Everything here reads JSON of any shape: a record is shown, never trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from harness.base.terms import Provenance
from harness.records.lines import CaseLine
from harness.report import charts, figures, provenance
from harness.report.figures import NO_VALUE, Row

ATTEMPTS_SHOWN = 8
DEVICES_SHOWN = 24
SECTIONS_SHOWN = 12
ROWS_SHOWN = 60
COLUMNS_SHOWN = 12
COMMANDS_SHOWN = 12
# What `harness.images.dataset.check` counts.
_CHECKED = ("images", "classes", "fewest", "most", "known", "labels_without_image")


def rows(*pairs: tuple[str, str]) -> tuple[Row, ...]:
    """Labelled figures without those that are not known."""
    return tuple(Row(label, value) for label, value in pairs if value != NO_VALUE)


# The device ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """A device on which the case failed before it was tried on another."""

    device: str
    stage: str
    error: str
    why: str


def attempts(case: CaseLine, told: Callable[[str], str]) -> tuple[Attempt, ...]:
    """Devices that were set aside while the case ran, in order; `told`: what a page may say."""
    found = case.device.get("failed_before")
    items = found if isinstance(found, list) else []
    return tuple(_attempt(item, told) for item in items[:ATTEMPTS_SHOWN])


def _attempt(item: Any, told: Callable[[str], str]) -> Attempt:
    data = figures.mapping(item)
    device, stage, error, why = (
        figures.line(told(str(data.get(key) or "")), 400)
        for key in ("device", "stage", "error", "why")
    )
    return Attempt(device, stage, error, "" if why == error else why)


def device_rows(case: CaseLine) -> tuple[Row, ...]:
    """The device, its card, its tools, and how the measurement was made on it."""
    device = figures.mapping(case.device)
    tools = figures.mapping(device.pop("toolchain", None))
    setup = figures.mapping(case.measurement.get("setup"))
    for key in ("failed_before", "commands"):
        device.pop(key, None)
    chip, name = figures.scalar(setup.get("chip")), figures.scalar(device.pop("name", None))
    # A product is known after a measurement alone; the slot of the card always.
    card, slot = figures.scalar(setup.get("card")), figures.scalar(device.pop("card", None))
    chips = figures.number(setup.get("chips"))
    tuning = setup.get("tuning")
    return (
        *rows(
            ("device", figures.scalar(device.pop("id", None))),
            ("chip", chip if chip != NO_VALUE else name),
            ("card", ", ".join(part for part in (card, slot) if part != NO_VALUE) or NO_VALUE),
            ("chips on the card", NO_VALUE if chips is None else figures.plain(chips)),
            ("held alone", figures.scalar(device.pop("alone", None))),
            ("waited for it", figures.duration(figures.number(device.pop("waited_s", None)))),
            ("CANN", figures.scalar(tools.pop("cann", None))),
            ("driver of the device", figures.scalar(tools.pop("driver", None))),
            ("firmware", figures.scalar(tools.pop("firmware", None))),
            ("run through", figures.scalar(device.pop("driver", None) or setup.get("driver"))),
            ("method", figures.scalar(setup.get("method"))),
            ("tuning", "none" if tuning == "none" else figures.scalar(tuning)),
            ("about the setup", figures.scalar(setup.get("note"))),
        ),
        *figures.flatten(device),
        *(Row(f"toolchain: {row.label}", row.value) for row in figures.flatten(tools)),
    )


def toolchain_rows(cases: Sequence[CaseLine]) -> tuple[Row, ...]:
    """Every device of a run with its chip and card, then the versions of what drove them."""
    hosts = {case.machine.hostname for case in cases}
    found: dict[str, dict[str, None]] = {}  # label -> what was said of it, each once
    tools: dict[str, dict[str, None]] = {"CANN": {}, "driver": {}, "firmware": {}}
    for case in cases:
        device = figures.mapping(case.device)
        setup = figures.mapping(case.measurement.get("setup"))
        if device.get("id"):
            label = figures.line(str(device["id"]), 80)
            if len(hosts) > 1:
                label += f" on {figures.line(case.machine.hostname, 80)}"
            said = (setup.get("chip") or device.get("name"), setup.get("card"), device.get("card"))
            found.setdefault(label, {}).update(_each(said))
        known = {**figures.mapping(device.get("toolchain")), **case.versions}
        for name, versions in tools.items():
            versions.update(_each((known.get(name.lower()),)))
    rows = [Row(label, ", ".join(texts)) for label, texts in found.items()]
    if len(rows) > DEVICES_SHOWN:
        rows[DEVICES_SHOWN:] = [Row("and more", f"{len(rows) - DEVICES_SHOWN:,} devices")]
    rows += [Row(name, " / ".join(list(texts)[:8])) for name, texts in tools.items() if texts]
    return tuple(rows)


def _each(values: Iterable[Any]) -> dict[str, None]:
    """The texts of what is known, as the keys of a dict, which keep their order."""
    return dict.fromkeys(figures.line(str(value), 80) for value in values if value)


def image_rows(case: CaseLine) -> tuple[Row, ...]:
    """The images, and what was counted in their folder before a part of them was chosen."""
    images = figures.mapping(case.images)
    checked = figures.mapping(images.pop("checked", None))
    counts = {key: figures.number(checked.get(key)) for key in _CHECKED}
    shown = {key: figures.plain(count) for key, count in counts.items() if count is not None}
    if len(shown) < len(_CHECKED):  # generated images, or a record of another version
        return (*figures.flatten(images), *figures.flatten(checked))
    same = counts["fewest"] == counts["most"]
    each = shown["fewest"] if same else f"{shown['fewest']} to {shown['most']}"
    parts = (
        f"{shown['images']} images, {shown['classes']} classes, {each} of each",
        f"classes compared with those that are known: {shown['known']}",
        f"labels without an image: {shown['labels_without_image']}",
    )
    return (*figures.flatten(images), Row("found in the folder", "; ".join(parts)))


def device_line(case: CaseLine) -> str:
    """The device in a line: `ascend310p3-1, Ascend310P3, Atlas 300I Pro, CANN 8.0.RC2, ...`."""
    device, setup = figures.mapping(case.device), figures.mapping(case.measurement.get("setup"))
    tools = figures.mapping(device.get("toolchain"))
    parts = [
        device.get("id"),
        setup.get("chip") or device.get("name"),
        setup.get("card"),
        f"CANN {tools['cann']}" if tools.get("cann") else None,
        f"driver {tools['driver']}" if tools.get("driver") else None,
        f"firmware {tools['firmware']}" if tools.get("firmware") else None,
        f"run through {device['driver']}" if device.get("driver") else None,
    ]
    texts = (figures.line(str(part), 80) for part in parts if part)
    return ", ".join(dict.fromkeys(texts))


def commands(case: CaseLine) -> tuple[str, ...]:
    """Commands that do the case again: pytest's, then the tools' own where the record has them."""
    own = case.device.get("commands")
    if isinstance(own, Mapping):
        items = [f"# {figures.line(str(name), 60)}\n{text}" for name, text in own.items()]
    else:
        items = [str(text) for text in own] if isinstance(own, list) else []
    return tuple(figures.clip(text, 2_000) for text in [*case.repeat, *items][:COMMANDS_SHOWN])


# What it looked like ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Looks:
    """The device over the measurement: a summary, the trouble, a chart of its temperature."""

    rows: tuple[Row, ...]
    trouble: tuple[str, ...]
    temperature: charts.Plot | None


def _troubled(look: Mapping[str, Any]) -> bool:
    health = str(look.get("health") or "")
    unhealthy = health != "" and health.upper() != "OK"
    return unhealthy or look.get("busy") == "yes" or look.get("throttled") == "yes"


def _answers(looks: list[dict[str, Any]], key: str) -> str:
    """`no (9 of 9 looks)`, or each answer with how often it was given."""
    counts: dict[str, int] = {}
    for look in looks:
        text = figures.line(str(look.get(key) or "unknown"), 40)
        counts[text] = counts.get(text, 0) + 1
    return ", ".join(f"{text} ({count:,} of {len(looks):,})" for text, count in counts.items())


def _span(values: list[float], unit: str) -> str:
    if not values:
        return NO_VALUE
    low, high = (figures.plain(round(value, 1)) for value in (min(values), max(values)))
    return f"{low if low == high else f'{low} to {high}'}\N{NO-BREAK SPACE}{unit}"


def looks(conditions: Any) -> Looks | None:
    """What the looks at a device found; `None` where nobody looked."""
    items = conditions if isinstance(conditions, list) else []
    found = [look for item in items[:5_000] if (look := figures.mapping(item))]
    if not found:
        return None
    temperatures = [figures.number(look.get("temperature_c")) for look in found]
    powers = [figures.number(look.get("power_w")) for look in found]
    points = [
        (seconds, temperature, _troubled(look))
        for look, temperature in zip(found, temperatures, strict=True)
        if (seconds := figures.number(look.get("seconds"))) is not None and temperature is not None
    ]
    trouble = dict.fromkeys(_describe(look) for look in found if _troubled(look))
    return Looks(
        rows=rows(
            ("looks", f"{len(found):,}"),
            ("health", _answers(found, "health")),
            ("used by others", _answers(found, "busy")),
            ("throttled", _answers(found, "throttled")),
            ("temperature", _span([t for t in temperatures if t is not None], "°C")),
            ("power", _span([p for p in powers if p is not None], "W")),
        ),
        trouble=tuple(list(trouble)[:6]),
        temperature=charts.over_time("Temperature of the device", points, unit="°C"),
    )


def _describe(look: Mapping[str, Any]) -> str:
    parts = []
    health = str(look.get("health") or "")
    if health and health.upper() != "OK":
        parts.append(f"unhealthy ({figures.line(health, 40)})")
    if look.get("busy") == "yes":
        parts.append("busy")
    if look.get("throttled") == "yes":
        parts.append("throttled")
    note = figures.line(str(look.get("note") or ""), 120)
    moment = figures.line(str(look.get("moment") or ""), 20)
    return f"{' and '.join(parts)} {moment} the measurement" + (f" ({note})" if note else "")


# Intervals -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IntervalView:
    """An accuracy beside its reference: what is compared, in words, and its place on an axis."""

    label: str
    text: str
    interval: charts.Interval
    shape: charts.IntervalShape
    reach: str


def _points(value: float) -> str:
    return figures.difference(value, "points")


def _pair(value: Any) -> tuple[float, float] | None:
    found = figures.numbers(value)
    return (found[0], found[1]) if len(found) == 2 else None


def intervals(case: CaseLine) -> tuple[IntervalView, ...]:
    """The intervals that a real accuracy was judged by, as its verdict recorded them."""
    if case.verdict is None or case.check != "accuracy":
        return ()
    data, drop = case.verdict.figures, "a drop" in case.verdict.rule
    published = figures.number(data.get("published top-1, %"))
    found: list[tuple[str, str, charts.Interval]] = []

    def band(points: float) -> tuple[float | None, float | None]:
        return (-points, None) if drop else (-points, points)

    known = _pair(data.get("99 % interval of the difference, points"))
    difference = figures.number(data.get("difference, points"))
    allowed = figures.number(data.get("tolerance, points"))
    if known is not None and difference is not None and allowed is not None:
        text = (
            f"{_points(difference)}, 99 % interval {_points(known[0])} to {_points(known[1])}, "
            f"{'a drop of' if drop else '±'} {allowed:.2f} allowed"
        )
        interval = charts.Interval(difference, known, band(allowed))
        found.append(("compiled against eager, same images", text, interval))
        eager = figures.number(data.get("top-1 eager, %"))
        own = _pair(data.get("99.9 % interval of eager's top-1, %"))
        if eager is not None and own is not None and published is not None:
            off = eager - published
            reach = (own[0] - published, own[1] - published)
            text = (
                f"{_points(off)}, 99.9 % interval {_points(reach[0])} to {_points(reach[1])}: it "
                "must hold 0"
            )
            found.append(("eager against the published", text, charts.Interval(off, reach, None)))
    else:
        measured = figures.number(data.get("top-1, %"))
        tolerance = figures.number(data.get("tolerance"))
        if measured is not None and published is not None and tolerance is not None:
            off, points = measured - published, tolerance * published
            text = f"{_points(off)}, {'a drop of' if drop else '±'} {points:.2f} allowed"
            interval = charts.Interval(off, None, band(points))
            found.append(("compiled against the published", text, interval))
    return tuple(_interval_view(label, text, interval, 0.0) for label, text, interval in found)


def _interval_view(label: str, text: str, interval: charts.Interval, reach: float) -> IntervalView:
    reach = reach or charts.interval_axis([interval])
    shape = charts.interval_shape(interval, reach)
    return IntervalView(label, text, interval, shape, f"{reach:g}")


def on_one_axis(views: list[IntervalView]) -> list[IntervalView]:
    """The same intervals on an axis that holds all of them."""
    reach = charts.interval_axis([view.interval for view in views])
    return [_interval_view(view.label, view.text, view.interval, reach) for view in views]


# Diagnosis -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A table of a diagnosis, or a text."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int  # rows that are not shown


@dataclass(frozen=True)
class Diagnosis:
    """Where a wrong result went wrong."""

    summary: str
    stage: str
    suspect: str
    sections: tuple[Section, ...]
    commands: tuple[str, ...]


class _Budget:
    """Bounds the characters of one diagnosis; withholds what a page must not say."""

    def __init__(self, limit: int, kind: Provenance) -> None:
        self.left = limit
        self._silent = kind != "real"

    def take(self, value: Any, limit: int) -> str:
        text = "" if value is None else figures.scalar(value, limit)
        if self._silent and provenance.claims(text):
            text = provenance.WITHHELD
        self.left -= len(escape(text)) + 20  # the cell's own markup
        return text if self.left > 0 else ""


def diagnosis(data: Mapping[str, Any], kind: Provenance, *, limit: int) -> Diagnosis | None:
    """A recorded diagnosis within `limit` characters; `None` where there is none."""
    if not data:
        return None
    budget = _Budget(limit, kind)
    found = data.get("sections")
    sections = [
        _section(figures.mapping(item), budget)
        for item in (found if isinstance(found, list) else [])[:SECTIONS_SHOWN]
        if budget.left > 0
    ]
    own = data.get("commands")
    return Diagnosis(
        summary=budget.take(data.get("summary"), 2_000),
        stage=budget.take(data.get("stage"), 200),
        suspect=budget.take(data.get("suspect"), 400),
        sections=tuple(section for section in sections if section.rows or section.text),
        commands=tuple(
            figures.clip(str(text), 2_000)
            for text in (own if isinstance(own, list) else [])[:COMMANDS_SHOWN]
        ),
    )


def _section(data: Mapping[str, Any], budget: _Budget) -> Section:
    columns = data.get("columns")
    heads = columns if isinstance(columns, list) else []
    items = data.get("rows")
    wanted = items if isinstance(items, list) else []
    shown: list[tuple[str, ...]] = []
    for item in wanted[:ROWS_SHOWN]:
        if budget.left <= 0:
            break
        cells = list(item.values()) if isinstance(item, Mapping) else item
        if not isinstance(cells, list):
            cells = [cells]
        shown.append(tuple(budget.take(cell, 200) for cell in cells[:COLUMNS_SHOWN]))
    width = max([len(heads), *map(len, shown)], default=0)
    width = min(width, COLUMNS_SHOWN)
    names = [budget.take(head, 80) for head in heads[:width]]
    return Section(
        title=budget.take(data.get("title"), 200),
        text=budget.take(data.get("text"), 4_000),
        columns=tuple([*names, *[""] * (width - len(names))] if names else []),
        rows=tuple((*row, *[""] * (width - len(row))) for row in shown),
        left=len(wanted) - len(shown),
    )
