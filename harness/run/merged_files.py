"""The files that a run's cases name, copied into a merged run.

A record may come from anywhere: a name that leads out of its run's folders, or through a link, is
left out, with a note.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from harness.records.lines import CaseLine

_FOLDERS = ("predictions", "samples", "logs")
_PART = re.compile(r"[^/\\\x00-\x1f:]{1,200}")
_MOST_PARTS = 4
_LEFT_OUT = {
    errno.ENOENT: "is missing",
    errno.ELOOP: "is or lies behind a symbolic link",
    errno.ENOTDIR: "is or lies behind a symbolic link",
    errno.EINVAL: "is no regular file",
}


def with_files(case: CaseLine, rename: Callable[[str], str]) -> CaseLine:
    """Return the same case with other names of its files."""
    changes: dict[str, object] = {
        "artifacts": tuple(
            replace(one, log_file=rename(one.log_file)) if one.log_file else one
            for one in case.artifacts
        )
    }
    if case.accuracy is not None and case.accuracy.predictions_file:
        name = rename(case.accuracy.predictions_file)
        changes["measurement"] = replace(case.accuracy, predictions_file=name)
    if case.throughput is not None and case.throughput.samples_file:
        name = rename(case.throughput.samples_file)
        changes["measurement"] = replace(case.throughput, samples_file=name)
    return case.model_copy(update=changes)


@dataclass
class FileCopier:
    """Copies files into `folder`. `count`: how many; `notes`: what was left out, and why."""

    folder: Path
    count: int = 0
    notes: list[str] = field(default_factory=list)

    def take_over(self, case: CaseLine, directory: Path, number: int) -> CaseLine:
        """Copy the files of a case of run `number`; return it with the names of the copies."""
        for name in _logs(case, directory):
            self._copy(name, directory, number)
        return with_files(case, lambda name: self._copy(name, directory, number) or name)

    def _copy(self, name: str, directory: Path, number: int) -> str:
        """Copy one file and return the copy's name; empty where it was left out."""
        if not _harmless(name):
            self._note(repr(name)[:80], directory, "no name of a file of a run")
            return ""
        try:
            with _opened(directory, name) as source:
                target = self.folder / name
                if target.exists() and not _same(source, target):
                    first, _, rest = name.partition("/")
                    name = f"{first}/from-{number}/{rest}"
                    target = self.folder / name
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source.seek(0)
                    with target.open("xb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
                    self.count += 1
        except OSError as error:
            if error.errno not in _LEFT_OUT:
                raise
            self._note(name, directory, _LEFT_OUT[error.errno])
            return ""
        return name

    def _note(self, name: str, directory: Path, why: str) -> None:
        note = f"left out: {name} of {directory.name} {why}"
        if note not in self.notes:
            self.notes.append(note)


def _logs(case: CaseLine, directory: Path) -> list[str]:
    """Logs that bear the case's name: its record does not list them one by one."""
    folder = directory / "logs"
    if folder.is_symlink() or not folder.is_dir():
        return []
    prefix = f"{case.check}-{case.case}-"
    return sorted(f"logs/{name}" for name in os.listdir(folder) if name.startswith(prefix))


def _harmless(name: str) -> bool:
    parts = name.split("/")
    return (
        1 < len(parts) <= _MOST_PARTS
        and parts[0] in _FOLDERS
        and all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    )


@contextlib.contextmanager
def _opened(directory: Path, name: str) -> Iterator[BinaryIO]:
    """Open a regular file below `directory`, part by part so that no link is followed."""
    *folders, last = name.split("/")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inner = os.open(folder, flags | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
        # O_NONBLOCK: a pipe must not make us wait for its writer.
        descriptor = os.open(last, flags | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        yield file


def _same(source: BinaryIO, target: Path) -> bool:
    with target.open("rb") as file:
        while True:
            ours, theirs = file.read(1 << 16), source.read(1 << 16)
            if ours != theirs:
                return False
            if not ours:
                return True
