"""Runs over the simulated host as a user starts them, their processes, and what must hold after."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.base.store import MANIFEST, Entry, Store, file_digest, mtime
from harness.records import reader
from harness.records.reader import RunRecords
from harness.records.writer import RESULTS
from tests.selftest.running import QUICK, ROOT, TINY, alive, eventually

PATIENCE_S = 600.0  # no run is longer: a compiler that hangs is ended after minutes
HOOK = ROOT / "tests/faults/injected"  # on PYTHONPATH, it makes calls fail and tools lie
MARK = "TESTED_FAULT"  # every process of a run has it in its environment
# What a process is, by a word of its command line.
ROLES = {
    "controller": "-m\0pytest",
    "xdist worker": "sys.stdin.readline()",
    "device worker": "api_backend.py",
    "eager worker": "eager_backend.py",
    "job": "harness.base.jobs",
    "atc": "--framework=5",
}
_numbers = itertools.count()


@dataclass
class Started:
    """A run that goes on, and the processes that it has started."""

    process: subprocess.Popen[str]
    mark: str
    output: Path

    def members(self) -> dict[int, str]:
        """Process ids and command lines (parts end with NUL) of what lives of the run."""
        return members(self.mark)

    def wait(self) -> int:
        """Return the exit code, once all that the run started has ended too."""
        code = self.process.wait(PATIENCE_S)
        assert eventually(lambda: not self.members(), 60.0), f"still alive: {self.members()}"
        return code

    def text(self) -> str:
        return self.output.read_text(errors="replace")


def members(mark: str) -> dict[int, str]:
    """The living processes with a mark in their environment."""
    wanted = f"{MARK}={mark}\0".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if wanted in (folder / "environ").read_bytes() and alive(int(folder.name)):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError):
            continue
    return found


def injected(**asked: object) -> dict[str, str]:
    """Return the environment of a run whose calls are watched: see `injected/sitecustomize.py`."""
    roles = {role: word for role, word in ROLES.items() if role != "atc"}
    return {"FAILING_CALL": json.dumps({"roles": roles, **asked}), "PYTHONPATH": str(HOOK)}


@dataclass
class Place:
    """A folder with store, runs and leases."""

    folder: Path
    started: list[Started] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def calls(self) -> Path:
        """What the harness called, where it was logged."""
        return self.folder / "calls"

    @property
    def latest(self) -> Path:
        return (self.folder / "runs" / "latest").resolve()

    def start(
        self, *options: str, env: Mapping[str, str] | None = None, output: Path | None = None
    ) -> Started:
        """Start both cases of the small network over the simulated host, on two workers."""
        mark = f"{os.getpid()}-{next(_numbers)}"
        clean = {n: v for n, v in os.environ.items() if not n.startswith(("HARNESS_", "PYTEST_"))}
        if "TMPDIR" not in (env or {}):
            (self.folder / "tmp").mkdir(exist_ok=True)
        clean |= {MARK: mark, "TMPDIR": str(self.folder / "tmp"), **(env or {})}
        output = output or self.folder / f"output-{mark}"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", *QUICK]
        command += ["--simulate-ascend", "--batch-sizes=4", f"--catalog={TINY}"]
        command += [f"--{name}={self.folder / name}" for name in ("store", "runs", "leases")]
        with output.open("w") as out:
            process = subprocess.Popen(
                [*command, *options],
                cwd=ROOT,
                env=clean,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.started.append(Started(process, mark, output))
        return self.started[-1]

    def end(self) -> None:
        """Kill what is left."""
        for one in self.started:
            one.process.kill()
            one.process.wait()
            for pid in one.members():
                os.kill(pid, signal.SIGKILL)

    def green(self, *options: str, env: Mapping[str, str] | None = None) -> RunRecords:
        """Run everything; the run is green, nothing is left over, and its records are returned."""
        run = self.start("-n0", *options, env=env)
        code = run.wait()
        assert code == 0, run.text()
        found = self.records()
        assert found.end is not None, run.text()
        assert found.end.complete, run.text()
        assert {case.outcome for case in found.cases} <= {"passed", "recorded"}, run.text()
        self.check_kept()
        left = [*(self.store / "staging").iterdir(), *(self.folder / "tmp").glob("npu-accept-*")]
        assert not left, f"left over: {left}"
        return found

    def records(self) -> RunRecords:
        """The latest run's records: no line is damaged, and none is there twice.

        A run that went on has lines that no longer count, besides.
        """
        found = reader.read(self.latest)
        assert not found.damaged
        text = (self.latest / RESULTS).read_text()
        lines = Counter(line for line in text.splitlines() if '"kind":"case"' in line)
        assert len(lines) == lines.total()
        assert len(lines) == len(found.cases) or (found.resumes and len(lines) > len(found.cases))
        return found

    def check_kept(self) -> None:
        """Every entry verifies that was used as it is now, and no device is held."""
        for entry in Store(self.store).entries():
            used = mtime(entry.directory / MANIFEST)
            if all(mtime(entry.directory / name) <= used for name in entry.files):
                check_entry(entry)
        for lock in (self.folder / "leases").glob("*.lock"):
            assert eventually(partial(is_free, lock), 60.0), lock.read_text()


def is_free(lock: Path) -> bool:
    """Whether nobody holds a lock."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def check_entry(entry: Entry) -> None:
    """The files of an entry are those of its manifest."""
    for name, stored in entry.files.items():
        path = entry.directory / name
        assert path.stat().st_size == stored.bytes, path
        assert file_digest(path) == stored.sha256, path
