"""`cache ls | explain | build | gc | pins`: look at, fill and tidy the artifact store."""

from __future__ import annotations

import re
import shutil
import sys
import time
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.markup import escape

from harness import shards
from harness.base import scratch, signals
from harness.base.errors import ConfigError, StoreError
from harness.base.stages import Stage
from harness.base.store import Store
from harness.base.store_care import tidy, tidy_dead
from harness.cli.building import build_all
from harness.cli.explain import explain as lines
from harness.cli.options import CheckOption, console, say, table
from harness.judge.causes import Exit
from harness.pages.formats import plural
from harness.plan import make_plan, missing, missing_text
from harness.run.own import catalog_of
from harness.settings import Settings
from harness.targets import registry

KEY_SHOWN = 8  # digits of a key, which name its folder well enough


def ls(settings: Settings) -> None:
    """Every artifact: its stage, what it is, its size, how long building took, last use."""
    store = _store(settings)
    entries = sorted(store.entries(), key=lambda entry: (entry.about, entry.kind, entry.created))
    columns = ("kind", "what", "size", "built", "unused", "key")
    shown = table(*columns, whole=("kind", "size", "built", "unused", "key"))
    for entry in entries:
        days = (time.time() - store.last_used(entry)) / 86400
        shown.add_row(
            escape(entry.kind),
            escape(entry.about),
            decimal(entry.bytes),
            f"{entry.seconds:.0f} s",
            f"{max(0.0, days):.1f} d",
            escape(entry.key[:KEY_SHOWN]),
        )
    if entries:
        console().print(shown)
    total = decimal(sum(entry.bytes for entry in entries))
    summary = f"{plural(len(entries), 'artifact')}, {total} in {settings.store}"
    parents = (settings.store, *settings.store.absolute().parents)
    free = shutil.disk_usage(next(path for path in parents if path.exists())).free
    say(f"{summary}; {decimal(free)} free on its disk")


def pins(settings: Settings) -> None:
    """Print key and digest of each compiled model, for --shared-store-pins=FILE of others."""
    for entry in _store(settings).entries():
        if entry.kind == Stage.COMPILE:
            say(f"{entry.key} {entry.digest} {entry.about}")


def _store(settings: Settings) -> Store:
    if settings.store.exists() and not settings.store.is_dir():
        raise ConfigError(
            f"--store={settings.store} is no folder", remedy="name the folder of a store"
        )
    return Store(settings.store)


def explain(settings: Settings, *, check: CheckOption = None) -> None:
    """For each artifact of a command line: in the store or not, and which input differs."""
    for line in lines(settings, catalog_of(settings), check):
        say(line)


def build(settings: Settings, *, check: CheckOption = None) -> None:
    """Build the artifacts of a command line and judge nothing: no device and no images are needed.

    Models are compiled, here or on a host without an NPU (--soc-version says for which chip).
    Crops and references are made where there is a data set.
    """
    catalog = catalog_of(settings)
    registry.provider_of(settings).check(settings)
    settings = registry.located(settings)
    cases = [case for case in make_plan(catalog, settings).cases if check in (None, case.check)]
    cases = list(shards.of_settings(cases, settings))
    lacking = missing(settings, cases, building=True)
    if lacking:
        sys.stderr.write(missing_text(lacking, len(cases)) + "\n")
        raise typer.Exit(int(Exit.INPUT_ERROR))
    tidy_dead(Store(settings.store))
    code = Exit.HARNESS_FAULT
    with signals.listening(), scratch.folder("build") as folder:
        try:
            code = build_all(settings, catalog, folder, cases)
        except KeyboardInterrupt:
            code = Exit.INTERRUPTED
            sys.stderr.write("interrupted: what was whole is in the store\n")
        finally:
            if (folder / "logs").is_dir() and code not in (Exit.PASSED, Exit.INTERRUPTED):
                kept = folder.rename(folder.with_name(f"harness-build-{folder.name[-8:]}"))
                sys.stderr.write(f"logs: {kept / 'logs'}\n")
    raise typer.Exit(int(code))


def gc(
    settings: Settings,
    *,
    max_gb: Annotated[
        float | None,
        typer.Option(metavar="GB", min=0, max=1e9, help="keep at most this many GB"),
    ] = None,
    older_than_days: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS", min=0, max=1e9, help="remove what was not used for so many days"
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="remove what has this key, or one that begins so"),
    ] = None,
) -> None:
    """Remove artifacts that are old or too much; leftovers of dead builds go as well.

    What a run uses stays; so does what was used within the last hour, unless its key is named.
    """
    if key is not None and not re.fullmatch(f"[0-9a-f]{{{KEY_SHOWN},32}}", key):
        raise ConfigError(
            f"--key {key!r} is no key", remedy=f"{KEY_SHOWN} to 32 digits, as `cache ls` shows them"
        )
    done = tidy(
        _store(settings),
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
        older_than_s=None if older_than_days is None else older_than_days * 86400,
        key=key or "",
    )
    for entry, why in done.removed:
        say(f"removed {entry.kind} {entry.key} ({decimal(entry.bytes)}): {why}")
    removed = decimal(sum(entry.bytes for entry, _ in done.removed))
    summary = f"{plural(len(done.removed), 'artifact')}, {removed} removed"
    if done.kept:
        summary += f"; {len(done.kept)} used now or within the last hour, or in the making, stay"
    say(summary)
    if done.failed:
        path, error = done.failed[0]
        raise StoreError(
            f"{plural(len(done.failed), 'thing')} could not be removed, first {path}: "
            f"{error.strerror or error}",
            remedy=f"check the rights of {settings.store}: its owner can remove them",
        )
