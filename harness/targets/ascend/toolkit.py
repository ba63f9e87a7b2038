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

# Below an installation's root: the toolkit up to 8.3, since 8.5, and the runtime without atc.
_SCRIPTS = ("ascend-toolkit/set_env.sh", "cann/set_env.sh", "nnrt/set_env.sh")
_HOMES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
_OPERATORS, _CPU_OPERATORS = "ASCEND_OPP_PATH", "ASCEND_AICPU_PATH"  # all that CANN 5.0 sets
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
    environment_source: str = "not found"  # or "sourced <set_env.sh>", "variables already set"
    # "cann" (atc's), "runtime" (the environment's CANN where it is not atc's), "nnrt", "driver",
    # "firmware": as files say, else absent. "atc": which file it is, where no "cann" tells.
    versions: Mapping[str, str] = field(default_factory=dict)
    npu_smi: Path | None = None
    atc: Path | None = None
    aoe: Path | None = None
    comparers: Mapping[str, Path] = field(default_factory=dict)  # by name, that are there
    cann_python: Path | None = None  # the Python that was named for atc and aoe
    devlib: Path | None = None  # stand-ins for the driver's libraries, where there is no driver
    blocked: Mapping[str, Path] = field(default_factory=dict)  # by name: may not be executed

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

    def why_not(self, name: str) -> str:
        """Say why a program was not found."""
        if name in self.blocked:
            return (
                f"{self.blocked[name]} may not be executed: it lacks its x bit, or its file system "
                "is mounted noexec"
            )
        return "neither on PATH nor in a known place"


def find_toolkit(
    options: AscendOptions,
    environment: Mapping[str, str],
    *,
    log: Path,
    source_deadline_s: float = SOURCE_DEADLINE_S,
) -> Toolkit:
    """Return the tools of this host, seen from `environment`; what options name wins.

    `log` gets what `set_env.sh` prints, for which it has `source_deadline_s` seconds.

    Raises:
        ConfigError: an option names nothing, or an `ascend_home` whose `set_env.sh` fails. Never
            for a tool that is absent.
    """
    python = _interpreter(options.ais_python, environment) or sys.executable
    cann_python = _interpreter(options.cann_python, environment)
    atc = _program(options.atc, "atc")
    npu_smi = _program(options.npu_smi, "npu-smi")
    env, source = _environment(environment, options.ascend_home, log, source_deadline_s)
    homes = _homes(env)
    drivers = _driver_folders(env, homes)
    env = _with_driver_libraries(env, drivers)
    machine = platform.machine()
    blocked: dict[str, Path] = {}
    atc = atc or _which("atc", env, _below(homes, "bin", "compiler/bin", "atc/bin"), blocked)
    return Toolkit(
        env=env,
        npu_smi=npu_smi or _which("npu-smi", env, SYSTEM_TOOLS, blocked),
        atc=atc,
        aoe=_which("aoe", env, _below(homes, "bin", "tools/aoe/bin"), blocked),
        comparers={
            name: path
            for name in COMPARERS
            if (path := _which(name, env, [Path(python).parent])) is not None
        },
        python=python,
        cann_python=Path(cann_python) if cann_python else None,
        environment_source=source,
        versions=_versions(homes, drivers, machine, atc),
        devlib=_devlib(env, homes, drivers, machine),
        blocked=blocked,
    )


def _environment(
    environment: Mapping[str, str], ascend_home: Path | None, log: Path, deadline_s: float
) -> tuple[Mapping[str, str], str]:
    if ascend_home is None and _homes(environment):
        return dict(environment), "variables already set"
    scripts = [path for path in _scripts(environment, ascend_home) if path.is_file()]
    if ascend_home is not None and not scripts:
        raise _names_nothing("CANN", ascend_home, "a folder with set_env.sh")
    why = ""
    for script in scripts:
        done, env = _sourced(script, environment, log, deadline_s)
        homes = _homes(env)
        if not done.ok:
            problem = done.describe()
        elif not homes:
            problem = "exported no ASCEND_TOOLKIT_HOME that exists"
        elif not _is_below(homes[0], ascend_home):
            problem = f"it is for {homes[0]}"
        else:
            return env, f"sourced {script}"
        why = why or f"{script}: {problem}"
    if ascend_home is not None:
        raise ConfigError(
            f"the environment of CANN cannot be had from {why}",
            remedy="source that file in a shell and look at what it prints",
            log=log.read_text(errors="replace") if log.is_file() else "",
        )
    return dict(environment), f"not usable: {why}" if why else "not found"


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


def _is_below(home: Path, folder: Path | None) -> bool:
    """Return whether a toolkit is the one that was named: a script above it may be for another."""
    return folder is None or home.resolve().is_relative_to(folder.resolve())


def _sourced(
    script: Path, environment: Mapping[str, str], log: Path, deadline_s: float
) -> tuple[Completed, Mapping[str, str]]:
    """Return how sourcing `script` ended, and the environment that it makes; empty where none."""
    with scratch.folder("set-env") as folder:
        out = folder / "environment"
        # The exit code of `source` is that of its last line, which may be a test: `;`, not `&&`.
        line = 'source "$1" >&2; env -0 > "$2"'
        done = run(
            ["bash", "--noprofile", "--norc", "-c", line, "bash", str(script), str(out)],
            deadline_s=deadline_s,
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
    """Folders of the toolkit or the runtime that the variables name, and that exist.

    The environment of CANN 5.0 names only parts of the toolkit.
    """
    homes = _folders([env.get(name, "") for name in _HOMES])
    if homes:
        return homes
    operators = env.get(_OPERATORS, "").rstrip("/")
    above = os.path.dirname(operators) if os.path.isdir(operators) else ""
    return _folders([above, env.get(_CPU_OPERATORS, "").rstrip("/")])


def _folders(names: Iterable[str]) -> list[Path]:
    return [Path(name) for name in dict.fromkeys(names) if name and os.path.isdir(name)]


def _below(homes: Iterable[Path], *folders: str) -> list[Path]:
    return [home / folder for home in homes for folder in folders]


def _which(
    name: str,
    env: Mapping[str, str],
    more: Sequence[Path] = (),
    blocked: dict[str, Path] | None = None,
) -> Path | None:
    """The program on the environment's PATH, else in one of the folders in `more`.

    `blocked` gets a file of that name that may not be executed, where there is no other.
    """
    for path in (env.get("PATH", ""), *map(str, more)):
        # Without entries shutil.which would take this process's PATH.
        program = shutil.which(name, path=path) if path else None
        if program:
            return Path(program).absolute()  # not resolved: a script may look at its own place
    for folder in (*entries(env, "PATH"), *map(str, more)):
        if blocked is not None and os.path.isfile(os.path.join(folder, name)):
            blocked.setdefault(name, Path(folder, name).absolute())
    return None


def _program(path: Path | None, what: str) -> Path | None:
    if path is not None and not (path.is_file() and os.access(path, os.X_OK)):
        raise _names_nothing(what, path, "a program that can be executed")
    return path


def _interpreter(python: str | None, environment: Mapping[str, str]) -> str | None:
    if python is None:
        return None
    if os.sep in python:
        return str(_program(Path(python).absolute(), "the Python interpreter"))
    program = _which(python, environment)
    if program is None:
        raise _names_nothing("the Python interpreter", Path(python), "on PATH")
    return str(program)


def _names_nothing(what: str, path: Path, needed: str) -> ConfigError:
    state = "is not " + needed if path.exists() or needed == "on PATH" else "does not exist"
    return ConfigError(f"{path}, given for {what}, {state}", remedy="correct the option")


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


def _with_driver_libraries(env: Mapping[str, str], drivers: list[Path]) -> Mapping[str, str]:
    """npu-smi and aclruntime need them, and a container's ld.so.conf does not know them."""
    libraries = _below(drivers[:1], "lib64", "lib64/common", "lib64/driver")
    return with_entries(env, "LD_LIBRARY_PATH", last=[path for path in libraries if path.is_dir()])


def _devlib(
    env: Mapping[str, str], homes: list[Path], drivers: list[Path], machine: str
) -> Path | None:
    folders = [*map(Path, entries(env, "LD_LIBRARY_PATH"))]
    folders += _below(drivers, "lib64", "lib64/driver", "lib64/common")
    if any((folder / "libascend_hal.so").exists() for folder in folders):
        return None  # there is a driver: a stand-in must not come before it
    places = _below(homes, f"{machine}-linux/devlib")
    return next((path for path in places if path.is_dir()), None)


def _versions(
    homes: list[Path], drivers: list[Path], machine: str, atc: Path | None
) -> Mapping[str, str]:
    runtime = _cann_version(homes, machine)
    compiler = "" if atc is None else _cann_version(_above(atc), machine)
    versions = {
        # A model is as good as the atc that made it, whichever toolkit the variables name.
        "cann": runtime if atc is None else compiler,
        "atc": "" if atc is None or compiler else _which_file(atc),
        "runtime": runtime if atc is not None and runtime != compiler else "",
        "nnrt": _first(
            _INFO,
            _below(homes, f"{machine}-linux/ascend_nnrt_install.info", "ascend_nnrt_install.info"),
        ),
        "driver": _first(_INFO, _below(drivers, "version.info")),
        "firmware": _first(_INFO, [path.parent / "firmware/version.info" for path in drivers]),
    }
    return {name: version for name, version in versions.items() if version}


def _cann_version(homes: Iterable[Path], machine: str) -> str:
    """The version of the first of `homes` that is a toolkit and tells it; else empty."""
    for home in homes:
        files = _below([home], f"{machine}-linux/{_TOOLKIT_INFO}", _TOOLKIT_INFO)
        version = _first(_INFO, files) or _first(_CFG, [home / "version.cfg"])
        if version:
            return version
    return ""


def _above(atc: Path) -> list[Path]:
    """Folders that atc lies in, where it really is: `latest` may be a link to a version."""
    return list(atc.resolve().parents)[:_ABOVE]


def _which_file(program: Path) -> str:
    """Return what changes when another program takes the place of this one."""
    real = program.resolve()
    try:
        state = real.stat()
    except OSError:  # it went meanwhile: whoever starts it says so
        return str(real)
    return f"{real}, {state.st_size} bytes of {datetime.fromtimestamp(state.st_mtime, UTC)}"


def _first(pattern: re.Pattern[str], files: Iterable[Path]) -> str:
    for file in files:
        match = pattern.search(_read(file))
        if match:
            return match[1]
    return ""


def _read(file: Path) -> str:
    """The text of a small file; empty when there is none to read."""
    try:
        with file.open("rb") as opened:
            return opened.read(1 << 16).decode(errors="replace")
    except OSError:
        return ""
