"""`doctor`: what this machine has and lacks for each target, and what it can run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.base.errors import ConfigError, HarnessError
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog
from harness.cli.examination import REHEARSAL, SUBJECTS, Answer, Can, Examination, brief, examine
from harness.cli.options import console, takes_settings
from harness.judge.causes import Exit
from harness.settings import Settings
from harness.targets.provider import Finding

_SIGNS = {"ok": "[green]ok[/]", "lacks": "[red]lacks[/]", "note": "[yellow]note[/]"}
_COLOURS: dict[Can, str] = {"yes": "green", "throughput only": "yellow", "no": "red"}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(takes_settings(doctor))


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
    catalog: Catalog | None = None
    trouble = ""
    try:
        catalog = load_catalog(settings.catalog)
    except HarnessError as error:
        trouble = str(error)
    examination = examine(settings, catalog)
    out = console()
    if everything:
        for title in dict.fromkeys(finding.group for finding in examination.findings):
            out.print(_all_of(title, examination))
    out.print(_answers(examination))
    if not everything:
        _print_brief(out, examination, strict or settings.target)
    if trouble:
        out.print(trouble, markup=False, soft_wrap=True)
    for answer in examination.answers:
        if answer.target == strict:
            out.print(_strict_text(answer), markup=False, soft_wrap=True)
            if answer.code:
                raise typer.Exit(answer.code)


def _strict_text(answer: Answer) -> str:
    if not answer.code:
        return f"exit code 0: {answer.target} can run both checks here"
    what = "the machine" if answer.code == Exit.MACHINE_TROUBLE else "something to supply"
    can = "runs throughput only" if answer.can == "throughput only" else "cannot run"
    return f"exit code {answer.code} ({what}): {answer.target} {can} here: {answer.because}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _all_of(title: str, examination: Examination) -> Table:
    table = Table(title=escape(title), title_justify="left", show_lines=False)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in examination.findings:
        if finding.group == title:
            cells = (finding.what, finding.found, finding.remedy)
            table.add_row(_SIGNS[finding.state], *map(escape, cells))
    return table


def _print_brief(out: Console, examination: Examination, target: str | None) -> None:
    out.print()
    left = brief(examination, target)
    if left:
        table = _table("", "what", "found", "what to do")
        for one in left:
            table.add_row(_sign(one, target), *map(escape, (one.what, one.found, one.remedy)))
        out.print(table)
    nothing = f"nothing is missing{f' for {target}' if target else ''}; "
    text = f"{len(examination.findings)} things were looked at; --all shows them"
    out.print(text if left else nothing + text, soft_wrap=True)


def _sign(one: Finding, target: str | None) -> str:
    """Somebody who rehearses lacks nothing without a device or original weights; what was supplied
    and is wrong is here.
    """
    aside = target is None and one.needed_by and REHEARSAL not in one.needed_by
    absent = one.state == "lacks" and (one.kind == "machine" or one.short)
    return "[dim]not here[/]" if absent and aside else _SIGNS[one.state]


def _answers(examination: Examination) -> Table:
    """Targets that cannot run for the same reasons share a row."""
    rows: dict[tuple[Can, str], list[str]] = {}
    for answer in examination.answers:
        rows.setdefault((answer.can, answer.because), []).append(answer.name)
    table = _table("target", "can run here", "how, or why not")
    for (can, how), names in rows.items():
        table.add_row(", ".join(names), f"[{_COLOURS[can]}]{can}[/]", escape(how))
    return table
