"""`report` renders runs again from their records; `why` is the first screen of a red night."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import readable_errors
from harness.records import reader
from harness.report import exports
from harness.report.why import annotation, first_screen
from harness.settings import resolve


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(report)
    app.command()(why)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories")],
) -> None:
    """Render report.html again from the records of a run."""
    from harness.report import write_report

    with readable_errors():
        for run in runs:
            typer.echo(write_report(run))
            exports.write_all(run)


def _hours(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number of hours.")
    return value


def why(
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
            min=0,
            callback=_hours,
            metavar="HOURS",
            help="the run was ended from outside after so many hours",
        ),
    ] = None,
    github: Annotated[
        bool,
        typer.Option("--github", help="also as an annotation (always in a GitHub workflow)"),
    ] = False,
) -> None:
    """Whether the model, the toolchain, the machine or an input failed, and why it is thought so.

    The exit code of this command says nothing of the run: it is 0.
    """
    with readable_errors():
        if run is None and exit_code is None and stopped_after is None:
            run = resolve({}).runs / "latest"
        records = None if run is None else reader.read(run)
        screen = first_screen(records, exit_code, stopped_after_h=stopped_after)
    for line in screen.lines:
        typer.echo(line)
    if github or _in_workflow(os.environ):
        sys.stdout.write(annotation(screen) + "\n")


def _in_workflow(environment: Mapping[str, str]) -> bool:
    return environment.get("GITHUB_ACTIONS") == "true"
