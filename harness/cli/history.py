"""`trend`, `merge` and `baselines propose|check`.

Exit codes: 0; 1 where `baselines check` finds a decline; 4 for anything that cannot be read or
does not go together, with nothing written.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from harness.base import files
from harness.base.errors import ConfigError, some
from harness.base.terms import Provenance
from harness.catalog.load import load_catalogs
from harness.cli.options import CheckOption, console, say, table
from harness.cli.report import RunList
from harness.history import proposals
from harness.history.check import Compared, State
from harness.history.check import check as compare
from harness.history.trend import write_trend
from harness.judge.causes import Exit
from harness.pages import formats
from harness.pages.looks import banners
from harness.pages.words import spoken
from harness.records import reader
from harness.report import exports
from harness.report.render import write_report
from harness.run.merge import merge as join
from harness.settings import Settings

_NOUNS: dict[Provenance, str] = {
    "real": "real run",
    "simulated": "simulation",
    "rehearsal": "rehearsal",
}


def trend(
    settings: Settings,
    *,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="the page (default: beside the runs)"),
    ] = None,
    models: Annotated[
        str,
        typer.Option("--models", "--model", metavar="A,B", help="models to draw, with --output"),
    ] = "",
    check: CheckOption = None,
    declines: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="also write what declines to it, one case a line"),
    ] = None,
    provenance: Annotated[
        Provenance | None,
        typer.Option(help="a page never mixes them (default: the first of these that there is)"),
    ] = None,
) -> None:
    """A page of figures over time: changes of toolchain, noise, floors, slow declines."""
    names = tuple(part.strip() for part in models.split(",") if part.strip())
    if output is None and (names or check):
        # Beside the runs lies the page of everything, which others look at.
        part = "-".join((*names, *((check,) if check else ())))
        raise ConfigError(
            "a page of some models or of one check would replace the page of all",
            remedy=f"name its file, for example --output={settings.runs}/trend-of-{part}.html",
        )
    made = write_trend(
        settings.runs,
        output,
        provenance=provenance,
        catalog=load_catalogs(settings.catalog),
        models=names,
        check=check,
    )
    for note in made.notes:
        say(note, err=True)
    if declines is not None:
        lines = "".join(f"{formats.line(name)}\n" for name in made.falling)
        files.replace_file(declines, lines, remedy="name another file with --declines")
    if not made.written:
        said = f"left as it was: {settings.runs} has no such {made.provenance} figure now"
    else:
        falling = f"; declining: {some(made.falling, 10)}" if made.falling else ""
        said = f"{made.provenance} figures, {made.headline}{falling}"
    say(f"{made.path}: {said}")
    if provenance is None and made.written:
        for kind, count in made.others.items():
            say(f"also: {formats.plural(count, _NOUNS[kind])}, --provenance={kind}")


def merge(
    settings: Settings,
    *,
    runs: RunList,
    output: Annotated[Path, typer.Option(metavar="DIR", help="the new run directory")],
    allow_other_catalog: Annotated[
        bool,
        typer.Option("--allow-other-catalog", help="join runs that different catalogs judged"),
    ] = False,
) -> None:
    """Join the records of several runs (shards, devices, hosts) into one run directory."""
    joined = join(
        runs,
        output,
        catalog=load_catalogs(settings.catalog),
        allow_other_catalog=allow_other_catalog,
    )
    for note in joined.run.notes if joined.run is not None else ():
        say(note, err=True)
    with spoken(settings.lang):
        write_report(joined)
        exports.write_all(joined)
    counts = _counts(joined.counts()) or "no case"
    say(f"{output}: {counts}; exit code {joined.exit_status}")


def propose(settings: Settings, *, runs: RunList) -> None:
    """Tables for baselines.yaml from real runs: YAML to paste, with its evidence as comments."""
    made = proposals.propose(runs, load_catalogs(settings.catalog))
    for name, why in made.left:
        say(f"not proposed: {name}: {why}", err=True)
    for one in made.proposals:
        where = f"{one.model}, batch {one.batch_size}, {one.chip}"
        say(f"proposed: {where}: {one.fps:.10g} fps a chip", err=True)
    if not made.proposals:
        say("nothing to propose", err=True)
    sys.stdout.write(made.text)


def check(
    settings: Settings,
    *,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run directory, e.g. runs/latest")],
) -> None:
    """A run against the recorded figures and the runs before it; exit code 1 for a decline."""
    compared = compare(run, settings.runs, load_catalogs(settings.catalog))
    if not compared:
        raise ConfigError(
            f"{run} measured nothing, so there is nothing to check"
            f" (its cases: {_counts(reader.read(run).counts()) or 'none'})",
            remedy=f"python -m harness why {run} says what happened to it",
        )
    for banner in banners({one.row.provenance for one in compared}):
        say(banner.text)
    columns = ("", "case", "check", "measured", "floor", "before", "change", "remark")
    shown = table(*columns, title=escape(str(run)))
    for one in sorted(compared, key=lambda one: not one.bad):
        unit, floor, runs = one.row.unit, one.series.floor, len(one.before)
        level = f"{formats.figure(one.level, unit)} ({formats.plural(runs, 'run')})"
        shown.add_row(
            f"[red]{one.state.upper()}[/]" if one.bad else one.state,
            escape(one.row.case),
            one.row.check,
            formats.figure(one.row.value, unit),
            formats.figure(floor.value, unit) if floor else "",
            level if runs else "",
            formats.difference(one.change_percent) if runs else "",
            escape(one.sentence),
        )
    console().print(shown)
    say(_summary(compared))
    if any(one.bad for one in compared):
        raise typer.Exit(int(Exit.ACCEPTANCE_FAILED))


def _counts(counts: Mapping[str, int]) -> str:
    named = (f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    return ", ".join(named)


def _summary(compared: Sequence[Compared]) -> str:
    """How many figures were compared, how many are worse, and what became of the others."""
    counts = Counter(one.state for one in compared)
    left: tuple[State, ...] = ("failed", "undecided", "new")
    others = ", ".join(f"{counts[state]} {state}" for state in left if counts[state])
    bad = counts["falls"] + counts["low"]
    text = f"{bad or 'none'} of {bad + counts['ok']} compared figures declines or is too low"
    return f"{text}; not compared: {others}" if others else text
