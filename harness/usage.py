"""What a person typed: variables, `pytest.ini`, and which cases were selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import iniconfig

from harness.base.errors import ConfigError, some
from harness.base.names import did_you_mean
from harness.plan import Case, Plan
from harness.run.case_record import nodeid_of
from harness.settings import OPTIONS


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
    Raises `ConfigError`: the file cannot be read.
    """
    if not path.is_file() or path.suffix != ".ini":
        return {}
    try:
        sections = iniconfig.IniConfig(str(path)).sections
    except (OSError, ValueError, iniconfig.ParseError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", remedy="correct the file") from error
    keys = sections.get("pytest", {})
    return {key: value for key, value in keys.items() if key.startswith("harness_")}


def planned(nodeids: Sequence[str], plan: Plan) -> list[tuple[str, Case]]:
    """Return the selected cases with their node ids; none where other tests were selected.
    Raises `ConfigError`: something would run that is not in the plan, or twice.
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
