"""`python -m harness`: what can be known and done without running pytest."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from harness import records
from harness.cases import CHECKS, Case, make_plan, missing, without_baseline
from harness.catalog import Catalog, load_catalog
from harness.errors import ConfigError, HarnessError
from harness.settings import Settings, resolve

app = typer.Typer(
    name="harness",
    help="Acceptance tests for image classifiers deployed on Ascend NPUs. "
    "The tests themselves are run by pytest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(
    help="Look at and tidy the artifact store.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cache_app, name="cache")

Rehearsal = Annotated[bool, typer.Option("--rehearsal", help="as pytest --rehearsal")]
Target = Annotated[str | None, typer.Option(metavar="NAME", help="where compiled models run")]
Models = Annotated[str | None, typer.Option(metavar="A,B", help="models to look at")]
BatchSizes = Annotated[str | None, typer.Option(metavar="N,M", help="batch sizes to look at")]
Check = Annotated[str | None, typer.Option("-m", metavar="CHECK", help="accuracy or throughput")]
StoreOption = Annotated[Path | None, typer.Option(metavar="DIR", help="folder of the store")]
CatalogOption = Annotated[Path | None, typer.Option(metavar="FILE", help="the catalog")]


def _console() -> Console:
    # A pipe gets whole lines, whatever the width of the terminal it was started from.
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=False)


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except HarnessError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(4 if isinstance(error, ConfigError) else 1) from None


def _settings(**given: Any) -> Settings:
    return resolve({name: value for name, value in given.items() if value})


def _load(settings: Settings) -> Catalog:
    return load_catalog(settings.catalog)


@app.command()
def plan(
    rehearsal: Rehearsal = False,
    target: Target = None,
    models: Models = None,
    batch_sizes: BatchSizes = None,
    check: Check = None,
    imagenet: Annotated[Path | None, typer.Option(metavar="DIR")] = None,
    checkpoints: Annotated[Path | None, typer.Option(metavar="DIR")] = None,
    catalog: CatalogOption = None,
) -> None:
    """The cases that a command line would run, and which have no figure to be held against."""
    with _readable_errors():
        settings = _settings(
            rehearsal=rehearsal,
            target=target,
            models=models,
            batch_sizes=batch_sizes,
            imagenet=imagenet,
            checkpoints=checkpoints,
            catalog=catalog,
        )
        if check is not None and check not in CHECKS:
            raise ConfigError(f"-m {check!r} is not a check", remedy=f"one of: {', '.join(CHECKS)}")
        contents = _load(settings)
        found = make_plan(contents, settings)
        cases = [case for case in found.cases if check is None or case.check == check]
        console = _console()
        table = Table(title=f"{len(cases)} cases", title_justify="left")
        for column in ("case", "check", "held against"):
            table.add_column(column)
        for case in cases:
            table.add_row(case.id, case.check, _reference(contents, settings, case))
        console.print(table)
        if not settings.rehearsal:
            lacking = [
                (case, why) for case, why in without_baseline(contents, found) if case in cases
            ]
            if lacking:
                console.print(f"\n{len(lacking)} throughput cases have no comparable figure:")
                for case, why in lacking:
                    console.print(f"  ({case.model}, {case.target}, {case.batch_size}): {why}")
            for item in missing(settings, cases):
                console.print(f"\nmissing: {item.thing}\n  give {item.remedy}")


def _reference(catalog: Catalog, settings: Settings, case: Case) -> str:
    model = catalog.models[case.model]
    if settings.rehearsal:
        if case.check == "accuracy":
            return "eager PyTorch's predictions on the same generated images"
        return "eager PyTorch's speed on this host"
    if case.check == "accuracy":
        published, rule = model.accuracy.published, model.accuracy.rule
        side = "±" if rule.side == "both" else "-"
        return f"top-1 {published.top1:g} % {side}{rule.tolerance_percent:g} % ({published.source})"
    baseline = model.baseline(case.target, case.batch_size)
    if baseline is None:
        return "nothing: recorded"
    if not baseline.comparable:
        return "nothing comparable: recorded"
    return baseline.describe()


@app.command()
def doctor(
    store: StoreOption = None,
    imagenet: Annotated[Path | None, typer.Option(metavar="DIR")] = None,
    checkpoints: Annotated[Path | None, typer.Option(metavar="DIR")] = None,
    catalog: CatalogOption = None,
) -> None:
    """What this machine has and lacks for each target, and how to get it."""
    from harness.doctor import examine

    with _readable_errors():
        settings = _settings(
            store=store, imagenet=imagenet, checkpoints=checkpoints, catalog=catalog
        )
        findings = examine(settings, _load(settings))
        console = _console()
        for title in dict.fromkeys(finding.group for finding in findings):
            table = Table(title=title, title_justify="left", show_lines=False)
            for column in ("", "what", "found", "what to do"):
                table.add_column(column, overflow="fold")
            for finding in findings:
                if finding.group == title:
                    sign = "[green]ok[/]" if finding.ok else "[red]lacks[/]"
                    table.add_row(sign, finding.what, finding.found, finding.remedy)
            console.print(table)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories")],
) -> None:
    """Render report.html again from the records of a run."""
    from harness.report import write_report

    with _readable_errors():
        for run in runs:
            records.read(run)  # an error before anything is written
            typer.echo(write_report(run))


# The store -------------------------------------------------------------------------------


def _open_store(settings: Settings) -> Any:
    from harness.artifacts.store import Store

    return Store(settings.store)


@cache_app.command("ls")
def cache_ls(store: StoreOption = None) -> None:
    """Every artifact: kind, key, size, age, what it was made from."""
    import time

    with _readable_errors():
        settings = _settings(store=store)
        opened = _open_store(settings)
        table = Table(title=str(settings.store), title_justify="left")
        for column, justify in (
            ("kind", "left"),
            ("key", "left"),
            ("MB", "right"),
            ("built in s", "right"),
            ("used, days ago", "right"),
            ("of", "left"),
        ):
            table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
        total = 0
        for entry in opened.entries():
            total += entry.bytes
            age = (time.time() - opened.last_used(entry)) / 86400
            table.add_row(
                entry.kind,
                entry.key,
                f"{entry.bytes / 1e6:.1f}",
                f"{entry.seconds:.1f}",
                f"{age:.1f}",
                _about(entry.inputs),
            )
        console = _console()
        console.print(table)
        free = shutil.disk_usage(_existing(settings.store)).free
        console.print(f"{total / 1e6:.1f} MB in the store, {free / 1e9:.1f} GB free on its disk")


def _about(inputs: Any) -> str:
    names = ("network", "file", "batch_size", "count", "geometry", "target")
    return ", ".join(
        f"{name} {_brief(inputs[name])}" for name in names if inputs.get(name) is not None
    )


def _brief(value: Any) -> str:
    if isinstance(value, dict) and "crop" in value:
        return f"{value['resize']['op']} {value['resize']['size']}, crop {value['crop']['size']}"
    return str(value)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


@cache_app.command("explain")
def cache_explain(
    rehearsal: Rehearsal = False,
    target: Target = None,
    models: Models = None,
    batch_sizes: BatchSizes = None,
    check: Check = None,
    store: StoreOption = None,
    imagenet: Annotated[Path | None, typer.Option(metavar="DIR")] = None,
    checkpoints: Annotated[Path | None, typer.Option(metavar="DIR")] = None,
    onnx: Annotated[list[str] | None, typer.Option(metavar="MODEL=FILE")] = None,
    catalog: CatalogOption = None,
) -> None:
    """For each artifact of a command line: in the store or not, and which input differs."""
    from harness.explain import explain

    with _readable_errors():
        settings = _settings(
            rehearsal=rehearsal,
            target=target,
            models=models,
            batch_sizes=batch_sizes,
            store=store,
            imagenet=imagenet,
            checkpoints=checkpoints,
            onnx=onnx,
            catalog=catalog,
        )
        console = _console()
        for line in explain(settings, _load(settings), check):
            console.print(line, markup=False)


@cache_app.command("gc")
def cache_gc(
    max_gb: Annotated[float | None, typer.Option(help="keep at most this many GB")] = None,
    older_than_days: Annotated[
        float | None, typer.Option(help="remove what was not used for so many days")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Remove artifacts that are old or too much; leftovers of dead builds go as well."""
    with _readable_errors():
        for name, value in (("--max-gb", max_gb), ("--older-than-days", older_than_days)):
            if value is not None and not 0 <= value < 1e9:
                raise ConfigError(f"{name} {value:g} is not a sensible bound")
        opened = _open_store(_settings(store=store))
        removed = opened.gc(
            max_bytes=None if max_gb is None else int(max_gb * 1e9),
            older_than_s=None if older_than_days is None else older_than_days * 86400,
        )
        for entry, why in removed:
            typer.echo(f"removed {entry.kind} {entry.key} ({entry.bytes / 1e6:.1f} MB): {why}")
        typer.echo(
            f"{len(removed)} artifacts, {sum(e.bytes for e, _ in removed) / 1e6:.1f} MB removed"
        )


def main() -> None:
    """Entry of `python -m harness`."""
    run: Callable[..., Any] = app
    run(prog_name="python -m harness")


if __name__ == "__main__":
    main()
