"""`rules` prints the rules of judgement."""

from __future__ import annotations

import typer

from harness.judge.rules import RULES


def rules() -> None:
    """List the rules of judgement, each with its source and function (docs/judging.md)."""
    for rule in RULES:
        function = f"{rule.function.__module__}.{rule.function.__name__}"
        typer.echo(f"{rule.name}: {rule.title}\n  source: {rule.source}\n  code: {function}")
