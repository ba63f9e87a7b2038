"""`completion`: a script that gives a shell the command `harness` and what can follow it.

typer completes a program on PATH. This one is run as `python -m harness` from a checkout, and no
shell completes a command of three words; so the script also defines the function `harness`, which
runs just this interpreter on just this checkout.
"""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Literal

import typer
from typer import completion as typers

from harness.base.environment import ROOT

Shell = Literal["bash", "zsh", "fish"]
VARIABLE = "_HARNESS_COMPLETE"


def completion(shell: Annotated[Shell, typer.Argument()]) -> None:
    """A script for the shell: the command `harness`, completed by tab.

    bash: source <(python -m harness completion bash), or append its output to ~/.bashrc
    """
    typer.echo(script(shell), nl=False)


def script(shell: Shell) -> str:
    """Return the script for a shell."""
    path, python = shlex.quote(str(ROOT)), shlex.quote(sys.executable)
    program = f"env PYTHONPATH={path} {python} -m harness"
    function = f'harness() {{ {program} "$@"; }}'
    if shell == "fish":
        function = f"function harness; {program} $argv; end"
    completer: str = typers.get_completion_script(  # type: ignore[attr-defined]  # imported there
        prog_name="harness", complete_var=VARIABLE, shell=shell
    )
    # `env` runs programs alone, and here `harness` is a function.
    return f"{function}\n{completer.replace('env ', '')}\n"
