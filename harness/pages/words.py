"""The fixed words of pages in the reader's language: English, or Chinese from `zh.yaml`.

A page is made inside `spoken`; whatever it says of its own goes through `say`. What a record holds
(names, sentences of verdicts, messages of tools) stays as it was written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import yaml

_language: ContextVar[str] = ContextVar("language", default="en")


def language() -> str:
    """Return the language of the page that is being made."""
    return _language.get()


def preferred(environment: Mapping[str, str] = os.environ) -> str:
    """Return the language of the locale, as far as pages have it."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    locale = next((environment[name] for name in names if environment.get(name)), "")
    return "zh" if locale.lower().startswith("zh") else "en"


@contextmanager
def spoken(language: str) -> Iterator[None]:
    """Make pages in a language; that of the locale where it is empty."""
    token = _language.set(language or preferred())
    try:
        yield
    finally:
        _language.reset(token)


@cache
def chinese() -> dict[str, str]:
    """Return the table of words: English -> Chinese."""
    text = Path(__file__).with_name("zh.yaml").read_text(encoding="utf-8")
    table: dict[str, str] = yaml.safe_load(text)
    return table


def say(english: str, **values: object) -> str:
    """Return fixed words in the page's language, with values in their places: `{n} more`."""
    text = chinese().get(english, english) if _language.get() == "zh" else english
    return text.format(**values) if values else text
