"""Environments of the processes that the harness starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout: on `PYTHONPATH` of what imports the harness."""


_OF_LIBRARIES = ("TIMM_", "ONNXSIM_")


def for_builds(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables by which a library builds another network or
    simplifies otherwise: they are in no artifact's key.
    """
    return {name: value for name, value in env.items() if not name.startswith(_OF_LIBRARIES)}


def entries(env: Mapping[str, str], name: str) -> list[str]:
    """Return the entries of a search path such as `PATH`; none where it is not set."""
    return [entry for entry in env.get(name, "").split(os.pathsep) if entry]


def with_entries(
    env: Mapping[str, str],
    name: str,
    *,
    first: Iterable[str | Path] = (),
    last: Iterable[str | Path] = (),
) -> dict[str, str]:
    """Return the environment with entries added to a search path, each once: `first` win over what
    is there, `last` hide nothing.
    """
    old = entries(env, name)
    new = list(dict.fromkeys([*map(str, first), *old, *map(str, last)]))
    return {**env, name: os.pathsep.join(new)} if new != old else dict(env)
