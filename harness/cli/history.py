"""`trend`, `merge` and `baselines propose|check`.

Exit codes: 0; 1 where `baselines check` finds a decline; 4 for anything that cannot be read or
does not go together, with nothing written.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from harness.base.errors import ConfigError, HarnessError, some
from harness.base.terms import CHECKS, Check, Provenance
from harness.settings import resolve

if TYPE_CHECKING:
    from harness.history.check import Compared, State
    from harness.history.trend import Trend

Runs = Annotated[
    Path | None, typer.Option(metavar="DIR", help="folder of the run directories (default: runs)")
]
CatalogOption = Annotated[Path | None, typer.Option(metavar="FILE", help="the catalog")]
RunList = Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories")]

T = TypeVar("T", bound=str)

DECLINE_CODE = 1
INPUT_CODE = 4


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(trend)
    app.command()(merge)
    baselines = typer.Typer(
        help="Figures of baselines.yaml against measurements.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    baselines.command()(propose)
    baselines.command()(check)
    app.add_typer(baselines, name="baselines")


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except HarnessError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(INPUT_CODE) from None


def _one_of(text: str, known: Sequence[T], option: str) -> T:
    for one in known:
        if text == one:
            return one
    raise ConfigError(f"{option} {text!r} is none", remedy=f"one of: {', '.join(map(str, known))}")


def trend(
    runs: Runs = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="the page (default: beside the runs)"),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option("--models", "--model", metavar="A,B", help="models to draw, with --output"),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option("-m", metavar="CHECK", help="accuracy or throughput, with --output"),
    ] = None,
    provenance: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="real, simulated or rehearsal; a page never mixes them (default: the first of "
            "these that there is)",
        ),
    ] = None,
    last: Annotated[
        int, typer.Option(min=2, help="draw at most so many figures of a series")
    ] = 200,
    catalog: CatalogOption = None,
) -> None:
    """A page of figures over time: changes of toolchain, noise, floors, slow declines."""
    from harness.catalog.load import load_catalog
    from harness.history.trend import write_trend

    with _readable_errors():
        settings = resolve(_given(runs=runs, catalog=catalog))
        wanted = None if check is None else _one_of(check, CHECKS, "-m")
        names = tuple(part.strip() for part in (models or "").split(",") if part.strip())
        if output is None and (names or wanted):
            # Beside the runs lies the page of everything, which others look at.
            part = "-".join((*names, *((wanted,) if wanted else ())))
            raise ConfigError(
                "a page of some models or of one check would replace the page of all",
                remedy=f"name its file, for example --output={settings.runs}/trend-of-{part}.html",
            )
        kinds: tuple[Provenance, ...] = get_args(Provenance)
        made = write_trend(
            settings.runs,
            output,
            provenance=None if provenance is None else _one_of(provenance, kinds, "--provenance"),
            catalog=load_catalog(settings.catalog),
            models=names or None,
            checks=None if wanted is None else (wanted,),
            last=last,
        )
    for note in made.notes:
        sys.stderr.write(f"{note}\n")
    typer.echo(f"{made.path}: {_trend_text(made, settings.runs, wanted)}")
    if provenance is None and made.written:
        # Runs of another provenance have a page of their own.
        nouns = {"real": "real run", "simulated": "simulation", "rehearsal": "rehearsal"}
        for kind, count in made.others.items():
            typer.echo(f"also: {count:,} {nouns[kind]}{'s' * (count != 1)}, --provenance={kind}")


def _trend_text(made: Trend, runs: Path, check: Check | None) -> str:
    from harness.history import page

    if not made.written:
        of_check = "" if check is None else f" of {check}"
        return f"left as it was: {runs} has no {made.provenance} figure{of_check} now"
    falling = [f"{one.key.name} ({one.key.check})" for one in made.series if one.decline]
    parts = [
        f"{len(made.series)} series of {made.provenance} figures",
        f"declining: {some(falling, 10)}" if falling else page.too_few(made.series),
        page.newest(made.series),
    ]
    return "; ".join(part for part in parts if part)


def merge(
    runs: RunList,
    output: Annotated[Path, typer.Option(metavar="DIR", help="the new run directory")],
    allow_other_catalog: Annotated[
        bool,
        typer.Option("--allow-other-catalog", help="join runs that different catalogs judged"),
    ] = False,
    catalog: CatalogOption = None,
) -> None:
    """Join the records of several runs (shards, devices, hosts) into one run directory."""
    from harness.catalog.load import load_catalog
    from harness.report import exports, write_report
    from harness.run.merge import merge as join

    with _readable_errors():
        joined = join(
            runs,
            output,
            catalog=load_catalog(resolve(_given(catalog=catalog)).catalog),
            allow_other_catalog=allow_other_catalog,
        )
        for note in joined.run.notes if joined.run is not None else ():
            sys.stderr.write(f"{note}\n")
        write_report(output)
        exports.write_all(output)
        counts = ", ".join(
            f"{count} {name.replace('_', ' ')}" for name, count in joined.counts().items() if count
        )
        typer.echo(f"{output}: {counts or 'no case'}; exit code {joined.exit_status}")


def propose(
    runs: RunList,
    lower: Annotated[
        bool, typer.Option("--lower", help="also propose figures that would go down")
    ] = False,
    catalog: CatalogOption = None,
) -> None:
    """Tables for baselines.yaml from real runs: YAML to paste, with its evidence as comments."""
    from harness.catalog.load import load_catalog
    from harness.history.proposals import MEDIAN
    from harness.history.proposals import propose as from_runs

    with _readable_errors():
        made = from_runs(runs, load_catalog(resolve(_given(catalog=catalog)).catalog), lower=lower)
    for name, why in made.left:
        sys.stderr.write(f"not proposed: {name}: {why}\n")
    for one in made.proposals:
        where = f"{one.model}, batch {one.batch_size}, {one.chip}"
        sys.stderr.write(f"proposed: {where}: {one.fps:.10g} fps a {one.unit}\n")
    if any(one.judged for one in made.proposals):
        sys.stderr.write(f"{MEDIAN}\n")
    if not made.proposals:
        sys.stderr.write("nothing to propose\n")
    sys.stdout.write(made.text)


def check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run directory, e.g. runs/latest")],
    runs: Runs = None,
    last: Annotated[int, typer.Option(min=7, max=200, help="runs before this one to look at")] = 22,
    catalog: CatalogOption = None,
) -> None:
    """A run against the recorded figures and the runs before it; exit code 1 for a decline."""
    from rich.markup import escape
    from rich.table import Table

    from harness.catalog.load import load_catalog
    from harness.cli.options import console
    from harness.history.check import check as compare
    from harness.pages import formats
    from harness.pages.looks import banners
    from harness.records import reader

    with _readable_errors():
        settings = resolve(_given(runs=runs, catalog=catalog))
        compared = compare(run, settings.runs, load_catalog(settings.catalog), last=last)
        if not compared:
            counts = [
                f"{count} {name}" for name, count in reader.read(run).counts().items() if count
            ]
            ended = ", ".join(counts).replace("_", " ")
            raise ConfigError(
                f"{run} measured nothing, so there is nothing to check"
                f" (its cases: {ended or 'none'})",
                remedy=f"python -m harness why {run} says what happened to it",
            )
    for banner in banners({one.row.provenance for one in compared}):
        typer.echo(banner.text)
    table = Table(title=escape(str(run)), title_justify="left")
    for column in ("", "case", "check", "measured", "floor", "before", "change", "remark"):
        table.add_column(column, overflow="fold")
    for one in sorted(compared, key=lambda one: not one.bad):
        unit = one.row.unit
        count = f"{one.runs} run{'s' * (one.runs > 1)}"
        table.add_row(
            f"[red]{one.state.upper()}[/]" if one.bad else one.state,
            escape(one.row.case),
            one.row.check,
            formats.figure(one.row.value, unit),
            formats.figure(one.floor.value, unit) if one.floor else "",
            f"{formats.figure(one.before, unit)} ({count})" if one.runs else "",
            formats.difference(one.change_percent) if one.runs else "",
            escape(one.sentence),
        )
    console().print(table)
    typer.echo(_compared(compared))
    if any(one.bad for one in compared):
        raise typer.Exit(DECLINE_CODE)


def _compared(compared: Sequence[Compared]) -> str:
    """How many figures were compared, how many are worse, and what became of the others."""
    counts = Counter(one.state for one in compared)
    left: tuple[State, ...] = ("failed", "undecided", "new")
    others = ", ".join(f"{counts[state]} {state}" for state in left if counts[state])
    bad = counts["falls"] + counts["low"]
    total = bad + counts["ok"]
    if not total:
        return f"no figure was compared: {others}"
    text = f"none of {total} figures declines"
    if bad:
        text = f"{bad} of {total} figures decline or are too low"
    return f"{text}; not compared: {others}" if others else text


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
