"""`doctor`: what this machine has and lacks for each target, and what it can run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness.base.errors import ConfigError, HarnessError
from harness.cli.examination import REHEARSAL, SUBJECTS, Answer, Can, Examination, brief, examine
from harness.cli.options import console, say, table
from harness.judge.causes import Exit
from harness.run.own import catalog_of
from harness.settings import Settings
from harness.targets.provider import Finding

NAMED = 3  # targets in a row of those that cannot run for one reason
_SIGNS = {"ok": "[green]ok[/]", "lacks": "[red]lacks[/]", "note": "[yellow]note[/]"}
_COLOURS: dict[Can, str] = {"yes": "green", "throughput only": "yellow", "no": "red"}


def doctor(
    settings: Settings,
    *,
    strict: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="end with 7 (the machine) or 4 (something to supply) when this target cannot "
            f"run both checks: {', '.join(SUBJECTS)}",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="all that was looked at, what is all right included")
    ] = False,
) -> None:
    """What can run here, what is missing for the rest, and how to get it.

    With --target or --strict of that target alone.
    """
    if strict is not None and strict not in SUBJECTS:
        raise ConfigError(
            f"--strict {strict!r} is not a target", remedy=f"one of: {', '.join(SUBJECTS)}"
        )
    try:
        catalog, trouble = catalog_of(settings), ""
    except HarnessError as error:
        catalog, trouble = None, str(error)
    examination = examine(settings, catalog)
    if everything:
        for title in dict.fromkeys(finding.group for finding in examination.findings):
            findings = [one for one in examination.findings if one.group == title]
            console().print(_findings(findings, None, title))
    target = strict or settings.target
    console().print(_answers(examination, target, everything))
    if not everything:
        left = brief(examination, target)
        if left:
            console().print("", _findings(left, target))
        nothing = "" if left else f"\nnothing is missing{f' for {target}' if target else ''}; "
        say(f"{nothing}{len(examination.findings)} things were looked at; --all shows them")
    if trouble:
        say(trouble)
    for answer in examination.answers:
        if answer.target == strict:
            say(_strict_text(answer))
            if answer.code:
                raise typer.Exit(answer.code)


def _strict_text(answer: Answer) -> str:
    if not answer.code:
        return f"exit code 0: {answer.target} can run both checks here"
    what = "the machine" if answer.code == Exit.MACHINE_TROUBLE else "something to supply"
    can = "runs throughput only" if answer.can == "throughput only" else "cannot run"
    return f"exit code {answer.code} ({what}): {answer.target} {can} here: {answer.because}"


def _findings(findings: Sequence[Finding], target: str | None, title: str = "") -> Table:
    shown = table("", "what", "found", "what to do", title=escape(title))
    for one in findings:
        sign = _SIGNS[one.state] if title else _sign(one, target)
        shown.add_row(sign, *map(escape, (one.what, one.found, one.remedy)))
    return shown


def _sign(one: Finding, target: str | None) -> str:
    """Somebody who rehearses lacks nothing without a device or original weights; what was supplied
    and is wrong is here.
    """
    aside = target is None and one.needed_by and REHEARSAL not in one.needed_by
    absent = one.state == "lacks" and (one.kind == "machine" or one.short)
    return "[dim]not here[/]" if absent and aside else _SIGNS[one.state]


def _answers(examination: Examination, target: str | None, everything: bool) -> Table:
    """Targets that cannot run for the same reasons share a row; `target` is named in any case."""
    rows: dict[tuple[Can, str], list[str]] = {}
    for answer in sorted(examination.answers, key=lambda one: one.target != target):
        rows.setdefault((answer.can, answer.because), []).append(answer.name)
    shown = table("target", "can run here", "how, or why not")
    for (can, how), names in rows.items():
        others = len(names) - NAMED
        if others > 1 and not everything:
            names[NAMED:] = [f"{others} others"]
        shown.add_row(", ".join(names), f"[{_COLOURS[can]}]{can}[/]", escape(how))
    return shown
