"""What a page shows below the line of a case, of a check and of the run, as elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import escape

from harness.pages import formats
from harness.pages.elements import Node, command, fold, labelled, section, table
from harness.pages.formats import NO_VALUE, clip, datum, plain
from harness.pages.html import safe_href, web_href
from harness.pages.words import say
from harness.records.measurements import AccuracyMeasurement
from harness.records.observed import ArtifactRef, Attempt, Diagnosis, ErrorInfo
from harness.records.verdicts import BatchFlip
from harness.report import rows
from harness.report.cases import CaseView, CheckView

FLIPS_SHOWN = 20
SECTIONS_SHOWN = 12
ROWS_SHOWN = 60
COMMANDS_SHOWN = 12
ATTEMPTS_SHOWN = 8


def of_case(case: CaseView) -> Node:
    """Return all that is known of a case but its sentence."""
    return ("div.body", *_said(case), *_measured(case), *_circumstances(case))


def of_check(check: CheckView) -> Node:
    """Return the images and figures of a check over the cases, and its rule."""
    verdict = check.line.verdict
    parts = [_differing(check), *_left(check.flips_total - len(check.flips))] if check.flips else []
    if verdict is not None:
        parts += [*_rule(verdict.allowed), labelled(rows.figures_of(verdict))]
    return ("div.body", *parts)


def _differing(check: CheckView) -> Node:
    """The images whose prediction is not the same at every batch size."""

    def answer(flip: BatchFlip, size: int) -> str:
        one = flip.answers.get(size)
        return NO_VALUE if one is None else _logit(one.compiled, one.score)

    heads = [say("Image"), say("Label")]
    heads += [say("Batch {n} says (logit)", n=size) for size in check.sizes]
    cells = [
        (
            formats.line(flip.name),
            str(flip.label),
            *(answer(flip, size) for size in check.sizes),
            datum(flip.excused),
        )
        for flip in check.flips
    ]
    title = say("Images whose prediction is not the same at every batch size")
    return table(title, [*heads, say("Within rounding")], cells)


def of_groups(groups: rows.Groups) -> Node:
    """Return groups of labelled values beside each other, without the empty ones."""
    named = (section(say(title), labelled(items)) for title, items in groups.items() if items)
    return ("div.groups", *named)


# What is said of a case ------------------------------------------------------------------------


def _said(case: CaseView) -> Iterator[Node]:
    line, verdict = case.line, case.line.verdict
    if verdict is not None:
        if verdict.sentence != line.sentence:
            yield ("p", clip(verdict.sentence))
        yield from _rule(verdict.allowed)
    device = rows.device_line(line)
    if device:
        yield ("p.small", say("On {host}", host=device))
    if case.note:
        yield _notice(say("Note"), say(": "), case.note)
    yield from map(_attempt, line.attempts[:ATTEMPTS_SHOWN])
    for text in case.trouble:
        yield _notice(say("The device was"), " ", text)
    if line.error is not None:
        yield _error(case, line.error)
    if case.commands:
        yield section(say("Run it again"), command(*case.commands[:COMMANDS_SHOWN]))
    if line.diagnosis is not None:
        yield _diagnosis(line.diagnosis, case.room.diagnosis)


def _rule(allowed: str) -> Iterator[Node]:
    if allowed:
        yield ("p.small", f"{say('Rule')}{say(': ')}{clip(allowed)}")


def _notice(strong: str, *texts: str) -> Node:
    return ("p.notice", ("strong", strong), *texts)


def _attempt(one: Attempt) -> Node:
    error = formats.line(one.error)
    if not one.aside:
        again = say("Retried once with nothing else running on this host")
        return _notice(again, say(": "), error)
    aside = say("{device} was set aside", device=formats.line(one.device))
    why = f" ({formats.line(one.why)})" if one.why and one.why != one.error else ""
    stage = f" {say('in stage {stage}', stage=one.stage)}{say(': ')}{error}{why}. "
    return _notice(aside, stage, say("The case was tried again on another device."))


def _error(case: CaseView, error: ErrorInfo) -> Node:
    stage = say("in stage {stage}", stage=error.stage)
    parts: list[Node] = [("p.message", clip(error.message))]
    if error.remedy:
        parts.append(("p", ("strong", say("What to do")), say(": "), clip(error.remedy)))
    if error.log:
        parts.append(_log(case, say("Log of the stage"), error.log))
    return ("section.error", ("h4", formats.line(error.type), " ", ("span.small", stage)), *parts)


def _log(case: CaseView, name: str, text: str, file: str = "") -> Node:
    """The end of a log, as much of it as there is room for, and where the whole of it is."""
    parts: list[Node] = []
    if file:
        parts.append(("p.small", say("Whole log"), say(": "), _file(file)))
    if text.strip():
        end, limit = text.strip("\n"), case.room.log
        if len(end) > limit:
            parts.append(("p.small", say("The beginning is cut here.")))
            end = end[-limit:].partition("\n")[2] or end[-limit:]
        parts.append(("pre", ("@tabindex", "0"), end))
    return fold(name, *parts)


def _file(path: str) -> Node:
    href = safe_href(path)
    return ("a", ("@href", href), path) if href else ("code", formats.line(path))


def _diagnosis(one: Diagnosis, room: int) -> Node:
    """A diagnosis whose tables are cut to about `room` characters."""
    parts: list[Node] = [("p", clip(one.summary))] if one.summary else []
    facts = (("Stage", one.stage), ("Suspect", one.suspect))
    parts += [
        ("p.small", f"{say(name)}{say(': ')}{formats.line(text)}") for name, text in facts if text
    ]
    whole = sum(len(section.rows) for section in one.sections)
    for number, part in enumerate(one.sections[:SECTIONS_SHOWN]):
        shown = []
        for row in part.rows[:ROWS_SHOWN]:
            cells = [formats.line(cell, 200) for cell in row]
            room -= sum(len(escape(cell)) + 10 for cell in cells)
            if room < 0:
                break
            shown.append(cells)
        if shown:
            name = formats.line(part.title, 200)
            heads = [formats.line(head, 80) for head in part.columns]
            parts.append(fold(name, table(name, heads, shown), opened=number == 0))
            whole -= len(shown)
    parts += _left(whole)
    if one.commands:
        parts.append(command(*one.commands[:COMMANDS_SHOWN]))
    return ("section.diagnosis", ("h4", say("Diagnosis")), *parts)


def _left(count: int) -> Iterator[Node]:
    if count > 0:
        yield ("p.small", f"{say('{n} more', n=count)} {say('in the records')}")


# What was measured -----------------------------------------------------------------------------


def _measured(case: CaseView) -> Iterator[Node]:
    line = case.line
    yield of_groups(case.groups)
    source = case.reference.source if case.reference is not None else ""
    if source:
        href = web_href(source)
        attributes = (("@href", href), ("@rel", "noreferrer noopener"))
        link: Node = ("a", *attributes, source) if href else clip(source)
        yield ("p.small", say("Source"), say(": "), link)
    chart = case.latency
    if chart is not None:
        yield section(say("Latency samples"), chart.node)
    if line.accuracy is not None:
        yield from _images(case, line.accuracy)


def _images(case: CaseView, measured: AccuracyMeasurement) -> Iterator[Node]:
    if measured.predictions_file:
        file = _file(measured.predictions_file)
        yield ("p.small", say("Predictions of each image"), say(": "), file)
    fidelity = measured.fidelity
    if fidelity is None or not fidelity.flips:
        return
    flips = fidelity.flips[:FLIPS_SHOWN]
    title = say("Images on which the compiled and the eager model differ")
    heads = map(say, ("Image", "Label", "Eager says (logit)", "Compiled says (logit)",
                      "Eager margin", "Within rounding"))  # fmt: skip
    cells = (
        (
            formats.line(one.name),
            case.class_of(one.label),
            _logit(case.class_of(one.reference), one.reference_score),
            _logit(case.class_of(one.compiled), one.compiled_score),
            plain(one.margin),
            datum(one.excused),
        )
        for one in flips
    )
    yield fold(title, table(title, heads, cells), *_left(fidelity.flips_total - len(flips)))


def _logit(label: object, score: float | None) -> str:
    return f"{label}" if score is None else f"{label} ({plain(score)})"


# With what, and where --------------------------------------------------------------------------


def _circumstances(case: CaseView) -> Iterator[Node]:
    line = case.line
    if line.artifacts:
        logs = (one for one in line.artifacts if one.log or one.log_file)
        shown = (_log(case, say("Log of {what}", what=say(one.stage.makes)), one.log, one.log_file)
                 for one in logs)  # fmt: skip
        yield fold(say("Artifacts"), _artifacts(line.artifacts), *shown)
    title = say("Device, checkpoint, images, host")
    yield fold(title, of_groups(rows.circumstances(line, case.records.run)))
    yield ("p.small.nodeid", line.nodeid)


def _origin(one: ArtifactRef) -> str:
    if one.shared:
        return "from the shared store"
    return "from the store" if one.cached else "built"


def _artifacts(artifacts: Sequence[ArtifactRef]) -> Node:
    heads = (say("Artifact"), say("Key"), "sha256", say("Size"), say("Origin"))
    cells = (
        (
            say(one.stage.makes or one.stage),
            ("code", formats.line(one.key)),
            ("code", formats.line(one.digest)),
            formats.size(one.bytes) if one.bytes else NO_VALUE,
            say(_origin(one)),
        )
        for one in artifacts
    )
    return table(say("Artifacts"), heads, cells)
