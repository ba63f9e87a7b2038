"""`trend`, `merge` and `baselines propose|check`.

Exit codes: 0; 1 where `baselines check` finds a decline; 4 for anything that cannot be read or
does not go together, with nothing written.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from harness.base.errors import ConfigError, HarnessError, some
from harness.base.terms import Provenance
from harness.settings import resolve

if TYPE_CHECKING:
    from harness.history.proposals import Compared, State

Runs = Annotated[
    Path | None, typer.Option(metavar="DIR", help="folder of the run directories (default: runs)")
]
CatalogOption = Annotated[Path | None, typer.Option(metavar="FILE", help="the catalog")]
RunList = Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories")]

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


def _names(text: str | None) -> tuple[str, ...] | None:
    names = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    return names or None


def _provenance(text: str | None) -> Provenance | None:
    if text is None:
        return None
    kinds: tuple[Provenance, ...] = get_args(Provenance)
    for kind in kinds:
        if text == kind:
            return kind
    raise ConfigError(f"--provenance {text!r} is none", remedy=f"one of: {', '.join(kinds)}")


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
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="build history.sqlite anew from the records")
    ] = False,
    catalog: CatalogOption = None,
) -> None:
    """A page of figures over time: changes of toolchain, noise, floors, slow declines."""
    from harness.base.terms import CHECKS
    from harness.catalog.load import load_catalog
    from harness.history.trend import write_trend

    with _readable_errors():
        settings = resolve(_given(runs=runs, catalog=catalog))
        if check is not None and check not in CHECKS:
            raise ConfigError(f"-m {check!r} is not a check", remedy=f"one of: {', '.join(CHECKS)}")
        if output is None and (_names(models) or check):
            # Beside the runs lies the page of everything, which others look at.
            part = "-".join((*(_names(models) or ()), *((check,) if check else ())))
            raise ConfigError(
                "a page of some models or of one check would replace the page of all",
                remedy=f"name its file, for example --output={settings.runs}/trend-of-{part}.html",
            )
        contents = load_catalog(settings.catalog)
        made = write_trend(
            settings.runs,
            output,
            provenance=_provenance(provenance),
            catalog=contents,
            models=_names(models),
            checks=None if check is None else (check,),
            last=last,
            rebuild=rebuild,
        )
        for note in made.update.notes:
            sys.stderr.write(f"{note}\n")
        if not made.written:
            of_check = "" if check is None else f" of {check}"
            typer.echo(
                f"{made.path}: left as it was: {settings.runs} has no {made.provenance} figure"
                f"{of_check} now, and the page has some"
            )
            return
        said = f"{made.count} series of {made.provenance} figures"
        if made.falling:
            said += f"; declining: {some(made.falling, 10)}"
        elif made.too_few:
            said += f"; {made.too_few}"
        if made.missed:
            said += f"; {made.missed}"
        typer.echo(f"{made.path}: {said}")
        if provenance is None:
            _tell_others(made.others)


def _tell_others(others: Mapping[Provenance, int]) -> None:
    """That runs of another provenance have a page of their own, and how to write it."""
    nouns = {"real": "real run", "simulated": "simulation", "rehearsal": "rehearsal"}
    for kind, count in others.items():
        noun = f"{nouns[kind]}{'s' * (count != 1)}"
        typer.echo(f"also: {count:,} {noun}, --provenance={kind}")


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
    from harness.merge import merge as join
    from harness.report import exports, write_report

    with _readable_errors():
        made = join(
            runs,
            output,
            allow_other_catalog=allow_other_catalog,
            catalog=resolve(_given(catalog=catalog)).catalog,
        )
        for note in made.notes:
            sys.stderr.write(f"{note}\n")
        write_report(made.directory)
        exports.write_all(made.directory)
        counts = ", ".join(
            f"{count} {name.replace('_', ' ')}" for name, count in made.counts.items() if count
        )
        said = f"{made.directory}: {counts or 'no case'}; exit code {made.exit_status}"
        if made.duplicates:
            said += f"; {made.duplicates} {'case' if made.duplicates == 1 else 'cases'} came twice"
        typer.echo(f"{said}; {made.files} {'file' if made.files == 1 else 'files'} copied")


def propose(
    runs: RunList,
    lower: Annotated[
        bool, typer.Option("--lower", help="also propose figures that would go down")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write the patch there, not to the terminal")
    ] = None,
    catalog: CatalogOption = None,
) -> None:
    """A patch to baselines.yaml from real runs, for a person to read: `git apply` takes it."""
    from harness.history.proposals import propose as from_runs

    with _readable_errors():
        settings = resolve(_given(catalog=catalog))
        made = from_runs(runs, settings.catalog, lower=lower)
        for name, why in made.left:
            sys.stderr.write(f"not proposed: {name}: {why}\n")
        for one in made.proposals:
            sys.stderr.write(f"proposed: {one.where}: {one.fps:.10g} fps a {one.unit}\n")
        if made.warning:
            sys.stderr.write(f"{made.warning}\n")
        if output is None:
            sys.stdout.write(made.patch)
        else:
            _write(output, made.patch)
            typer.echo(f"{output}: {len(made.proposals)} figures")
        if not made.proposals:
            sys.stderr.write("nothing to propose\n")


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
    from harness.history.proposals import check as compare
    from harness.records import reader
    from harness.report import figures, provenance

    with _readable_errors():
        settings = resolve(_given(runs=runs, catalog=catalog))
        found = compare(run, settings.runs, load_catalog(settings.catalog), last=last)
        read = reader.read(run)
        if not found:
            counts = [f"{count} {name}" for name, count in read.counts().items() if count]
            ended = ", ".join(counts).replace("_", " ")
            raise ConfigError(
                f"{run} measured nothing, so there is nothing to check"
                f" (its cases: {ended or 'none'})",
                remedy=f"python -m harness why {run} says what happened to it",
            )
        for banner in provenance.banners(read):
            typer.echo(banner.text)
        table = Table(title=escape(str(run)), title_justify="left")
        for column in ("", "case", "check", "measured", "floor", "before", "change", "found"):
            table.add_column(column, overflow="fold")
        for one in sorted(found, key=lambda one: not one.bad):
            table.add_row(
                f"[red]{one.state.upper()}[/]" if one.bad else one.state,
                escape(one.case),
                one.check,
                figures.figure(one.measured, one.unit),
                figures.figure(one.floor.value, one.unit) if one.floor else "",
                f"{figures.figure(one.before, one.unit)} ({_runs(one.runs)})" if one.runs else "",
                figures.difference(one.change_percent) if one.runs else "",
                escape(one.sentence),
            )
        console().print(table)
    typer.echo(_compared(found))
    if any(one.bad for one in found):
        raise typer.Exit(DECLINE_CODE)


def _compared(found: Sequence[Compared]) -> str:
    """How many figures were held against anything, how many are worse, and what became of the
    others.
    """
    counts = Counter(one.state for one in found)
    left: tuple[State, ...] = ("failed", "undecided", "new")
    others = ", ".join(f"{counts[state]} {state}" for state in left if counts[state])
    bad = counts["falls"] + counts["low"]
    compared = bad + counts["ok"]
    if not compared:
        return f"no figure was compared: {others}"
    said = f"none of {compared} figures declines"
    if bad:
        said = f"{bad} of {compared} figures decline or are too low"
    return f"{said}; not compared: {others}" if others else said


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}", remedy="name a file with --output"
        ) from error
