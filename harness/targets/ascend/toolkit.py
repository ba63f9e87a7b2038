"""Finds a host's Ascend tools, the environment that they run in, and their versions.

CANN is used through variables that its `set_env.sh` exports. They are taken as they are when they
are set; else the script is found in its known places and sourced once, in a child. Nothing found
is no error here: a host without an NPU builds, one without atc only runs. What asks for an absent
tool says so.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness.base import scratch
from harness.base.environment import entries, with_entries, without_own_python
from harness.base.errors import ConfigError
from harness.base.processes import Completed, run
from harness.targets.ascend.options import AscendOptions

SOURCE_DEADLINE_S = 60.0  # set_env.sh takes well below a second; over NFS a few
ROOTS = (Path("/usr/local/Ascend"),)  # of an installation by root; a user's is ~/Ascend
INSTALL_INFO = Path("/etc/ascend_install.info")  # where the driver was put
COMPARERS = ("msprobe", "msit")  # compare a model operator by operator
SYSTEM_TOOLS = (Path("/usr/local/sbin"), Path("/usr/local/bin"))  # npu-smi, also when not on PATH
NOWHERE = "neither on PATH nor in a known place"

# Below an installation's root: the toolkit up to 8.3, since 8.5, and the runtime without atc.
_SCRIPTS = ("ascend-toolkit/set_env.sh", "cann/set_env.sh", "nnrt/set_env.sh")
_HOMES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
_LISTS = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
_OF_A_SHELL = ("_", "SHLVL", "PWD", "OLDPWD")  # what any bash changes, whatever it sources
_TOOLKIT_INFO = "ascend_toolkit_install.info"
_VERSION = r"([0-9A-Za-z][0-9A-Za-z._+-]{0,63})"
_INFO = re.compile(rf"^\s*version\s*=\s*{_VERSION}\s*$", re.MULTILINE | re.IGNORECASE)
_CFG = re.compile(rf"^\s*toolkit_running_version\s*=\s*\[[^\]\n:]*:{_VERSION}\]", re.MULTILINE)
_ABOVE = 4  # folders above atc that may be its toolkit: <home>/<part>/bin/atc at the deepest
_DRIVER_PATH = re.compile(r"^\s*Driver_Install_Path_Param\s*=\s*(/\S*)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Toolkit:
    """The host's Ascend tools, and the whole environment that they run in."""

    env: Mapping[str, str]
    python: str  # the interpreter that has ais_bench
    script: Path | None = None  # the set_env.sh that was sourced
    problem: str = ""  # why the first set_env.sh that was found is of no use, where none is
    # "cann" (atc's), "runtime" (the environment's CANN where it is not atc's), "nnrt", "driver",
    # "firmware": as files say, else absent. "atc": which file it is, where no "cann" tells.
    versions: Mapping[str, str] = field(default_factory=dict)
    npu_smi: Path | None = None
    atc: Path | None = None
    aoe: Path | None = None
    comparers: Mapping[str, Path] = field(default_factory=dict)  # by name, that are there
    cann_python: Path | None = None  # the Python that was named for atc and aoe
    devlib: Path | None = None  # stand-ins for the driver's libraries, where there is no driver

    @property
    def environment_source(self) -> str:
        """Say where the variables of CANN come from."""
        if self.script is not None:
            return f"sourced {self.script}"
        if _homes(self.env):
            return "variables already set"
        return f"not usable: {self.problem}" if self.problem else "not found"

    @property
    def compiler_env(self) -> Mapping[str, str]:
        """`env` for atc and aoe: they use the first `python3` on PATH, which must not be the
        harness's; where there is no driver they link against CANN's `devlib`.

        Never for anything that runs a model: those libraries have no device behind them.
        """
        env = without_own_python(self.env)
        if self.devlib is None:
            return env
        return with_entries(env, "LD_LIBRARY_PATH", last=[self.devlib])

    @property
    def compiler_python(self) -> Path | None:
        """The Python that atc and aoe use; None where there is none."""
        return self.cann_python or _which("python3", self.compiler_env)


def find_toolkit(options: AscendOptions, environment: Mapping[str, str], *, log: Path) -> Toolkit:
    """Return the tools of this host, seen from `environment`; what options name wins.

    `log` gets what `set_env.sh` prints. Raises `ConfigError`: an option names nothing, or an
    `ascend_home` whose `set_env.sh` fails. Never for a tool that is absent.
    """
    python = _interpreter(options.ais_python, environment) or Path(sys.executable)
    cann_python = _interpreter(options.cann_python, environment)
    atc = _program(options.atc, "atc")
    npu_smi = _program(options.npu_smi, "npu-smi")
    env, script, problem = _environment(environment, options.ascend_home, log)
    homes = _homes(env)
    drivers = _driver_folders(env, homes)
    # npu-smi and aclruntime need them, and a container's ld.so.conf does not know them.
    libraries = _below(drivers[:1], "lib64", "lib64/common", "lib64/driver")
    env = with_entries(env, "LD_LIBRARY_PATH", last=[path for path in libraries if path.is_dir()])
    atc = atc or _which("atc", env, _below(homes, "bin", "compiler/bin", "atc/bin"))
    comparers = {name: _which(name, env, [python.parent]) for name in COMPARERS}
    return Toolkit(
        env=env,
        python=str(python),
        script=script,
        problem=problem,
        versions=_versions(homes, drivers, atc),
        npu_smi=npu_smi or _which("npu-smi", env, SYSTEM_TOOLS),
        atc=atc,
        aoe=_which("aoe", env, _below(homes, "bin", "tools/aoe/bin")),
        comparers={name: path for name, path in comparers.items() if path is not None},
        cann_python=cann_python,
        devlib=_devlib(env, homes, drivers),
    )


# The environment ---------------------------------------------------------------------------------


def _environment(
    environment: Mapping[str, str], ascend_home: Path | None, log: Path
) -> tuple[Mapping[str, str], Path | None, str]:
    """Return CANN's environment, the script that made it, and why the first one found does not."""
    if ascend_home is None and _homes(environment):
        return dict(environment), None, ""
    scripts = [path for path in _scripts(environment, ascend_home) if path.is_file()]
    if ascend_home is not None and not scripts:
        raise _names_nothing("CANN", ascend_home, "a folder with set_env.sh")
    why = ""
    for script in scripts:
        done, env = _sourced(script, environment, log)
        homes = _homes(env)
        if not done.ok:
            problem = done.describe()
        elif not homes:
            problem = "exported no ASCEND_TOOLKIT_HOME that exists"
        elif ascend_home and not homes[0].resolve().is_relative_to(ascend_home.resolve()):
            problem = f"it is for {homes[0]}"  # a script above the version that was named
        else:
            return env, script, ""
        why = why or f"{script}: {problem}"
    if ascend_home is not None:
        raise ConfigError(
            f"the environment of CANN cannot be had from {why}",
            remedy="source that file in a shell and look at what it prints",
            log=_read(log),
        )
    return dict(environment), None, why


def _scripts(environment: Mapping[str, str], ascend_home: Path | None) -> Iterator[Path]:
    """Yield where `set_env.sh` may lie. A user may name its folder, an installation's root, or one
    version of the toolkit (`.../ascend-toolkit/latest`, whose script lies above it).
    """
    if ascend_home is not None:
        yield from (ascend_home / name for name in ("set_env.sh", *_SCRIPTS, "../set_env.sh"))
        return
    home = environment.get("HOME", "")
    roots = [*ROOTS, *([Path(home, "Ascend")] if os.path.isabs(home) else [])]
    yield from (root / script for script in _SCRIPTS for root in roots)


def _sourced(
    script: Path, environment: Mapping[str, str], log: Path
) -> tuple[Completed, Mapping[str, str]]:
    """Return how sourcing `script` ended, and the environment that it makes; empty where none."""
    with scratch.folder("set-env") as folder:
        out = folder / "environment"
        # The exit code of `source` is that of its last line, which may be a test: `;`, not `&&`.
        line = 'source "$1" >&2; env -0 > "$2"'
        done = run(
            ["bash", "--noprofile", "--norc", "-c", line, "bash", str(script), str(out)],
            deadline_s=SOURCE_DEADLINE_S,
            log=log,
            env=environment,
        )
        try:
            text = os.fsdecode(out.read_bytes()) if done.ok else ""
        except OSError:  # the script left bash before the second command
            text = ""
    exported = dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
    for name in _OF_A_SHELL:
        exported.pop(name, None)
        if name in environment:
            exported[name] = environment[name]
    for name in _LISTS:  # a script that replaces a list must not lose what the user had in it
        exported = with_entries(exported, name, last=entries(environment, name))
    return done, exported


def _homes(env: Mapping[str, str]) -> list[Path]:
    """Return the folders of toolkit or runtime that the variables name, and that exist."""
    names = dict.fromkeys(env.get(name, "") for name in _HOMES)
    return [Path(name) for name in names if os.path.isdir(name)]


def _driver_folders(env: Mapping[str, str], homes: Iterable[Path]) -> list[Path]:
    """Return where the driver may be installed; only folders that exist."""
    installed = _DRIVER_PATH.search(_read(INSTALL_INFO))
    named = [
        *([Path(env["ASCEND_DRIVER_PATH"])] if env.get("ASCEND_DRIVER_PATH") else []),
        # Beside the toolkit: <root>/driver of <root>/ascend-toolkit/latest or <root>/cann-8.5.0.
        *(root / "driver" for home in homes for root in (home.parent.parent, home.parent)),
        *([Path(installed[1], "driver")] if installed else []),
        *(root / "driver" for root in ROOTS),
    ]
    return [folder for folder in dict.fromkeys(named) if folder.is_dir()]


def _devlib(env: Mapping[str, str], homes: list[Path], drivers: list[Path]) -> Path | None:
    folders = [*map(Path, entries(env, "LD_LIBRARY_PATH"))]
    folders += _below(drivers, "lib64", "lib64/driver", "lib64/common")
    if any((folder / "libascend_hal.so").exists() for folder in folders):
        return None  # there is a driver: a stand-in must not come before it
    places = _below(homes, f"{platform.machine()}-linux/devlib")
    return next((path for path in places if path.is_dir()), None)


# Programs ----------------------------------------------------------------------------------------


def _below(homes: Iterable[Path], *folders: str) -> list[Path]:
    return [home / folder for home in homes for folder in folders]


def _which(name: str, env: Mapping[str, str], more: Sequence[Path] = ()) -> Path | None:
    """Return the program on the environment's PATH, else in one of the folders in `more`."""
    for path in (env.get("PATH", ""), *map(str, more)):
        # Without entries shutil.which would take this process's PATH.
        program = shutil.which(name, path=path) if path else None
        if program:
            return Path(program).absolute()  # not resolved: a script may look at its own place
    return None


def _program(path: Path | None, what: str) -> Path | None:
    if path is not None and not (path.is_file() and os.access(path, os.X_OK)):
        raise _names_nothing(what, path, "a program that can be executed")
    return path


def _interpreter(python: str | None, environment: Mapping[str, str]) -> Path | None:
    if python is None:
        return None
    if os.sep in python:
        return _program(Path(python).absolute(), "the Python interpreter")
    program = _which(python, environment)
    if program is None:
        raise _names_nothing("the Python interpreter", Path(python), "on PATH")
    return program


def _names_nothing(what: str, path: Path, needed: str) -> ConfigError:
    state = "is not " + needed if path.exists() or needed == "on PATH" else "does not exist"
    return ConfigError(f"{path}, given for {what}, {state}", remedy="correct the option")


# Versions ----------------------------------------------------------------------------------------


def _versions(homes: list[Path], drivers: list[Path], atc: Path | None) -> Mapping[str, str]:
    runtime = _cann_version(homes)
    # Where atc really is: `latest` may be a link to a version.
    compiler = "" if atc is None else _cann_version(list(atc.resolve().parents)[:_ABOVE])
    nnrt = f"{platform.machine()}-linux/ascend_nnrt_install.info", "ascend_nnrt_install.info"
    versions = {
        # A model is as good as the atc that made it, whichever toolkit the variables name.
        "cann": runtime if atc is None else compiler,
        "atc": "" if atc is None or compiler else _which_file(atc),
        "runtime": runtime if atc is not None and runtime != compiler else "",
        "nnrt": _first(_INFO, _below(homes, *nnrt)),
        "driver": _first(_INFO, _below(drivers, "version.info")),
        "firmware": _first(_INFO, [path.parent / "firmware/version.info" for path in drivers]),
    }
    return {name: version for name, version in versions.items() if version}


def _cann_version(homes: Iterable[Path]) -> str:
    """Return the version of the first of `homes` that is a toolkit and tells it; else nothing."""
    for home in homes:
        files = _below([home], f"{platform.machine()}-linux/{_TOOLKIT_INFO}", _TOOLKIT_INFO)
        version = _first(_INFO, files) or _first(_CFG, [home / "version.cfg"])
        if version:
            return version
    return ""


def _which_file(program: Path) -> str:
    """Return what changes when another program takes the place of this one."""
    real = program.resolve()
    try:
        state = real.stat()
    except OSError:  # it went meanwhile: whoever starts it says so
        return str(real)
    return f"{real}, {state.st_size} bytes of {datetime.fromtimestamp(state.st_mtime, UTC)}"


def _first(pattern: re.Pattern[str], files: Iterable[Path]) -> str:
    return next((found[1] for file in files if (found := pattern.search(_read(file)))), "")


def _read(file: Path) -> str:
    """Return the beginning of a small file; nothing when there is none to read."""
    try:
        with file.open("rb") as opened:
            return opened.read(1 << 16).decode(errors="replace")
    except OSError:
        return ""
