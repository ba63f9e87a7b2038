"""`report` renders runs again from their records; `why` is the first screen of a red night."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import say
from harness.pages.words import spoken
from harness.records import reader
from harness.report import exports
from harness.report.render import write_report
from harness.report.why import annotation, first_screen
from harness.settings import Settings

RunList = Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories")]


def report(settings: Settings, *, runs: RunList) -> None:
    """Render report.html again from the records of a run."""
    with spoken(settings.lang):
        for run in runs:
            records = reader.read(run)
            say(str(write_report(records)))
            exports.write_all(records)


def why(
    settings: Settings,
    *,
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="a run directory (default: the newest)")
    ] = None,
    exit_code: Annotated[
        int | None,
        typer.Option(
            min=0, max=255, metavar="N", help="what pytest ended with, where it left no records"
        ),
    ] = None,
    stopped_after: Annotated[
        float | None,
        typer.Option(
            min=0, max=1e6, metavar="HOURS", help="the run was ended from outside after so many"
        ),
    ] = None,
    github: Annotated[
        bool,
        typer.Option("--github", help="also as an annotation (always in a GitHub workflow)"),
    ] = False,
) -> None:
    """Say what failed (model, toolchain, machine or input), why it is thought so, and what is next.

    The exit code of this command says nothing of the run: it is 0.
    """
    if run is None and exit_code is None and stopped_after is None:
        run = settings.runs / "latest"
    records = None if run is None else reader.read(run)
    screen = first_screen(records, exit_code, stopped_after_h=stopped_after)
    for line in screen.lines:
        say(line)
    if github or os.environ.get("GITHUB_ACTIONS") == "true":
        say(annotation(screen))
