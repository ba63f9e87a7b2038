"""Install a simulated CANN into a folder, as a real one lies below `/usr/local/Ascend`.

bin/npu-smi                         (/usr/local/bin on a real host)
ascend-toolkit/set_env.sh
ascend-toolkit/latest/bin/atc, aoe
ascend-toolkit/latest/<arch>-linux/ascend_toolkit_install.info
driver/version.info
tools/benchmark.<arch>, tools/ais_infer.py
site/aclruntime.py, site/ais_bench/, site/aclruntime-0.0.2.dist-info/
state/                              what the tools share
"""

from __future__ import annotations

import errno
import json
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.base.environment import ROOT
from harness.base.errors import ConfigError, RecordError
from harness.simulator.config import SimulatorConfig
from harness.simulator.host import VARIABLE

_MAX_SHEBANG = 120  # old kernels cut the line at 127 bytes
# What is the machine's trouble, whoever chose the folder.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_NOTICE = "Part of a SIMULATED Ascend host, made by harness.simulator; never a real tool."


def install(
    folder: Path, config: SimulatorConfig, *, environment: Mapping[str, str]
) -> Mapping[str, str]:
    """Write the host's tools below `folder` and return the whole environment that has them.

    What an earlier installation left in the folder is replaced, its state included.

    Raises:
        ConfigError: the folder cannot be written, or has a character that a search path has not.
        RecordError: the disk is full or fails: no folder of another name would help.
    """
    folder = folder.absolute()
    if ":" in str(folder):
        raise ConfigError(
            f"a simulated Ascend host cannot lie in {folder}: a ':' parts search paths",
            remedy="choose another folder",
        )
    try:
        return _install(folder, config, environment)
    except OSError as error:
        if error.errno in _DISK:
            raise RecordError(
                f"cannot install the simulated Ascend host in {folder}: {error}",
                remedy="free disk space, or choose a place on another disk with --runs=DIR",
            ) from error
        raise ConfigError(
            f"cannot install the simulated Ascend host in {folder}: {error}",
            remedy="choose a folder that can be written",
        ) from error


def ais_infer_script(folder: Path) -> Path | None:
    """`ais_infer.py` of an installation of generation v1; None where there is none.

    No search path leads to it: on a real host, too, a user has to name it.
    """
    path = folder.absolute() / "tools" / "ais_infer.py"
    return path if path.is_file() else None


def _install(
    folder: Path, config: SimulatorConfig, environment: Mapping[str, str]
) -> Mapping[str, str]:
    for name in ("bin", "ascend-toolkit", "driver", "tools", "site", "state"):
        shutil.rmtree(folder / name, ignore_errors=True)
    arch = platform.machine()
    toolkit = folder / "ascend-toolkit" / "latest"
    site = folder / "site"
    for path in (folder / "bin", toolkit / "bin", folder / "tools", site, folder / "driver"):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir(exist_ok=True)
    settings = folder / "simulator.json"
    state = str(folder / "state")
    _write(settings, json.dumps({"config": config.to_json(), "state": state}, indent=1))

    for name, path, module in (
        ("npu-smi", folder / "bin" / "npu-smi", "npu_smi"),
        ("atc", toolkit / "bin" / "atc", "atc"),
        ("aoe", toolkit / "bin" / "aoe", "aoe"),
        ("benchmark", folder / "tools" / f"benchmark.{arch}", "benchmark"),
    ):
        if name not in config.without:
            _executable(path, module, settings)
    if "ais_bench" not in config.without:
        _python_tools(site, folder / "tools", config, settings)

    info = toolkit / f"{arch}-linux" / "ascend_toolkit_install.info"
    info.parent.mkdir(exist_ok=True)
    _write(info, f"package_name=Ascend-cann-toolkit\nversion={config.cann}\n")
    _write(folder / "driver" / "version.info", f"Version={config.driver}\n")
    variables = {
        VARIABLE: str(settings),
        "ASCEND_TOOLKIT_HOME": str(toolkit),
        "ASCEND_HOME_PATH": str(toolkit),
        "ASCEND_AICPU_PATH": str(toolkit),
        "ASCEND_OPP_PATH": str(toolkit / "opp"),
        "TOOLCHAIN_HOME": str(toolkit / "toolkit"),
    }
    paths = {
        "PATH": [folder / "bin", toolkit / "bin", folder / "tools"],
        "PYTHONPATH": [site],
        "LD_LIBRARY_PATH": [toolkit / "lib64"],
    }
    lines = [f"# {_NOTICE}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    result = {**environment, **variables}
    for name, entries in paths.items():
        before = ":".join(str(entry) for entry in entries)
        lines.append(f'export {name}={shlex.quote(before)}"${{{name}:+:${name}}}"')
        result[name] = ":".join([before, *filter(None, [environment.get(name, "")])])
    _write(toolkit.parent / "set_env.sh", "\n".join(lines) + "\n")
    return result


def _write(path: Path, text: str) -> None:
    # A path that the locale cannot read has its bytes as lone surrogates: they are written back.
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


def _prologue(settings: Path) -> str:
    # The project's root comes last, so that it hides nothing of the interpreter's.
    return (
        f"# {_NOTICE}\nimport os\nimport sys\n\n"
        f"os.environ.setdefault({VARIABLE!r}, {str(settings)!r})\n"
        f"if {str(ROOT)!r} not in sys.path:\n    sys.path.append({str(ROOT)!r})\n"
    )


def _executable(path: Path, module: str, settings: Path) -> None:
    interpreter = sys.executable
    if len(interpreter) > _MAX_SHEBANG or " " in interpreter:
        # A line that is a comment's string to Python and a command to the shell.
        first = f"#!/bin/sh\n'''exec' {shlex.quote(interpreter)} \"$0\" \"$@\"\n' '''\n"
    else:
        first = f"#!{interpreter}\n"
    _write(
        path,
        first
        + _prologue(settings)
        + f"from harness.simulator.{module} import main\n\nsys.exit(main(sys.argv[1:]))\n",
    )
    path.chmod(path.stat().st_mode | 0o111)


def _python_tools(site: Path, tools: Path, config: SimulatorConfig, settings: Path) -> None:
    prologue = _prologue(settings)

    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, prologue + text)

    write(
        site / "aclruntime.py",
        "from harness.simulator import aclruntime as _module\n\n"
        "globals().update({n: getattr(_module, n) for n in _module.__all__})\n",
    )
    for name in ("aclruntime", "ais_bench"):
        if name == "ais_bench" and config.generation == "v1":
            continue
        metadata = site / f"{name}-0.0.2.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.2\n")
    if config.generation == "v1":  # before `python -m ais_bench`
        write(
            tools / "ais_infer.py",
            "from harness.simulator.ais_bench import main\n\nsys.exit(main(sys.argv[1:]))\n",
        )
        return
    package = site / "ais_bench"
    write(package / "__init__.py", "")
    write(package / "infer" / "__init__.py", "")
    write(
        package / "__main__.py",
        "from harness.simulator.ais_bench import main\n\n"
        "if __name__ == '__main__':\n    sys.exit(main(sys.argv[1:]))\n",
    )
    session = {"v5": "InferSession", "v2": "OldestInferSession"}.get(
        config.generation, "OldInferSession"
    )
    summary = "MemorySummary" if config.generation == "v5" else "OldMemorySummary"
    write(
        package / "infer" / "interface.py",
        "from harness.simulator import interface as _module\n\n"
        f"InferSession = _module.{session}\nMemorySummary = _module.{summary}\n",
    )
