"""`completion`: a script that gives a shell the command `harness` and what can follow it.

typer's own `--install-completion` writes a script for a program on PATH. This one is run as
`python -m harness` from a checkout, and no shell completes a command of three words; so the script
also defines `harness`, which runs just this interpreter on just this checkout.
"""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from harness.base.environment import ROOT
from harness.base.errors import ConfigError
from harness.cli.options import readable_errors

PROGRAM = "harness"
VARIABLE = "_HARNESS_COMPLETE"

_BASH = """\
harness() { env PYTHONPATH=@root@ @python@ -m harness "$@"; }
_harness_completion() {
  local IFS=$'\\n'
  COMPREPLY=($(env PYTHONPATH=@root@ COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" \\
    @variable@=complete_bash @python@ -m harness 2>/dev/null))
}
complete -o default -F _harness_completion harness
"""
_ZSH = """\
harness() { env PYTHONPATH=@root@ @python@ -m harness "$@" }
_harness_completion() {
  eval $(env PYTHONPATH=@root@ _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" \\
    @variable@=complete_zsh @python@ -m harness 2>/dev/null)
}
compdef _harness_completion harness
"""
_FISH = """\
function harness; env PYTHONPATH=@root@ @python@ -m harness $argv; end
function _harness_completion
  env PYTHONPATH=@root@ @variable@=complete_fish _TYPER_COMPLETE_FISH_ACTION=$argv[1] \\
    _TYPER_COMPLETE_ARGS=(commandline -cp) @python@ -m harness 2>/dev/null
end
complete --command harness --no-files --condition "_harness_completion is-args" \\
  --arguments "(_harness_completion get-args)"
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(completion)


def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish")],
) -> None:
    """A script for the shell: the command `harness`, completed by tab.

    bash: source <(python -m harness completion bash), or append its output to ~/.bashrc
    """
    with readable_errors():
        sys.stdout.write(script(shell))


def script(shell: str) -> str:
    """Return the script for a shell.

    Raises:
        ConfigError: a shell that nobody wrote one for.
    """
    if shell not in SCRIPTS:
        raise ConfigError(
            f"there is no completion for {shell!r}", remedy=f"one of: {', '.join(SCRIPTS)}"
        )
    text = SCRIPTS[shell].replace("@python@", shlex.quote(sys.executable))
    return text.replace("@root@", shlex.quote(str(ROOT))).replace("@variable@", VARIABLE)
