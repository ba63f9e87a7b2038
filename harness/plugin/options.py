"""The harness's options as pytest gets them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import pytest

from harness.base.errors import ConfigError
from harness.base.names import did_you_mean
from harness.settings import GROUPS, OPTIONS


def add_options(parser: pytest.Parser, arguments: Sequence[str]) -> None:
    """Add every option, with its keys of `pytest.ini`; leave a flag to another plugin that has it.
    Raises `ConfigError`: the command line has a flag of ours that another plugin would take.
    """
    for one in GROUPS:
        parser.getgroup(f"acceptance: {one.title}", f"acceptance: {one.title}, e.g. {one.example}")
    given = {argument.partition("=")[0] for argument in arguments}
    for option in OPTIONS:
        group = parser.getgroup(f"acceptance: {option.group.title}")
        how: dict[str, Any] = {"action": "store_true"}
        if option.kind != "flag":
            repeats = option.kind in ("list", "pairs", "paths")
            how = {"action": "append" if repeats else "store", "metavar": option.metavar}
        text = f"{option.help} [${option.environment}]"
        for flag in (*option.flags, option.own_flag):
            if _is_free(flag, parser):
                group.addoption(flag, dest=option.ini, default=None, help=text, **how)
                text = argparse.SUPPRESS  # help shows the first
            elif flag in given:
                raise ConfigError(
                    f"{flag} is taken by another plugin of pytest",
                    remedy=f"write {option.own_flag}, or do without that plugin: -p no:NAME",
                )
        for key in option.keys:
            parser.addini(key, help=option.help.replace("%%", "%"), default="")
    _hint_at_unknown_flags(arguments, parser)


def _is_free(flag: str, parser: pytest.Parser) -> bool:
    given = f"{flag}=x"
    try:
        return given in parser.parse_known_and_unknown_args([given])[1]
    except Exception:  # it is known, and takes another value
        return False


def _hint_at_unknown_flags(arguments: Sequence[str], parser: pytest.Parser) -> None:
    """Let pytest's own error of an unknown option name the closest one of ours."""
    try:
        unknown = parser.parse_known_and_unknown_args(arguments)[1]
    except Exception:  # another error of usage, which pytest tells
        return
    known = [flag for option in OPTIONS for flag in option.flags]
    hints = [did_you_mean(argument.partition("=")[0], known) for argument in unknown]
    if any(hints):
        parser.extra_info["what to do"] = " ".join(filter(None, hints))
