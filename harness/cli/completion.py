"""`completion`: a script with which a shell completes the installed command."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from typer import completion as typers

Shell = Literal["bash", "zsh", "fish"]
PROGRAM = "npu-accept"
VARIABLE = "_NPU_ACCEPT_COMPLETE"


def completion(shell: Annotated[Shell, typer.Argument()]) -> None:
    """A script for the shell, which completes `npu-accept` by tab.

    bash: source <(npu-accept completion bash), or append its output to ~/.bashrc
    """
    script: str = typers.get_completion_script(  # type: ignore[attr-defined]  # imported there
        prog_name=PROGRAM, complete_var=VARIABLE, shell=shell
    )
    typer.echo(script)
