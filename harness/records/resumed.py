"""The options of a run that goes on: those that its record has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError, RecordError
from harness.base.families import target_name
from harness.base.given import Given, plain
from harness.base.options import PLACES, Option
from harness.records import reader, writer

# What may differ: which of its cases run, and what is made of them.
_FREE = frozenset({"resume", "resume_undecided", "models", "batch_sizes", "allow_inconclusive"})


def as_before(
    command_line: Mapping[str, Any],
    run: Path,
    base: Path,
    options: Sequence[Option],
    default: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a command line with what it leaves out as the run had it.

    Args: base: what relative paths are relative to. default: each option's, as JSON. Raises
    `ConfigError`: it asks for something else than the run, or there is no such run of ours.
    """
    given = {name: raw for name, raw in command_line.items() if raw not in (None, [], False)}
    given["resume"] = str(run)
    try:
        records = reader.read(run.expanduser())
        owner = (records.directory / writer.RESULTS).stat().st_uid
    except (RecordError, OSError) as error:
        raise ConfigError(str(error), remedy="name the directory of a run") from None
    if owner not in (0, os.geteuid()):
        raise ConfigError(
            f"{records.directory} belongs to another user",
            remedy="its options name programs: start a run of your own",
        )
    before = {} if records.run is None else records.run.settings
    for row in options:
        then = before.get(row.name, default[row.name])
        if row.name in given:
            now = plain(Given(row, given[row.name], row.flag, base).value(), row)
            if row.name == "target":
                now = target_name(now)
            if now != then and row.name not in _FREE and row.group is not PLACES:
                how = f"with {then}" if then else "without"
                raise ConfigError(
                    f"{row.flag}: the resumed run was started {how}",
                    remedy="leave it out: a resumed run takes its options; or start a new one",
                )
        elif then != default[row.name] and row.name not in ("resume", "runs", "lang"):
            given[row.name] = typed(then)
    return given


def typed(value: Any) -> Any:
    """Return an option's value, as JSON has it, as somebody types it."""
    if isinstance(value, Mapping):
        return [f"{name}={path}" for name, path in value.items()]
    return [str(one) for one in value] if isinstance(value, list) else value
