"""What a run may show, decided once: every page and export is made from what this lets through.

A rehearsal uses stand-in weights on generated images, a simulated run a stand-in toolchain. Neither
says anything about a published figure. A measurement and a reference of different provenances are
never compared: such a comparison is left out, a note says why, and nothing of it is green.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, TypeVar

from harness.base.terms import Provenance
from harness.pages.looks import Banner, banners
from harness.pages.words import say
from harness.records.lines import CaseLine, PlannedCase, RunCheckLine
from harness.records.reader import RunRecords
from harness.records.verdicts import FigureName, Reference, ReferenceKind, Verdict

_Line = TypeVar("_Line", CaseLine, RunCheckLine)

GONE = "Withheld: see the note."
SIMULATED_FIGURE = (
    "It was held against a figure that the catalog marks as simulated. Such a figure is not shown: "
    "on a page it could be taken for a published one."
)
FOREIGN = (
    "The record names a reference of kind '{reference}'. It is withheld: a {kind} run says nothing "
    "about it."
)
ACROSS = (
    "The measurement is {kind} and its reference {reference}. The comparison is withheld: judging "
    "across provenances is refused."
)
LOST = "Planned, but the records have no line of it: the run ended before it did."
# What a run that is not real may be held against.
_OWN: tuple[ReferenceKind, ...] = ("eager", "onnx", "eager-speed", "batch-size", "none")
_OF_OTHERS = frozenset({FigureName.PUBLISHED_TOP1, FigureName.BASELINE_FPS, FigureName.OTHER_FPS})


@dataclass(frozen=True)
class Shown:
    """A run as it may be shown.

    In `records` the cases stand in the order of the plan, those that left no line included.
    `source`: as they were read. `notes`: what was left out of a case (by node id) or a check (by
    name), and why. `withheld`: those whose whole comparison was left out. `refused`: how many were
    judged across provenances.
    """

    source: RunRecords
    records: RunRecords
    kinds: frozenset[Provenance]
    notes: Mapping[str, str]
    withheld: frozenset[str]
    refused: int

    @property
    def real(self) -> bool:
        """Return whether everything in the records is real."""
        return self.kinds <= {"real"}

    @cached_property
    def banners(self) -> tuple[Banner, ...]:
        return banners(self.kinds)


def shown(records: RunRecords) -> Shown:
    """Return what may be shown of a run."""
    run = records.run
    of_run: Provenance = run.provenance if run is not None else "real"
    kinds = {case.provenance for case in records.cases}
    kinds |= {check.provenance for check in records.checks}
    kinds |= {run.provenance} if run is not None else set()
    notes: dict[str, str] = {}
    withheld: set[str] = set()
    refused = 0

    def let_through(line: _Line) -> _Line:
        nonlocal refused
        kind: Provenance = of_run if line.provenance == "real" else line.provenance
        one = shown_line(line, kind)
        key = key_of(line)
        if one.note:
            notes[key] = one.note
        if one.withheld:
            withheld.add(key)
        refused += one.across
        return one.line

    cases = tuple(let_through(line) for line in _in_order(records, of_run))
    checks = tuple(let_through(line) for line in records.checks)
    if run is not None and kinds != {"real"}:
        run = run.model_copy(update={"guide_figures": {}})
    return Shown(
        source=records,
        records=replace(records, run=run, cases=cases, checks=checks),
        kinds=frozenset(kinds),
        notes=notes,
        withheld=frozenset(withheld),
        refused=refused,
    )


def key_of(line: CaseLine | RunCheckLine) -> str:
    """Return what tells a line from all others of its run."""
    return line.nodeid if isinstance(line, CaseLine) else f"{line.name} of {line.subject}"


def _in_order(records: RunRecords, provenance: Provenance) -> list[CaseLine]:
    lines = {line.nodeid: line for line in records.cases}
    planned = [
        lines.pop(one.nodeid) if one.nodeid in lines else _lost(records, one, provenance)
        for one in records.plan
    ]
    return [*planned, *lines.values()]


def _lost(records: RunRecords, planned: PlannedCase, provenance: Provenance) -> CaseLine:
    """A planned case without a line: it is shown, never dropped."""
    return CaseLine(
        run=records.run.run if records.run is not None else "",
        provenance=provenance,
        outcome="not_run",
        sentence=say(LOST),
        **planned.model_dump(),
    )


@dataclass(frozen=True)
class ShownLine(Generic[_Line]):
    """A line as it may be shown, and why something of it is left out.

    `withheld`: its whole comparison is. `across`: it was judged across provenances.
    """

    line: _Line
    note: str = ""
    withheld: bool = False
    across: bool = False


def shown_line(line: _Line, kind: Provenance) -> ShownLine[_Line]:
    """Return a line as it may be shown in a run of this provenance."""
    verdict = line.verdict
    if verdict is None:
        return ShownLine(line.model_copy(update={"provenance": kind}))
    note, across = _withheld(verdict.reference, kind, isinstance(line, CaseLine))
    update: dict[str, object] = {"provenance": kind}
    if kind != "real" and verdict.reference.editions:
        verdict = replace(verdict, reference=replace(verdict.reference, editions=()))
        update["verdict"] = verdict
    withheld = bool(note)
    if withheld:
        update["sentence"] = say(GONE)
        update["verdict"] = _without_comparison(verdict, kind)
        if across and line.outcome == "passed":
            update["outcome"] = "inconclusive"
    elif kind != "real" and (dropped := _OF_OTHERS & verdict.figures.keys()):
        own = {name: value for name, value in verdict.figures.items() if name not in dropped}
        update["verdict"] = replace(verdict, figures=own)
        recorded = "{n} recorded figure(s) of others are withheld: this case is {kind}."
        note = say(recorded, n=len(dropped), kind=say(kind))
    return ShownLine(line.model_copy(update=update), note, withheld, across)


def _without_comparison(verdict: Verdict, kind: Provenance) -> Verdict:
    none = Reference(kind="none", provenance=kind)
    return replace(verdict, sentence=say(GONE), allowed="", reference=none, figures={})


def _withheld(reference: Reference, kind: Provenance, is_case: bool) -> tuple[str, bool]:
    """Return why a comparison must not be shown, and whether it was made across provenances."""
    if is_case and reference.kind == "baseline" and kind == reference.provenance == "simulated":
        return say(SIMULATED_FIGURE), False
    if kind != "real" and reference.kind not in _OWN:
        return say(FOREIGN, reference=reference.kind, kind=say(kind)), True
    if reference.provenance != kind and reference.kind != "none":
        return say(ACROSS, kind=say(kind), reference=say(reference.provenance)), True
    return "", False
