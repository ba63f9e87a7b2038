"""What the jobs of `test_jobs.py` run in their child processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.base.errors import CompileError, HarnessError


def echo(**arguments: Any) -> dict[str, Any]:
    return arguments


def environment(name: str) -> str | None:
    return os.environ.get(name)


def refuse(log: str) -> None:
    print("what the tool printed")
    raise CompileError("the compiler says no", remedy="ask it", log=log)


def refuse_plainly() -> None:
    raise HarnessError("cannot write the log", remedy="free disk space", log="its own log")


class DataError(Exception):
    """A library's class that has the name of one of the harness's."""


def fail(message: str, name: str) -> None:
    raise {"DataError": DataError, "ValueError": ValueError}[name](message)


def leave(code: int) -> None:
    sys.exit(code)


def die(number: int) -> None:
    print("last words", flush=True)
    os.kill(os.getpid(), number)
    time.sleep(60)


def hang(pids: str) -> None:
    """Sleeps beside a grandchild; `pids` is the file that names both."""
    grandchild = subprocess.Popen(["sleep", "120"])
    partial = Path(f"{pids}.part")
    partial.write_text(f"{os.getpid()} {grandchild.pid}")
    partial.rename(pids)
    time.sleep(120)


def print_garbage() -> str:
    print('{"value": "not this one"}')
    sys.stdout.flush()
    os.write(1, b"\xff\xfe\x00 half a line")
    os.write(2, b"\x1b[31m\xf0\x9f")
    return "the value"


def take_no_more_room(fails: bool) -> None:
    """Let this process write no more files, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if fails:
        raise ValueError("for which the log has no room either")
