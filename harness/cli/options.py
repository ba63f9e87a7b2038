"""What the commands share: options made from the settings' table, the console, readable errors.

`settings.OPTIONS` is the one table of options: a command that takes settings gets each of them as
pytest has it, and resolves it as pytest does (command line, variable, `pytest.ini`).
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.base.environment import ROOT
from harness.base.errors import DeviceError, HarnessError, StoreError, of_machine
from harness.base.options import Option
from harness.base.terms import Check
from harness.base.text import clean
from harness.judge.causes import Exit
from harness.settings import OPTIONS, resolve
from harness.usage import ini_values, unknown_variables

INI = ROOT / "pytest.ini"
PIPED_WIDTH = 100  # columns of a pipe or a file, which a person reads later

CheckOption = Annotated[Check | None, typer.Option("-m", help="only this check")]


def console() -> Console:
    """Standard output: as wide as $COLUMNS says, else as the terminal; a pipe gets `PIPED_WIDTH`,
    whatever the terminal it was started from.
    """
    asked = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return _Console(width=None if asked else PIPED_WIDTH, highlight=False)


class _Console(Console):
    """A console on which text of others moves no cursor."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(clean(text), **how)


def say(text: str, *, err: bool = False) -> None:
    """Print plain text, which the terminal wraps."""
    typer.echo(clean(text), err=err)


def table(*columns: str, whole: Collection[str] = (), title: str = "") -> Table:
    """Return an empty table; columns of `whole` are for copying: they are never broken."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in whole)
    return made


@contextmanager
def readable_errors() -> Iterator[None]:
    """Print an error of the harness, and end with the exit code of its kind (`causes.Exit`)."""
    try:
        yield
    except (HarnessError, OSError) as error:
        machine = isinstance(error, DeviceError | StoreError) or of_machine(error)
        if isinstance(error, OSError) and not machine:
            raise
        sys.stderr.write(f"{error}\n")
        code = Exit.MACHINE_TROUBLE if machine else Exit.INPUT_ERROR
        raise typer.Exit(int(code)) from None


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
    options = [option for option in OPTIONS if names is None or option.name in names]
    parameters = [*own, *(_parameter(option) for option in options)]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        with readable_errors():
            others = {parameter.name: given.pop(parameter.name) for parameter in own}
            for line in unknown_variables(os.environ):
                sys.stderr.write(f"{line}\n")
            command(resolve(given, ini=ini_values(INI)), **others)

    del run.__wrapped__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # typer reads a command from its signature, and this one is made, not written.
    setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010 - no such attribute
    return run


def _parameter(option: Option) -> inspect.Parameter:
    repeats = option.kind in ("list", "pairs", "paths")
    kind: Any = bool if option.kind == "flag" else list[str] | None if repeats else str | None
    declared = typer.Option(
        *option.flags,
        metavar=option.metavar,
        help=f"{option.help} [${option.environment}]",
        rich_help_panel=option.group.title,
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if option.kind == "flag" else None,
        annotation=Annotated[kind, declared],
    )
