"""`rules` prints the rules of judgement."""

from __future__ import annotations

import inspect

import typer

from harness.judge.rules import RULES


def rules() -> None:
    """List the rules of judgement: sentence, source and function of each (docs/judging.md)."""
    for rule in RULES:
        function = f"{rule.function.__module__}.{rule.function.__name__}"
        sentence = " ".join((inspect.getdoc(rule.function) or "").partition("\n\n")[0].split())
        typer.echo(f"{rule.name}: {rule.title}\n  {sentence}\n  source: {rule.source}")
        typer.echo(f"  code: {function}")
