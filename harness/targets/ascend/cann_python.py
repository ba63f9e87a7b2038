"""The Python that atc and aoe use: the first `python3` on PATH, what it has, what CANN takes.

CANN builds operators in Python. Which modules and versions it takes: the vendor's list of run-time
dependencies of each version (hiascend.com, "Running Dependencies" of CANN 6.2 to 9.1). Nobody has
tried them here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.base.processes import run
from harness.targets.ascend.chips import version
from harness.targets.ascend.toolkit import Toolkit

MODULES = ("numpy", "protobuf", "decorator", "attrs", "psutil", "cffi", "sympy", "scipy")
"""Distributions that CANN needs."""
PROBE_S = 60.0
_MARK = "cann-python: "
# For any Python 3: it need not be one that the harness could run on.
_PROBE = f"""
import json, sys
try:
    from importlib.metadata import version
except ImportError:
    from pkg_resources import get_distribution
    version = lambda name: get_distribution(name).version
found = {{}}
for name in sys.argv[1:]:
    try:
        found[name] = str(version(name))
    except Exception:
        pass
print({_MARK!r} + json.dumps([".".join(map(str, sys.version_info[:3])), found]))
"""


class Limits(NamedTuple):
    """What CANN takes from version `cann` on: Python from a release to another; of NumPy and
    protobuf from a version on and below another (empty: no limit).
    """

    cann: str
    python: tuple[str, str]
    numpy: tuple[str, str]
    protobuf: tuple[str, str]

    def describe(self) -> str:
        parts = [f"Python {self.python[0]} to {self.python[1]}"]
        for name, (least, below) in (("numpy", self.numpy), ("protobuf", self.protobuf)):
            parts.append(f"{name} from {least}" + f" and below {below}" * bool(below))
        return ", ".join(parts)


_OF_5, _OF_8 = ("3.11.3", ""), ("3.20", "3.21")  # protobuf
# The last row whose CANN is not newer and whose Python is the one at hand.
LIMITS = (
    Limits("5", ("3.7", "3.9"), ("1.14.3", "2"), _OF_5),
    Limits("6.2", ("3.7", "3.10"), ("1.19.2", "2"), _OF_5),
    Limits("8.0", ("3.7", "3.11"), ("1.19.2", "1.25"), _OF_8),
    Limits("8.5", ("3.7", "3.12"), ("1.19.2", "2"), _OF_8),
    Limits("8.5", ("3.13", "3.13"), ("2.1", ""), _OF_8),
    Limits("9.0", ("3.7", "3.13"), ("1.19.2", ""), _OF_8),
    Limits("9.1", ("3.7", "3.14"), ("1.19.2", ""), _OF_8),
)


@dataclass(frozen=True)
class CannPython:
    """A Python: its version, and those of the modules that it has."""

    version: str
    modules: Mapping[str, str]

    @property
    def missing(self) -> list[str]:
        return [name for name in MODULES if name not in self.modules]

    def outside(self, cann: str) -> str:
        """Return what is outside the limits of a CANN, and these; empty where nothing is, or the
        CANN is not known.
        """
        known = [row for row in LIMITS if version(row.cann) <= version(cann)]
        rows = [row for row in known if row.cann == known[-1].cann]
        release = version(self.version)[:2]
        fitting = [r for r in rows if version(r.python[0]) <= release <= version(r.python[1])]
        wrong = [] if fitting else [f"Python {self.version}"]
        for name in ("numpy", "protobuf") if fitting else ():
            has, (least, below) = self.modules.get(name), getattr(fitting[0], name)
            within = has is None or version(least) <= version(has)
            if not within or (has and below and version(has) >= version(below)):
                wrong.append(f"{name} {has}")
        if not wrong or not rows:
            return ""
        takes = " or ".join(row.describe() for row in fitting or rows)
        return f"{', '.join(wrong)}; CANN {rows[0].cann} takes {takes}"


def probe(toolkit: Toolkit, folder: Path) -> CannPython | str:
    """Look into the Python that atc will use, in a child that works in `folder`; else why not."""
    python = toolkit.compiler_python
    if python is None:
        return "no python3 is on the PATH that atc gets"
    done = run(
        [str(python), "-c", _PROBE, *MODULES],
        deadline_s=PROBE_S,
        log=folder / "cann-python.log",
        cwd=folder,
        env=toolkit.compiler_env,
    )
    answers = [line for line in done.output().splitlines() if line.startswith(_MARK)]
    with contextlib.suppress(ValueError, TypeError, IndexError):
        return CannPython(*json.loads(answers[-1].removeprefix(_MARK)))
    return f"{python}: {done.describe()}"


def folder_with(python: Path, work: Path) -> Path:
    """Return a folder whose `python3` is a Python, whatever else lies beside that one.

    A virtual environment knows itself by its folder; of any other Python a link in `work` will do.
    """
    if (python.parent.parent / "pyvenv.cfg").is_file() and (python.parent / "python3").exists():
        return python.parent
    folder = work / "python"
    folder.mkdir(exist_ok=True)
    link = folder / "python3"
    if not link.is_symlink():
        link.symlink_to(python)
    return folder
