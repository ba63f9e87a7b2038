"""What the commands share: options made from the settings' table, the console, readable errors.

`settings.OPTIONS` is the one table of options: a command that takes settings gets each of them as
pytest has it, and resolves it as pytest does (command line, variable, `pytest.ini`).
"""

from __future__ import annotations

import configparser
import functools
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness.base.environment import ROOT
from harness.base.errors import ConfigError, DeviceError, HarnessError, StoreError
from harness.base.families import available
from harness.base.options import Option
from harness.judge.causes import Exit
from harness.settings import OPTIONS, resolve

INI = ROOT / "pytest.ini"


PIPED_WIDTH = 100  # columns of a pipe or a file, which a person reads later
LEAST_WIDTH, MOST_WIDTH = 40, 500


def console() -> Console:
    """Standard output: as wide as $COLUMNS says, else as the terminal; a pipe gets `PIPED_WIDTH`,
    whatever the terminal it was started from.
    """
    asked = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    if asked.isascii() and asked.isdigit() and 0 < len(asked) < 5 and int(asked):
        width = min(max(int(asked), LEAST_WIDTH), MOST_WIDTH)
    return Console(width=width, highlight=False, soft_wrap=False)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Print an error of the harness, and end with the exit code of its kind (`causes.Exit`)."""
    try:
        yield
    except HarnessError as error:
        sys.stderr.write(f"{error}\n")
        machine = isinstance(error, DeviceError | StoreError)
        code = Exit.MACHINE_TROUBLE if machine else Exit.INPUT_ERROR
        raise typer.Exit(int(code)) from None


def ini_values(path: Path | None = None) -> dict[str, str]:
    """Return the harness's keys of `pytest.ini` (`INI`); none where there is no such file.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = INI if path is None else path
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        if not path.is_file():
            return {}
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    # AttributeError: Python's own fault, for an indented line after a key without a value.
    except (OSError, ValueError, AttributeError, configparser.Error) as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise ConfigError(f"{path} cannot be read: {first}", remedy="correct the file") from error
    if not parser.has_section("pytest"):
        return {}
    known = {option.ini for option in OPTIONS}
    return {key: value or "" for key, value in parser.items("pytest") if key in known}


def takes_settings(
    command: Callable[..., None], names: Collection[str] | None = None
) -> Callable[..., None]:
    """`command(settings, *, ...)` as a command line with the options of the settings' table.

    `names` limits the table. The parameters that the command has besides keep their own options.
    """
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.name != "settings"
    ]
    table = [option for option in OPTIONS if names is None or option.name in names]
    parameters = [*own, *(_parameter(option) for option in table)]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        with readable_errors():
            others = {parameter.name: given.pop(parameter.name) for parameter in own}
            command(resolve(given, ini=ini_values()), **others)

    del run.__wrapped__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # typer reads a command from its signature, and this one is made, not written.
    setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010 - no such attribute
    return run


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = {"flag": bool, "list": list[str] | None, "pairs": list[str] | None}.get(
        option.kind, str | None
    )
    declared = typer.Option(
        option.flag,
        metavar=option.metavar,
        help=f"{option.help} [${option.environment}]",
        rich_help_panel=option.group.title,
        autocompletion=_completer(option) if option.choices or option.name in _COMPLETED else None,
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if option.kind == "flag" else None,
        annotation=Annotated[kind, declared],
    )


_COMPLETED = ("target", "models")


def _completer(option: Option) -> Callable[[str], list[str]]:
    """Return what can follow an option on the command line, for a shell's completion."""

    def values(incomplete: str) -> list[str]:
        parts = incomplete.rpartition(",") if option.name == "models" else ("", "", incomplete)
        begun, comma, last = parts
        return [begun + comma + value for value in _known(option) if value.startswith(last)]

    return values


def _known(option: Option) -> list[str]:
    if option.choices:
        return list(option.choices)
    if option.name == "target":
        return list(available())
    from harness.catalog.load import load_catalog

    try:
        return list(load_catalog(resolve({}, ini=ini_values()).catalog).models)
    except HarnessError:
        return []
