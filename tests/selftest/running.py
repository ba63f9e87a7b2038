"""Running pytest and Python as a user does, in processes of their own."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.base import processes
from harness.records import reader

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).parent / "tiny.yaml"
# How long a test waits for what must happen: it ends a test that hangs, on the slowest machine.
PATIENCE_S = 120.0
# The library refuses the argument when it builds the network, and not before.
NO_NETWORK = ("timm:test_resnet", "torchvision:squeezenet1_1\n      arguments: {no_such: 1}")
# The budget ends each throughput case after its first rounds, for tests that ask what becomes of a
# verdict, not which it is.
QUICK = ("--budget", "0.1", "--timing-precision", "100", "--allow-inconclusive")


@dataclass(frozen=True)
class Finished:
    """A pytest run that ended: exit code, output, and its run directory if it made one."""

    code: int
    output: str
    runs: Path

    @property
    def run_dir(self) -> Path:
        return (self.runs / "latest").resolve()

    def records(self) -> reader.RunRecords:
        return reader.read(self.run_dir)

    def outcomes(self) -> dict[str, str]:
        return {f"{case.check} {case.case}": case.outcome for case in self.records().cases}


def run_python(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output of Python with these arguments, in the project's folder."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HARNESS_", "PYTEST_", "IMAGENET_", "GITHUB_"))
        and name not in ("CI", "BUILD_NUMBER")  # pytest prints its summary otherwise there
    }
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=4 * PATIENCE_S,
        preexec_fn=on_one_core,
    )
    return done.returncode, done.stdout


def imported_by(code: str) -> set[str]:
    """The modules that a new Python has after some code."""
    status, output = run_python(
        ["-c", f"{code}\nimport json, sys\nprint(json.dumps([*sys.modules]))"]
    )
    assert status == 0, output
    return set(last_json(output))


def needs_only_numpy(path: Path) -> bool:
    """Whether a file is Python 3.7 that imports the standard library and NumPy alone."""
    imported = {"numpy"}
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 7))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    return imported <= {*sys.stdlib_module_names, "numpy", "__future__"}


def dry_make(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `make -n`: what make would do."""
    done = subprocess.run(
        ["make", "-n", *arguments],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )
    return done.returncode, done.stdout


def on_one_core() -> None:
    """Keep this process, and what it starts, to one core: another for each worker of xdist."""
    cores = sorted(os.sched_getaffinity(0))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    os.sched_setaffinity(0, {cores[worker % len(cores)]})


def last_json(output: str) -> Any:
    """The JSON value on the last line of an output."""
    return json.loads(output.strip().splitlines()[-1])


def alive(pid: int) -> bool:
    """Running, and not a zombie that nobody reaps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def descriptors() -> set[tuple[str, str]]:
    """What this process has open: other threads may close theirs at any time, so a test asks for
    what is new.
    """
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add((one.name, os.readlink(one)))
    return found


def deadline_at(monkeypatch: pytest.MonkeyPatch, ready: Callable[[], bool]) -> None:
    """Let the deadline of a program pass when `ready`: a busy machine may take its time."""

    def wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
        assert 0 < seconds <= 60
        assert eventually(ready)
        return False

    monkeypatch.setattr(processes, "wait_ended", wait)


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    """Whether a condition comes true in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True
