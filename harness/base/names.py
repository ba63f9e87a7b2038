"""The name that somebody meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def did_you_mean(name: str, known: Iterable[str], of: Mapping[str, str] | None = None) -> str:
    """Return a hint at the known name that is closest; empty where none is close.

    `of`: what to say for a known name, where that is another one.
    """
    close = difflib.get_close_matches(name, [*known], n=1, cutoff=0.5)
    return f"did you mean {(of or {}).get(close[0], close[0])!r}?" if close else ""
