"""Environments of the processes that the harness starts."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout: on `PYTHONPATH` of what imports the harness."""


def code_digest() -> str:
    """Return a sha256 over all code of the harness: hosts that share a run have the same."""
    sha = hashlib.sha256()
    for path in sorted((ROOT / "harness").rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


# A Python other than the harness's would look for its modules where this one has them; without
# its user's folder it may lack what was installed by `pip install --user`.
_OF_A_PYTHON = ("PYTHONHOME", "PYTHONNOUSERSITE")
_OF_LIBRARIES = ("TIMM_", "ONNXSIM_")


def for_builds(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables by which a library builds another network or
    simplifies otherwise: they are in no artifact's key.
    """
    return {name: value for name, value in env.items() if not name.startswith(_OF_LIBRARIES)}


def without_own_python(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which another Python is found and finds its own modules.

    The harness's virtual (or conda) environment leaves PATH, as `deactivate` does, and what the
    harness is imported from leaves PYTHONPATH. Where it runs in no environment of its own, PATH
    stays: its Python is the host's then.
    """
    prefix = os.path.realpath(sys.prefix)
    has_own = sys.prefix != sys.base_prefix or os.path.isdir(os.path.join(prefix, "conda-meta"))
    left = {name: value for name, value in env.items() if name not in _OF_A_PYTHON}
    if has_own and os.path.realpath(env.get("VIRTUAL_ENV", "/")) == prefix:
        del left["VIRTUAL_ENV"]
    numpy = importlib.util.find_spec("numpy")
    own = {os.path.realpath(ROOT)}
    if numpy is not None and numpy.origin:
        own.add(os.path.realpath(Path(numpy.origin).parents[1]))
    if has_own:
        own.add(os.path.join(prefix, "bin"))
    for name in ("PATH", "PYTHONPATH"):
        kept = [one for one in entries(env, name) if os.path.realpath(one) not in own]
        if len(kept) < len(entries(env, name)):
            left[name] = os.pathsep.join(kept)
    return left


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
