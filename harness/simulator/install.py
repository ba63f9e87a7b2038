"""Install a simulated CANN into a folder, as a real one lies below `/usr/local/Ascend`.

bin/npu-smi                         (/usr/local/bin on a real host)
ascend-toolkit/set_env.sh
ascend-toolkit/latest/bin/atc, aoe
ascend-toolkit/latest/<arch>-linux/ascend_toolkit_install.info
driver/version.info
site/aclruntime.py, site/ais_bench/, site/aclruntime-0.0.2.dist-info/
state/                              what the tools share
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.base.environment import ROOT
from harness.base.errors import ConfigError, on_disk
from harness.base.files import replace_file
from harness.simulator.config import SimulatorConfig
from harness.simulator.host import VARIABLE

SETTINGS = "simulator.json"
_NOTICE = "Part of a SIMULATED Ascend host, made by harness.simulator; never a real tool."


def install(folder: Path, config: SimulatorConfig) -> None:
    """Write the host's tools below `folder`; `environment` returns the variables that have them.

    What an earlier installation left in the folder is replaced, its state included.

    Raises:
        ConfigError: the folder cannot be written.
        RecordError: its last file cannot be written.
    """
    folder = folder.absolute()
    what = f"cannot install the simulated Ascend host in {folder}"
    remedy = "free disk space, or choose a folder that can be written with --runs=DIR"
    with on_disk(ConfigError, what, remedy):
        _install(folder, config)


def environment(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that has the tools of a host that was installed in `folder`."""
    variables, paths = _variables(folder.absolute())
    longer = {
        name: ":".join(filter(None, (first, environ.get(name)))) for name, first in paths.items()
    }
    return {**environ, **variables, **longer}


def _variables(folder: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return what a host sets, and what it puts before search paths."""
    toolkit = folder / "ascend-toolkit" / "latest"
    variables = {
        VARIABLE: str(folder / SETTINGS),
        "ASCEND_TOOLKIT_HOME": str(toolkit),
        "ASCEND_HOME_PATH": str(toolkit),
        "ASCEND_OPP_PATH": str(toolkit / "opp"),
    }
    paths = {
        "PATH": f"{folder / 'bin'}:{toolkit / 'bin'}",
        "PYTHONPATH": f"{folder / 'site'}",
        "LD_LIBRARY_PATH": f"{toolkit / 'lib64'}",
    }
    return variables, paths


def _install(folder: Path, config: SimulatorConfig) -> None:
    for name in ("bin", "ascend-toolkit", "driver", "site", "state"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "state").mkdir(parents=True)
    settings, toolkit = folder / SETTINGS, folder / "ascend-toolkit" / "latest"
    arch = platform.machine()
    _write(
        toolkit / f"{arch}-linux" / "ascend_toolkit_install.info",
        f"package_name=Ascend-cann-toolkit\nversion={config.cann}\n",
    )
    _write(folder / "driver" / "version.info", f"Version={config.driver}\n")
    for name, path, module in (
        ("npu-smi", folder / "bin" / "npu-smi", "npu_smi"),
        ("atc", toolkit / "bin" / "atc", "atc"),
        ("aoe", toolkit / "bin" / "aoe", "atc"),
    ):
        if name not in config.without:
            _write(path, _shebang() + _tool(settings, name, module))
            path.chmod(path.stat().st_mode | 0o111)
    if "ais_bench" not in config.without:
        for place, text in _python_tools(settings, config.generation).items():
            _write(folder / place, text)
    variables, paths = _variables(folder)
    lines = [f"# {_NOTICE}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines += [
        f'export {name}={shlex.quote(first)}"${{{name}:+:${name}}}"'
        for name, first in paths.items()
    ]
    _write(toolkit.parent / "set_env.sh", "\n".join(lines) + "\n")
    replace_file(settings, json.dumps({"text": config.text, "state": str(folder / "state")}))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _shebang() -> str:
    # A comment's string to Python and a command to the shell: a kernel cuts long lines, and parts
    # them at blanks.
    return f"#!/bin/sh\n'''exec' {shlex.quote(sys.executable)} \"$0\" \"$@\"\n' '''\n"


def _prologue(settings: Path) -> str:
    # The project's root comes last, so that it hides nothing of the interpreter's.
    return (
        f"# {_NOTICE}\nimport os\nimport sys\n\n"
        f"os.environ.setdefault({VARIABLE!r}, {str(settings)!r})\n"
        f"if {str(ROOT)!r} not in sys.path:\n    sys.path.append({str(ROOT)!r})\n"
    )


def _tool(settings: Path, name: str, module: str) -> str:
    """Return the text of an executable that plays a tool."""
    play = "tune" if name == "aoe" else "main"
    return _prologue(settings) + (
        f"from harness.simulator.host import play\n"
        f"from harness.simulator.{module} import {play}\n\n"
        f"if __name__ == '__main__':\n    sys.exit(play({name!r}, {play}, sys.argv[1:]))\n"
    )


def _python_tools(settings: Path, generation: str) -> Mapping[str, str]:
    """Return the files of ais_bench and aclruntime, by their paths below the host's folder."""
    prologue = _prologue(settings)
    metadata = "Metadata-Version: 2.1\nName: {}\nVersion: 0.0.2\n"
    session = "InferSession" if generation == "v5" else "OldInferSession"
    return {
        "site/aclruntime.py": prologue,
        "site/aclruntime-0.0.2.dist-info/METADATA": metadata.format("aclruntime"),
        "site/ais_bench-0.0.2.dist-info/METADATA": metadata.format("ais_bench"),
        "site/ais_bench/__init__.py": "",
        "site/ais_bench/__main__.py": _tool(settings, "ais_bench", "ais_bench"),
        "site/ais_bench/infer/__init__.py": "",
        "site/ais_bench/infer/interface.py": prologue
        + f"from harness.simulator.interface import {session} as InferSession\n",
    }
