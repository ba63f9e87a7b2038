"""What is judged over the cases of a run, as a report shows it: batch sizes, ratios of chips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.records.lines import RunCheckLine
from harness.records.reader import RunRecords
from harness.report import figures, provenance
from harness.report.cases import Anchors
from harness.report.figures import NO_VALUE, Row
from harness.report.headline import LOOKS, Look
from harness.report.thumbs import Thumbs, check_flips, images_of

FLIPS_SHOWN = 20
SIZES_SHOWN = 12
FLIPS = "flips"
_TOP = "top-1 by batch size, %"


@dataclass(frozen=True)
class Flip:
    """An image whose prediction is not the same at every batch size. `thumb` is a data URI."""

    name: str
    label: str
    excused: str
    answers: tuple[str, ...]  # in the order of `CheckView.sizes`
    thumb: str


@dataclass(frozen=True)
class CheckView:
    """Everything the page says about one check of the run."""

    anchor: str
    look: Look
    name: str
    subject: str
    sentence: str
    rule: str
    measured: str
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    sizes: tuple[str, ...]
    flips: tuple[Flip, ...]
    flips_left: int


def check_views(records: RunRecords, anchors: Anchors, thumbs: Thumbs | None) -> list[CheckView]:
    """Every check of the run, those that do not hold first."""
    views = [_view(records, check, anchors, thumbs) for check in records.checks]
    order = ("failed", "inconclusive", "passed", "recorded")
    return sorted(views, key=lambda view: order.index(view.look.outcome))


def _view(
    records: RunRecords, check: RunCheckLine, anchors: Anchors, thumbs: Thumbs | None
) -> CheckView:
    kind = provenance.of_case(records, check)
    why = provenance.why_withheld(kind, check)
    verdict = check.verdict
    notes = [why] if why else []
    sentence = figures.clip(check.sentence, 2_000)
    rule = figures.clip(verdict.rule, 1_000) if verdict else ""
    known = {} if verdict is None or why else dict(verdict.figures)
    known.pop(FLIPS, None)
    if kind != "real" or why:
        if why or provenance.claims(sentence):
            sentence = "Withheld: see the note."
            if not why:
                notes.append(
                    f"The sentence of this {kind} check speaks of figures of others. "
                    "It is withheld."
                )
        rule = "" if why or provenance.claims(rule) else rule
    rows = figures.flatten(known)
    if kind != "real":
        rows = [
            row
            for row in rows
            if not provenance.foreign(row.label) and not provenance.claims(row.value)
        ]
    flips = check_flips(check) if not why else []
    sizes = list(dict.fromkeys(size for flip in flips[:FLIPS_SHOWN] for size in _by_size(flip)))[
        :SIZES_SHOWN
    ]
    images = images_of(records, check)
    counted = (
        None if verdict is None else figures.number(verdict.figures.get("predictions that differ"))
    )
    return CheckView(
        anchor=anchors.take(f"{check.name}-{check.subject}", "check"),
        look=LOOKS[check.outcome],
        name=figures.line(check.name, 80),
        subject=figures.line(check.subject, 160),
        sentence=sentence,
        rule=rule,
        measured=NO_VALUE if why else figures.figure(check.measured, check.unit),
        notes=tuple(notes),
        rows=tuple(rows),
        sizes=tuple(figures.line(size, 20) for size in sizes),
        flips=tuple(_flip(item, sizes, images, thumbs) for item in flips[:FLIPS_SHOWN]),
        flips_left=max(0, int(counted or len(flips)) - min(len(flips), FLIPS_SHOWN)),
    )


def _by_size(flip: Any) -> Mapping[str, Any]:
    return figures.mapping(figures.mapping(flip).get("by batch size"))


def _flip(item: Any, sizes: list[str], images: Mapping[str, Any], thumbs: Thumbs | None) -> Flip:
    data, by_size = figures.mapping(item), _by_size(item)
    answers = []
    for size in sizes:
        answer = figures.mapping(by_size.get(size))
        logit = figures.number(answer.get("logit"))
        text = figures.scalar(answer.get("class"), 40)
        answers.append(text if logit is None else f"{text} ({figures.plain(logit)})")
    name = data.get("name")
    return Flip(
        name=figures.scalar(name),
        label=figures.scalar(data.get("label"), 40),
        excused=figures.scalar(data.get("excused"), 20),
        answers=tuple(answers),
        thumb="" if thumbs is None else thumbs.uri(images, name),
    )
