"""`cache ls | explain | build | gc`: look at, fill and tidy the artifact store."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness.base import signals
from harness.base.errors import CatalogError, ConfigError, StoreError
from harness.base.progress import Progress
from harness.base.terms import CHECKS
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog
from harness.cli.options import console, takes_settings
from harness.judge.causes import Exit
from harness.plan import Case, make_plan, missing, missing_text
from harness.settings import Settings
from harness.targets import registry

LONGEST_DAYS = 1e9
KEY_SHOWN = 8  # digits of a key, which name its folder well enough
_KEY = re.compile(rf"[0-9a-f]{{{KEY_SHOWN},32}}")
Check = Annotated[str | None, typer.Option("-m", metavar="CHECK", help="accuracy or throughput")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    cache = typer.Typer(
        help="Look at, fill and tidy the artifact store.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    cache.command("ls")(takes_settings(ls, ("store", "catalog")))
    cache.command()(takes_settings(explain))
    cache.command()(takes_settings(build))
    cache.command()(takes_settings(gc, ("store",)))
    app.add_typer(cache, name="cache")


def known_check(check: str | None) -> str | None:
    """Return the value of `-m`.

    Raises:
        ConfigError: it is none of the checks.
    """
    if check is not None and check not in CHECKS:
        raise ConfigError(f"-m {check!r} is not a check", remedy=f"one of: {', '.join(CHECKS)}")
    return check


def ls(settings: Settings) -> None:
    """Every artifact: kind, model, batch size, chip, size, how long building took, last use."""
    from harness.base.store import Store
    from harness.stages.inventory import inventory

    _require_folder(settings.store)
    store = Store(settings.store)
    catalog = None
    with contextlib.suppress(CatalogError):  # names alone hang on it
        catalog = load_catalog(settings.catalog)
    items = inventory(store.entries(), catalog)
    out = console()
    if items:
        table = Table(box=None, pad_edge=False)
        longest = max(len(name) for item in items for name in item.model.split(", "))
        table.add_column("kind", no_wrap=True)
        table.add_column("model", overflow="fold", min_width=min(longest, 32))
        table.add_column("batch", justify="right")
        table.add_column("what", overflow="fold")
        for name, least in (("MB", 5), ("built", 5), ("used", 6), ("key", KEY_SHOWN)):
            table.add_column(name, justify="right", no_wrap=True, min_width=least)
        for item in items:
            entry = item.entry
            table.add_row(
                escape(entry.kind),
                escape(item.model),
                "" if item.batch_size is None else str(item.batch_size),
                escape(item.what + (", older" if item.older else "")),
                f"{entry.bytes / 1e6:.1f}",
                f"{entry.seconds:.0f} s",
                _ago(time.time() - store.last_used(entry)),
                escape(entry.key[:KEY_SHOWN]),
            )
        out.print(table)
    older = sum(item.entry.bytes for item in items if item.older)
    total = sum(item.entry.bytes for item in items)
    free = shutil.disk_usage(_existing(settings.store)).free
    summary = f"{_count(len(items), 'artifact')}, {_size(total)} in {settings.store}"
    summary += f" ({_size(older)} of it older than another of the same)" if older else ""
    out.print(f"{summary}; {free / 1e9:.1f} GB free on its disk", markup=False, soft_wrap=True)


def _ago(seconds: float) -> str:
    """`5 min`, `3 h`, `12 d`; what is dated in the future was used now."""
    minutes = max(0.0, seconds) / 60
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} d"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _require_folder(store: Path) -> None:
    if store.exists() and not store.is_dir():
        raise ConfigError(f"--store={store} is no folder", remedy="name the folder of a store")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def explain(settings: Settings, *, check: Check = None) -> None:
    """For each artifact of a command line: in the store or not, and which input differs."""
    from harness.cli.explain import explain as lines

    contents = load_catalog(settings.catalog)
    out = console()
    for line in lines(settings, contents, known_check(check)):
        out.print(line, markup=False)


def build(settings: Settings, *, check: Check = None) -> None:
    """Build the artifacts of a command line and judge nothing: no device and no images are needed.

    Models are compiled, here or on a host without an NPU (--soc-version says for which chip).
    Crops and references are made where there is a data set.
    """
    wanted = known_check(check)
    contents = load_catalog(settings.catalog)
    registry.check(settings)
    settings = registry.located(settings)
    cases = [case for case in make_plan(contents, settings).cases if wanted in (None, case.check)]
    lacking = missing(settings, cases, building=True)
    if lacking:
        sys.stderr.write(missing_text(lacking, len(cases)) + "\n")
        raise typer.Exit(int(Exit.INPUT_ERROR))
    for tool in registry.unused(settings):
        sys.stderr.write(f"{tool} is not used: a simulated host has its own tools\n")
    folder = None
    code = Exit.HARNESS_FAULT
    with signals.listening():
        try:
            folder = Path(tempfile.mkdtemp(prefix="harness-build-"))
            code = _build(settings, contents, cases, folder)
        except KeyboardInterrupt:
            code = Exit.INTERRUPTED
            sys.stderr.write("interrupted: what was whole is in the store\n")
        finally:
            if folder is not None:
                _leave(folder, code)
    raise typer.Exit(int(code))


def _leave(folder: Path, code: Exit) -> None:
    logs = folder / "logs"
    if code not in (Exit.PASSED, Exit.INTERRUPTED) and logs.is_dir():
        sys.stderr.write(f"logs: {logs}\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _build(settings: Settings, contents: Catalog, cases: Sequence[Case], folder: Path) -> Exit:
    from harness.cli.building import Builder, Built  # numpy comes with it

    progress = Progress(sys.stderr.fileno(), terminal=True) if sys.stderr.isatty() else None
    builder = Builder(settings, contents, folder, cases, progress)
    out = console()

    def say(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    versions = [f"{name} {value}" for name, value in builder.toolchain().items() if value]
    say(f"built for {', '.join(versions)}")
    artifacts = built = failed = 0
    for one in builder.build():
        if isinstance(one, Built):
            made = one.artifact
            how = "was there" if made.cached else "built"
            name, size = f"{made.stage} {made.key[:KEY_SHOWN]}", f"{made.bytes / 1e6:.1f} MB"
            say(f"{one.case.id}: {name}, {size}, {how}")
            artifacts, built = artifacts + 1, built + (not made.cached)
            continue
        failed += 1
        what = f"{one.case.name}: failed at the stage {one.error.stage}"
        say(what + (", as before" if one.repeated else ""))
        if not one.repeated:
            sys.stderr.write(f"{one.error}\n")
    of = f"{failed} of {_count(len(cases), 'case')} failed"
    say(f"{_count(artifacts, 'artifact')}, {built} of them built now; {of}")
    if not builder.with_images and any(case.check == "accuracy" for case in cases):
        say("without a data set no crops and no references are made")
    return builder.exit_code()


def gc(
    settings: Settings,
    *,
    max_gb: Annotated[
        float | None, typer.Option(metavar="GB", help="keep at most this many GB")
    ] = None,
    older_than_days: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="remove what was not used for so many days"),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="remove what has this key, or one that begins so"),
    ] = None,
) -> None:
    """Remove artifacts that are old or too much; leftovers of dead builds go as well.

    What was used within the last hour stays, unless its key is named.
    """
    from harness.base.store import Store

    for name, value in (("--max-gb", max_gb), ("--older-than-days", older_than_days)):
        if value is not None and not 0 <= value < LONGEST_DAYS:
            raise ConfigError(f"{name} {value:g} is not a sensible bound", remedy="0 or more")
    if key is not None and not _KEY.fullmatch(key):
        raise ConfigError(
            f"--key {key!r} is no key", remedy=f"{KEY_SHOWN} to 32 digits, as `cache ls` shows them"
        )
    _require_folder(settings.store)
    done = Store(settings.store).gc(
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
        older_than_s=None if older_than_days is None else older_than_days * 86400,
        key=key or "",
    )
    for entry, why in done.removed:
        typer.echo(f"removed {entry.kind} {entry.key} ({entry.bytes / 1e6:.1f} MB): {why}")
    summary = _count(len(done.removed), "artifact")
    summary += f", {_size(sum(entry.bytes for entry, _ in done.removed))} removed"
    if done.recent:
        summary += f"; {len(done.recent)} used within the last hour stay"
    if done.held:
        summary += f"; {len(done.held)} in the making stay"
    typer.echo(summary)
    if done.failed:
        path, error = done.failed[0]
        raise StoreError(
            f"{_count(len(done.failed), 'thing')} could not be removed, first {path}: "
            f"{error.strerror or error}",
            remedy=f"check the rights of {settings.store}: its owner can remove them",
        )
