"""What a person typed: the options that pytest gets, and what cannot be meant."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import iniconfig

from harness.base.errors import ConfigError, some
from harness.base.names import did_you_mean
from harness.plan import Case, Plan
from harness.run.case_record import nodeid_of
from harness.settings import GROUPS, OPTIONS


class Group(Protocol):
    """What of a group of pytest's options is used here."""

    def addoption(self, *flags: str, **attributes: Any) -> None: ...


class Parser(Protocol):
    """What of pytest's parser is used here."""

    extra_info: dict[str, Any]

    def getgroup(self, name: str, description: str = "") -> Group: ...
    def addini(self, name: str, help: str, *, default: str) -> None: ...
    def parse_known_and_unknown_args(self, args: Sequence[str]) -> tuple[Any, list[str]]: ...


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a line for each variable `HARNESS_...` that no option has."""
    known = {name: name for row in OPTIONS for name in row.variables}
    known |= {"HARNESS_" + row.name.upper(): row.environment for row in OPTIONS}
    return [
        f"${name} is not a variable of the harness; {did_you_mean(name, known, known)}".strip("; ")
        for name in environment
        if name.startswith("HARNESS_") and known.get(name) != name
    ]


def ini_values(path: Path) -> dict[str, str]:
    """Return the keys `harness_...` of a `pytest.ini`, read as pytest reads it.

    Raises:
        ConfigError: the file cannot be read.
    """
    if not path.is_file() or path.suffix != ".ini":
        return {}
    try:
        sections = iniconfig.IniConfig(str(path)).sections
    except (OSError, ValueError, iniconfig.ParseError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", remedy="correct the file") from error
    keys = sections.get("pytest", {})
    return {key: value for key, value in keys.items() if key.startswith("harness_")}


def add_options(parser: Parser, arguments: Sequence[str]) -> None:
    """Add every option, with its keys of `pytest.ini`; leave a flag to another plugin that has it.

    Raises:
        ConfigError: the command line has a flag of ours that another plugin would take.
    """
    for one in GROUPS:
        parser.getgroup(f"acceptance: {one.title}", f"acceptance: {one.title}, e.g. {one.example}")
    given = {argument.partition("=")[0] for argument in arguments}
    for option in OPTIONS:
        group = parser.getgroup(f"acceptance: {option.group.title}")
        how: dict[str, Any] = {"action": "store_true"}
        if option.kind != "flag":
            repeats = option.kind in ("list", "pairs")
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


def _is_free(flag: str, parser: Parser) -> bool:
    given = f"{flag}=x"
    try:
        return given in parser.parse_known_and_unknown_args([given])[1]
    except Exception:  # it is known, and takes another value
        return False


def _hint_at_unknown_flags(arguments: Sequence[str], parser: Parser) -> None:
    """Let pytest's own error of an unknown option name the closest one of ours."""
    try:
        unknown = parser.parse_known_and_unknown_args(arguments)[1]
    except Exception:  # another error of usage, which pytest tells
        return
    known = [flag for option in OPTIONS for flag in option.flags]
    hints = [did_you_mean(argument.partition("=")[0], known) for argument in unknown]
    if any(hints):
        parser.extra_info["what to do"] = " ".join(filter(None, hints))


def planned(nodeids: Sequence[str], plan: Plan) -> list[tuple[str, Case]]:
    """Return the selected cases with their node ids; none where other tests were selected.

    Raises:
        ConfigError: something would run that is not in the plan, or twice.
    """

    def name(nodeid: str) -> str:  # whatever pytest's root is
        return nodeid.rpartition("::")[2]

    known = {name(nodeid_of(case)): case for case in plan.cases}
    cases = [(one, known[name(one)]) for one in nodeids if name(one) in known]
    others = [one for one in nodeids if name(one) not in known]
    tests = {one.partition("[")[0] for one in known}
    if not cases and not any(name(one).partition("[")[0] in tests for one in others):
        return []
    if others:
        raise ConfigError(
            f"not in the plan: {some(others, 3)}",
            remedy="run the cases alone, and without plugins that multiply or rename them",
        )
    if len({case for _, case in cases}) < len(cases):
        raise ConfigError(
            "a case was selected twice", remedy="name each test once; each case runs once in a run"
        )
    return cases
