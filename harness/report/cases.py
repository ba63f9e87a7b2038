"""One case of a run as a report shows it: every text final, nothing left to decide."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import quote

from harness.base.terms import Provenance
from harness.records.lines import CaseLine, PlannedCase
from harness.records.values import ArtifactRef
from harness.report import charts, details, figures, provenance
from harness.report.figures import NO_VALUE, Row
from harness.report.headline import ATTENTION, LOOKS, Look
from harness.report.stages import artifact_name, stage_name
from harness.report.thumbs import Thumbs

FLIPS_SHOWN = 20
TOP = ("top1", "top2", "top3", "top4", "top5")

# What a reference is called; the short form stands in the cells of the summary.
REFERENCE_WORDS: dict[str, tuple[str, str]] = {
    "published": ("the published figure", "published"),
    "eager": ("eager PyTorch on the same images", "eager"),
    "baseline": ("the baseline", "baseline"),
    "eager-speed": ("eager PyTorch's speed on the same host", "eager"),
    "none": ("nothing comparable", "no reference"),
}


@dataclass(frozen=True)
class Log:
    """The end of a log. `note` says what was cut, `href` leads to the whole file."""

    text: str
    note: str = ""
    href: str = ""
    file: str = ""


@dataclass(frozen=True)
class Reference:
    """What the measurement was held against; `href` is set when the source is an address."""

    words: str
    short: str
    value: str
    source: str
    href: str
    note: str


@dataclass(frozen=True)
class Failure:
    """An error of a stage, its remedy and the tool's log."""

    type: str
    stage: str
    message: str
    remedy: str
    log: Log | None


@dataclass(frozen=True)
class Artifact:
    """One artifact of a case."""

    kind: str
    key: str
    digest: str
    size: str
    cached: bool
    log: Log | None


@dataclass(frozen=True)
class TopLine:
    """Top-k of the compiled and of the eager model. `share` is the bar's length in percent."""

    name: str
    correct: str
    compiled: str
    share: float
    eager: str
    difference: str


@dataclass(frozen=True)
class Flip:
    """An image on which the compiled and the eager model differ. `thumb` is a data URI."""

    name: str
    label: str
    reference: str
    compiled: str
    reference_score: str
    compiled_score: str
    margin: str
    excused: str
    thumb: str


@dataclass(frozen=True)
class Group:
    """Labelled figures under one heading."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class CaseView:
    """Everything the page says about one case."""

    anchor: str
    look: Look
    name: str
    nodeid: str
    model: str
    title: str
    batch_size: int
    target: str
    check: str
    provenance: Provenance
    sentence: str
    open: bool = False
    verdict_sentence: str = ""
    rule: str = ""
    measured: str = NO_VALUE
    reference: Reference | None = None
    difference: str = NO_VALUE
    withheld: bool = False  # there was a comparison that must not be shown
    notes: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    top: tuple[TopLine, ...] = ()
    flips: tuple[Flip, ...] = ()
    flips_left: int = 0
    samples: charts.Samples | None = None
    looks: details.Looks | None = None
    intervals: tuple[details.IntervalView, ...] = ()
    device: str = ""
    attempts: tuple[details.Attempt, ...] = ()
    diagnosis: details.Diagnosis | None = None
    error: Failure | None = None
    artifacts: tuple[Artifact, ...] = ()
    stages: tuple[charts.Segment, ...] = ()
    circumstances: tuple[Group, ...] = ()
    repeat: tuple[str, ...] = ()
    seconds: str = NO_VALUE


@dataclass
class Anchors:
    """Unique, harmless element ids for cases; the same records give the same ids."""

    taken: set[str] = field(default_factory=set)

    def take(self, case: str, check: str) -> str:
        """An id such as `case-squeezenet1_1-bs4-cpu-accuracy`."""
        base = "case-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{case}-{check}")[:120]
        anchor, count = base, 1
        while anchor in self.taken:
            count += 1
            anchor = f"{base}-{count}"
        self.taken.add(anchor)
        return anchor


def safe_href(path: str) -> str:
    """A link to a file under the run directory; empty for anything that could lead elsewhere."""
    parts = path.split("/")
    if not path or "\\" in path or ":" in parts[0] or any(part in ("", "..") for part in parts):
        return ""
    try:
        return quote(path)
    except UnicodeEncodeError:
        return ""


def web_href(source: str) -> str:
    """The address in a source, when it is nothing but an https address."""
    return source if re.fullmatch(r"https://[^\s<>\"'\\]{1,500}", source) else ""


def tail(text: str, limit: int, file: str = "") -> Log | None:
    """The last part of a log, bounded to about `limit` characters of HTML."""
    # A log may be long: what is far before its end is not even looked at.
    text = text.strip("\n")
    before = max(0, len(text) - 4 * limit)
    text = figures.clean(text[before:])
    if not text and not file:
        return None
    shown = text[-limit:]
    while len(escape(shown)) > limit and len(shown) > 1:
        shown = shown[-max(1, len(shown) * limit // len(escape(shown)) - 1) :]
    note = ""
    if len(shown) < before + len(text):
        _, newline, rest = shown.partition("\n")
        shown = rest if newline and rest else shown
        note = f"The first {before + len(text) - len(shown):,} characters are cut here."
    return Log(shown, note, safe_href(file), figures.clip(file, 200))


def count_logs(cases: Sequence[CaseLine]) -> int:
    """How many logs a page of these cases would hold."""
    errors = sum(1 for case in cases if case.error is not None and case.error.log)
    return errors + sum(1 for case in cases for artifact in case.artifacts if artifact.log)


def _reference(info: Reference, unit: str) -> Reference:
    words, short = REFERENCE_WORDS.get(info.kind, (figures.clip(info.kind, 60),) * 2)
    source = figures.clip(info.source, 400)
    return Reference(
        words=words,
        short=short,
        value=figures.figure(info.value, info.unit or unit),
        source=source,
        href=web_href(info.source),
        note=figures.clip(info.note, 1_000),
    )


class _Reader:
    """Takes known keys out of a measurement, so that what is left can be shown as well."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.left = figures.mapping(data)

    def number(self, key: str) -> float | None:
        return figures.number(self.left.pop(key, None))

    def scalar(self, key: str) -> str:
        return figures.scalar(self.left.pop(key, None))

    def numbers(self, key: str) -> list[float]:
        return figures.numbers(self.left.pop(key, None))

    def child(self, key: str) -> _Reader:
        return _Reader(figures.mapping(self.left.pop(key, None)))

    def items(self, key: str) -> list[Any]:
        value = self.left.pop(key, None)
        return list(value) if isinstance(value, list | tuple) else []

    def rest(self) -> tuple[Row, ...]:
        return tuple(row for row in figures.flatten(self.left) if row.value != NO_VALUE)


def _rows(*pairs: tuple[str, str]) -> tuple[Row, ...]:
    return tuple(Row(label, value) for label, value in pairs if value != NO_VALUE)


def _top(
    correct: Sequence[float], images: float | None, compiled: _Reader, eager: _Reader
) -> tuple[TopLine, ...]:
    lines = []
    for index, key in enumerate(TOP):
        value, reference = compiled.number(key), eager.number(key)
        right = correct[index] if index < len(correct) else None
        if value is None and right is not None and images:
            value = 100 * right / images
        if value is None and reference is None:
            continue
        gap = None if value is None or reference is None else value - reference
        lines.append(
            TopLine(
                name=f"top-{index + 1}",
                correct=NO_VALUE if right is None else figures.plain(right),
                compiled=figures.percent(value),
                share=min(100.0, max(0.0, round(value or 0.0, 1))),
                eager=figures.percent(reference),
                difference=figures.difference(gap, "points"),
            )
        )
    return tuple(lines)


def _flip(item: Any, images: Mapping[str, Any], thumbs: Thumbs | None) -> Flip:
    data = _Reader(figures.mapping(item))
    thumb = "" if thumbs is None else thumbs.uri(images, data.left.get("name"))
    return Flip(
        name=data.scalar("name"),
        label=data.scalar("label"),
        reference=data.scalar("reference"),
        compiled=data.scalar("compiled"),
        # Records of earlier versions have no scores.
        reference_score=data.scalar("reference_score"),
        compiled_score=data.scalar("compiled_score"),
        margin=data.scalar("margin"),
        excused=data.scalar("excused"),
        thumb=thumb,
    )


def _accuracy(
    data: _Reader, images_info: Mapping[str, Any], thumbs: Thumbs | None
) -> dict[str, Any]:
    images = data.number("images")
    correct = data.numbers("correct")
    eager = data.child("eager")
    fidelity = data.child("fidelity")
    top = _top(correct, images, data, eager)
    known = bool(fidelity.left)
    flips = fidelity.items("flips")
    flipped = int(fidelity.number("flips_total") or len(flips))
    agreement = fidelity.number("agreement")
    speed = data.number("images_per_second")
    file = str(data.left.pop("predictions_file", "") or "")
    passed_through = _rows(
        ("images", NO_VALUE if images is None else figures.plain(images)),
        ("images of the set", data.scalar("expected_images")),
        ("outputs with NaN or infinity", data.scalar("nan_outputs")),
        ("time for all images", figures.duration(data.number("seconds"))),
        (
            "images a second",
            NO_VALUE if speed is None else figures.plain(round(speed, 1)),
        ),
    )
    if file:
        passed_through += (
            Row("predictions of each image", figures.clip(file, 200), safe_href(file)),
        )
    groups = [
        Group("Images", passed_through),
        Group(
            "Fidelity to the eager model",
            (
                *_rows(
                    ("relative L2 of the logits", fidelity.scalar("relative_l2")),
                    ("largest absolute difference", fidelity.scalar("max_abs")),
                    (
                        "equal predictions",
                        figures.percent(None if agreement is None else 100 * agreement),
                    ),
                    ("predictions that differ", f"{flipped:,}" if known else NO_VALUE),
                    ("of these excused by their margin", fidelity.scalar("excused")),
                ),
                *fidelity.rest(),
            ),
        ),
        Group("Eager PyTorch", eager.rest()),
    ]
    return {
        "top": top,
        "groups": groups,
        "flips": tuple(_flip(item, images_info, thumbs) for item in flips[:FLIPS_SHOWN]),
        "flips_left": max(0, flipped - min(len(flips), FLIPS_SHOWN)),
    }


def _eager_formats(eager: _Reader) -> tuple[Row, ...]:
    rows = []
    for name, value in figures.mapping(eager.left.pop("by_format", None)).items():
        inner = _Reader(figures.mapping(value))
        speed, mean = inner.number("fps"), inner.number("mean_ms")
        if speed is None and mean is None:
            known = figures.number(value)
            text = figures.scalar(value) if known is None else figures.plain(known)
        else:
            parts = (figures.rate(speed), figures.milliseconds(mean))
            text = ", ".join(part for part in parts if part != NO_VALUE)
        rows.append(Row(figures.words(name), text))
    return tuple(rows)


def _throughput(data: _Reader) -> dict[str, Any]:
    samples = data.numbers("samples_ms")
    eager = data.child("eager")
    eager.left.pop("samples_ms", None)
    outputs = data.child("outputs_check")
    ratio = data.number("ratio")
    looks = details.looks(data.left.pop("conditions", None))
    for key in ("setup", "round_sizes"):  # with the device; with the samples
        data.left.pop(key, None)
        eager.left.pop(key, None)
    groups = [
        Group(
            "Latency of one execution",
            _rows(
                ("mean", figures.milliseconds(data.number("mean_ms"))),
                ("median", figures.milliseconds(data.number("median_ms"))),
                ("99th percentile", figures.milliseconds(data.number("p99_ms"))),
                ("fastest", figures.milliseconds(data.number("min_ms"))),
                ("slowest", figures.milliseconds(data.number("max_ms"))),
                ("coefficient of variation", figures.percent(data.number("cv_percent"))),
                (
                    "half-width of the mean's 99 % interval",
                    figures.percent(data.number("half_width_percent")),
                ),
                ("precision asked for", figures.percent(data.number("precision_percent"))),
                ("precision asked for was reached", data.scalar("precision_reached")),
                ("samples are", data.scalar("samples_are")),
            ),
        ),
        Group(
            "How it was measured",
            _rows(
                ("throughput", figures.rate(data.number("fps"))),
                ("batch size", data.scalar("batch_size")),
                ("warm-up executions", data.scalar("warmup")),
                ("rounds", data.scalar("rounds")),
                ("executions", data.scalar("loops")),
                ("budget", figures.duration(data.number("budget_s"))),
                ("time measured", figures.duration(data.number("seconds"))),
            ),
        ),
        Group("The device meanwhile", () if looks is None else looks.rows),
        Group(
            "Eager PyTorch on the same host",
            (
                *_rows(
                    ("throughput", figures.rate(eager.number("fps"))),
                    ("memory format", eager.scalar("memory_format")),
                    ("mean", figures.milliseconds(eager.number("mean_ms"))),
                    ("median", figures.milliseconds(eager.number("median_ms"))),
                    ("99th percentile", figures.milliseconds(eager.number("p99_ms"))),
                    ("fastest", figures.milliseconds(eager.number("min_ms"))),
                    ("slowest", figures.milliseconds(eager.number("max_ms"))),
                    ("coefficient of variation", figures.percent(eager.number("cv_percent"))),
                    (
                        "half-width of the mean's 99 % interval",
                        figures.percent(eager.number("half_width_percent")),
                    ),
                    ("warm-up executions", eager.scalar("warmup")),
                    ("executions", eager.scalar("loops")),
                    ("ratio, compiled to eager", NO_VALUE if ratio is None else f"{ratio:.3f}"),
                ),
                *_eager_formats(eager),
                *eager.rest(),
            ),
        ),
        Group(
            "Outputs against the ONNX model",
            (
                *_rows(
                    ("relative L2", outputs.scalar("relative_l2")),
                    ("bound", outputs.scalar("bound")),
                ),
                *outputs.rest(),
            ),
        ),
    ]
    return {"groups": groups, "samples": charts.samples(samples), "looks": looks}


def _without_foreign(groups: Sequence[Group]) -> tuple[list[Group], int]:
    kept, dropped = [], 0
    for group in groups:
        rows = tuple(
            row
            for row in group.rows
            if not provenance.foreign(row.label) and not provenance.claims(row.value)
        )
        dropped += len(group.rows) - len(rows)
        kept.append(Group(group.title, rows))
    return kept, dropped


def _artifact(artifact: ArtifactRef, log: str, limit: int) -> Artifact:
    return Artifact(
        kind=artifact_name(artifact.kind),
        key=figures.clip(artifact.key, 200),
        digest=figures.clip(artifact.digest, 200),
        size=figures.size(artifact.bytes) if artifact.bytes else NO_VALUE,
        cached=artifact.cached,
        log=tail(log, limit, artifact.log_file),
    )


def _circumstances(case: CaseLine) -> tuple[Group, ...]:
    groups = (
        Group("Device", details.device_rows(case)),
        Group("Checkpoint", tuple(figures.flatten(case.checkpoint))),
        Group(
            "Images and preprocessing",
            (
                *details.image_rows(case),
                *_rows(("preprocessing", figures.scalar(case.preprocessing, 1_000))),
            ),
        ),
        Group(
            "Where and when",
            _rows(
                ("host", figures.scalar(case.machine.hostname)),
                ("processor", figures.scalar(case.machine.processor)),
                ("worker", figures.scalar(case.worker)),
                ("started", figures.moment(case.started) or NO_VALUE),
                ("duration", figures.duration(case.seconds)),
            ),
        ),
        Group("Versions of this case", tuple(figures.flatten(dict(case.versions)))),
    )
    return tuple(group for group in groups if group.rows)


@dataclass
class Shared:
    """What the cases of one page share: ids, looks of stages, and what a page may hold.

    `log_limit`, `diagnosis_limit`: characters of one log, of one diagnosis.
    """

    anchors: Anchors = field(default_factory=Anchors)
    stages: charts.Looks = field(default_factory=charts.Looks)
    thumbs: Thumbs | None = None
    log_limit: int = 12_000
    diagnosis_limit: int = 20_000


def view(case: CaseLine, kind: Provenance, shared: Shared) -> CaseView:
    """What the page says about a case of provenance `kind`.

    A comparison that a page must not show (see `harness.report.provenance`) is left out with
    everything that was said of it, and a note stands in its place. So is what an error, a log or a
    failed attempt says of figures of others. Whatever shows a case shows this: nothing reads a
    sentence, an error or a log past it.
    """
    notes: list[str] = []
    why = provenance.why_withheld(kind, case)
    if why:
        notes.append(why)
    sentence = figures.clip(case.sentence)
    verdict = case.verdict
    rule = figures.clip(verdict.rule, 2_000) if verdict else ""
    verdict_sentence = figures.clip(verdict.sentence) if verdict else ""
    if verdict_sentence == sentence:
        verdict_sentence = ""
    if kind != "real" or why:
        statements = (sentence, verdict_sentence, rule)
        silent = [why != "" or provenance.claims(text) for text in statements]
        if not why and any(silent):
            notes.append(
                f"A sentence of this {kind} record speaks of figures of others. It is withheld."
            )
        gone = "Withheld: see the note."
        sentence = gone if silent[0] else sentence
        verdict_sentence = "" if silent[1] else verdict_sentence
        rule = "" if silent[2] else rule

    data = _Reader(case.measurement)
    if case.check == "accuracy":
        measured = _accuracy(data, case.images, shared.thumbs)
    else:
        measured = _throughput(data)
    groups: list[Group] = []
    if verdict is not None and not why:
        groups.append(Group("Figures of the verdict", tuple(figures.flatten(verdict.figures))))
    groups += measured.pop("groups")
    groups.append(Group("Also recorded", data.rest()))
    if kind != "real":
        groups, dropped = _without_foreign(groups)
        if dropped:
            notes.append(
                f"{dropped} recorded figure(s) of others are withheld: this case is {kind}."
            )

    told = provenance.silenced if kind != "real" or why else str
    error = case.error
    if error is not None and any(
        told(text) != text for text in (error.message, error.remedy, error.log)
    ):
        notes.append(
            f"The error of this {kind} record speaks of figures of others. That is withheld."
        )
    stages = charts.stacked(
        [
            (stage_name(stage.stage), stage.seconds, "from the store" if stage.cached else "")
            for stage in case.stages
        ],
        shared.stages,
    )
    shown = None if why or case.reference is None else _reference(case.reference, case.unit)
    return CaseView(
        anchor=shared.anchors.take(case.case, case.check),
        look=LOOKS[case.outcome],
        name=figures.clip(case.case, 200),
        nodeid=figures.clip(case.nodeid, 400),
        model=figures.clip(case.model, 120),
        title=figures.clip(case.title, 200),
        batch_size=case.batch_size,
        target=figures.clip(case.target, 60),
        check=case.check,
        provenance=kind,
        sentence=sentence,
        open=case.outcome in ATTENTION,
        verdict_sentence=verdict_sentence,
        rule=rule,
        measured=figures.figure(case.measured, case.unit, figures.half_width_of(case.measurement)),
        reference=shown,
        difference=NO_VALUE
        if why
        else figures.difference(
            figures.number(case.difference_percent),
            half_width=figures.half_width_of(case.measurement, quotient=True),
        ),
        withheld=why != "",
        notes=tuple(notes),
        groups=tuple(group for group in groups if group.rows),
        error=None
        if error is None
        else Failure(
            type=figures.clip(error.type, 80),
            stage=figures.clip(error.stage, 80),
            message=figures.clip(told(error.message)),
            remedy=figures.clip(told(error.remedy)),
            log=tail(told(error.log), shared.log_limit),
        ),
        artifacts=tuple(
            _artifact(artifact, told(artifact.log), shared.log_limit) for artifact in case.artifacts
        ),
        stages=tuple(stages),
        circumstances=_circumstances(case),
        intervals=details.intervals(case) if kind == "real" and not why else (),
        device=details.device_line(case),
        attempts=details.attempts(case, told),
        diagnosis=details.diagnosis(case.diagnosis, kind, limit=shared.diagnosis_limit),
        repeat=details.commands(case),
        seconds=figures.duration(case.seconds) if case.seconds else NO_VALUE,
        **measured,
    )


def absent(planned: PlannedCase, kind: Provenance, shared: Shared) -> CaseView:
    """A planned case that left no line: it is shown, never dropped."""
    return CaseView(
        anchor=shared.anchors.take(planned.case, planned.check),
        look=LOOKS["not_run"],
        name=figures.clip(planned.case, 200),
        nodeid=figures.clip(planned.nodeid, 400),
        model=figures.clip(planned.model, 120),
        title="",
        batch_size=planned.batch_size,
        target=figures.clip(planned.target, 60),
        check=planned.check,
        provenance=kind,
        sentence="Planned, but the records have no line of it: the run ended before it did.",
        open=True,
    )
