"""`catalog own` and `catalog draft`: the catalog of a model of one's own, or of a guide's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.catalog.draft import draft_guide
from harness.catalog.yaml_document import BLANK
from harness.cli.options import readable_errors, say
from harness.run.own import catalog_of, draft
from harness.settings import Settings


def own(settings: Settings) -> None:
    """Print the catalog that --model-file stands for: keep it as a file, for --catalog.

    What the file does not say is assumed; correct it there.
    """
    text = draft(settings)
    catalog_of(settings)  # what it refuses, a run would refuse
    say(text.rstrip())


def from_guide(
    readme: Annotated[Path, typer.Argument(help="README.md of a guide of the ModelZoo form")],
    where: Annotated[str, typer.Option(help="its repository, path and commit")] = "",
    date: Annotated[str, typer.Option(help="day of its commit, such as 2023-06-13")] = "",
    model: Annotated[str, typer.Option("--id", help="id of the model (default: the folder)")] = "",
) -> None:
    """Print the catalog of a guide, each value with its line: fill in the blanks, for --catalog.

    What the guide does not say is FILL_IN, which no run takes.
    """
    with readable_errors():
        text = draft_guide(readme, where=where, date=date, name=model)
    say(text.rstrip())
    say(
        f"{text.count(f': {BLANK}')} values are {BLANK}: their comments say what is wanted",
        err=True,
    )
