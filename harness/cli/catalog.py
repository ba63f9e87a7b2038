"""`catalog own`: the catalog of a model of one's own, to keep and to correct."""

from __future__ import annotations

from harness.cli.options import say
from harness.run.own import catalog_of, draft
from harness.settings import Settings


def own(settings: Settings) -> None:
    """Print the catalog that --model-file stands for: keep it as a file, for --catalog.

    What the file does not say is assumed; correct it there.
    """
    text = draft(settings)
    catalog_of(settings)  # what it refuses, a run would refuse
    say(text.rstrip())
