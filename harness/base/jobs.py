"""Steps that need heavy or fragile libraries, run in a child process of their own.

torch, onnx, onnxsim and a compiler can take seconds to import, gigabytes to hold, can hang and
can crash. A job runs one function `module:name` with JSON arguments in a child that has a
deadline, a log and a process group; what the function returns or raises comes back as JSON.
The pytest process therefore imports none of these libraries.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base import processes, scratch, signals
from harness.base.environment import ROOT, for_builds, with_entries
from harness.base.errors import HarnessError, from_json
from harness.base.text import first_line


def call(
    function: str,
    arguments: Mapping[str, Any],
    *,
    deadline_s: float,
    log: Path,
    error: type[HarnessError],
    what: str,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Any:
    """Run `module:name` with keyword `arguments` in a child and return what it returned. The child
    computes on one thread: others work beside it.

    Args:
        deadline_s: seconds after which the child's process group is killed.
        log: file that receives the child's stdout and stderr.
        error: class of the stage, raised when the child dies, hangs or fails unexpectedly.
        what: what is being done to which case, for messages.
        pass_fds: descriptors of a lease, held as long as the child lives.
        env: the child's environment, by default ours; see `for_builds`.

    Raises `HarnessError`: the function's own, or `error`.
    """
    base = for_builds(os.environ if env is None else env)
    with scratch.folder("job") as folder:
        spec, result = folder / "spec.json", folder / "result.json"
        job = {
            "function": function,
            "arguments": dict(arguments),
            "result": str(result),
            "parent": os.getpid(),
            "limit": deadline_s + 5.0,
        }
        spec.write_text(json.dumps(job), encoding="utf-8")
        done = processes.run(
            # -P: no `harness` and no `numpy` of the working directory.
            [sys.executable, "-P", "-m", "harness.base.jobs", str(spec)],
            deadline_s=deadline_s,
            log=log,
            env={**with_entries(base, "PYTHONPATH", first=[ROOT]), "OMP_NUM_THREADS": "1"},
            pass_fds=pass_fds,
        )
        tail = done.output()[-20000:]
        answer = _answer(result)
    if done.timed_out:
        raise error(
            f"{what}: not finished after {deadline_s:g} s, ended",
            remedy="look at the log; a machine under load needs --deadline-factor",
            log=tail,
        )
    if answer is None:
        how, signal = _silent(done.returncode), processes.signal_of(done.returncode)
        raise error(f"{what}: {how}", remedy="look at the log", log=tail, signal=signal)
    if "value" in answer:
        return answer["value"]
    failure = from_json(answer["error"])
    if type(failure) is HarnessError:  # not one of ours: an exception of a library
        failure = error(f"{what}: {failure.message}", remedy=failure.remedy, log=failure.log)
    failure.log = failure.log or tail
    raise failure


def _answer(result: Path) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return answer


def _silent(returncode: int) -> str:
    """Return how a child ended that left no answer."""
    if returncode == os.EX_IOERR:
        return f"the answer could not be written: {os.strerror(errno.ENOSPC)}"
    return f"the process {processes.describe_exit(returncode)} without an answer"


def main(spec_file: str) -> int:
    """Run a job in the child process: `python -m harness.base.jobs SPEC`.

    Returns the exit code: 0, or `EX_IOERR` where the disk has no room for the answer.
    """
    spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    signals.end_with_parent(spec["parent"])
    # A library that holds the interpreter's lock stops the watcher; this timer needs no lock.
    faulthandler.dump_traceback_later(spec["limit"], exit=True)
    module, _, name = spec["function"].partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        answer = json.dumps({"value": function(**spec["arguments"])})
    except HarnessError as error:
        answer = json.dumps({"error": error.to_json()})
    except Exception as error:
        with contextlib.suppress(OSError):  # no room for it in the log
            traceback.print_exc()
        # Without a type: a library's class may have the name of one of ours.
        answer = json.dumps({"error": {"message": first_line(error)}})
    partial = Path(spec["result"] + ".part")
    try:
        partial.write_text(answer, encoding="utf-8")
    except OSError:
        return os.EX_IOERR
    partial.rename(spec["result"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
