"""`python -m harness`: what can be known and done without running pytest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

try:
    import typer
    from typer import completion

    from harness.cli import cache as cache_commands
    from harness.cli import completion as completion_commands
    from harness.cli import doctor as doctor_commands
    from harness.cli import history as history_commands
    from harness.cli import plan as plan_commands
    from harness.cli import report as report_commands
    from harness.cli import rules as rule_commands
    from harness.judge.causes import Exit
except ModuleNotFoundError as error:
    # Of the harness' own modules none is absent: that would be a fault, with its traceback.
    if __name__ != "__main__" or (error.name or "harness").partition(".")[0] == "harness":
        raise
    sys.stderr.write(
        f"{error.name} is not installed in {sys.executable}\n"
        "  what to do: . .venv/bin/activate, or python -m pip install -r requirements.txt\n"
    )
    raise SystemExit(4) from None  # `causes.Exit.INPUT_ERROR`, which cannot be imported here

app = typer.Typer(
    name="harness",
    help="Acceptance tests for image classifiers deployed on Ascend NPUs. "
    "The tests themselves are run by pytest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,  # see completion_commands
)
for _part in (
    plan_commands,
    doctor_commands,
    report_commands,
    rule_commands,
    cache_commands,
    history_commands,
    completion_commands,
):
    _part.register(app)


def main() -> None:
    """Entry of `python -m harness`."""
    run: Callable[..., Any] = app
    # Click's own 2 is that of a run that was interrupted. The class of all errors of usage has no
    # public name in typer, but it is that of a bad parameter, less the parameter.
    usage_error: Any = typer.BadParameter.__base__
    usage_error.exit_code = int(Exit.INPUT_ERROR)
    # typer does this itself only together with the options that it would add.
    completion.completion_init()  # type: ignore[attr-defined]  # imported there, not exported
    run(prog_name="python -m harness", complete_var=completion_commands.VARIABLE)


if __name__ == "__main__":
    main()
