"""Make system calls of the harness fail, or a tool misbehave: from `PYTHONPATH`, Python imports
this as it starts.

`FAILING_CALL` in the environment has a JSON object. `roles`: a word of the command line of each
kind of process. Either `log`: a file that gets a line for each call that the harness itself makes,
as role, call, place and process. Or `fails`: one such line without the process, or "" for any; its
call of `number` fails with `errno`, and where `lasts`, every later call of that name; the file
`failed`, if any, gets a byte for each that failed.
"""

from __future__ import annotations

import _pyio  # type: ignore[import-not-found]  # of the standard library
import builtins
import functools
import io
import json
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

FOLDER = os.path.dirname(os.path.abspath(__file__))
HARNESS = os.path.join(os.path.normpath(os.path.join(FOLDER, "../../../harness")), "")
STANDARD = (os.path.join(os.path.dirname(os.__file__), ""), FOLDER)
EVENTS = {  # of `sys.addaudithook`: raised before the call is made
    *("open", "fcntl.flock", "mmap.__new__", "subprocess.Popen", "os.truncate", "os.utime"),
    *("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod"),
    *("os.listdir", "os.scandir"),
}
OTHERS = ("read", "pread", "write", "fsync", "stat", "fstat", "pipe", "dup", "memfd_create")


def place() -> str:
    """Return the line of the harness that makes a call; empty for one of another library."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(HARNESS) and "/simulator/" not in name:  # it plays others' tools
            return f"{name[len(HARNESS) :]}:{frame.f_lineno}"
        if not name.startswith(STANDARD) or "-packages" in name:
            return ""  # the import system's as well
        frame = frame.f_back
    return ""


def install(role: str, asked: dict[str, Any]) -> None:
    """Watch the calls of this process from now on."""
    log, failed = (
        os.open(asked[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if name in asked else -1
        for name in ("log", "failed")
    )
    left = asked.get("number", 0)
    write = os.write

    def before(call: str) -> None:
        nonlocal left
        if not (where := place()):
            return
        text = f"{role}\t{call}\t{where}"
        if log >= 0:
            write(log, f"{text}\t{os.getpid()}\n".encode())
            return
        if left > 0:
            left -= asked["fails"] in (text, "")
            struck = left == 0
        else:
            struck = asked["lasts"] and call == asked["fails"].split("\t")[1]
        if struck:
            if failed >= 0:
                write(failed, b".")
            raise OSError(asked["errno"], os.strerror(asked["errno"]))

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            before(name)
            return function(*args, **kwargs)

        return call

    def opened(*args: Any, **kwargs: Any) -> Any:
        """Open with Python's code in Python, which reads and writes by `os.read` and `os.write`."""
        return (_pyio.open if place() else plain)(*args, **kwargs)

    plain = io.open
    for name in OTHERS:
        setattr(os, name, watched(name, getattr(os, name)))
    builtins.open = io.open = opened
    sys.addaudithook(lambda event, _: before(event) if event in EVENTS else None)


def begin() -> None:
    asked = json.loads(os.environ["FAILING_CALL"])
    with open("/proc/self/cmdline", encoding="utf-8", errors="replace") as file:
        line = file.read()
    for role, word in asked["roles"].items():
        if word in line and ("log" in asked or asked["fails"].startswith(f"{role}\t")):
            install(role, asked)
            return


def misbehave() -> None:
    """Let a tool of a word do its deed, once it was called `after` times."""
    asked = json.loads(os.environ["FAULTY_TOOL"])
    with open("/proc/self/cmdline", encoding="utf-8", errors="replace") as file:
        if asked["word"] not in file.read():
            return
    with open(asked["calls"], "a", encoding="utf-8") as file:
        file.write(".")
        file.flush()
        if file.tell() > asked["after"]:
            import tools  # type: ignore[import-not-found]  # beside this file

            tools.DEEDS[asked["deed"]]()


if "FAILING_CALL" in os.environ:
    begin()
if "FAULTY_TOOL" in os.environ:
    misbehave()
